//! Rules of a StoragePool.

use drover::finding::{Code, Finding, Severity};
use drover::load::{Limits, MemoryTree, load};
use drover::model::Revision;

fn find(pools: &[&str]) -> Vec<Finding> {
    let head = "apiVersion: drover/v1alpha1";
    let mut text = format!(
        "--- {{{head}, kind: Host, metadata: {{name: a}}, spec: {{uri: 'sim:'}}}}\n\
         --- {{{head}, kind: Host, metadata: {{name: b}}, spec: {{uri: 'sim:'}}}}\n"
    );
    for (i, spec) in pools.iter().enumerate() {
        text += &format!("--- {{{head}, kind: StoragePool, metadata: {{name: p{i}}}, spec: {{{spec}}}}}\n");
    }
    load(&MemoryTree::new().with("a.yaml", text), Revision::default(), &Limits::default()).findings
}

fn expect(spec: &str, code: Code, path: &str, message: &str) {
    let found = find(&[spec]);
    assert!(
        found.iter().any(|f| f.code == code && f.path.as_deref() == Some(path) && f.message.contains(message)),
        "{spec}: {found:#?}"
    );
}

#[test]
fn each_type_says_what_it_needs() {
    for good in [
        "hosts: [a], type: dir, target: /x",
        "hosts: [a, b], type: netfs, source: {host: n, path: /x, format: nfs}, target: /y, shared: true",
        "hosts: [a], type: logical, source: {name: vg}",
        "hosts: [a, b], type: rbd, source: {host: m, name: p}, shared: true",
    ] {
        assert_eq!(find(&[good]), [], "{good}");
    }
    expect("hosts: [a], type: dir", Code::MissingField, "spec.target", "type `dir` needs `target`");
    expect("hosts: [a], type: netfs, target: /x, source: {path: /y}", Code::MissingField, "spec.source.host", "netfs");
    expect("hosts: [a], type: netfs, target: /x, source: {host: n}", Code::MissingField, "spec.source.path", "netfs");
    expect("hosts: [a], type: fs, target: /x", Code::MissingField, "spec.source.devices", "fs");
    expect("hosts: [a], type: scsi, target: /x", Code::MissingField, "spec.source.adapter", "scsi");
    expect("hosts: [a], type: dir, target: /x, source: {path: /y}", Code::Contradiction, "spec.source", "no `source`");
    expect(
        "hosts: [a], type: netfs, target: /x, source: {host: n, path: y}",
        Code::WrongValue,
        "spec.source.path",
        "not absolute",
    );
}

#[test]
fn names_targets_and_hosts_are_checked() {
    expect("hosts: [a, c], type: dir, target: /x", Code::MissingReference, "spec.hosts[1]", "the Host `c`");
    expect("hosts: [a, a], type: dir, target: /x", Code::Contradiction, "spec.hosts[1]", "twice");
    expect("hosts: [a], type: dir, target: /x/../etc", Code::WrongValue, "spec.target", "/x/../etc");
    expect("hosts: [a], type: dir, target: /", Code::WrongValue, "spec.target", "`/`");
    expect("hosts: [a], type: dir, target: /x, poolName: a/b", Code::BadName, "spec.poolName", "a/b");
}

#[test]
fn sharing_is_meant_as_it_is_said() {
    let lone = find(&["hosts: [a], type: dir, target: /x, shared: true"]);
    assert_eq!((lone.len(), lone[0].severity), (1, Severity::Info));
    let nfs = "hosts: [a, b], type: netfs, source: {host: n, path: /x}, target: /y";
    expect(nfs, Code::Contradiction, "spec.type", "not `shared`");
}

#[test]
fn pools_of_one_host_have_their_own_names_and_targets() {
    let found = find(&["hosts: [a, b], type: dir, target: /x", "hosts: [b], type: dir, target: /x/"]);
    assert_eq!((found.len(), found[0].code, found[0].path.as_deref()), (1, Code::Conflict, Some("spec.target")));
    assert_eq!(found[0].related.len(), 1);
    let found = find(&["hosts: [a], type: dir, target: /x", "hosts: [a], type: dir, target: /y, poolName: p0"]);
    assert_eq!((found.len(), found[0].path.as_deref()), (1, Some("spec.poolName")));
    assert_eq!(find(&["hosts: [a], type: dir, target: /x", "hosts: [b], type: dir, target: /x, poolName: p0"]), []);
}
