//! Rules of a Host.

use drover::finding::Code;
use drover::load::{Limits, MemoryTree, load};
use drover::model::Revision;

#[test]
fn two_hosts_are_not_one_machine() {
    let find = |a: &str, b: &str| {
        let text = [("a", a), ("b", b)]
            .map(|(n, uri)| {
                format!(
                    "--- {{apiVersion: drover/v1alpha1, kind: Host, metadata: {{name: {n}}}, spec: {{uri: '{uri}'}}}}\n"
                )
            })
            .concat();
        let tree = MemoryTree::new().with("a.yaml", text);
        load(&tree, Revision::default(), &Limits::default()).findings
    };
    let found = find("qemu+ssh://root@kvm-a/system", "qemu+tls://KVM-A/system");
    assert_eq!((found.len(), found[0].code, found[0].related.len()), (1, Code::Conflict, 1), "{found:#?}");
    assert_eq!(find("qemu:///system", "qemu:///system").len(), 1);
    for (a, b) in [
        ("qemu+ssh://a/system", "qemu+ssh://b/system"),
        ("sim:", "sim:"),
        ("qemu+ssh://a:1/system", "qemu+ssh://a:2/system"),
    ] {
        assert_eq!(find(a, b), [], "{a} {b}");
    }
}
