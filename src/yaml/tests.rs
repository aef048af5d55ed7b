//! The reader: types of scalars, places, limits, and that any text is read or refused.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn read(text: &str) -> (Vec<Value>, Vec<Finding>) {
    let mut reader = Reader::new("a.yaml", text, &Limits::default());
    let mut values = Vec::new();
    while let Some(next) = reader.next_document() {
        match next {
            Next::Document(d) => values.push(d.value),
            Next::Empty => values.push(Value::Null),
            Next::Lost => {}
        }
    }
    (values, reader.findings)
}

#[test]
fn plain_scalars_are_typed_by_the_core_schema() {
    for (text, value) in [
        ("no", json!("no")),
        ("off", json!("off")),
        ("y", json!("y")),
        ("017", json!("017")),
        ("-017", json!("-017")),
        ("0o17", json!(15)),
        ("0x1F", json!(31)),
        ("0b11", json!("0b11")),
        ("1_000", json!("1_000")),
        ("1e3", json!(1000.0)),
        ("-0", json!(0)),
        ("+7", json!(7)),
        (".5", json!(0.5)),
        ("5.", json!(5.0)),
        (".", json!(".")),
        ("-", json!([null])),
        ("1.2.3", json!("1.2.3")),
        ("52:54:00", json!("52:54:00")),
        ("2026-11-22", json!("2026-11-22")),
        ("18446744073709551615", json!(u64::MAX)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("True", json!(true)),
        ("tRUE", json!("tRUE")),
        ("Null", json!(null)),
        ("'true'", json!("true")),
        ("\"1\"", json!("1")),
        ("infinity", json!("infinity")),
        ("nan", json!("nan")),
    ] {
        let (values, findings) = read(text);
        assert_eq!((values, findings.len()), (vec![value], 0), "{text}");
    }
}

#[test]
fn numbers_that_would_be_rounded_are_refused() {
    for text in [
        "18446744073709551616",
        "-9223372036854775809",
        ".inf",
        "-.Inf",
        "+.INF",
        ".nan",
        "1e999",
        "0xfffffffffffffffff",
    ] {
        let (_, findings) = read(text);
        assert_eq!(findings.first().map(|f| f.code), Some(Code::WrongValue), "{text}");
    }
}

#[test]
fn a_value_stands_where_it_is_written_or_where_its_key_is() {
    let text = "a: 1\nb:\n  - x\n  - {c: [y,\n    z]}\nd:\n  e: |\n    text\n";
    let mut reader = Reader::new("a.yaml", text, &Limits::default());
    let Some(Next::Document(d)) = reader.next_document() else { panic!() };
    for (pointer, place) in [
        ("", (1, 1)),
        ("/a", (1, 4)),
        ("/b", (2, 1)),
        ("/b/0", (3, 5)),
        ("/b/1", (4, 5)),
        ("/b/1/c", (4, 9)),
        ("/b/1/c/1", (5, 5)),
        ("/d", (6, 1)),
        ("/d/e", (7, 3)),
    ] {
        assert_eq!(d.positions.exact(pointer), Some(place), "{pointer}");
    }
    assert_eq!(Positions::from_pointers(d.keys).exact("/d/e"), Some((7, 3)));
}

#[test]
fn the_limits_are_the_ones_given() {
    let limits = Limits { depth: 3, nodes: 5, documents: 2, ..Limits::default() };
    let count = |text: &str| {
        let mut reader = Reader::new("a.yaml", text, &limits);
        while reader.next_document().is_some() {}
        reader.findings.iter().map(|f| f.code).collect::<Vec<_>>()
    };
    assert_eq!(count("[[1]]"), []);
    assert_eq!(count("[[[1]]]"), [Code::Limit]);
    assert_eq!(count("a:\n b:\n  c: {}\n"), [Code::Limit]);
    assert_eq!(count("[1, 2, 3, 4]"), []);
    assert_eq!(count("[1, 2, 3, 4, 5]"), [Code::Limit]);
    assert_eq!(count("--- 1\n--- 2\n"), []);
    assert_eq!(count("--- 1\n--- 2\n--- 3\n--- [\n"), [Code::Limit]);
}

#[test]
fn after_a_limit_the_next_document_is_read_and_has_its_own_place() {
    let limits = Limits { nodes: 5, ..Limits::default() };
    let many = "[1, 2, 3,\n4, 5]\nb: {}\n";
    for (text, place) in [
        (format!("{many}--- text\n---\nc: d\n"), (6, 1)),
        (format!("# é\n---\n{many}---\nc: d\n"), (7, 1)),
        (format!("{many} ---\n---x\n...\n---\nc: d\n"), (8, 1)),
        (format!("{many}--- |\n a\n---\tc\n---\nc: d\n").replace('\n', "\r\n"), (8, 1)),
        (format!("{many}--- {many}---\nc: d\n").replace('\n', "\r"), (8, 1)),
    ] {
        let mut reader = Reader::new("a.yaml", &text, &limits);
        let mut last = None;
        while let Some(next) = reader.next_document() {
            if let Next::Document(d) = next {
                last = Some((d.value, (d.line, d.column)));
            }
        }
        assert_eq!(last, Some((json!({"c": "d"}), place)), "{text:?}: {:?}", reader.findings);
        assert_eq!(reader.findings[0].code, Code::Limit);
    }
    let text = format!("{many}rest: ---\n");
    let mut reader = Reader::new("a.yaml", &text, &limits);
    assert!(matches!(reader.next_document(), Some(Next::Lost)) && reader.next_document().is_none());
}

fn trees() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "[a-zA-Z0-9 _.:/#~+-]{0,12}".prop_map(Value::from),
        "[^\\p{C}\u{2028}\u{2029}]{0,8}".prop_map(Value::from),
        "[a-z]{1,6}(\n[a-z ]{0,6}){1,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::btree_map("[a-zA-Z0-9][a-zA-Z0-9_/. -]{0,8}", inner, 0..6)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    /// What Drover writes with serde_yaml it reads back, and both read the same tree.
    #[test]
    fn harmless_text_is_the_same_tree_to_serde_yaml(tree in trees()) {
        let text = serde_yaml::to_string(&tree).unwrap();
        let (values, findings) = read(&text);
        prop_assert_eq!(&findings, &[], "{}", text);
        prop_assert_eq!(&values, &[tree], "{}", text);
        let theirs: Value = serde_yaml::from_str(&text).unwrap();
        prop_assert_eq!(&values[0], &theirs);
    }

    /// JSON is YAML.
    #[test]
    fn json_is_read_as_it_is(tree in trees()) {
        let (values, findings) = read(&tree.to_string());
        prop_assert_eq!(&findings, &[]);
        prop_assert_eq!(&values, &[tree]);
    }

    #[test]
    fn arbitrary_text_is_read_or_refused(text in "[ \n\t:{}\\[\\],\"'&*!|>%@`#a-c0-9?~<.\\\\-]{0,80}") {
        let (_, findings) = read(&text);
        for f in findings {
            prop_assert!(f.source.is_some_and(|s| s.line >= 1 && s.column >= 1));
        }
    }
}
