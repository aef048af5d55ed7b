//! The published schemas and the list of findings are those of the binary.

use drover::finding::Code;
use drover::load::schema;
use drover::plan::Precheck;
use std::fs;
use std::path::Path;

/// `BLESS=1 cargo test --test it schemas` and `drover schema --write schemas` write the same files.
#[test]
fn published_schemas_are_those_of_the_binary() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let bless = std::env::var_os("BLESS").is_some();
    let mut names = Vec::new();
    for (name, value) in schema::all() {
        let text = schema::to_text(&value);
        let path = folder.join(&name);
        if bless {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "schemas/{name} is not what the types say: run `drover schema --write schemas`");
        names.push(name);
    }
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&name), "schemas/{name} belongs to no kind: remove it");
    }
}

#[test]
fn every_finding_is_explained() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/findings.md")).unwrap();
    let explained: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("### ")?.split(' ').next()).collect();
    let codes: Vec<&str> = Code::ALL.iter().map(|c| c.as_str()).collect();
    assert_eq!(explained, codes, "docs/findings.md and src/finding/code.rs list the same codes in the same order");
    for section in text.split("\n### ").skip(1) {
        let code = section.split(' ').next().unwrap();
        let code = Code::ALL.iter().find(|c| c.as_str() == code).unwrap();
        let word = format!("({})", code.severity());
        assert!(section.lines().next().unwrap().ends_with(&word), "{code}: the heading ends with {word}");
        for part in ["Cause: ", "Cure: "] {
            assert!(section.contains(part), "{code} has no `{part}`");
        }
    }
}

/// Every precheck has its row, with its code and what it does by itself.
#[test]
fn every_precheck_is_in_the_table() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/prechecks.md")).unwrap();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|l| l.starts_with("| `"))
        .map(|l| l.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let names: Vec<String> = rows.iter().map(|r| r[0].trim_matches('`').to_owned()).collect();
    let all: Vec<&str> = Precheck::ALL.iter().map(|p| p.as_str()).collect();
    assert_eq!(names, all, "docs/prechecks.md and src/plan/check.rs list the same prechecks in the same order");
    for (row, precheck) in rows.iter().zip(Precheck::ALL) {
        assert_eq!(row[1], precheck.code().as_str(), "{precheck}");
        assert!(row[2].starts_with(&format!("{:?}", precheck.treatment())), "{precheck}: {}", row[2]);
        assert_eq!(row[2].contains("fixed"), precheck.is_fixed(), "{precheck}: {}", row[2]);
        assert!(row.len() == 5 && row[3..].iter().all(|cell| !cell.is_empty()), "{precheck}");
    }
}
