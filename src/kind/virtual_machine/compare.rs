//! A manifest against a domain, field by field, in both of its definitions: the live one (what runs) and the persistent
//! one (what the next start makes). Only what the manifest states is compared.

use super::render::{self, patch_error};
use super::sheet::{Diff, Settled, Sheet, Side, Subject, Way, apply_all};
use super::{VirtualMachineSpec, devices, disks, fields as plain, interfaces};
use crate::action::LiveChange;
use crate::domain_xml::{self, Edit, Element, Equivalence, GapKind, contains, owner_element, owner_index, owner_of};
use crate::finding::{Code, Finding};
use crate::kind::Resources;
use crate::model::Manifest;
use crate::observed::{DomainState, HostState, OwnerMark};
use crate::plan::{Change, Definition, Effect};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What differs between a manifest and a domain, and what puts it right.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// Fields that differ, in the order of the spec.
    pub changes: Vec<Change>,
    /// Edits that put the persistent definition right.
    pub edits: Vec<Edit>,
    /// Changes that put the running machine right, each with one line about it.
    pub live: Vec<(LiveChange, String)>,
    /// Paths of changes that take effect at the next restart.
    pub restart: Vec<String>,
    /// Paths of changes that cannot be made to this domain.
    pub recreate: Vec<String>,
}

impl Difference {
    /// Whether there is nothing to do and nothing to tell.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A domain's definitions as trees. Reading them is most of what a comparison costs, so each is read once.
pub(super) struct Definitions {
    /// What the next start makes.
    persistent: Option<Element>,
    /// What runs.
    live: Option<Element>,
}

impl Definitions {
    /// Reads both.
    ///
    /// # Errors
    /// A finding when one of them is not XML.
    pub(super) fn read(m: &Manifest<VirtualMachineSpec>, domain: &DomainState) -> Result<Self, Finding> {
        let read = |xml: &Option<String>, which: &str| {
            xml.as_deref().map(domain_xml::parse).transpose().map_err(|e| {
                Finding::new(
                    Code::BadXml,
                    format!("the {which} definition of domain `{}` cannot be read: {e}", domain.name),
                )
                .hint("look at it with `virsh dumpxml`")
                .of(m, "spec")
            })
        };
        let persistent = read(&domain.persistent_xml, "persistent")?;
        let live = read(&domain.live_xml, "live")?.filter(|_| domain.is_active());
        Ok(Self { persistent, live })
    }

    /// The ownership mark in the persistent one.
    pub(super) fn persistent_owner(&self) -> Option<OwnerMark> {
        self.persistent.as_ref().and_then(owner_of)
    }
}

/// Compares a manifest with a domain on a host. Where the machine is, whether it runs, its name in libvirt, its autostart
/// and its volumes are not compared here: the planner does that.
///
/// # Errors
/// A finding when a definition cannot be read, or the manifest cannot be turned into one.
pub fn compare(
    m: &Manifest<VirtualMachineSpec>,
    domain: &DomainState,
    host: &HostState,
    resources: &Resources,
    owner: &OwnerMark,
) -> Result<Difference, Finding> {
    compare_trees(m, domain, &Definitions::read(m, domain)?, host, resources, owner)
}

/// [`compare`], with definitions that are read already.
///
/// # Errors
/// A finding when the manifest cannot be turned into a definition.
pub(super) fn compare_trees(
    m: &Manifest<VirtualMachineSpec>,
    domain: &DomainState,
    definitions: &Definitions,
    host: &HostState,
    resources: &Resources,
    owner: &OwnerMark,
) -> Result<Difference, Finding> {
    let Definitions { persistent, live } = definitions;
    let standing = Standing::of(m, host, resources)?;
    let chains: Vec<_> =
        live.iter().flat_map(|d| d.get("devices")).flat_map(|d| d.all("disk")).map(disks::chain).collect();
    let targets = |tree: &Option<Element>| -> Vec<String> {
        let disks = tree.iter().flat_map(|d| d.get("devices")).flat_map(|d| d.all("disk"));
        disks.filter_map(|d| d.attribute_at("target", "dev")).map(ToOwned::to_owned).collect()
    };
    let both = [targets(persistent), targets(live)].concat();
    let subject = |side| Subject {
        m,
        host,
        resources,
        baseline: standing.baseline.as_ref(),
        side,
        chains: &chains,
        taken: &both,
    };

    let stored =
        persistent.as_ref().map(|tree| Compared::of(&subject(Side::Persistent), tree, &standing)).transpose()?;
    let running = live.as_ref().map(|tree| Compared::of(&subject(Side::Live), tree, &standing)).transpose()?;

    let mut difference = Difference::default();
    if let Some(wanted) = m.spec.uuid
        && wanted != domain.uuid
    {
        difference.recreate.push("spec.uuid".into());
        difference.changes.push(Change {
            path: "spec.uuid".into(),
            before: json!(domain.uuid),
            after: json!(wanted),
            effect: Effect::Recreate,
            definition: None,
            note: Some("a domain keeps its UUID for life".into()),
        });
    }
    merge(stored.as_ref(), running.as_ref(), &mut difference);
    if let Some(side) = stored {
        difference.edits = side.edits;
    }
    mark(m, persistent.as_ref(), domain, owner, &mut difference);
    Ok(difference)
}

/// Lays every stated field beside a definition.
pub(super) fn fields(subject: &Subject<'_>, domain: &Element, sheet: &mut Sheet) -> Result<(), Finding> {
    plain::compare(subject, domain, sheet);
    disks::compare(subject, domain, sheet)?;
    interfaces::compare(subject, domain, sheet);
    devices::compare(subject, domain, sheet);
    Ok(())
}

/// What `xml` and `xmlPatches` ask for.
#[derive(Default)]
struct Standing {
    /// The whole definition that the manifest makes, when it has `xml` or patches.
    baseline: Option<Element>,
    /// The definition that `xml` makes, with fields and patches; only when there is `xml`.
    xml: Option<Element>,
    /// Fields that a patch has the last word on.
    overridden: BTreeSet<String>,
}

impl Standing {
    fn of(m: &Manifest<VirtualMachineSpec>, host: &HostState, resources: &Resources) -> Result<Self, Finding> {
        if m.spec.xml.is_none() && m.spec.xml_patches.is_empty() {
            return Ok(Self::default());
        }
        // An existing machine may leave out what a new one must state.
        let mut stated = m.clone();
        if stated.spec.xml.is_none() && stated.spec.memory.is_none() {
            stated.spec.memory = stated.spec.max_memory.or(Some(crate::model::Bytes(1 << 30)));
        }
        let baseline = render::unowned(&stated, host, resources)?;
        let mut overridden = BTreeSet::new();
        if !m.spec.xml_patches.is_empty() {
            let subject = Subject {
                m,
                host,
                resources,
                baseline: Some(&baseline),
                side: Side::Persistent,
                chains: &[],
                taken: &[],
            };
            let mut sheet = Sheet::default();
            fields(&subject, &baseline, &mut sheet)?;
            overridden = sheet.diffs.into_iter().map(|d| d.path).collect();
        }
        let xml = m.spec.xml.is_some().then(|| baseline.clone());
        Ok(Self { baseline: Some(baseline), xml, overridden })
    }
}

/// What differs in one definition.
struct Compared {
    diffs: Vec<Diff>,
    edits: Vec<Edit>,
}

impl Compared {
    fn of(subject: &Subject<'_>, tree: &Element, standing: &Standing) -> Result<Self, Finding> {
        let mut first = Self::once(subject, tree, standing)?;
        // What a patch does after the fields may ask for more of a field's edits (a number of vCPUs that the topology does
        // not fit): look again at what comes out, so that one pass is enough. Rounds are few and bounded.
        for _ in 0..3 {
            if first.edits.is_empty() || subject.spec().xml_patches.is_empty() {
                break;
            }
            let mut result = tree.clone();
            apply_all(subject.m, &mut result, &first.edits)?;
            let again = Self::once(subject, &result, standing)?;
            if again.edits.is_empty() {
                break;
            }
            first.edits.extend(again.edits);
        }
        Ok(first)
    }

    fn once(subject: &Subject<'_>, tree: &Element, standing: &Standing) -> Result<Self, Finding> {
        let mut sheet = Sheet::default();
        fields(subject, tree, &mut sheet)?;
        // The usual case, and the one that thousands of machines are in: nothing to edit, so what comes out is what is
        // there, without a copy of it to find that out.
        if sheet.edits.is_empty() && subject.spec().xml_patches.is_empty() && standing.xml.is_none() {
            sheet.diffs.retain(|d| d.way == Way::Recreate);
            return Ok(Self { diffs: sheet.diffs, edits: Vec::new() });
        }
        let mut work = tree.clone();
        sheet.lay_over(subject, &mut work)?;
        let Sheet { mut diffs, mut edits } = sheet;
        if !standing.overridden.is_empty() {
            diffs.retain(|d| !standing.overridden.contains(&d.path));
        }
        let equivalence =
            Equivalence { machine_aliases: Some(&subject.host.machine_aliases), live: subject.side == Side::Live };
        for (i, patch) in subject.spec().xml_patches.iter().enumerate() {
            for edit in domain_xml::unmet(patch, &work, equivalence).map_err(|e| patch_error(subject.m, i, &e))? {
                domain_xml::apply_one(&mut work, &edit).map_err(|e| patch_error(subject.m, i, &e))?;
                edits.push(edit);
                let after = serde_json::to_value(patch).unwrap_or(Value::Null);
                diffs.push(Diff {
                    path: format!("spec.xmlPatches[{i}]"),
                    before: Value::Null,
                    after,
                    way: Way::Restart,
                    note: None,
                    if_settled: Settled::default(),
                });
            }
        }
        if let Some(wanted) = &standing.xml {
            // Two gaps may have one place: two devices of a kind that are both missing.
            let mut same: BTreeMap<String, u32> = BTreeMap::new();
            for gap in contains(wanted, &work, equivalence) {
                // The name changes by its own action; the identity never.
                if matches!(gap.at.as_str(), "/domain/name" | "/domain/uuid") {
                    continue;
                }
                let (at, before, after) = match &gap.what {
                    GapKind::Attribute { name, wanted, found } => {
                        (format!("{}@{name}", gap.at), json!(found), json!(wanted))
                    }
                    GapKind::Text { wanted, found } => (gap.at.clone(), json!(found), json!(wanted)),
                    GapKind::Element { wanted } => {
                        (format!("{}/{}", gap.at, wanted.name), Value::Null, json!(wanted.to_xml()))
                    }
                };
                edits.push(gap.edit());
                let count = same.entry(at.clone()).or_insert(0);
                *count += 1;
                let path = if *count > 1 { format!("spec.xml:{at} ({count})") } else { format!("spec.xml:{at}") };
                diffs.push(Diff { path, before, after, way: Way::Restart, note: None, if_settled: Settled::default() });
            }
        }
        // Patches may have undone what fields did: what counts is what comes out.
        let mut result = tree.clone();
        apply_all(subject.m, &mut result, &edits)?;
        if result == *tree {
            return Ok(Self {
                diffs: diffs.into_iter().filter(|d| d.way == Way::Recreate).collect(),
                edits: Vec::new(),
            });
        }
        Ok(Self { diffs, edits })
    }
}

/// Puts what differs in the two definitions together.
fn merge(stored: Option<&Compared>, running: Option<&Compared>, out: &mut Difference) {
    let none = Vec::new();
    let stored = stored.map_or(&none, |s| &s.diffs);
    let running_diffs = running.map_or(&none, |s| &s.diffs);
    fn by_path(diffs: &[Diff]) -> BTreeMap<&str, &Diff> {
        diffs.iter().map(|d| (d.path.as_str(), d)).collect()
    }
    let (in_stored, in_running) = (by_path(stored), by_path(running_diffs));
    let mut seen = BTreeSet::new();
    let paths = stored.iter().chain(running_diffs).map(|d| d.path.as_str()).filter(|p| seen.insert(*p));
    for path in paths {
        let (p, l) = (in_stored.get(path).copied(), in_running.get(path).copied());
        let definition = match (p, l) {
            _ if running.is_none() => None,
            (Some(_), Some(_)) => Some(Definition::Both),
            (Some(_), None) => Some(Definition::Persistent),
            (None, _) => Some(Definition::Live),
        };
        // What runs is what people see; what is stored is told where it differs from that.
        let Some(mut shown) = l.or(p).cloned() else { continue };
        if p.is_none() {
            match shown.if_settled {
                Settled::Differs => {}
                Settled::Restart => shown.way = Way::Restart,
                Settled::Ignored => continue,
            }
        }
        let mut note = shown.note.map(ToOwned::to_owned);
        let effect = match (&shown.way, running.is_some(), l) {
            (Way::Recreate, _, _) => {
                out.recreate.push(path.to_owned());
                Effect::Recreate
            }
            // Off, or right in what runs: nobody notices.
            (_, false, _) | (Way::Free, _, _) | (_, _, None) => Effect::None,
            (Way::Live(changes), _, _) => {
                out.live.extend(changes.iter().cloned());
                Effect::Live
            }
            (Way::Restart, _, _) => {
                out.restart.push(path.to_owned());
                note = Some(match note {
                    Some(note) => format!("takes effect at the next restart; {note}"),
                    None => "takes effect at the next restart".into(),
                });
                Effect::Restart
            }
        };
        if let (Some(p), Some(l)) = (p, l)
            && p.before != l.before
        {
            let stored = match &p.before {
                Value::Null => "nothing".to_owned(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let also = format!("the persistent definition has {stored}");
            note = Some(note.map_or(also.clone(), |n| format!("{n}; {also}")));
        }
        out.changes.push(Change {
            path: path.to_owned(),
            before: shown.before,
            after: shown.after,
            effect,
            definition,
            note,
        });
    }
}

/// Keeps the ownership mark up to date. A domain without one shows it as a change (it is adopted); one whose mark only has
/// other contents does not.
fn mark(
    m: &Manifest<VirtualMachineSpec>,
    persistent: Option<&Element>,
    domain: &DomainState,
    owner: &OwnerMark,
    out: &mut Difference,
) {
    let Some(tree) = persistent else { return };
    let there = owner_of(tree);
    if there.as_ref() == Some(owner) {
        return;
    }
    let new = owner_element(owner).to_xml();
    out.edits.push(match owner_index(tree).and_then(|i| tree.get("metadata")?.elements().nth(i).map(|e| (i, e))) {
        // Its place among elements of the same name: there may be one of another program's.
        Some((i, old)) => {
            let before =
                tree.get("metadata").map_or(0, |m| m.elements().take(i).filter(|e| e.name == old.name).count());
            Edit::Replace { at: format!("/domain/metadata/{}[{}]", old.name, before + 1), xml: new }
        }
        None => Edit::Add { at: "/domain/metadata".into(), xml: new },
    });
    if there.is_none() && domain.owner.is_none() {
        out.changes.push(Change {
            path: "metadata.name".into(),
            before: Value::Null,
            after: json!(m.name()),
            effect: Effect::None,
            definition: None,
            note: Some("Drover's mark is written into the domain".into()),
        });
    }
}
