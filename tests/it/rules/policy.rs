//! Rules of a MigrationPolicy: ways of moving that contradict each other are said at once, not at the move.

use drover::finding::{Code, Finding};
use drover::load::{Limits, MemoryTree, load};
use drover::model::Revision;

fn find(spec: &str) -> Vec<Finding> {
    let text = format!("apiVersion: drover/v1alpha1\nkind: MigrationPolicy\nmetadata: {{name: p}}\nspec: {{{spec}}}\n");
    load(&MemoryTree::new().with("a.yaml", text), Revision::default(), &Limits::default()).findings
}

#[test]
fn every_way_to_move_can_be_said() {
    for good in [
        "",
        "mode: Live, parallelConnections: Auto, compression: zstd, maxDowntime: 500ms, bandwidth: 5Gbit/s",
        "parallelConnections: 4, zeroCopy: true",
        "autoConverge: true, timeout: {after: 10m, action: Suspend}",
        "autoConverge: {initial: 40, increment: 20}, raiseDowntime: {upTo: 2s, every: 30s}",
        "postCopy: {passes: 3}, timeout: {after: 10m, action: PostCopy}",
        "postCopy: {after: 2m, passes: 10, bandwidth: 1Gbit/s}, transport: Tls",
        "compression: xbzrle, transport: Tunnelled",
        "copyStorage: All, synchronousWrites: true, deleteSourceCopies: true",
        "mode: Offline, copyStorage: All, permanent: true",
        "permanent: false",
        "copyStorage: Incremental, copyDisks: [root, vdb], retries: 3, control: Managed",
        "windows: [{kind: Allow, days: [Sat, Sun], start: '22:00', duration: 6h}]",
    ] {
        assert_eq!(find(good), [], "{good}");
    }
}

#[test]
fn ways_that_contradict_each_other_are_refused_with_the_way_out() {
    for (bad, path, message) in [
        ("postCopy: {}", "spec.postCopy", "neither after how long nor after how many passes"),
        ("postCopy: {after: 1h}, timeout: {after: 10m}", "spec.postCopy.after", "after the time-out"),
        ("zeroCopy: true", "spec.zeroCopy", "over parallel connections"),
        ("zeroCopy: true, parallelConnections: 2, transport: Tls", "spec.zeroCopy", "has to be copied"),
        ("compression: zstd", "spec.compression", "only over parallel connections"),
        ("compression: xbzrle, parallelConnections: 2", "spec.compression", "no xbzrle"),
        ("transport: Tunnelled, parallelConnections: 2", "spec.transport", "tunnels neither"),
        ("transport: Tunnelled, copyStorage: All", "spec.transport", "tunnels neither"),
        ("transport: Tunnelled, postCopy: {after: 1m}", "spec.transport", "does not go through a tunnel"),
        ("synchronousWrites: true", "spec.synchronousWrites", "copies none"),
        ("maxDowntime: 2s, raiseDowntime: {upTo: 1s}", "spec.raiseDowntime.upTo", "no more than it is at first"),
        ("mode: Offline, autoConverge: true", "spec.mode", "sends no memory"),
        ("mode: Offline, transport: Tls", "spec.mode", "sends no memory"),
        ("copyDisks: [root]", "spec.copyDisks", "copies none"),
        ("control: Managed, transport: Tunnelled", "spec.control", "only the source's daemon"),
        ("windows: [{kind: Deny, start: '22:00', duration: 0s}]", "spec.windows[0].duration", "more than nothing"),
        ("autoConverge: {initial: 100}", "spec.autoConverge", ""),
        ("maxDowntime: 1h", "spec.maxDowntime", "no longer pause than 2000 s"),
        ("raiseDowntime: {upTo: 1h}", "spec.raiseDowntime.upTo", "no longer pause than 2000 s"),
        ("raiseDowntime: {upTo: 2s, every: 0s}", "spec.raiseDowntime.every", "every moment"),
        ("bandwidth: 0Mbit/s", "spec.bandwidth", "bandwidth of zero"),
        ("postCopy: {after: 1m, bandwidth: 0Mbit/s}", "spec.postCopy.bandwidth", "bandwidth of zero"),
    ] {
        let found = find(bad);
        let fits = |f: &Finding| {
            f.is_error() && f.path.as_deref().is_some_and(|p| p.starts_with(path)) && f.message.contains(message)
        };
        let one = found.iter().find(|f| fits(f)).unwrap_or_else(|| panic!("{bad}: {found:#?}"));
        assert!(one.hint.is_some() || one.code == Code::WrongValue, "{bad}: {one:#?}");
    }
}

/// The schema's description of every field under `node`, by path.
fn fields(node: &serde_json::Value, defs: &serde_json::Value, path: &str, found: &mut Vec<(String, String)>) {
    if let Some(properties) = node["properties"].as_object() {
        for (name, field) in properties {
            let path = format!("{path}.{name}");
            found.push((path.clone(), field["description"].as_str().unwrap_or_default().to_owned()));
            // What is described elsewhere: windows in Settings, prechecks in docs/prechecks.md.
            if !["windows", "prechecks"].contains(&name.as_str()) {
                fields(field, defs, &path, found);
            }
        }
    }
    if let Some(name) = node["$ref"].as_str().and_then(|r| r.strip_prefix("#/$defs/")) {
        fields(&defs[name], defs, path, found);
    }
    for one in ["oneOf", "anyOf"].iter().filter_map(|key| node[key].as_array()).flatten() {
        fields(one, defs, path, found);
    }
}

/// Names of libvirt's in a text.
fn names(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| c != '_' && !c.is_alphanumeric());
    let is_function = |w: &str| w.starts_with("vir") && w[3..].starts_with(char::is_uppercase);
    words.filter(|w| w.starts_with("VIR_") || is_function(w)).collect()
}

#[test]
fn every_field_names_libvirt_s_parameter_or_says_that_there_is_none() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema = std::fs::read_to_string(root.join("schemas/migration-policy.schema.json")).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    let mut found = Vec::new();
    fields(&schema["properties"]["spec"], &schema["$defs"], "spec", &mut found);
    assert!(found.len() > 28, "{found:#?}");
    let silent: Vec<_> = found
        .iter()
        .filter(|(_, text)| names(text).is_empty())
        .filter(|(_, text)| !text.to_lowercase().replace('\n', " ").contains("no parameter of libvirt"))
        .collect();
    assert!(silent.is_empty(), "{silent:#?}");

    // The flags and parameters that are named are those that the call is given, and the reverse.
    let call = std::fs::read_to_string(root.join("src/provider/libvirt/migrate/call.rs")).unwrap();
    let in_call: std::collections::BTreeSet<_> =
        names(&call).into_iter().filter(|n| n.starts_with("VIR_MIGRATE_")).collect();
    let all = schema.to_string();
    let in_schema: std::collections::BTreeSet<_> =
        names(&all).into_iter().filter(|n| n.starts_with("VIR_MIGRATE_")).collect();
    assert_eq!(in_schema.difference(&in_call).collect::<Vec<_>>(), [] as [&&str; 0], "named, and not given");
    // Not a policy's: a migration's (name, pause on arrival), the Host's (address), and what every move has.
    let others = ["PARAM_DEST_NAME", "PAUSED", "PARAM_URI", "ABORT_ON_ERROR", "PARAM_MIGRATE_DISKS_DETECT_ZEROES"];
    let unnamed = in_call.difference(&in_schema).filter(|n| !others.contains(&n.trim_start_matches("VIR_MIGRATE_")));
    assert_eq!(unnamed.collect::<Vec<_>>(), [] as [&&str; 0], "given, and not named");
}
