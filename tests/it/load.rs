//! Tests of the area `load`.

use drover::finding::Finding;
use drover::load::{Limits, Loaded, MemoryTree, load};
use drover::model::Revision;

fn run(text: &str) -> Loaded {
    load(&MemoryTree::new().with("a.yaml", text), Revision::default(), &Limits::default())
}

fn show(findings: &[Finding]) -> String {
    findings
        .iter()
        .map(|f| {
            let at = f.source.as_ref().map(|s| s.to_string()).unwrap_or_default();
            format!(
                "{} {at} {} [{}]\n    {}\n",
                f.code,
                f.message,
                f.path.as_deref().unwrap_or(""),
                f.hint.as_deref().unwrap_or("")
            )
        })
        .collect()
}

#[test]
fn scratch() {
    let loaded = run(&std::fs::read_to_string("/tmp/x.yaml").unwrap());
    println!("{}", show(&loaded.findings));
    println!("{:#?}", loaded.desired.map(|d| d.resources.len()));
}
