//! From a pool that is there to the manifest that says the same.

use super::{PoolSource, StoragePoolSpec};
use crate::domain_xml;
use crate::observed::PoolState;

/// The spec of a pool on one host; `None` where no field can say what it is.
pub fn import(name: &str, state: &PoolState, host: &str) -> Option<StoragePoolSpec> {
    let root = domain_xml::parse(&state.xml).ok()?;
    let kind = root.attribute("type")?;
    let r#type = serde_json::from_value(serde_json::Value::String(kind.to_owned())).ok()?;
    let attribute = |child: &str, name: &str| root.attribute_at(&format!("source/{child}"), name).map(str::to_owned);
    let source = PoolSource {
        host: attribute("host", "name"),
        path: attribute("dir", "path"),
        format: attribute("format", "type"),
        devices: root
            .get("source")
            .into_iter()
            .flat_map(|s| s.all("device"))
            .filter_map(|d| d.attribute("path").map(str::to_owned))
            .collect(),
        name: root.text_at("source/name").filter(|n| !n.is_empty()),
        adapter: attribute("adapter", "name"),
        protocol_version: attribute("protocol", "ver"),
    };
    let is_network = matches!(kind, "netfs" | "iscsi" | "rbd");
    Some(StoragePoolSpec {
        hosts: vec![host.to_owned()],
        r#type,
        source: (source != PoolSource::default()).then_some(source),
        target: state.target.clone(),
        // Storage that comes over the network is the same wherever it is asked for; of the rest nobody can tell.
        shared: is_network,
        mount_options: super::plan::mount_options(&root),
        autostart: state.autostart,
        pool_name: Some(name.to_owned()),
    })
}
