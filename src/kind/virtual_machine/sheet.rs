//! What comparing a manifest with one definition gives. The same comparison lays the fields over a new definition
//! ([`super::render`]) and finds what differs in one that is there ([`super::compare`]), so the two cannot disagree.

use super::{DomainType, VirtualMachineSpec};
use crate::action::LiveChange;
use crate::domain_xml::{Edit, Element, apply_one};
use crate::finding::{Code, Finding};
use crate::kind::Resources;
use crate::model::{Bytes, Manifest};
use crate::observed::HostState;
use serde_json::Value;

/// What a comparison looks at besides the definition.
pub(super) struct Subject<'a> {
    pub(super) m: &'a Manifest<VirtualMachineSpec>,
    pub(super) host: &'a HostState,
    pub(super) resources: &'a Resources,
    /// What `xml` and `xmlPatches` ask for, where there are any: devices that stand there are not extra.
    pub(super) baseline: Option<&'a Element>,
    /// Which definition is looked at.
    pub(super) side: Side,
    /// The running machine's disks with their backing chains, to tell an overlay from another disk.
    pub(super) chains: &'a [Vec<String>],
    /// Targets of disks that the other definition uses, so that a new disk gets one that is free in both.
    pub(super) taken: &'a [String],
}

/// Which definition is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// A definition in the making.
    New,
    /// The persistent one.
    Persistent,
    /// The live one.
    Live,
}

/// What it takes to make a difference go away from what runs.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Way {
    /// Nothing: it is for people only.
    Free,
    /// A restart.
    Restart,
    /// Another machine.
    Recreate,
    /// These changes, while it runs.
    Live(Vec<(LiveChange, String)>),
}

/// One field that differs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Diff {
    pub(super) path: String,
    pub(super) before: Value,
    pub(super) after: Value,
    pub(super) way: Way,
    pub(super) note: Option<&'static str>,
    /// For a live difference: what becomes of it when the persistent definition is right already, because the change was
    /// made and what runs did not follow.
    pub(super) if_settled: Settled,
}

/// What becomes of a live difference whose persistent counterpart is right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Settled {
    /// It is a difference like any other.
    #[default]
    Differs,
    /// It waits for a restart.
    Restart,
    /// It is none: a restart would not change it.
    Ignored,
}

/// What differs in one definition, and the edits that put it right.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    pub(super) diffs: Vec<Diff>,
    pub(super) edits: Vec<Edit>,
}

impl Sheet {
    pub(super) fn diff(&mut self, path: impl Into<String>, before: Value, after: Value, way: Way) {
        self.diffs.push(Diff { path: path.into(), before, after, way, note: None, if_settled: Settled::default() });
    }

    pub(super) fn note(&mut self, note: &'static str) {
        if let Some(last) = self.diffs.last_mut() {
            last.note = Some(note);
        }
    }

    pub(super) fn if_settled(&mut self, settled: Settled) {
        if let Some(last) = self.diffs.last_mut() {
            last.if_settled = settled;
        }
    }

    pub(super) fn edit(&mut self, edit: Edit) {
        self.edits.push(edit);
    }

    pub(super) fn set_text(&mut self, at: &str, text: impl Into<String>) {
        self.edit(Edit::SetText { at: at.into(), text: text.into() });
    }

    pub(super) fn set(&mut self, at: &str, name: &str, value: impl Into<String>) {
        self.edit(Edit::SetAttribute { at: at.into(), name: name.into(), value: value.into() });
    }

    pub(super) fn unset(&mut self, at: &str, name: &str) {
        self.edit(Edit::RemoveAttribute { at: at.into(), name: name.into() });
    }

    pub(super) fn remove(&mut self, at: impl Into<String>) {
        self.edit(Edit::Remove { at: at.into() });
    }

    pub(super) fn add(&mut self, at: &str, element: &Element) {
        self.edit(Edit::Add { at: at.into(), xml: element.to_xml() });
    }

    pub(super) fn replace(&mut self, at: impl Into<String>, element: &Element) {
        self.edit(Edit::Replace { at: at.into(), xml: element.to_xml() });
    }

    /// Compares a plain value, and tells whether it differs.
    pub(super) fn field(&mut self, path: &str, found: impl Into<Value>, wanted: impl Into<Value>, way: Way) -> bool {
        let (found, wanted) = (found.into(), wanted.into());
        let differs = found != wanted;
        if differs {
            self.diff(path, found, wanted, way);
        }
        differs
    }

    /// Applies the edits to a tree.
    pub(super) fn lay_over(&self, subject: &Subject<'_>, tree: &mut Element) -> Result<(), Finding> {
        apply_all(subject.m, tree, &self.edits)
    }
}

/// Applies edits of Drover's own making to a tree.
pub(super) fn apply_all(m: &Manifest<VirtualMachineSpec>, tree: &mut Element, edits: &[Edit]) -> Result<(), Finding> {
    for edit in edits {
        apply_one(tree, edit).map_err(|e| {
            Finding::new(Code::BadXml, format!("the definition of `{}` cannot be changed as wanted: {e}", m.name()))
                .hint("the definition is not as libvirt writes it; compare it with `virsh dumpxml`")
                .of(m, "spec")
        })?;
    }
    Ok(())
}

impl<'a> Subject<'a> {
    pub(super) fn spec(&self) -> &'a VirtualMachineSpec {
        &self.m.spec
    }

    /// Whether the host is libvirt's test driver, which knows no machine types, no user aliases and no hot-plug.
    pub(super) fn is_test(&self) -> bool {
        is_test(self.host)
    }

    /// The domain type: as stated, else the host's best.
    pub(super) fn domain_type(&self) -> &'a str {
        match self.spec().r#type {
            Some(DomainType::Kvm) => "kvm",
            Some(DomainType::Qemu) => "qemu",
            Some(DomainType::Test) => "test",
            None if self.is_test() => "test",
            None => self.host.domain_types.first().map_or("qemu", String::as_str),
        }
    }

    /// Changes made while it runs, or a restart where the host cannot do them.
    pub(super) fn live(&self, change: impl FnOnce() -> LiveChange, summary: impl Into<String>) -> Way {
        if self.side == Side::Live && !self.is_test() {
            Way::Live(vec![(change(), summary.into())])
        } else {
            Way::Restart
        }
    }
}

pub(super) fn is_test(host: &HostState) -> bool {
    host.driver.eq_ignore_ascii_case("test")
}

/// A number of bytes as people write it.
pub(super) fn size(bytes: u64) -> Value {
    Value::String(Bytes(bytes).to_string())
}

/// The word that a field's enum is written with in a manifest.
pub(super) fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

/// An optional text as a value.
pub(super) fn text(value: Option<impl Into<String>>) -> Value {
    value.map_or(Value::Null, |v| Value::String(v.into()))
}
