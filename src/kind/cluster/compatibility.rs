//! Which operator goes on which platform, in which role (migration guide, table 3.1; the vendor's release notes of MTC 1.8):
//! one set of rules for what manifests declare and for what was observed.

use super::{Install, MigrationToolkit, Platform, Role};

/// What to do where a legacy cluster was meant to drive migrations. The guide ends table 3.1 with a sentence that allows it
/// where networks leave no other way; that was so with MTC 1.6, and the legacy operator of 1.7 has no controller.
pub(super) const TUNNEL: &str = "make the cluster with the newest platform `Control`. Where that one cannot reach this one, \
     a tunnel does (`crane tunnel-api`), whose address is then this cluster's `migrationToolkit.registration.url`";

/// What does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    /// The node of the manifest that would have to change.
    pub path: &'static str,
    /// Why.
    pub message: String,
    /// What to do.
    pub hint: &'static str,
}

/// What does not fit on a platform.
pub(super) fn unfit(platform: Platform, role: Role, toolkit: Option<&MigrationToolkit>) -> Vec<Unfit> {
    let mut found = Vec::new();
    let mut say = |path, message: String, hint| found.push(Unfit { path, message, hint });
    if platform.is_legacy() && role == Role::Control {
        say("spec.role", format!("{platform} cannot be the control cluster: its operator has no controller"), TUNNEL);
    }
    let Some(toolkit) = toolkit else { return found };
    let path = "spec.migrationToolkit.install";
    let is_openshift = matches!(platform, Platform::OpenShift { .. });
    match toolkit.install {
        Install::None => {}
        _ if !is_openshift => {
            say(path, format!("MTC is not made for {platform}"), "take `migrationToolkit` out");
        }
        Install::OLM if platform.is_legacy() => say(
            path,
            format!("{platform} takes the legacy operator, which OLM does not have"),
            "use `install: Manifests` (migration guide, 3.2)",
        ),
        Install::Manifests if !platform.is_legacy() => say(
            path,
            format!("the legacy operator is for OpenShift 4.5 and earlier, and this is {platform}"),
            "use `install: OLM` (migration guide, 3.3)",
        ),
        Install::OLM | Install::Manifests => {}
    }
    let is_18 = toolkit.release().is_some_and(|release| release >= (1, 8));
    if is_18 && is_openshift && platform < (Platform::OpenShift { major: 4, minor: 10 }) {
        say(
            "spec.migrationToolkit.channel",
            format!("MTC 1.8 is for OpenShift 4.10 and later, and this is {platform}"),
            "use `release-v1.7`, on all clusters that migrate with this one",
        );
    }
    found
}
