//! Pinning, NUMA nodes and huge pages.

use super::*;

#[test]
fn pinning_needs_the_cpus_and_nodes() {
    let pinned = |more: &str| World::new().machine("", more);
    pinned("<cputune><vcpupin vcpu='0' cpuset='2-3'/></cputune>").is(P::Pinning, Pass, &["1 NUMA nodes with 4 CPUs"]);
    pinned("<cputune><vcpupin vcpu='0' cpuset='3-5'/></cputune>").is(
        P::Pinning,
        Block,
        &["CPUs 3-5", "4 CPUs", "not 4-5"],
    );
    pinned("<cputune><emulatorpin cpuset='9'/></cputune>").is(P::Pinning, Block, &["not 9"]);
    pinned("<numatune><memory mode='strict' nodeset='1'/></numatune>").is(P::Pinning, Block, &["NUMA nodes 1"]);
    pinned("<numatune><memory mode='preferred' nodeset='1'/></numatune>").is(P::Pinning, Warn, &["prefers"]);
    pinned("<numatune><memory mode='strict' placement='auto'/></numatune>").is(P::Pinning, Pass, &["pinned to no"]);
    pinned("<cputune><vcpupin vcpu='0' cpuset='0'/></cputune>").with(|w| w.b.cells.clear()).is(
        P::Pinning,
        Unknown,
        &[],
    );
    pinned("<cputune><vcpupin vcpu='0' cpuset='0'/></cputune>")
        .with(|w| w.b.cells = vec![CellState { cpus: (0..8).collect(), ..Default::default() }])
        .is(P::Pinning, Warn, &["4 CPUs on `a`", "8 CPUs on `b`"]);
}

#[test]
fn huge_pages_must_be_free() {
    let huge = |pages: &str| {
        World::new().machine("", &format!("<memoryBacking><hugepages>{pages}</hugepages></memoryBacking>"))
    };
    let pages = |total, free| {
        move |w: &mut World| {
            w.b.cells[0].huge_pages = [(2048, PagesState { total, free })].into();
            w.b.free_memory = 0;
        }
    };
    huge("").with(pages(600, Some(512))).is(P::HugePages, Pass, &["512 of 600", "needs 512"]);
    huge("").with(pages(600, Some(511))).is(P::HugePages, Block, &["511 of 600 huge pages of 2Mi", "needs 512 (1Gi)"]);
    huge("").with(pages(600, None)).is(P::HugePages, Unknown, &["600"]);
    huge("").with(pages(100, None)).is(P::HugePages, Block, &["100", "in all"]);
    huge("").is(P::HugePages, Block, &["0 of 0"]);
    huge("<page size='1' unit='G'/>").with(pages(600, Some(600))).is(P::HugePages, Block, &["1Gi", "needs 1"]);
    huge("").with(|w| w.b.cells.clear()).is(P::HugePages, Unknown, &[]);
    // They are counted for themselves.
    huge("").with(pages(600, Some(600))).is(P::Memory, Pass, &["huge pages"]);
}
