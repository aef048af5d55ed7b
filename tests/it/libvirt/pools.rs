//! What a StoragePool makes, against libvirt's own schema.

use drover::action::{Action, MachineAction};
use drover::load::{Limits, MemoryTree, load};
use drover::model::Revision;
use drover::observed::{HostState, Observed, Reading};
use drover::plan::{PlanInput, PlanOptions, plan};
use virt::connect::Connect;

/// The definitions that a plan has for pools of these specs.
fn definitions(specs: &[&str]) -> Vec<String> {
    let head = "apiVersion: drover/v1alpha1";
    let mut text = format!("--- {{{head}, kind: Host, metadata: {{name: a}}, spec: {{uri: 'sim:'}}}}\n");
    for (i, spec) in specs.iter().enumerate() {
        text += &format!(
            "--- {{{head}, kind: StoragePool, metadata: {{name: schema-{i}}}, spec: {{hosts: [a], {spec}}}}}\n"
        );
    }
    let loaded = load(&MemoryTree::new().with("a.yaml", text), Revision::default(), &Limits::default());
    let desired = loaded.desired.unwrap_or_else(|| panic!("{:#?}", loaded.findings));
    let now = jiff::Timestamp::UNIX_EPOCH;
    let mut observed = Observed::empty(now);
    observed.hosts.insert("a".into(), Reading::Present(HostState::default()));
    let plan = plan(&PlanInput { desired: &desired, observed: &observed, now, options: PlanOptions::default() });
    let xml = |action: &Action| match action {
        Action::Machine(MachineAction::DefineStoragePool { xml, .. }) => Some(xml.clone()),
        Action::Machine(_) | Action::Cluster(_) => None,
    };
    plan.steps.iter().filter_map(|s| xml(&s.action)).collect()
}

#[test]
fn every_pool_is_one_by_libvirt_s_schema() {
    let specs = [
        "type: dir, target: /schema/0",
        "type: netfs, source: {host: n, path: /x, format: nfs, protocolVersion: '4.2'}, target: /schema/1, mountOptions: [nolock, soft]",
        "type: netfs, source: {host: n, path: /x, format: cifs}, target: /schema/2",
        "type: netfs, source: {host: n, path: /y}, target: /schema/3",
        "type: fs, source: {devices: [/dev/sdb1], format: ext4}, target: /schema/4, mountOptions: [noatime]",
        "type: logical, source: {name: vg}, target: /dev/vg",
        "type: iscsi, source: {host: n, devices: ['iqn.2026-01.com.example:x']}, target: /dev/disk/by-path",
    ];
    let definitions = definitions(&specs);
    assert_eq!(definitions.len(), specs.len());
    let connect = Connect::open(Some("test:///default")).unwrap();
    for xml in definitions {
        let pool = connect.define_storage_pool_xml(&xml, virt_sys::VIR_STORAGE_POOL_DEFINE_VALIDATE);
        pool.unwrap_or_else(|e| panic!("{xml}\n{e}")).undefine().unwrap();
    }
    // The check is one: what the schema does not know is refused.
    let wrong = "<pool type='netfs'><name>wrong</name><source><host name='n'/><dir path='/x'/><nonsense/></source>\
                 <target><path>/schema/9</path></target></pool>";
    assert!(connect.define_storage_pool_xml(wrong, virt_sys::VIR_STORAGE_POOL_DEFINE_VALIDATE).is_err());
}
