//! All files of a tree to one set of resources.

use super::decode::{self, Checked};
use super::{Entry, Limits, Loaded, Tree, TreeError, encoding, text, tree};
use crate::finding::{self, Code, Finding, Severity, Source};
use crate::kind::{Desired, KindInfo, Resources};
use crate::model::{KindName, Origin, ResourceId, Revision};
use crate::yaml::{Next, Reader};
use serde_json::Value;
use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Reads every manifest of a tree. All errors of all files are found in one run; [`Loaded::desired`] is there only when
/// there is none.
pub fn load(tree: &dyn Tree, revision: Revision, limits: &Limits) -> Loaded {
    let mut gather = Gather {
        tree,
        limits,
        findings: Findings::new(limits.findings),
        resources: Resources::default(),
        seen: HashMap::new(),
        named: HashSet::new(),
        budget: limits.total_bytes,
    };
    gather.files();
    let Gather { mut findings, resources, .. } = gather;
    let mut said = Vec::new();
    resources.check(&mut said);
    findings.add(said);
    let valid = !findings.has_error();
    let desired = valid.then_some(Desired { revision, resources });
    Loaded { desired, findings: findings.finish() }
}

/// What one file says.
#[derive(Default)]
struct File {
    manifests: Vec<Checked>,
    findings: Vec<Finding>,
    /// Some document could not be read, or not even its identity is known.
    incomplete: bool,
}

struct Gather<'a> {
    tree: &'a dyn Tree,
    limits: &'a Limits,
    findings: Findings,
    resources: Resources,
    /// Each name as it is written first, and where, by kind and lower-case name.
    seen: HashMap<(KindName, String), (String, Source)>,
    /// Files that manifests name: they may be YAML, and are no manifests.
    named: HashSet<String>,
    /// Bytes that may still be read.
    budget: u64,
}

impl Gather<'_> {
    fn files(&mut self) {
        let listing = match self.tree.list() {
            Ok(listing) => listing,
            Err(e) => {
                self.resources.incomplete = true;
                return self
                    .findings
                    .add(vec![Finding::new(Code::Unreadable, format!("the manifests cannot be listed: {e}"))]);
            }
        };
        self.findings.add(listing.notes);
        if let Some(refusal) = self.too_much(&listing.files) {
            self.resources.incomplete = true;
            return self.findings.add(vec![refusal]);
        }
        if listing.files.is_empty() {
            self.findings.add(vec![
                Finding::new(Code::Ignored, "there is no manifest: no `*.yaml` or `*.yml` file below the path")
                    .severity(Severity::Warning)
                    .hint("check the path"),
            ]);
        }
        let mut strangers = Vec::new();
        for entry in &listing.files {
            let file = match self.read(entry) {
                Ok(bytes) => examine(entry, &bytes, self.limits),
                Err(finding) => File { findings: vec![*finding], incomplete: true, ..File::default() },
            };
            if file.manifests.is_empty() && file.incomplete {
                strangers.push((entry.path.as_str(), file));
            } else {
                self.take(file);
            }
        }
        for (path, file) in strangers {
            if !self.named.contains(path) {
                self.take(file);
            }
        }
    }

    /// Refuses a tree that is too large before anything of it is read.
    fn too_much(&self, files: &[Entry]) -> Option<Finding> {
        let total = files.iter().fold(0u64, |sum, f| sum.saturating_add(f.size));
        let message = if files.len() > self.limits.files {
            format!("there are {} files; at most {} are read", files.len(), self.limits.files)
        } else if total > self.limits.total_bytes {
            format!("the files have {total} bytes together; at most {} are read", self.limits.total_bytes)
        } else {
            return None;
        };
        Some(Finding::new(Code::Limit, message).hint("point Drover at a folder that has only manifests"))
    }

    fn read(&mut self, entry: &Entry) -> Result<Vec<u8>, Box<Finding>> {
        let refuse = |e: TreeError| {
            let code = if matches!(e, TreeError::TooLarge { .. }) { Code::Limit } else { Code::Unreadable };
            let source = Source { file: entry.path.clone(), line: 1, column: 1 };
            let finding = Finding::new(code, e.to_string()).at(source);
            Box::new(if code == Code::Limit { finding.hint("split the file into several") } else { finding })
        };
        let limit = self.limits.file_bytes;
        if entry.size > limit {
            return Err(refuse(TreeError::TooLarge { path: entry.path.clone(), size: entry.size, limit }));
        }
        let bytes = self.tree.read(&entry.path, limit.min(self.budget)).map_err(refuse)?;
        self.budget = self.budget.saturating_sub(bytes.len() as u64);
        Ok(bytes)
    }

    /// Adds what one file says.
    fn take(&mut self, file: File) {
        let mut said = file.findings;
        self.resources.incomplete |= file.incomplete;
        for manifest in file.manifests {
            self.add(manifest, &mut said);
        }
        self.findings.add(said);
    }

    fn add(&mut self, manifest: Checked, said: &mut Vec<Finding>) {
        let Checked { kind, id, origin, name_at, value } = manifest;
        match self.seen.entry((kind.name.clone(), id.name.to_lowercase())) {
            Slot::Vacant(free) => {
                free.insert((id.name.clone(), name_at));
            }
            Slot::Occupied(first) => {
                let (written, place) = first.get();
                let (kind, name) = (&id.kind, text::shorten(&id.name));
                let message = if *written == id.name {
                    format!("there is another {kind} `{name}` at {place}")
                } else {
                    format!(
                        "`{name}` differs from the {kind} `{}` at {place} in nothing but case",
                        text::shorten(written)
                    )
                };
                said.push(
                    Finding::new(Code::DuplicateName, message)
                        .see(place.clone())
                        .on(id)
                        .at(name_at)
                        .hint("names are unique within a kind, whatever file they stand in: rename or remove one"),
                );
                return;
            }
        }
        let known = value.and_then(|value| self.typed(kind, &id, origin, value, said));
        if known.is_none() {
            self.resources.unusable.insert(id);
        }
    }

    /// Makes a typed manifest and adds it to the resources.
    fn typed(
        &mut self,
        kind: &'static KindInfo,
        id: &ResourceId,
        origin: Origin,
        mut value: Value,
        said: &mut Vec<Finding>,
    ) -> Option<()> {
        for field in kind.file_fields {
            if let Err(finding) = self.fill(field, id, &origin, &mut value) {
                said.push(*finding);
                return None;
            }
        }
        let (metadata, spec) = decode::parts(value);
        let place = origin.clone();
        match self.resources.insert(kind.name.as_str(), metadata?, spec, origin) {
            Ok(_) => Some(()),
            Err(e) => {
                said.push(decode::finding(&e, &place, id));
                None
            }
        }
    }

    /// Reads the file that a `file` field names into the `inline` field beside it.
    fn fill(&mut self, field: &str, id: &ResourceId, origin: &Origin, value: &mut Value) -> Result<(), Box<Finding>> {
        let pointer = format!("/spec/{}", field.replace('.', "/"));
        let Some(reference) = value.pointer(&pointer).and_then(Value::as_str) else { return Ok(()) };
        let path = format!("spec.{field}");
        let refuse = |code, message: String| {
            let mut finding = Finding::new(code, message).on(id.clone()).at(origin.source_of(&pointer));
            finding.path = Some(path.clone());
            Box::new(finding)
        };
        let inline = match pointer.rfind('/') {
            Some(i) => format!("{}/inline", &pointer[..i]),
            None => return Ok(()),
        };
        if value.pointer(&inline).is_some() {
            return Err(Box::new(
                refuse(Code::Contradiction, "`inline` and `file` are both written".into()).hint("keep one of them"),
            ));
        }
        let shown = text::shorten(reference);
        let target = tree::resolve(&origin.file, reference).and_then(|path| {
            let bytes = self.tree.read(&path, self.limits.file_bytes.min(self.budget));
            self.named.insert(path);
            bytes
        });
        let bytes = target.map_err(|e| {
            Box::new(match e {
                TreeError::NotAFile { what, .. } => refuse(Code::OutsideTree, format!("`{shown}` is {what}"))
                    .hint("name a regular file of the repository, relative to this manifest's folder"),
                TreeError::TooLarge { size, limit, .. } => {
                    *refuse(Code::Limit, format!("`{shown}` has {size} bytes; at most {limit} are read"))
                }
                TreeError::Missing(_) if &*origin.file == tree::STDIN => {
                    refuse(Code::Unreadable, format!("`{shown}` cannot be read beside standard input"))
                        .hint("write the text `inline`")
                }
                TreeError::Missing(_) => refuse(Code::Unreadable, format!("`{shown}` is not there"))
                    .hint("the path is relative to this manifest's folder"),
                TreeError::Io { why, .. } => *refuse(Code::Unreadable, format!("`{shown}`: {why}")),
            })
        })?;
        self.budget = self.budget.saturating_sub(bytes.len() as u64);
        let text = String::from_utf8(bytes).map_err(|e| {
            refuse(Code::NotUtf8, format!("`{shown}` is not UTF-8 text at byte {}", e.utf8_error().valid_up_to()))
        })?;
        if let Some((parent, last)) = inline.rsplit_once('/')
            && let Some(map) = value.pointer_mut(parent).and_then(Value::as_object_mut)
        {
            map.insert(last.to_owned(), Value::String(text));
        }
        Ok(())
    }
}

/// Reads the documents of one file, each by itself.
fn examine(entry: &Entry, bytes: &[u8], limits: &Limits) -> File {
    let mut file = File::default();
    let text = match encoding::decode(&entry.path, bytes) {
        Ok(text) => text,
        Err(finding) => return File { findings: vec![*finding], incomplete: true, ..file },
    };
    let path: Arc<str> = entry.path.as_str().into();
    let blob: Option<Arc<str>> = entry.blob.as_deref().map(Into::into);
    let mut reader = Reader::new(&entry.path, text, limits);
    let mut documents = 0usize;
    while let Some(next) = reader.next_document() {
        match next {
            Next::Empty => continue,
            Next::Lost => file.incomplete = true,
            Next::Document(document) => match decode::check(document, &path, blob.as_ref(), &mut file.findings) {
                Some(manifest) => file.manifests.push(manifest),
                None => file.incomplete = true,
            },
        }
        documents += 1;
        reader.said_elsewhere = file.findings.len();
    }
    if documents == 0 && reader.findings.is_empty() {
        file.findings.push(Finding::new(Code::Ignored, "the file has no document").at(Source {
            file: entry.path.clone(),
            line: 1,
            column: 1,
        }));
    }
    file.findings.append(&mut reader.findings);
    file
}

/// Findings up to a limit: the first ones are kept, errors before others, and the rest is counted.
struct Findings {
    limit: usize,
    errors: Vec<Finding>,
    others: Vec<Finding>,
    more_errors: usize,
    more_others: usize,
}

impl Findings {
    fn new(limit: usize) -> Self {
        Self { limit, errors: Vec::new(), others: Vec::new(), more_errors: 0, more_others: 0 }
    }

    fn has_error(&self) -> bool {
        !self.errors.is_empty() || self.more_errors > 0
    }

    fn add(&mut self, mut findings: Vec<Finding>) {
        finding::sort(&mut findings);
        for f in findings {
            let (kept, more) = if f.is_error() {
                (&mut self.errors, &mut self.more_errors)
            } else {
                (&mut self.others, &mut self.more_others)
            };
            if kept.len() < self.limit { kept.push(f) } else { *more += 1 }
        }
    }

    fn finish(mut self) -> Vec<Finding> {
        let room = self.limit.saturating_sub(self.errors.len());
        if let Some(cut) = self.others.len().checked_sub(room).filter(|n| *n > 0) {
            self.others.truncate(room);
            self.more_others += cut;
        }
        let mut all = self.errors;
        all.append(&mut self.others);
        finding::sort(&mut all);
        let count = |n: usize, what: &str| format!("{n} more {what}{}", if n == 1 { "" } else { "s" });
        let message = match (self.more_errors, self.more_others) {
            (0, 0) => return all,
            (e, 0) => format!("and {}", count(e, "error")),
            (0, o) => format!("and {}", count(o, "warning or note")),
            (e, o) => format!("and {}, {}", count(e, "error"), count(o, "warning or note")),
        };
        let severity = if self.more_errors > 0 { Severity::Error } else { Severity::Info };
        all.push(Finding::new(Code::Limit, message).severity(severity).hint("mend those above first"));
        all
    }
}
