//! The one-way order of the rooms (ARCHITECTURE.md): reads what each file imports and compares it with the table below.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each room, and the rooms that it may import from; from the ground floor up. A new room stands here first.
const ROOMS: &[(&str, &[&str])] = &[
    // Ground floor: values in, values out.
    ("finding", &[]),
    ("model", &[]),
    ("observed", &["finding", "model"]),
    ("domain_xml", &["finding", "model", "observed"]),
    ("action", &["finding", "model", "observed", "domain_xml"]),
    ("yaml", &["finding", "model"]),
    ("kind", &["finding", "model", "observed", "domain_xml", "action", "yaml"]),
    ("load", &["finding", "model", "observed", "domain_xml", "action", "yaml", "kind"]),
    ("plan", &["finding", "model", "observed", "domain_xml", "action", "kind"]),
    ("render", &["finding", "model", "observed", "domain_xml", "action", "kind", "load", "plan"]),
    // First floor: the outside world. None of these knows another.
    ("source", &["finding", "model", "load"]),
    ("provider", &["finding", "model", "observed", "domain_xml", "action", "kind", "plan"]),
    ("journal", &["finding", "model", "observed", "domain_xml", "action", "kind", "plan"]),
    ("execute", &["finding", "model", "observed", "domain_xml", "action", "kind", "plan", "provider", "journal"]),
    // The operator's configuration, and the log that it sets up.
    ("config", &["model", "source"]),
    ("telemetry", &["config"]),
    // Roof: composition only.
    ("pass", &[GROUND, "source", "provider", "journal", "execute", "config", "telemetry"]),
    ("daemon", &[GROUND, "source", "provider", "journal", "execute", "config", "telemetry", "pass"]),
    ("http", &[GROUND, "source", "provider", "journal", "execute", "config", "telemetry", "pass", "daemon"]),
    ("cli", &[GROUND, "source", "provider", "journal", "execute", "config", "telemetry", "pass", "daemon", "http"]),
];

/// Every room of the ground floor.
const GROUND: &str = "ground floor";
const GROUND_ROOMS: &[&str] =
    &["finding", "model", "observed", "domain_xml", "action", "yaml", "kind", "load", "plan", "render"];

/// Imports against the order that are accepted, each with its reason: from where, of what.
const KNOTS: &[(&str, &str)] = &[
    // A manifest knows where it stands, and that is a finding's place.
    ("model", "finding::Source"),
    // A finding names the resource it is about.
    ("finding", "model::"),
    // Kinds write drafts; what drafts are is the plan's matter. The planner calls kinds through one trait.
    ("kind", "plan::"),
    // The schemas that are published stand in one list, and the plan's is one of them.
    ("load", "plan::Plan"),
];

#[test]
fn imports_follow_the_one_way_order() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> = ROOMS
        .iter()
        .map(|(room, may)| {
            let may = may.iter().flat_map(|m| if *m == GROUND { GROUND_ROOMS.to_vec() } else { vec![*m] });
            (*room, may.collect())
        })
        .collect();
    let mut used_knots = BTreeSet::new();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (file, room) in sources() {
        let Some(may) = allowed.get(room.as_str()) else {
            wrong.push(format!("{}: the room `{room}` is not in the table", file.display()));
            continue;
        };
        seen.insert(room.clone());
        for (line, path) in imports(&file) {
            let target = path.split("::").next().unwrap_or_default();
            if target == room || may.contains(target) {
                continue;
            }
            match KNOTS.iter().find(|(from, what)| *from == room && path.starts_with(what)) {
                Some(knot) => {
                    used_knots.insert(knot);
                }
                None => wrong.push(format!("{}:{line}: `{room}` may not import `{path}`", file.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the order of ARCHITECTURE.md:\n{}", wrong.join("\n"));
    let known: BTreeSet<String> = ROOMS.iter().map(|(room, _)| room.to_string()).collect();
    assert_eq!(seen, known, "the table has the rooms that are there");
    let unused: Vec<_> = KNOTS.iter().filter(|k| !used_knots.contains(k)).collect();
    assert!(unused.is_empty(), "knots that are gone can be taken off the list: {unused:?}");
}

#[test]
fn no_provider_knows_another() {
    let folder = root().join("src/provider");
    let providers: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_dir())
        .map(|p| p.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert!(providers.len() >= 2, "{providers:?}");
    for provider in &providers {
        for file in rust_files(&folder.join(provider)) {
            let text = code(&file);
            for other in providers.iter().filter(|o| *o != provider) {
                for path in
                    [format!("provider::{other}"), format!("super::{other}::"), format!("super::super::{other}")]
                {
                    assert!(!text.contains(&path), "{} imports `{path}`", file.display());
                }
            }
        }
    }
}

#[test]
fn the_map_of_the_house_names_every_room() {
    let map = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let plan = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for (room, _) in ROOMS {
        assert!(map.contains(&format!("[`{room}`]")), "src/lib.rs does not tell what `{room}` is");
        assert!(plan.contains(&format!("`{room}`")), "ARCHITECTURE.md does not tell what `{room}` is");
    }
}

#[test]
fn the_reader_of_imports_reads_every_form() {
    let paths = |text: &str| imports_of(text).into_iter().map(|(_, p)| p).collect::<Vec<_>>();
    assert_eq!(paths("use crate::plan::{Plan, Step};"), ["plan::{Plan"]);
    assert_eq!(paths("let x = crate::load::nearest(a, b);"), ["load::nearest"]);
    assert_eq!(paths("use crate::{model::Span, plan};"), ["model::Span", "plan"]);
    assert_eq!(paths("/// See [`crate::load`]."), Vec::<String>::new());
    assert_eq!(paths("use crate::{\n    model::{A, B},\n    plan::C,\n};"), ["model::{A", "plan::C"]);
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file with its room. Tests may use what they like: modules that are only compiled for them do not count.
fn sources() -> Vec<(PathBuf, String)> {
    let src = root().join("src");
    let files = rust_files(&src);
    let mut for_tests = BTreeSet::new();
    for file in &files {
        let folder = if file.ends_with("mod.rs") { file.parent().unwrap().to_owned() } else { file.with_extension("") };
        for after in code(file).split("#[cfg(test)]\n").skip(1) {
            let declared = after.lines().next().unwrap_or_default().trim();
            if let Some(name) = declared.strip_suffix(';').and_then(|d| d.rsplit_once("mod ")).map(|(_, n)| n) {
                for_tests.insert(folder.join(format!("{name}.rs")));
            }
        }
    }
    files
        .into_iter()
        .filter(|file| !for_tests.contains(file))
        .filter_map(|file| {
            let below = file.strip_prefix(&src).unwrap();
            let first = below.components().next().unwrap().as_os_str().to_str().unwrap();
            let room = first.strip_suffix(".rs").unwrap_or(first).to_owned();
            (room != "lib" && room != "main").then_some((file, room))
        })
        .collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn code(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap()
}

fn imports(file: &Path) -> Vec<(usize, String)> {
    let text = code(file);
    // A module of tests stands at the end of its file.
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    imports_of(&text[..end])
}

/// Paths within the crate that a text names, without `crate::`, up to the first thing that is no part of a name; with
/// their lines. Comments do not count.
fn imports_of(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().map(|l| if l.trim_start().starts_with("//") { "" } else { l }).collect();
    let text = lines.join("\n");
    for (at, _) in text.match_indices("crate::") {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let line = text[..at].matches('\n').count() + 1;
        let rest = &text[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push((line, name(rest)));
            continue;
        };
        let (mut depth, mut start) = (1, 0);
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if (c == ',' && depth == 1) || depth == 0 {
                let part = group[start..i].trim();
                if !part.is_empty() {
                    found.push((line, name(part)));
                }
                start = i + 1;
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

fn name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '{')).collect()
}
