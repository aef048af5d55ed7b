//! Platforms and their versions, and what MTC can be on them (migration guide, 3.1; mtc-operator's and mig-controller's rules).

use std::fmt;
use std::str::FromStr;

/// A platform with its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Platform {
    /// Kubernetes without OpenShift.
    Kubernetes {
        /// 1.
        major: u32,
        /// 29 of 1.29.
        minor: u32,
    },
    /// OpenShift.
    OpenShift {
        /// 3 or 4.
        major: u32,
        /// 10 of 4.10.
        minor: u32,
    },
}

/// Why a text is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform; write it like `openshift-4.10`, `openshift-3.11` or `kubernetes-1.29`")]
pub struct PlatformError(String);

impl Platform {
    /// Whether it is OpenShift 4.5 or earlier: the legacy operator's, which has no controller.
    pub fn is_legacy(self) -> bool {
        matches!(self, Self::OpenShift { major, minor } if (major, minor) < (4, 6))
    }

    /// Whether it has the Operator Lifecycle Manager by itself.
    pub fn has_olm(self) -> bool {
        matches!(self, Self::OpenShift { major, minor } if (major, minor) >= (4, 2))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kubernetes { major, minor } => write!(f, "Kubernetes {major}.{minor}"),
            Self::OpenShift { major, minor } => write!(f, "OpenShift {major}.{minor}"),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || PlatformError(text.escape_debug().to_string());
        let (name, version) = text.split_once('-').ok_or_else(wrong)?;
        let (major, minor) = version.split_once('.').ok_or_else(wrong)?;
        let number = |s: &str| s.parse::<u32>().map_err(|_| wrong());
        let (major, minor) = (number(major)?, number(minor)?);
        match (name, major) {
            ("openshift", 3 | 4) => Ok(Self::OpenShift { major, minor }),
            ("kubernetes", 1) => Ok(Self::Kubernetes { major, minor }),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_and_told_apart() {
        for (text, legacy, olm) in [
            ("openshift-3.11", true, false),
            ("openshift-4.1", true, false),
            ("openshift-4.5", true, true),
            ("openshift-4.6", false, true),
            ("openshift-4.10", false, true),
            ("kubernetes-1.29", false, false),
        ] {
            let platform: Platform = text.parse().unwrap();
            assert_eq!((platform.is_legacy(), platform.has_olm()), (legacy, olm), "{text}");
        }
        for text in ["openshift", "openshift-4", "openshift-5.1", "k8s-1.29", "kubernetes-2.0", "openshift-4.x", "-4.1"]
        {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
