//! docs/migration-cases.md: every case stands there once, and every test that it names is there.

use std::path::Path;

/// The last case's number.
const CASES: u32 = 84;

/// A row of the table, which begins with a number: its cells.
fn row(line: &str) -> Option<(u32, Vec<&str>)> {
    let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
    Some((cells.first()?.parse().ok()?, cells))
}

/// Names of tests in a cell: all that stands between backticks, has `::` in it, and is a path.
pub fn tests(cell: &str) -> impl Iterator<Item = &str> {
    let is_path =
        |name: &&str| name.contains("::") && !name.contains(|c: char| c != ':' && c != '_' && !c.is_alphanumeric());
    cell.split('`').skip(1).step_by(2).filter(is_path)
}

/// Whether there is a test of this path, in this binary or in the crate.
pub fn exists(path: &str) -> bool {
    ["tests/it", "src"].iter().any(|folder| exists_in(folder, path))
}

fn exists_in(folder: &str, path: &str) -> bool {
    let Some((module, name)) = path.rsplit_once("::") else { return false };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(module.replace("::", "/"));
    // Of a module within a file, such as `tests`, the file above it.
    let above = file.parent().map(|p| p.with_extension("rs")).unwrap_or_default();
    let text = std::fs::read_to_string(file.with_extension("rs"))
        .or_else(|_| std::fs::read_to_string(file.join("mod.rs")))
        .or_else(|_| {
            std::fs::read_to_string(above).map(|t| t.split("\nmod tests {").nth(1).unwrap_or_default().to_owned())
        })
        .unwrap_or_default();
    let mut lines = text.lines();
    let mut is_test = false;
    lines.any(|line| {
        let found = is_test && line.trim_start().trim_start_matches("async ").starts_with(&format!("fn {name}("));
        let attribute = line.trim_start().starts_with("#[");
        is_test = attribute && (is_test || line.contains("test"));
        found
    })
}

#[test]
fn every_case_is_tested_or_said_to_be_impossible_here() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/migration-cases.md");
    let text = std::fs::read_to_string(file).unwrap();
    let rows: Vec<_> = text.lines().filter_map(row).collect();
    let numbers: Vec<u32> = rows.iter().map(|(n, _)| *n).collect();
    assert_eq!(numbers, (1..=CASES).collect::<Vec<_>>(), "each case once, and in order");
    let mut wrong = Vec::new();
    for (number, cells) in &rows {
        let &[_, case, does, cell] = cells.as_slice() else { panic!("case {number} has {} cells", cells.len()) };
        if case.is_empty() || does.is_empty() {
            wrong.push(format!("case {number} says nothing"));
        }
        let why = cell.split_once("not here: ").map(|(_, why)| why);
        if tests(cell).next().is_none() && why.is_none_or(|w| w.len() < 10) {
            wrong.push(format!("case {number} has neither a test nor a reason"));
        }
        wrong.extend(tests(cell).filter(|t| !exists(t)).map(|t| format!("case {number}: there is no test {t}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_not_there_is_noticed() {
    assert!(exists("migration_cases::what_is_not_there_is_noticed"));
    assert!(!exists("migration_cases::row"), "not every function is a test");
    assert!(
        exists("kind::virtual_machine::precheck::tests::topology::pinning_needs_the_cpus_and_nodes"),
        "one of the crate's"
    );
    assert!(exists("cli::progress::tests::a_migration_shows_its_figures_in_one_line"), "within a file");
    assert!(!exists("cli::progress::tests::figures"), "not every function is a test");
    assert!(!exists("cli::progress::tests::what_was_never_there"));
    assert!(!exists("migration_cases::what_was_never_there"));
    assert!(!exists("nowhere::what_is_not_there_is_noticed"));
}
