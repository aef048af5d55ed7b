//! The fields of a VirtualMachineMigration.

use crate::kind::Resources;
use crate::kind::migration_policy::MigrationPolicySpec;
use crate::model::LabelSelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

/// One move of a machine, or of several, to another host. It runs once for each revision of what it says about whom it moves
/// and whither (`machine`, `selector`, `domains`, `all`, `from`, `to`, `permanent`, `run`): a machine that somebody moves away
/// again is not moved a second time. A machine whose manifest pins it with `host:` moves for good because that line changes;
/// here it can be moved for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualMachineMigrationSpec {
    /// The machine that moves: the name of a VirtualMachine, or the libvirt name of a domain that has no manifest. To name
    /// such a domain here is the permission to move it; nothing else about it is changed, and it does not become Drover's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Every VirtualMachine that has these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Domains of the host `from` by their libvirt names, with or without a manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
    /// Every domain of the host `from` that has no manifest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// The host that they leave: machines that are elsewhere stay where they are. `domains` and `all` need it; a `machine`
    /// without manifest only where several hosts have a domain of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The host that they go to.
    pub to: String,
    /// Which goes first: `ByName` (where not given), `BySize` (least memory first), or a list of names, the rest after them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// How many move at once; as many as the hosts' `maxOutgoing` and `maxIncoming` allow where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub parallelism: Option<u32>,
    /// How they move: the name of a MigrationPolicy. Each machine's own, or that of Settings, where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration_policy: Option<String>,
    /// Whether they belong to the destination afterwards (`VIR_MIGRATE_PERSIST_DEST`, `VIR_MIGRATE_UNDEFINE_SOURCE`); as the
    /// policy says where not given. `false`: the definition stays at home, and the one at the destination is transient. A
    /// machine that shuts down there is its home's again, and one that is still there when this manifest goes is moved home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permanent: Option<bool>,
    /// Nothing is begun any more, and what is under way is aborted as long as it can be (`virDomainAbortJob`). Machines that
    /// have moved stay where they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// Any text: another one makes another revision of a spec that is otherwise the same, so that it runs again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

/// Which machine goes first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Order {
    /// By what they are.
    By(OrderBy),
    /// As listed; machines that are not listed come after them, by name.
    Names(Vec<String>),
}

/// What machines are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OrderBy {
    /// Their names.
    ByName,
    /// Their memory, the smallest first.
    BySize,
}

impl VirtualMachineMigrationSpec {
    /// The policy that it names, or that of Settings, or the default. Says nothing of the policies of single machines.
    pub fn policy(&self, all: &Resources) -> MigrationPolicySpec {
        let settings = all.the_settings();
        let name = self.migration_policy.as_ref().or(settings.migration_policy.as_ref());
        name.and_then(|n| all.migration_policies.get(n)).map(|p| p.spec.clone()).unwrap_or_default()
    }

    /// Whether the machines belong to the destination afterwards.
    pub fn is_permanent(&self, all: &Resources) -> bool {
        self.permanent.unwrap_or_else(|| self.policy(all).permanent)
    }

    /// The revision of what it says about whom it moves and whither, in hexadecimal digits. How many move at once, in which
    /// order and by which policy is no other revision.
    pub fn revision(&self, all: &Resources) -> String {
        let what = serde_json::json!([
            self.machine,
            self.selector,
            self.domains,
            self.all,
            self.from,
            self.to,
            self.is_permanent(all),
            self.run,
        ]);
        Sha256::digest(what.to_string()).iter().take(8).fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}
