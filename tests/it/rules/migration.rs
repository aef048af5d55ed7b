//! Rules of a VirtualMachineMigration: what it says by itself, and that it fights no other manifest.

use drover::finding::{Code, Finding, Severity};
use drover::load::{Limits, MemoryTree, load};
use drover::model::Revision;

const WORLD: &str = "\
--- {apiVersion: drover/v1alpha1, kind: Host, metadata: {name: a, labels: {rack: r1}}, spec: {uri: 'sim:'}}
--- {apiVersion: drover/v1alpha1, kind: Host, metadata: {name: b, labels: {rack: r1}}, spec: {uri: 'sim:'}}
--- {apiVersion: drover/v1alpha1, kind: Host, metadata: {name: c, labels: {rack: r2}}, spec: {uri: 'sim:', maintenance: Cordon}}
--- {apiVersion: drover/v1alpha1, kind: MigrationPolicy, metadata: {name: copy}, spec: {copyStorage: All}}
--- {apiVersion: drover/v1alpha1, kind: MigrationPolicy, metadata: {name: cold}, spec: {mode: Offline}}
--- {apiVersion: drover/v1alpha1, kind: MigrationPolicy, metadata: {name: brief}, spec: {permanent: false}}
--- {apiVersion: drover/v1alpha1, kind: VirtualMachine, metadata: {name: pinned, labels: {app: web}}, spec: {host: a, memory: 1Gi}}
--- {apiVersion: drover/v1alpha1, kind: VirtualMachine, metadata: {name: placed}, spec: {placement: {hosts: {matchLabels: {rack: r1}}}, memory: 1Gi}}
";

fn find(specs: &[&str]) -> Vec<Finding> {
    let mut text = WORLD.to_owned();
    for (i, spec) in specs.iter().enumerate() {
        text += &format!(
            "--- {{apiVersion: drover/v1alpha1, kind: VirtualMachineMigration, metadata: {{name: m{i}}}, spec: {{{spec}}}}}\n"
        );
    }
    load(&MemoryTree::new().with("a.yaml", text), Revision::default(), &Limits::default()).findings
}

#[test]
fn every_way_to_say_what_moves() {
    for good in [
        "machine: placed, to: b",
        "machine: legacy, to: b",
        "machine: pinned, to: b, permanent: false",
        "machine: pinned, to: a",
        "machine: pinned, to: b, migrationPolicy: brief",
        "selector: {matchLabels: {app: web}}, to: b, permanent: false, order: BySize, parallelism: 2",
        "domains: [x, y], from: a, to: b, order: [y], run: 'second time'",
        "all: true, from: a, to: b, migrationPolicy: copy, suspend: true",
    ] {
        assert_eq!(find(&[good]), [], "{good}");
    }
}

#[test]
fn what_contradicts_itself_or_another_manifest_is_refused_at_both_places() {
    for (bad, code, path, message, related) in [
        ("to: b", Code::MissingField, "spec", "nothing says what", false),
        ("machine: placed, all: true, from: a, to: b", Code::Contradiction, "spec.all", "both say", false),
        ("domains: [x], to: b", Code::MissingField, "spec.domains", "on the host that they leave", false),
        ("all: true, to: b", Code::MissingField, "spec.all", "on the host that they leave", false),
        ("domains: [x, x], from: a, to: b", Code::Contradiction, "spec.domains[1]", "named twice", false),
        ("machine: x, from: b, to: b", Code::Contradiction, "spec.to", "are both", false),
        ("machine: x, to: z", Code::MissingReference, "spec.to", "`z`", false),
        ("machine: x, from: z, to: b", Code::MissingReference, "spec.from", "`z`", false),
        ("machine: x, to: b, migrationPolicy: z", Code::MissingReference, "spec.migrationPolicy", "`z`", false),
        ("machine: pinned, to: b", Code::Conflict, "spec.to", "pins it to `a`", true),
        ("selector: {matchLabels: {app: web}}, to: b", Code::Conflict, "spec.to", "pins it to `a`", true),
        ("domains: [pinned], from: a, to: b", Code::Conflict, "spec.to", "pins it to `a`", true),
        ("machine: pinned, to: a, permanent: false", Code::Conflict, "spec.to", "at home on `a`", true),
        ("machine: placed, to: c", Code::Conflict, "spec.to", "`placement` does not allow", true),
        (
            "machine: x, to: b, permanent: false, migrationPolicy: copy",
            Code::Contradiction,
            "spec.permanent",
            "would be lost",
            true,
        ),
        (
            "machine: x, to: b, permanent: false, migrationPolicy: cold",
            Code::Contradiction,
            "spec.permanent",
            "only what runs",
            true,
        ),
    ] {
        let found = find(&[bad]);
        let one = found
            .iter()
            .find(|f| f.is_error() && f.code == code && f.message.contains(message))
            .unwrap_or_else(|| panic!("{bad}: {found:#?}"));
        assert_eq!(one.path.as_deref(), Some(path), "{bad}");
        assert_eq!(one.related.is_empty(), !related, "{bad}: {one:#?}");
        assert!(one.hint.is_some(), "{bad}: {one:#?}");
    }
}

#[test]
fn two_migrations_of_one_machine_are_a_fight_unless_one_is_suspended() {
    for pair in [
        ["machine: placed, to: b", "machine: placed, to: a"],
        ["machine: pinned, to: b, permanent: false", "selector: {matchLabels: {app: web}}, to: b, permanent: false"],
        ["domains: [x], from: a, to: b", "machine: x, from: a, to: b"],
    ] {
        let found = find(&pair);
        let fight = |f: &&Finding| f.code == Code::Conflict && f.message.contains("`m0` and `m1` both move");
        let one = found.iter().find(fight).unwrap_or_else(|| panic!("{pair:?}: {found:#?}"));
        assert!(one.source.as_ref().unwrap().line != one.related[0].line, "{one:#?}");
        let held = format!("{}, suspend: true", pair[0]);
        assert_eq!(find(&[&held, pair[1]]), [], "{pair:?}");
    }
    assert_eq!(find(&["domains: [x], from: a, to: b", "domains: [x], from: b, to: a"]), []);
}

#[test]
fn a_destination_in_maintenance_is_a_warning() {
    let found = find(&["machine: x, to: c"]);
    assert_eq!(found.iter().map(|f| (f.severity, f.code)).collect::<Vec<_>>(), [(Severity::Warning, Code::Conflict)]);
    assert!(found[0].related.len() == 1 && found[0].message.contains("Cordon"), "{found:#?}");
}
