//! Text to resources, as a whole: a corpus of good and bad manifests, hostile input within its bounds, and properties.

use drover::finding::{Code, Finding};
use drover::load::{Limits, Loaded, MemoryTree, load};
use drover::model::Revision;
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

fn run(tree: &MemoryTree) -> Loaded {
    let loaded = load(tree, Revision::default(), &Limits::default());
    let error = loaded.findings.iter().any(Finding::is_error);
    assert_eq!(loaded.desired.is_none(), error, "resources and errors exclude each other: {:#?}", loaded.findings);
    loaded
}

fn run_text(text: impl Into<Vec<u8>>) -> Loaded {
    run(&MemoryTree::new().with("a.yaml", text))
}

/// One line for each finding: code, place, message.
fn lines(findings: &[Finding]) -> Vec<String> {
    let line = |f: &Finding| match &f.source {
        Some(s) => format!("{} {s} {}", f.code, f.message),
        None => format!("{} - {}", f.code, f.message),
    };
    findings.iter().map(line).collect()
}

fn cases(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(folder);
    let mut all: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    all.retain(|p| p.is_dir() || p.extension().is_some_and(|e| e == "yaml"));
    all.sort();
    assert!(!all.is_empty());
    all
}

/// A case is a file, or a folder of files.
fn tree_of(case: &Path) -> MemoryTree {
    let name = |p: &Path| p.file_name().unwrap().to_str().unwrap().to_owned();
    if case.is_file() {
        return MemoryTree::new().with(name(case), fs::read(case).unwrap());
    }
    fs::read_dir(case).unwrap().fold(MemoryTree::new(), |tree, entry| {
        let path = entry.unwrap().path();
        tree.with(name(&path), fs::read(&path).unwrap())
    })
}

#[test]
fn valid_manifests_have_no_finding() {
    for case in cases("valid") {
        let loaded = run(&tree_of(&case));
        assert_eq!(lines(&loaded.findings), Vec::<String>::new(), "{}", case.display());
        assert!(!loaded.desired.unwrap().resources.is_empty());
    }
}

/// Beside each case stands what is to be found, a line each: code, place, and a part of the message.
/// `BLESS=1` writes the files anew; read the difference before you commit it.
#[test]
fn invalid_manifests_have_exactly_the_findings_beside_them() {
    for case in cases("invalid") {
        let found = lines(&run(&tree_of(&case)).findings);
        let beside = case.with_extension("findings");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&beside, found.join("\n") + "\n").unwrap();
        }
        let expected = fs::read_to_string(&beside).unwrap_or_else(|e| panic!("{}: {e}", beside.display()));
        let expected: Vec<&str> = expected.lines().collect();
        let place = |l: &str| l.splitn(3, ' ').take(2).map(str::to_owned).collect::<Vec<_>>();
        let fits = expected.len() == found.len()
            && expected
                .iter()
                .zip(&found)
                .all(|(e, f)| place(e) == place(f) && f.contains(e.splitn(3, ' ').nth(2).unwrap_or_default()));
        assert!(fits, "{}:\nexpected\n  {}\nfound\n  {}", case.display(), expected.join("\n  "), found.join("\n  "));
    }
}

/// CPU time of this thread: unlike wall time it does not depend on what else the machine does.
fn cpu_millis() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<u64>().unwrap() / 1_000_000
}

/// The promise is 50 ms for each MB of at most 4 MB. An unoptimised build is ten to thirty times slower, more so on an
/// old machine; what grows with the square of the size would take minutes in it.
const BOUND_MILLIS: u64 = if cfg!(debug_assertions) { 10_000 } else { 200 };

/// Runs a hostile input: it is refused with one of the codes, in bounded time.
fn refused(name: &str, text: impl Into<Vec<u8>>, codes: &[Code]) {
    let tree = MemoryTree::new().with("a.yaml", text);
    let start = cpu_millis();
    let loaded = run(&tree);
    let took = cpu_millis() - start;
    assert!(loaded.findings.iter().any(|f| codes.contains(&f.code)), "{name}: {:#?}", lines(&loaded.findings));
    assert!(loaded.findings.len() <= Limits::default().findings + 1, "{name}");
    assert!(loaded.findings.iter().all(|f| f.message.len() < 1000), "{name}: short messages, whatever the input");
    assert!(took < BOUND_MILLIS, "{name} took {took} ms");
}

#[test]
fn nothing_expands() {
    let mut laughs = "a0: &a0 lol\n".to_owned();
    for i in 1..20 {
        laughs += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(", "));
    }
    refused("billion laughs", laughs, &[Code::Forbidden]);
    let quadratic = format!("a: &a {}\nb: [{}]\n", "x".repeat(1000), vec!["*a"; 20_000].join(","));
    refused("one anchor, many aliases", quadratic, &[Code::Forbidden]);
    refused("an anchor within itself", "a: &a [*a]\n", &[Code::Forbidden]);
    refused("an alias of nothing", "a: *nothing\n", &[Code::Forbidden]);
    refused("merge keys", "a: {<<: {b: 1}}\n", &[Code::Forbidden]);
    refused("tags", "a: !!python/object/apply:os.system [x]\nb: !foo 1\nc: !!binary YQ==\n", &[Code::Forbidden]);
    refused("directives", "%TAG !e! tag:example.com,2000:\n---\na: !e!x 1\n", &[Code::Forbidden]);
}

#[test]
fn depth_is_bounded() {
    refused("100,000 lists in one line", "[".repeat(100_000), &[Code::Limit]);
    refused("50,000 mappings in one line", "{a: ".repeat(50_000), &[Code::Limit]);
    let block: String = (0..2000).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    refused("2,000 nested mappings", block, &[Code::Limit]);
    refused("1,000,000 dashes", "- ".repeat(1_000_000), &[Code::Limit]);
    refused("1,000,000 question marks", "? ".repeat(1_000_000), &[Code::Limit, Code::Forbidden]);
}

#[test]
fn size_is_bounded() {
    refused("200,000 documents", "---\na: 1\n".repeat(200_000), &[Code::Limit]);
    refused("1,000,000 empty documents", "---\n".repeat(1_000_000), &[Code::Limit]);
    refused("300,000 keys", (0..300_000).map(|i| format!("k{i}: 1\n")).collect::<String>(), &[Code::Limit]);
    refused("a scalar of 32 MB", format!("a: {}\n", "x".repeat(32 << 20)), &[Code::Limit]);
    refused("a scalar of 4 MB", format!("a: {}\n", "x".repeat((4 << 20) - 10)), &[Code::NotUnderstood]);
    refused("a key of 1 MB", format!("{}: 1\n", "k".repeat(1 << 20)), &[Code::Syntax]);
    refused("a quoted key of 1 MB", format!("? \"{}\"\n: 1\n", "k".repeat(1 << 20)), &[Code::NotUnderstood]);
    refused("2,000,000 lines of comments", "#\n".repeat(2_000_000) + "a: 1\n", &[Code::NotUnderstood]);
    refused("4 MB of blank lines", "\n".repeat((4 << 20) - 10) + "a: 1\n", &[Code::NotUnderstood]);
    refused("4 MB of blanks", " ".repeat((4 << 20) - 10) + "a: 1\n", &[Code::NotUnderstood, Code::Syntax]);
    refused("an open quote", format!("a: \"{}", "\\\"".repeat(2_000_000)), &[Code::Syntax]);
    refused("colons", ":".repeat(4_000_000), &[Code::NotUnderstood, Code::Syntax, Code::Limit]);
    refused("unbalanced brackets in many documents", "---\n[\n".repeat(9_000), &[Code::Syntax]);
}

#[test]
fn many_errors_in_one_document_stay_few_findings() {
    let head = "apiVersion: drover/v1alpha1\nkind: VirtualMachine\nmetadata: {name: a}\nspec:\n";
    let fields: String = (0..19_000).map(|i| format!("  f{i}: 1\n")).collect();
    refused("19,000 unknown fields", format!("{head}{fields}"), &[Code::UnknownField]);
    let disks = "    - {x: 1}\n".repeat(9_500);
    refused("9,500 wrong disks", format!("{head}  disks:\n{disks}"), &[Code::UnknownField]);
    let patches = "    - {}\n".repeat(19_000);
    refused("19,000 wrong patches", format!("{head}  xmlPatches:\n{patches}"), &[Code::MissingField]);
    let twice = "  a: 1\n".repeat(90_000);
    refused("one key 90,000 times", format!("{head}{twice}"), &[Code::DuplicateKey]);
}

#[test]
fn a_file_of_errors_is_read_until_there_are_as_many_as_are_kept() {
    let limits = Limits { findings: 10, ..Limits::default() };
    let said = |documents: usize, text: &str| {
        let tree = MemoryTree::new().with("a.yaml", text.repeat(documents));
        let loaded = load(&tree, Revision::default(), &limits);
        loaded.findings.last().map(|f| f.message.clone()).unwrap_or_default()
    };
    for text in ["---\na: 1\n", "---\n[\n"] {
        assert!(!said(10, text).starts_with("and "), "all are kept");
        assert_eq!(
            said(10_000, text),
            "and 2 more errors",
            "{text:?}: the first that is not kept, and that it ends there"
        );
    }
}

#[test]
fn a_file_of_100_mb_is_refused_before_it_is_read() {
    /// A tree whose one file must not be read.
    struct Large;
    impl drover::load::Tree for Large {
        fn list(&self) -> Result<drover::load::Listing, drover::load::TreeError> {
            let entry = drover::load::Entry { path: "a.yaml".into(), size: 100 << 20, blob: None };
            Ok(drover::load::Listing { files: vec![entry], notes: Vec::new() })
        }
        fn read(&self, path: &str, _: u64) -> Result<Vec<u8>, drover::load::TreeError> {
            panic!("{path} is read")
        }
    }
    let loaded = load(&Large, Revision::default(), &Limits::default());
    assert_eq!(lines(&loaded.findings), ["D0104 a.yaml:1:1 `a.yaml` has 104857600 bytes; at most 4194304 are allowed"]);
    let few = Limits { total_bytes: 1 << 20, ..Limits::default() };
    let loaded = load(&Large, Revision::default(), &few);
    assert_eq!(loaded.findings[0].code, Code::Limit);
    let none = Limits { files: 0, ..Limits::default() };
    assert_eq!(load(&Large, Revision::default(), &none).findings[0].code, Code::Limit);
}

#[test]
fn encodings_are_told_apart() {
    let good = "apiVersion: drover/v1alpha1\nkind: Host\nmetadata:\n  name: a\nspec:\n  uri: 'sim:'\n";
    let resources = |text: Vec<u8>| run_text(text).desired.map(|d| d.resources.hosts["a"].spec.clone());
    let plain = resources(good.into());
    assert!(plain.is_some());
    assert_eq!(resources(format!("\u{feff}{good}").into()), plain, "a byte order mark is harmless");
    assert_eq!(resources(good.replace('\n', "\r\n").into()), plain, "so are carriage returns");
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(good.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    assert_eq!(
        lines(&run_text(utf16).findings),
        ["D0102 a.yaml:1:1 the file looks like UTF-16: byte order mark at byte 0"]
    );
    let nul = good.replace("Host", "Ho\0st");
    assert_eq!(lines(&run_text(nul).findings), ["D0102 a.yaml:2:9 a NUL byte at byte 36"]);
    let latin: Vec<u8> = good.bytes().map(|b| if b == b'H' { 0xe4 } else { b }).collect();
    assert_eq!(
        lines(&run_text(latin).findings),
        ["D0102 a.yaml:2:7 the byte 0xe4 is not part of UTF-8 text at byte 34"]
    );
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_read_or_refused() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/valid/full.yaml")).unwrap();
    let whole = run_text(text.clone()).desired.unwrap().resources;
    for cut in (0..text.len()).filter(|i| text.is_char_boundary(*i)) {
        let Some(desired) = run_text(&text.as_bytes()[..cut]).desired else { continue };
        // What is accepted says nothing that the whole does not say by then: no name is cut.
        for (id, _, _) in desired.resources.ids() {
            assert!(whole.ids().any(|(other, _, _)| other == id), "{id} at byte {cut}");
        }
    }
}

#[test]
fn files_are_all_checked_and_reported_in_order() {
    let good = |i: usize| {
        format!("apiVersion: drover/v1alpha1\nkind: Host\nmetadata: {{name: h{i}}}\nspec: {{uri: 'sim:'}}\n")
    };
    let mut tree = MemoryTree::new();
    for i in 0..500 {
        let text = if [3, 7, 450].contains(&i) { good(i).replace("uri", "url") } else { good(i) };
        tree = tree.with(format!("f{i:03}.yaml"), text);
    }
    let loaded = run(&tree);
    let files: Vec<_> = loaded.findings.iter().map(|f| f.source.as_ref().unwrap().file.as_str()).collect();
    assert_eq!(files, ["f003.yaml", "f007.yaml", "f450.yaml"]);
    let few = Limits { findings: 2, ..Limits::default() };
    let loaded = load(&tree, Revision::default(), &few);
    assert_eq!(loaded.findings.len(), 3);
    assert_eq!((loaded.findings[2].message.as_str(), loaded.findings[2].is_error()), ("and 1 more error", true));
}

#[test]
fn files_without_a_document_are_noted() {
    for text in ["", "# nothing\n", "---\n", "---\n---\n", "null\n", "~\n"] {
        let loaded = run_text(text);
        assert_eq!(lines(&loaded.findings), ["D0107 a.yaml:1:1 the file has no document"], "{text:?}");
    }
    assert_eq!(lines(&run(&MemoryTree::new()).findings).len(), 1);
    let mixed = "---\n---\napiVersion: drover/v1alpha1\nkind: Host\nmetadata: {name: a}\nspec: {uri: 'sim:'}\n---\n";
    assert_eq!(lines(&run_text(mixed).findings), Vec::<String>::new(), "an empty document beside others is nothing");
}

fn vm(xml: &str) -> String {
    format!(
        "--- {{apiVersion: drover/v1alpha1, kind: Host, metadata: {{name: a}}, spec: {{uri: 'sim:'}}}}\n\
         --- {{apiVersion: drover/v1alpha1, kind: VirtualMachine, metadata: {{name: v}}, spec: {{host: a, xml: {xml}}}}}\n"
    )
}

#[test]
fn a_definition_is_read_from_a_file_of_the_tree() {
    let domain = "<domain><name>v</name></domain>";
    let tree = |reference: &str| {
        MemoryTree::new()
            .with("prod/vms.yaml", vm(&format!("{{file: {reference}}}")))
            .with("prod/xml/v.xml", domain)
            .with("v.xml", domain)
            .with("prod/latin.xml", [b'<', 0xe4, b'>'])
    };
    for good in ["xml/v.xml", "./xml/v.xml", "../v.xml"] {
        let desired = run(&tree(good)).desired.unwrap();
        let xml = desired.resources.virtual_machines["v"].spec.xml.clone().unwrap();
        assert_eq!(xml.inline.as_deref(), Some(domain), "{good}");
    }
    for (bad, code) in [
        ("../../etc/passwd", Code::OutsideTree),
        ("/etc/passwd", Code::OutsideTree),
        ("'..\\v.xml'", Code::OutsideTree),
        ("xml/none.xml", Code::Unreadable),
        ("latin.xml", Code::NotUtf8),
    ] {
        let found = run(&tree(bad)).findings;
        assert_eq!(
            (found.len(), found[0].code, found[0].path.as_deref()),
            (1, code, Some("spec.xml.file")),
            "{bad}: {found:#?}"
        );
        assert_eq!(found[0].source.as_ref().unwrap().line, 2);
    }
    let both = run(&MemoryTree::new().with("a.yaml", vm("{file: v.xml, inline: '<domain/>'}")).with("v.xml", domain));
    assert_eq!(both.findings[0].code, Code::Contradiction);
    let stdin = run(&MemoryTree::stdin(vm("{file: v.xml}")));
    assert_eq!(lines(&stdin.findings), ["D0101 -:2:106 `v.xml` cannot be read beside standard input"]);
}

#[test]
fn files_that_are_read_again_and_again_count_each_time() {
    let mut text = vm("{file: v.xml}");
    for i in 0..20 {
        text += &format!(
            "--- {{apiVersion: drover/v1alpha1, kind: VirtualMachine, metadata: {{name: v{i}}}, spec: {{host: a, xml: {{file: v.xml}}}}}}\n"
        );
    }
    let tree =
        MemoryTree::new().with("a.yaml", text).with("v.xml", format!("<domain>{}</domain>", " ".repeat(100_000)));
    let limits = Limits { total_bytes: 1 << 20, ..Limits::default() };
    let found = load(&tree, Revision::default(), &limits).findings;
    assert!(found.iter().any(|f| f.code == Code::Limit), "{found:#?}");
}

#[cfg(feature = "daemon")]
#[test]
fn a_link_to_a_password_file_is_not_a_manifest() {
    use drover::source::folder::FolderTree;
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("passwd.yaml")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("v.xml")).unwrap();
    fs::write(dir.path().join("a.yaml"), vm("{file: v.xml}")).unwrap();
    let loaded = load(&FolderTree::open(dir.path()).unwrap(), Revision::default(), &Limits::default());
    assert_eq!(
        lines(&loaded.findings),
        [
            "D0108 a.yaml:2:106 `v.xml` is a symbolic link",
            "D0107 passwd.yaml:1:1 a symbolic link is not followed",
            "D0107 v.xml:1:1 a symbolic link is not followed",
        ]
    );
}

/// Values that YAML and JSON agree about: no anchors, tags, numbers at the edge.
fn harmless() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        "[a-zA-Z0-9 _.:/#-]{0,12}".prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        "[a-z]{1,6}(\n[a-z ]{0,6}){1,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::btree_map("[a-zA-Z][a-zA-Z0-9_-]{0,8}", inner, 0..5)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Labels and annotations are the one place that takes any text, so whole manifests are compared there; the tree as
    /// such is compared in the loader's own tests.
    #[test]
    fn text_comes_back_as_it_was_written(values in prop::collection::btree_map("[a-z]{1,8}", "\\PC{0,20}|[ -~\n]{0,20}", 0..6)) {
        let manifest = serde_json::json!({
            "apiVersion": "drover/v1alpha1", "kind": "Host",
            "metadata": {"name": "a", "annotations": values}, "spec": {"uri": "sim:"},
        });
        let text = serde_yaml::to_string(&manifest).unwrap();
        // The writer follows YAML 1.1, to which U+2028 and U+2029 are line breaks; in YAML 1.2 they are text.
        prop_assume!(!text.contains(|c: char| (c.is_control() && c != '\n') || matches!(c, '\u{2028}' | '\u{2029}')));
        let loaded = run_text(text.clone());
        let desired = loaded.desired.unwrap_or_else(|| panic!("{text}\n{:#?}", loaded.findings));
        prop_assert_eq!(&desired.resources.hosts["a"].metadata.annotations, &values);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        run_text(bytes);
    }

    #[test]
    fn arbitrary_text_never_panics(text in "[ \n\t:{}\\[\\],\"'&*!|>%@`#a-c0-9?~<.-]{0,200}") {
        run_text(format!("{text}\n"));
        run_text(format!("apiVersion: drover/v1alpha1\nkind: VirtualMachine\nmetadata: {{name: a}}\nspec:\n  {text}\n"));
    }

    #[test]
    fn any_tree_in_place_of_a_spec_is_judged(spec in harmless(), kind in prop::sample::select(vec!["Host", "VirtualMachine", "StoragePool", "MigrationPolicy", "Settings"])) {
        let manifest = serde_json::json!({"apiVersion": "drover/v1alpha1", "kind": kind, "metadata": {"name": "a"}, "spec": spec});
        for finding in run_text(manifest.to_string()).findings {
            prop_assert!(finding.source.is_some() && !finding.message.is_empty(), "{finding:?}");
        }
    }
}

/// `count` machines of about 800 bytes each, in files of 100, with their hosts and pools.
fn fleet(count: usize) -> MemoryTree {
    let mut tree = MemoryTree::new();
    let hosts: String = (0..20)
        .map(|i| format!("---\napiVersion: drover/v1alpha1\nkind: Host\nmetadata:\n  name: kvm-{i:02}\n  labels: {{rack: r{}}}\nspec:\n  uri: 'sim:'\n", i % 4))
        .collect();
    let names: Vec<String> = (0..20).map(|i| format!("kvm-{i:02}")).collect();
    tree = tree.with("hosts.yaml", hosts).with(
        "pools.yaml",
        format!(
            "apiVersion: drover/v1alpha1\nkind: StoragePool\nmetadata:\n  name: images\nspec:\n  hosts: [{}]\n  type: netfs\n  \
             source: {{host: nfs.example.com, path: /srv}}\n  target: /images\n  shared: true\n",
            names.join(", ")
        ),
    );
    let machine = |i: usize| {
        format!(
            "---\n# Machine {i} of the fleet.\napiVersion: drover/v1alpha1\nkind: VirtualMachine\nmetadata:\n  name: vm-{i:05}\n  labels:\n    \
             app: shop\n    tier: backend\n    owner: team-{}\nspec:\n  host: kvm-{:02}\n  powerState: Running\n  cpus: 4\n  maxCpus: 8\n  \
             memory: 8Gi\n  maxMemory: 16Gi\n  machine: q35\n  firmware: uefi\n  cpu:\n    mode: host-model\n  disks:\n    - name: root\n      \
             pool: images\n      size: 20Gi\n      format: qcow2\n      bus: virtio\n      image: base/debian-12.qcow2\n      bootOrder: 1\n    \
             - name: data\n      pool: images\n      size: 100Gi\n      format: raw\n      cache: none\n  interfaces:\n    - network: default\n      \
             model: virtio\n      mac: 52:54:00:{:02x}:{:02x}:{:02x}\n  autostart: true\n  restartPolicy: Never\n  deletionPolicy: Orphan\n  drift: Correct\n",
            i % 7,
            i % 20,
            i >> 16,
            (i >> 8) & 255,
            i & 255
        )
    };
    for file in 0..count.div_ceil(100) {
        let text: String = (file * 100..count.min(file * 100 + 100)).map(machine).collect();
        tree = tree.with(format!("vms/{file:04}.yaml"), text);
    }
    tree
}

fn time_fleet(count: usize) -> u64 {
    let tree = fleet(count);
    let start = cpu_millis();
    let loaded = run(&tree);
    let took = cpu_millis() - start;
    assert_eq!(loaded.desired.unwrap().resources.virtual_machines.len(), count);
    took
}

#[test]
fn time_grows_with_the_number_of_manifests_and_no_faster() {
    time_fleet(10);
    let (few, many) = (time_fleet(300), time_fleet(3000));
    assert!(many < 20 * few.max(1), "300 took {few} ms, 3,000 took {many} ms");
}

/// `cargo test --release --test it load::speed -- --ignored --nocapture`: the goal is 20,000 manifests a CPU second.
#[test]
#[ignore = "a measurement"]
fn speed() {
    time_fleet(100);
    for count in [1_000, 10_000, 50_000] {
        let took = time_fleet(count).max(1);
        println!("{count} manifests: {took} ms of CPU, {} a second", count as u64 * 1000 / took);
    }
}

/// A line of /proc/self/status, in KiB.
fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|l| l.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Inputs that make readers use the most memory for their size.
fn heavy(case: usize) -> Option<String> {
    let head = "apiVersion: drover/v1alpha1\nkind: VirtualMachine\nmetadata: {name: a}\nspec:\n";
    Some(match case {
        0 => format!("{head}  disks:\n{}", "    - {x: 1}\n".repeat(45_000)),
        1 => format!("{head}  xmlPatches:\n{}", "    - {}\n".repeat(19_000)),
        2 => (0..90_000).map(|i| format!("k{i}: [1]\n")).collect(),
        3 => format!("a: {}\n", "x".repeat((4 << 20) - 10)),
        4 => "---\na: 1\n".repeat(200_000),
        5 => "[".repeat(4_000_000),
        6 => format!("{head}  formerNames: [{}]\n", "a,".repeat(90_000)),
        7 => format!("{head}{}", "  a: 1\n".repeat(90_000)),
        _ => return None,
    })
}

#[test]
#[ignore = "run by `memory_is_bounded` in a process of its own"]
fn memory_child() {
    let case = std::env::var("HEAVY").unwrap().parse().unwrap();
    let tree = MemoryTree::new().with("a.yaml", heavy(case).unwrap());
    let before = status("VmRSS");
    run(&tree);
    println!("extra={}", status("VmHWM").saturating_sub(before));
}

#[test]
fn memory_is_bounded() {
    for case in (0..).take_while(|c| heavy(*c).is_some()) {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "load::memory_child", "--ignored", "--nocapture", "--test-threads=1"])
            .env("HEAVY", case.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let extra =
            text.split("extra=").nth(1).and_then(|t| t.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
        let extra = extra.unwrap_or_else(|| panic!("case {case}: {text}\n{}", String::from_utf8_lossy(&output.stderr)));
        assert!(extra < 64 << 10, "case {case} took {extra} KiB");
    }
}
