//! The kinds. THE list is the `kinds!` call below: a new kind is one folder and one line there.

pub mod cluster;
pub mod host;
pub mod import;
pub mod migration_policy;
mod orders;
pub mod settings;
pub mod storage_pool;
pub mod virtual_machine;
pub mod virtual_machine_migration;

pub use orders::orders;

use crate::finding::{Code, Finding};
use crate::model::{KindName, Manifest, Metadata, Origin, ResourceId, Revision};
use crate::plan::{Context, Drafts};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

/// The API version that every manifest carries.
pub const API_VERSION: &str = "drover/v1alpha1";

/// What a kind's spec must offer. All methods are pure.
pub trait Spec: Serialize + DeserializeOwned + JsonSchema + Sized + 'static {
    /// The kind's name.
    const KIND: KindName;
    /// What the kind is for, in one sentence.
    const SUMMARY: &'static str;

    /// Rules within the manifest and between it and the others: contradictions, missing references. Findings carry the
    /// place of the offending node ([`Finding::of`]).
    fn check(manifest: &Manifest<Self>, all: &Resources, findings: &mut Vec<Finding>);

    /// Rules over all manifests of the kind at once, in one pass: what must be unique among them.
    fn check_all(_all: &Resources, _findings: &mut Vec<Finding>) {}

    /// Paths (relative to the spec, dotted) of fields that name a file in the repository whose text replaces the
    /// reference at load; see [`crate::load`].
    const FILE_FIELDS: &'static [&'static str] = &[];

    /// Compares what is wanted with what is there, and drafts the steps that make it so.
    fn draft(_manifest: &Manifest<Self>, _ctx: &Context<'_>, _out: &mut Drafts) {}

    /// Drafts what becomes of things of this kind that Drover owns and that have no manifest.
    fn sweep(_ctx: &Context<'_>, _out: &mut Drafts) {}
}

macro_rules! kinds {
    ($($field:ident: $spec:ty),+ $(,)?) => {
        /// Every resource of a revision, by kind and name.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Resources { $(
            #[doc = concat!("The manifests of `", stringify!($spec), "`.")]
            pub $field: BTreeMap<String, Manifest<$spec>>,
        )+
            /// Identities whose manifests have errors: they are not among the above, and not missing either. Always empty
            /// in [`Desired`].
            pub unusable: BTreeSet<ResourceId>,
            /// Whether some document could not be read at all, so that nothing is known to be missing. Never in
            /// [`Desired`].
            pub incomplete: bool,
        }

        impl Resources {
            /// Number of resources.
            pub fn len(&self) -> usize {
                0 $(+ self.$field.len())+
            }

            /// Every identity with its origin, in the order of the kinds and then by name.
            pub fn ids(&self) -> impl Iterator<Item = (ResourceId, &Origin, &Metadata)> {
                std::iter::empty() $(.chain(self.$field.values().map(|m| (m.id(), &m.origin, &m.metadata))))+
            }

            /// Tells whether a manifest of this identity is certainly not there. A reference to it is an error then.
            pub fn misses(&self, kind: &KindName, name: &str) -> bool {
                $(if *kind == <$spec as Spec>::KIND && self.$field.contains_key(name) { return false; })+
                !self.incomplete && !self.unusable.contains(&ResourceId::new(kind.clone(), name))
            }

            /// Takes no more room than is needed from now on: a map that grew in order of its keys is half empty.
            pub fn pack(&mut self) {
                $(self.$field = std::mem::take(&mut self.$field).into_iter().collect();)+
            }

            /// Names of the manifests of one kind, for "did you mean".
            pub fn names(&self, kind: &KindName) -> Vec<&str> {
                $(if *kind == <$spec as Spec>::KIND { return self.$field.keys().map(String::as_str).collect(); })+
                Vec::new()
            }

            /// Runs every kind's rules.
            pub fn check(&self, findings: &mut Vec<Finding>) {
                $(
                    for m in self.$field.values() { <$spec as Spec>::check(m, self, findings); }
                    <$spec as Spec>::check_all(self, findings);
                )+
            }

            /// Runs every kind's drafting, and then what becomes of things without a manifest.
            pub fn draft(&self, ctx: &Context<'_>, out: &mut Drafts) {
                $(for m in self.$field.values() { <$spec as Spec>::draft(m, ctx, out); })+
                $(<$spec as Spec>::sweep(ctx, out);)+
            }

            /// Identities whose manifests differ from those of an older revision, or are new. Where a manifest stands does
            /// not count.
            pub fn changed_since(&self, old: &Resources) -> BTreeSet<ResourceId> {
                let mut changed = BTreeSet::new();
                $(for (name, m) in &self.$field {
                    let same = old.$field.get(name).is_some_and(|o| o.metadata == m.metadata && o.spec == m.spec);
                    if !same {
                        changed.insert(m.id());
                    }
                })+
                changed
            }

            /// Decodes a validated document of the named kind and adds it. `Ok(false)`: no such kind. An error is
            /// serde's, with its path. The caller has checked that the identity is new.
            pub fn insert(
                &mut self, kind: &str, metadata: Metadata, spec: serde_json::Value, origin: Origin,
            ) -> Result<bool, serde_path_to_error::Error<serde_json::Error>> {
                $(if kind == <$spec as Spec>::KIND.as_str() {
                    // Keeping the path in mind costs a quarter more, so that is done for what does not fit only.
                    let spec = match <$spec as serde::Deserialize>::deserialize(&spec) {
                        Ok(spec) => spec,
                        Err(_) => serde_path_to_error::deserialize(spec)?,
                    };
                    let manifest = Manifest { kind: <$spec as Spec>::KIND, metadata, spec, origin };
                    self.$field.insert(manifest.metadata.name.clone(), manifest);
                    return Ok(true);
                })+
                Ok(false)
            }
        }

        /// What is known of each kind without a manifest at hand.
        pub static KINDS: &[KindInfo] = &[$(KindInfo {
            name: <$spec as Spec>::KIND,
            summary: <$spec as Spec>::SUMMARY,
            file_fields: <$spec as Spec>::FILE_FIELDS,
            spec_schema: || schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<$spec>(),
        }),+];
    };
}

kinds! {
    settings: settings::SettingsSpec,
    hosts: host::HostSpec,
    storage_pools: storage_pool::StoragePoolSpec,
    migration_policies: migration_policy::MigrationPolicySpec,
    virtual_machines: virtual_machine::VirtualMachineSpec,
    virtual_machine_migrations: virtual_machine_migration::VirtualMachineMigrationSpec,
    clusters: cluster::ClusterSpec,
}

impl Resources {
    /// Reports a reference to a manifest that is certainly not there, with the name that was probably meant.
    pub fn check_reference<S>(
        &self,
        from: &Manifest<S>,
        path: &str,
        kind: &KindName,
        name: &str,
        findings: &mut Vec<Finding>,
    ) {
        if !self.misses(kind, name) {
            return;
        }
        let message =
            format!("`{}` refers to the {kind} `{}`, which is not declared", from.name(), name.escape_debug());
        let hint = match crate::finding::nearest(name, self.names(kind)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("declare a {kind} of this name, or name another one"),
        };
        findings.push(Finding::new(Code::MissingReference, message).of(from, path).hint(hint));
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The Settings in force.
    pub fn the_settings(&self) -> settings::SettingsSpec {
        self.settings.values().next().map(|m| m.spec.clone()).unwrap_or_default()
    }

    /// The fleet's name, written into ownership marks.
    pub fn fleet(&self) -> &str {
        self.settings.values().next().map_or("default", |m| m.name())
    }
}

/// A kind, without a manifest.
pub struct KindInfo {
    /// Its name.
    pub name: KindName,
    /// What it is for.
    pub summary: &'static str,
    /// Fields that name a file in the repository.
    pub file_fields: &'static [&'static str],
    /// The schema of `spec`.
    pub spec_schema: fn() -> schemars::Schema,
}

/// All resources of one revision. Only [`crate::load`] makes one, and only from manifests without an error: holding one
/// is the proof of their validity.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Which state of the repository.
    pub revision: Revision,
    /// What it says.
    pub resources: Resources,
}
