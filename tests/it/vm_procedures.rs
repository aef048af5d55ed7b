//! docs/vm-procedures.md: every section of the guide stands there, every test that it names is there, and every manifest is one.

use crate::migration_cases::{exists, tests};
use drover::load::{Limits, MemoryTree, load};
use drover::model::Revision;
use serde_yaml::{Mapping, Value};
use std::path::Path;

/// The sections of chapter 10, each with the least number of its procedures.
const SECTIONS: [(&str, usize); 9] = [
    ("10.1", 6),  // live, offline; images shared, copied, on a SAN, by hand
    ("10.2", 3),  // balance, empty hosts, another site
    ("10.3", 4),  // storage, devices, NUMA, CPUs
    ("10.4", 15), // nine prerequisites, six procedures and their verification
    ("10.5", 4),  // the dialog, permanent, temporary, verification
    ("10.6", 6),  // shut down, export, copy, mount, SELinux, verification
    ("10.7", 2),  // the baseline, and a machine that gets it
    ("10.8", 1),
    ("10.9", 1),
];

/// What a manifest of the page is put into: everything that it may name.
const GROUND: &str = "
- {kind: Host, metadata: {name: kvm-a}, spec: {uri: 'sim://kvm-a'}}
- {kind: Host, metadata: {name: kvm-b}, spec: {uri: 'sim://kvm-b'}}
- {kind: StoragePool, metadata: {name: images}, spec: {hosts: [kvm-a, kvm-b], type: dir, target: /srv/images, shared: true}}
- {kind: VirtualMachine, metadata: {name: web-1, labels: {app: web}}, spec: {host: kvm-a, machine: q35, cpus: 1, memory: 1Gi}}
- {kind: VirtualMachine, metadata: {name: db-1, labels: {app: db}}, spec: {placement: {}, machine: q35, cpus: 1, memory: 1Gi}}
- {kind: MigrationPolicy, metadata: {name: policy}, spec: {}}
- {kind: Settings, metadata: {name: fleet}, spec: {}}
";

/// The kind that is given whole: it changes nothing that is there.
const WHOLE: &str = "VirtualMachineMigration";

/// Manifests in a cell: `Kind: {…}` between backticks.
fn manifests(cell: &str) -> impl Iterator<Item = (&str, &str)> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.filter_map(|text| text.split_once(": ")).filter(|(kind, spec)| {
        spec.starts_with('{') && kind.starts_with(char::is_uppercase) && kind.chars().all(char::is_alphanumeric)
    })
}

/// What the loader says of these lines in a repository.
fn wrong(kind: &str, spec: &str) -> Vec<String> {
    let spec: Mapping = match serde_yaml::from_str(spec) {
        Ok(spec) => spec,
        Err(error) => return vec![error.to_string()],
    };
    let mut all: Vec<Mapping> = serde_yaml::from_str(GROUND).unwrap();
    if kind == WHOLE {
        let text = format!("{{kind: {WHOLE}, metadata: {{name: move}}, spec: {{}}}}");
        all.push(serde_yaml::from_str(&text).unwrap());
    }
    let Some(one) = all.iter_mut().find(|m| m.get("kind").and_then(Value::as_str) == Some(kind)) else {
        return vec![format!("there is no kind {kind}")];
    };
    let Some(Value::Mapping(fields)) = one.get_mut("spec") else { panic!("{kind} has no spec here") };
    fields.extend(spec);
    let documents = all.iter_mut().map(|manifest| {
        manifest.insert("apiVersion".into(), "drover/v1alpha1".into());
        serde_yaml::to_string(manifest).unwrap()
    });
    let text = documents.collect::<Vec<_>>().join("---\n");
    let loaded = load(&MemoryTree::new().with("a.yaml", text), Revision::default(), &Limits::default());
    loaded.findings.iter().filter(|f| f.is_error()).map(|f| f.message.clone()).collect()
}

#[test]
fn every_procedure_of_the_guide_is_a_manifest_that_is_one_and_has_a_test() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/vm-procedures.md");
    let text = std::fs::read_to_string(file).unwrap();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter_map(|l| l.strip_prefix("| 10.")?.strip_suffix('|'))
        .map(|row| row.split(" | ").map(str::trim).collect())
        .collect();
    let sections: Vec<u32> = rows.iter().map(|r| r[0].parse().unwrap()).collect();
    assert!(sections.is_sorted(), "the sections are not in order: {sections:?}");
    let mut bad = Vec::new();
    for (section, least) in SECTIONS {
        let count = rows.iter().filter(|r| format!("10.{}", r[0]) == section).count();
        if count < least {
            bad.push(format!("{section} has {count} rows; the guide has {least} procedures there"));
        }
    }
    let mut seen = 0;
    for row in &rows {
        let &[section, procedure, does, shown] = row.as_slice() else {
            panic!("10.{} has {} cells", row[0], row.len())
        };
        let place = format!("10.{section}, {procedure}");
        if does.is_empty() || tests(shown).next().is_none() {
            bad.push(format!("{place}: nothing does it, or nothing shows it"));
        }
        bad.extend(tests(shown).filter(|t| !exists(t)).map(|t| format!("{place}: there is no test {t}")));
        for (kind, spec) in manifests(does) {
            seen += 1;
            bad.extend(wrong(kind, spec).into_iter().map(|why| format!("{place}: {kind}: {spec}: {why}")));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    assert!(seen > 25, "only {seen} manifests were found on the page");
}

#[test]
fn a_manifest_that_is_none_is_noticed() {
    assert_eq!(wrong("MigrationPolicy", "{parallelConnections: 4}"), [] as [String; 0]);
    assert!(wrong("MigrationPolicy", "{parallelConections: 4}")[0].contains("parallelConections"));
    assert!(!wrong("VirtualMachineMigration", "{machine: web-1, to: kvm-z}").is_empty(), "a host that is not there");
    assert!(!wrong("Machine", "{}").is_empty());
    assert_eq!(manifests("`Host: {a: 1}`, or `drover plan`: `b`").collect::<Vec<_>>(), [("Host", "{a: 1}")]);
}
