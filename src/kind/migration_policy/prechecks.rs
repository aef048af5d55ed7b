//! What a policy makes of the prechecks of a move.

use super::MigrationPolicySpec;
use crate::finding::{Code, Finding};
use crate::model::Manifest;
use crate::plan::{Precheck, Treatment};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Treatments by precheck; those that are not named have their own (docs/prechecks.md).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Prechecks(BTreeMap<Precheck, Treatment>);

impl Prechecks {
    /// What the policy says of a precheck.
    pub fn get(&self, precheck: Precheck) -> Option<Treatment> {
        self.0.get(&precheck).copied()
    }

    /// Whether the policy says nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Precheck, Treatment)> for Prechecks {
    fn from_iter<I: IntoIterator<Item = (Precheck, Treatment)>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

/// Prechecks that no policy can make milder.
pub(super) fn check(manifest: &Manifest<MigrationPolicySpec>, findings: &mut Vec<Finding>) {
    for (precheck, treatment) in &manifest.spec.prechecks.0 {
        if precheck.is_fixed() && *treatment < precheck.treatment() {
            findings.push(
                Finding::new(
                    Code::WrongValue,
                    format!(
                        "the precheck `{precheck}` cannot be {}: a move that does not pass it could lose data or run a machine twice",
                        if *treatment == Treatment::Ignore { "ignored" } else { "a warning only" }
                    ),
                )
                .of(manifest, &format!("spec.prechecks.{precheck}"))
                .hint("leave it at `Block`, or make it stricter with `Require`"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::{Resources, Spec};
    use crate::model::{Metadata, Origin};

    fn findings(prechecks: &str) -> Vec<String> {
        let manifest = Manifest {
            kind: MigrationPolicySpec::KIND,
            metadata: Metadata { name: "p".into(), ..Default::default() },
            spec: serde_yaml::from_str(&format!("prechecks: {prechecks}")).unwrap(),
            origin: Origin::default(),
        };
        let mut findings = Vec::new();
        MigrationPolicySpec::check(&manifest, &Resources::default(), &mut findings);
        findings.into_iter().map(|f| f.message).collect()
    }

    #[test]
    fn what_protects_data_cannot_be_made_milder() {
        assert_eq!(findings("{machineType: Ignore, mac: Warn, release: Require}"), [""; 0]);
        assert_eq!(findings("{disks: Require, managedSave: Block}"), [""; 0]);
        let refused = findings("{disks: Ignore, uuid: Warn}");
        assert_eq!(refused.len(), 2, "{refused:?}");
        assert!(refused[0].contains("`disks` cannot be ignored") && refused[0].contains("lose data"), "{refused:?}");
        assert!(refused[1].contains("`uuid` cannot be a warning only"), "{refused:?}");
    }

    #[test]
    fn a_name_that_is_no_precheck_is_refused() {
        let error = serde_yaml::from_str::<MigrationPolicySpec>("prechecks: {machinetype: Warn}").unwrap_err();
        assert!(error.to_string().contains("machineType"), "{error}");
    }
}
