//! The releases of the two hosts, and which pairs the migration guide supports (its table 10.2).

use super::{Move, Sheet};
use crate::domain_xml::Element;
use crate::observed::HostState;
use crate::plan::Precheck;
use std::fmt;

/// A host's release: `rhel-8.6`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Release {
    family: String,
    version: (u32, u32),
}

impl Release {
    /// `rhel-8.6`, `rhel 8.6`, `debian-12`: a name, then a version.
    fn parse(text: &str) -> Option<Self> {
        let digit = text.find(|c: char| c.is_ascii_digit())?;
        let (name, version) = text.split_at(digit);
        let mut numbers = version.split('.').map(|n| n.trim().parse::<u32>());
        let major = numbers.next()?.ok()?;
        let minor = numbers.next().transpose().ok()?.unwrap_or(0);
        let name = name.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        // Built from RHEL's sources, release by release.
        let family = match name.as_str() {
            "centos" | "almalinux" | "alma" | "rocky" | "ol" | "redhat" => "rhel".to_owned(),
            _ => name,
        };
        Some(Self { family, version: (major, minor) })
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}.{}", self.family, self.version.0, self.version.1)
    }
}

/// Families of machine types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Machine {
    I440fx,
    Q35,
    Other,
}

impl Machine {
    fn of(machine: &str) -> Self {
        if machine.contains("q35") {
            Self::Q35
        } else if machine.contains("i440fx") || machine == "pc" || machine.starts_with("pc-") {
            Self::I440fx
        } else {
            Self::Other
        }
    }
}

/// A supported way: from releases, to releases (both from a first minor release on, within a major one), with machine types.
struct Supported {
    method: &'static str,
    from: (u32, u32),
    to: (u32, u32),
    machines: &'static [Machine],
}

/// Table 10.2 of the migration guide. Minor ways within RHEL 8 are for q35 only; 8.0.1 is an update of 8.0.
const TABLE: &[Supported] = &[
    Supported { method: "forward, major", from: (7, 6), to: (8, 1), machines: &[Machine::I440fx, Machine::Q35] },
    Supported { method: "backward, major", from: (8, 1), to: (7, 6), machines: &[Machine::I440fx, Machine::Q35] },
    Supported { method: "forward, minor", from: (7, 6), to: (7, 6), machines: &[Machine::I440fx, Machine::Q35] },
    Supported { method: "forward, minor", from: (8, 0), to: (8, 1), machines: &[Machine::Q35] },
    Supported { method: "backward, minor", from: (7, 6), to: (7, 6), machines: &[Machine::I440fx, Machine::Q35] },
    Supported { method: "backward, minor", from: (8, 1), to: (8, 0), machines: &[Machine::Q35] },
];

fn supported(from: (u32, u32), to: (u32, u32), machine: Machine) -> Option<&'static Supported> {
    let within = |version: (u32, u32), first: (u32, u32)| version.0 == first.0 && version.1 >= first.1;
    let is_forward = to > from;
    TABLE.iter().find(|row| {
        row.method.starts_with("forward") == is_forward
            && within(from, row.from)
            && within(to, row.to)
            && row.machines.contains(&machine)
    })
}

/// The release that a host's machine types tell of: RHEL names them after the release that brought them. It is this one or a
/// later one, because not each release brings new types.
fn read(state: &HostState) -> Option<Release> {
    let newest = state.machine_types.iter().filter_map(|m| {
        let release = Release::parse(m.get(m.find("rhel")?..)?)?;
        Some(release.version)
    });
    newest.max().map(|version| Release { family: "rhel".into(), version })
}

pub(super) fn check(mv: &Move<'_>, xml: &Element, sheet: &mut Sheet<'_>) {
    let name = Precheck::Release;
    if !mv.is_live() {
        return sheet.pass(name, "the table of releases is about live migrations");
    }
    let of = |host: &str, state: &HostState| {
        let declared = mv.ctx.resources.hosts.get(host).and_then(|h| h.spec.release.as_deref());
        match declared {
            Some(text) => Release::parse(text)
                .ok_or_else(|| format!("`{host}` declares the release `{text}`, which has no version")),
            None => read(state).ok_or_else(|| {
                format!("the release of `{host}` is neither declared (`release`) nor told by its machine types")
            }),
        }
    };
    let (from, to) = match (of(mv.from, mv.source), of(mv.to, mv.destination)) {
        (Ok(from), Ok(to)) => (from, to),
        (Err(why), _) | (_, Err(why)) => return sheet.unknown(name, why),
    };
    let machine = xml.attribute_at("os/type", "machine").unwrap_or_default();
    let pair = format!("`{}` has {from}, `{}` has {to}", mv.from, mv.to);
    if from == to {
        return sheet.pass(name, format!("{pair}: the same"));
    }
    if from.family != to.family {
        return sheet.fail(name, format!("{pair}: another distribution"), OVERRIDE);
    }
    if from.family != "rhel" {
        return if to.version > from.version {
            sheet.doubt(
                name,
                format!("{pair}: table 10.2 of the migration guide says nothing of {}", to.family),
                OVERRIDE,
            )
        } else {
            sheet.fail(name, format!("{pair}: back to an older release"), OVERRIDE)
        };
    }
    match supported(from.version, to.version, Machine::of(machine)) {
        Some(row) => sheet.pass(name, format!("{pair}: supported with {machine} ({})", row.method)),
        None => sheet.fail(
            name,
            format!("{pair}: table 10.2 of the migration guide has no such way for the machine type {machine}"),
            OVERRIDE,
        ),
    }
}

const OVERRIDE: &str = "choose a host of a supported release, or take it upon you with `prechecks: {release: Warn}`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_10_2() {
        use Machine::{I440fx, Other, Q35};
        let is = |from, to, machine| supported(from, to, machine).is_some();
        // Major, forward and backward: both families, from 7.6 and 8.1 on.
        for machine in [I440fx, Q35] {
            assert!(is((7, 6), (8, 1), machine) && is((7, 9), (8, 6), machine) && is((8, 1), (7, 6), machine));
            assert!(!is((7, 5), (8, 1), machine) && !is((7, 6), (8, 0), machine) && !is((8, 0), (7, 6), machine));
            assert!(is((7, 6), (7, 9), machine) && is((7, 9), (7, 6), machine) && !is((7, 5), (7, 9), machine));
        }
        // Minor, within 8: q35 only.
        assert!(
            is((8, 0), (8, 1), Q35) && is((8, 1), (8, 0), Q35) && is((8, 6), (8, 8), Q35) && is((8, 8), (8, 6), Q35)
        );
        assert!(!is((8, 0), (8, 1), I440fx) && !is((8, 8), (8, 6), I440fx));
        // Denied where the table says nothing.
        assert!(!is((8, 6), (9, 0), Q35) && !is((9, 0), (9, 2), Q35) && !is((7, 6), (8, 1), Other));
    }

    #[test]
    fn a_release_is_a_name_and_a_version() {
        let shown = |text: &str| Release::parse(text).map(|r| r.to_string());
        assert_eq!(shown("rhel-8.6").as_deref(), Some("rhel 8.6"));
        assert_eq!(shown("RHEL 8.6.1").as_deref(), Some("rhel 8.6"));
        assert_eq!(shown("rocky-9").as_deref(), Some("rhel 9.0"));
        assert_eq!(shown("debian-12").as_deref(), Some("debian 12.0"));
        assert_eq!(shown("sid"), None);
        assert_eq!((Machine::of("pc"), Machine::of("pc-i440fx-rhel7.6.0")), (Machine::I440fx, Machine::I440fx));
        assert_eq!((Machine::of("pc-q35-9.2"), Machine::of("virt-9.2")), (Machine::Q35, Machine::Other));
    }

    #[test]
    fn rhel_s_machine_types_tell_its_release() {
        let mut host = HostState::default();
        assert_eq!(read(&host), None);
        host.machine_types =
            ["pc-i440fx-rhel7.6.0", "pc-q35-rhel8.6.0", "pc-q35-rhel8.4.0", "pc-q35-9.2"].map(Into::into).into();
        assert_eq!(read(&host).map(|r| r.to_string()).as_deref(), Some("rhel 8.6"));
    }
}
