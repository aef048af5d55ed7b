//! From what is on hosts to manifests that say the same: for people who begin with machines that are there.

use super::host::HostSpec;
use super::storage_pool::{self, StoragePoolSpec};
use super::virtual_machine::{self, VirtualMachineSpec};
use super::{API_VERSION, Resources, Spec};
use crate::finding::{Code, Finding, Severity};
use crate::model::{Manifest, Metadata, Origin, check_name};
use crate::observed::{HostState, Observed};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// What to import.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The hosts, with what their manifests say.
    pub hosts: BTreeMap<String, HostSpec>,
    /// Names of domains; all where there is none.
    pub machines: BTreeSet<String>,
}

/// What was made of it.
#[derive(Clone, Debug, Default)]
pub struct Import {
    /// Everything that is declared now: what was, and what was imported.
    pub resources: Resources,
    /// Manifests that are new, in the order in which they are to be read.
    pub documents: Vec<Document>,
    /// What there is to say: machines that were left out, and what no field can say.
    pub findings: Vec<Finding>,
}

/// One new manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The whole document, without fields that say what they would say anyway.
    pub value: Value,
    /// The text of the definition that `spec.xml.file` names.
    pub xml: Option<String>,
}

/// Makes manifests of what was observed. `declared` is what the repository has already: none of it is imported again.
pub fn import(wanted: &Wanted, observed: &Observed, declared: &Resources) -> Import {
    let mut import = Import { resources: declared.clone(), ..Import::default() };
    for (name, spec) in &wanted.hosts {
        let Some(state) = observed.host(name) else { continue };
        if !declared.hosts.contains_key(name) {
            let manifest = manifest(name, spec.clone());
            let plain = serde_json::json!({"uri": ""});
            import.document(&manifest, serde_json::from_value::<HostSpec>(plain).ok().as_ref(), None);
            import.resources.hosts.insert(name.clone(), manifest);
        }
        import.pools(name, state);
    }
    let pools: Vec<_> = import
        .resources
        .storage_pools
        .iter()
        .filter(|(name, pool)| declared.storage_pools.get(*name) != Some(*pool))
        .map(|(_, pool)| pool.clone())
        .collect();
    for pool in pools {
        import.document(&pool, None, None);
    }
    for name in wanted.hosts.keys() {
        let Some(state) = observed.host(name) else { continue };
        import.machines(name, state, wanted);
    }
    let found: BTreeSet<&str> = observed
        .hosts
        .keys()
        .filter_map(|h| observed.host(h))
        .flat_map(|h| h.domains.iter().map(|d| d.name.as_str()))
        .collect();
    for name in wanted.machines.iter().filter(|n| !found.contains(n.as_str())) {
        import.findings.push(
            Finding::new(Code::MissingReference, format!("there is no domain `{name}` on these hosts"))
                .hint("`virsh list --all` on the host shows what there is"),
        );
    }
    import
}

fn manifest<S: Spec>(name: &str, spec: S) -> Manifest<S> {
    let metadata = Metadata { name: name.into(), ..Metadata::default() };
    Manifest { kind: S::KIND, metadata, spec, origin: Origin::default() }
}

impl Import {
    /// The pools of a host. One that is on several hosts, the same on each, is one manifest.
    fn pools(&mut self, host: &str, state: &HostState) {
        for (pool, there) in &state.pools {
            let is_declared = |(name, m): (&String, &Manifest<StoragePoolSpec>)| {
                m.spec.hosts.iter().any(|h| h == host) && m.spec.libvirt_name(name) == pool
            };
            if self.resources.storage_pools.iter().any(is_declared) {
                continue;
            }
            let Some(mut spec) = storage_pool::import(pool, there, host) else {
                self.findings.push(
                    Finding::new(
                        Code::NotUnderstood,
                        format!("pool `{pool}` on `{host}` is of a type that no StoragePool has"),
                    )
                    .severity(Severity::Warning)
                    .hint("disks in it are imported with their paths"),
                );
                continue;
            };
            let base = virtual_machine::manifest_name(pool, uuid::Uuid::nil(), &BTreeSet::new());
            if base == *pool {
                spec.pool_name = None;
            }
            let joins = self.resources.storage_pools.get_mut(&base).filter(|m| {
                let mut same = m.spec.clone();
                same.hosts.clone_from(&spec.hosts);
                same == spec
            });
            if let Some(same) = joins {
                same.spec.hosts.push(host.to_owned());
                continue;
            }
            let name = if self.resources.storage_pools.contains_key(&base) {
                spec.pool_name = Some(pool.clone());
                format!("{base}-{host}")
            } else {
                base
            };
            if check_name(&name).is_err() {
                self.findings.push(
                    Finding::new(
                        Code::BadName,
                        format!("pool `{pool}` on `{host}` has no name that a manifest may have"),
                    )
                    .severity(Severity::Warning)
                    .hint("declare it by hand, with `poolName`"),
                );
                continue;
            }
            self.resources.storage_pools.insert(name.clone(), manifest(&name, spec));
        }
    }

    fn machines(&mut self, host: &str, state: &HostState, wanted: &Wanted) {
        for domain in &state.domains {
            if !wanted.machines.is_empty() && !wanted.machines.contains(&domain.name) {
                continue;
            }
            let known = self.resources.virtual_machines.values().any(|m| virtual_machine::uuid(m) == domain.uuid);
            if known {
                continue;
            }
            let taken: BTreeSet<String> = self.resources.virtual_machines.keys().cloned().collect();
            let owned = domain.owner.as_ref().filter(|o| o.fleet == self.resources.fleet() && !taken.contains(&o.name));
            let name = match owned {
                Some(mark) => mark.name.clone(),
                None => virtual_machine::manifest_name(&domain.name, domain.uuid, &taken),
            };
            match virtual_machine::import(&name, domain, host, state, &self.resources) {
                Ok(made) => {
                    self.tell(host, &made);
                    let xml = made.manifest.spec.xml.as_ref().and_then(|x| x.inline.clone());
                    self.document(&made.manifest, Some(&VirtualMachineSpec::default()), xml);
                    self.resources.virtual_machines.insert(name, made.manifest);
                }
                Err(finding) => self.findings.push(finding.severity(Severity::Warning)),
            }
        }
    }

    /// What the reader of a manifest should know.
    fn tell(&mut self, host: &str, made: &virtual_machine::Imported) {
        let id = made.manifest.id();
        if !made.beyond.is_empty() {
            let what = format!("`{}` on `{host}` has what no field can say: {}", id.name, made.beyond.join(", "));
            self.findings.push(
                Finding::new(Code::Imported, what)
                    .on(id.clone())
                    .hint("its whole definition stands beside the manifest, in `xml`; fields are laid over it"),
            );
        }
        if !made.unstated.is_empty() {
            let what = format!(
                "`{}` on `{host}`: {} could not be said so that nothing differs",
                id.name,
                made.unstated.join(", ")
            );
            self.findings.push(Finding::new(Code::Imported, what).on(id).hint(
                "they are not stated, so they are neither compared nor changed; state them by hand where they matter",
            ));
        }
    }

    fn document<S: Spec>(&mut self, manifest: &Manifest<S>, plain: Option<&S>, xml: Option<String>) {
        let plain = plain.map_or(Value::Null, json);
        let mut spec = without_defaults(json(&manifest.spec), &plain);
        if xml.is_some() {
            spec.insert("xml".into(), serde_json::json!({"file": format!("{}.xml", manifest.name())}));
        }
        let mut value = Map::new();
        value.insert("apiVersion".into(), API_VERSION.into());
        value.insert("kind".into(), manifest.kind.as_str().into());
        value.insert("metadata".into(), json(&manifest.metadata));
        value.insert("spec".into(), Value::Object(spec));
        let (kind, name) = (manifest.kind.to_string(), manifest.name().to_owned());
        self.documents.push(Document { kind, name, value: Value::Object(value), xml });
    }
}

fn json<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// The fields that say something else than they would say if they were not there.
fn without_defaults(spec: Value, plain: &Value) -> Map<String, Value> {
    let Value::Object(map) = spec else { return Map::new() };
    map.into_iter()
        .filter(|(key, value)| plain.get(key) != Some(value))
        .map(|(key, value)| match value {
            // The one default of a disk that is written out.
            Value::Array(items) if key == "disks" => {
                let plain = serde_json::json!({"device": "disk"});
                let items = items.into_iter().map(|item| Value::Object(without_defaults(item, &plain))).collect();
                (key, Value::Array(items))
            }
            value => (key, value),
        })
        .collect()
}
