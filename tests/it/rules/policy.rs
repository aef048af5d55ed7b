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
        ("permanent: false", "spec.permanent", "for good"),
        ("autoConverge: {initial: 100}", "spec.autoConverge", ""),
    ] {
        let found = find(bad);
        let fits = |f: &Finding| {
            f.is_error() && f.path.as_deref().is_some_and(|p| p.starts_with(path)) && f.message.contains(message)
        };
        let one = found.iter().find(|f| fits(f)).unwrap_or_else(|| panic!("{bad}: {found:#?}"));
        assert!(one.hint.is_some() || one.code == Code::WrongValue, "{bad}: {one:#?}");
    }
}
