//! Steps one after the other, on one cluster or on two. A wait is only among them where something is done before it or
//! after it: what merely is not well is said as a finding, and no step would mend it.

use super::compare::{Compared, FieldChange, Obstacle, compare, name};
use super::scene::Scene;
use super::want::Want;
use crate::action::{Action, ClusterAction, Until};
use crate::finding::{Code, Finding};
use crate::kind::cluster::ClusterSpec;
use crate::model::{Manifest, ObjectRef};
use crate::observed::{ClusterState, ObjectState};
use crate::plan::{Block, Change, Disruption, DraftId, Drafts, Effect, Fact, Operation, StepDraft};
use serde_json::Value;

/// Steps of one resource in a row.
pub(super) struct Chain<'a> {
    m: &'a Manifest<ClusterSpec>,
    scene: Scene<'a>,
    steps: Vec<StepDraft>,
    waits: Vec<StepDraft>,
    needs: Vec<Fact>,
    is_new: bool,
    /// What holds every further step back.
    held: Vec<Block>,
}

impl<'a> Chain<'a> {
    pub fn new(m: &'a Manifest<ClusterSpec>, scene: Scene<'a>) -> Self {
        Self { m, scene, steps: Vec::new(), waits: Vec::new(), needs: Vec::new(), is_new: false, held: Vec::new() }
    }

    /// What must be true before the first step.
    pub fn need(&mut self, fact: Fact) {
        self.needs.push(fact);
    }

    /// Whether anything is done.
    pub fn writes(&self) -> bool {
        !self.steps.is_empty()
    }

    fn step(&self, action: ClusterAction, summary: String, why: impl Into<String>) -> StepDraft {
        StepDraft::new(Action::Cluster(action), self.m.id(), summary, why)
    }

    /// Holds every further step back.
    pub fn hold(&mut self, block: Block) {
        self.held.push(block);
    }

    fn push(&mut self, mut step: StepDraft) {
        let here = self.steps.len();
        self.steps.append(&mut self.waits);
        step.blocked_by.extend_from_slice(&self.held);
        self.steps.push(step);
        if let Some(first) = self.steps.get_mut(here) {
            first.needs.append(&mut self.needs);
        }
    }

    /// What is true once all is done that is in the row so far.
    pub fn offer(&mut self, fact: Fact) {
        if let Some(last) = self.steps.last_mut() {
            last.offers.push(fact);
        }
    }

    /// Brings an object to what is wanted. Tells whether there is anything to do.
    pub fn apply(&mut self, want: &Want, state: &ClusterState, out: &mut Drafts) -> bool {
        self.apply_with(want, state, Vec::new(), out)
    }

    /// The same, with changes that only the caller knows of.
    pub fn apply_with(&mut self, want: &Want, state: &ClusterState, more: Vec<FieldChange>, out: &mut Drafts) -> bool {
        let mut compared = compare(want, state, &self.scene);
        compared.changes.extend(more);
        let shown = name(&want.id);
        if compared.unsure {
            out.finding(
                Finding::new(
                    Code::NotCompared,
                    format!("it is not known whether the secret values of {} on `{}` are as they should be", want.id, want.cluster),
                )
                .of(self.m, "spec.migrationToolkit")
                .hint("they are compared where the cluster can be reached and the secrets can be read; nothing is written for them"),
            );
        }
        let blocks = obstacle(&compared, want);
        if !compared.differs() {
            if let Some(block) = blocks {
                out.finding(
                    Finding::new(block.code, block.reason).of(self.m, "spec.migrationToolkit").hint(block.way_out),
                );
            }
            return false;
        }
        self.note(&compared, want, &shown, out);
        let verb = if want.create_only { "create" } else { "apply" };
        let mut step = self.step(
            want.action(compared.by_hand),
            format!("{verb} {} on {}", want.id, want.cluster),
            why(&compared, want),
        );
        step.blocked_by.extend(blocks);
        step.undo = Some(match (compared.exists, want.id.kind.as_str()) {
            (true, _) => "put the manifest back as it was".into(),
            (false, "NetworkPolicy") => "take its namespace out of the manifest".into(),
            (false, _) => "uninstall it: `install: None` with `prune: true`".into(),
        });
        self.push(step);
        true
    }

    /// Writes down what differs.
    fn note(&mut self, compared: &Compared, want: &Want, shown: &str, out: &mut Drafts) {
        self.is_new |= !compared.exists && want.id.kind == "MigrationController";
        let note = (want.cluster != self.m.name()).then(|| format!("on {}", want.cluster));
        let id = self.m.id();
        let mut change = |path: String, before: Value, after: Value| {
            let change = Change { path, before, after, effect: Effect::Live, definition: None, note: note.clone() };
            out.change(&id, None, change);
        };
        let mut changes: Vec<&FieldChange> =
            compared.changes.iter().filter(|c| !c.path.starts_with("metadata")).collect();
        if compared.exists && changes.is_empty() {
            changes = compared.changes.iter().collect();
        }
        // What the operator's files have is theirs; that it is new is enough.
        if !compared.exists && (changes.is_empty() || changes.len() > MOST_FIELDS || want.create_only) {
            change(shown.to_owned(), Value::Null, "new".into());
        } else {
            for c in changes {
                let dot = if c.path.starts_with('[') { "" } else { "." };
                change(format!("{shown}{dot}{}", c.path), c.before.clone(), c.after.clone());
            }
        }
        let report = out.report(&id, None);
        report.operation = report.operation.max(Operation::Update);
    }

    /// A patch of an object.
    pub fn patch(&mut self, cluster: &str, id: &ObjectRef, patch: Vec<Value>, summary: String, why: String) {
        let action = ClusterAction::PatchObject { cluster: cluster.into(), id: id.clone(), patch };
        self.act(action, summary, why);
    }

    /// Any other step that does something.
    pub fn act(&mut self, action: ClusterAction, summary: String, why: String) {
        let step = self.step(action, summary, why);
        self.push(step);
    }

    /// Deletes an object that was observed; one that goes already is waited for.
    pub fn delete(&mut self, cluster: &str, object: &ObjectState, why: String, out: &mut Drafts) {
        if object.deleting {
            self.going(&object.id, &object.finalizers, cluster, out);
            let step = self.await_step(cluster, &object.id, Until::Gone, GONE, "it is being deleted already".into());
            self.push(step);
            return;
        }
        self.delete_uid(cluster, &object.id, &object.uid, why);
    }

    /// The same, of what is not among the objects.
    pub fn delete_uid(&mut self, cluster: &str, id: &ObjectRef, uid: &str, why: String) {
        let action = ClusterAction::DeleteObject { cluster: cluster.into(), id: id.clone(), uid: uid.into() };
        let mut step = self.step(action, format!("delete {id} on {cluster}"), why);
        step.disruption = Disruption::Destructive;
        self.push(step);
    }

    /// Says what holds an object that is on its way out.
    pub fn going(&self, id: &ObjectRef, finalizers: &[String], cluster: &str, out: &mut Drafts) {
        let by = match finalizers {
            [] => "nothing that can be seen holds it".to_owned(),
            some => format!("it waits for {}", some.join(", ")),
        };
        out.finding(
            Finding::new(Code::Deleting, format!("{id} on `{cluster}` is being deleted; {by}"))
                .of(self.m, "spec.migrationToolkit")
                .hint("see that what takes its finalizers off is running; Drover never takes a finalizer off itself"),
        );
    }

    fn await_step(&self, cluster: &str, id: &ObjectRef, until: Until, timeout_millis: u64, why: String) -> StepDraft {
        let what = match &until {
            Until::Exists => "is there".to_owned(),
            Until::Gone => "is gone".to_owned(),
            Until::Condition { name, .. } => format!("is {name}"),
            Until::Installed => "is installed".to_owned(),
            Until::Available => "is available".to_owned(),
        };
        let summary = format!("wait until {id} on {cluster} {what}");
        let action = ClusterAction::AwaitObject { cluster: cluster.into(), id: id.clone(), until, timeout_millis };
        let mut step = self.step(action, summary, why);
        step.undo = Some("it changes nothing".into());
        step
    }

    /// Waits, where something was done before, or is done after and this is not so yet.
    pub fn wait(&mut self, cluster: &str, id: &ObjectRef, until: Until, timeout_millis: u64, is_so: bool, why: &str) {
        let step = self.await_step(cluster, id, until, timeout_millis, why.into());
        if self.writes() {
            self.push(step);
        } else if !is_so {
            let mut step = step;
            step.blocked_by.extend_from_slice(&self.held);
            self.waits.push(step);
        }
    }

    /// Ends the row: what is true after it, and what holds all of it back.
    pub fn finish(mut self, offers: &[Fact], blocks: &[Block], out: &mut Drafts) {
        if self.is_new {
            let report = out.report(&self.m.id(), None);
            report.operation = report.operation.max(Operation::Create);
        }
        if let Some(last) = self.steps.last_mut() {
            last.offers.extend_from_slice(offers);
        }
        let mut before: Option<DraftId> = None;
        for mut step in self.steps {
            step.after.extend(before);
            step.blocked_by.extend_from_slice(blocks);
            before = Some(out.step(step));
        }
    }
}

/// More fields than this of a new object are not listed one by one.
const MOST_FIELDS: usize = 40;

/// How long something that is deleted may take to go.
pub(super) const GONE: u64 = 10 * 60_000;

fn why(compared: &Compared, want: &Want) -> String {
    if !compared.exists {
        return format!("{} has no {}", want.cluster, want.id);
    }
    let fields: Vec<&str> = compared.changes.iter().map(|c| c.path.as_str()).collect();
    match fields.as_slice() {
        [one] => format!("`{one}` differs"),
        [one, two] => format!("`{one}` and `{two}` differ"),
        [one, rest @ ..] => format!("`{one}` and {} other fields differ", rest.len()),
        [] => "it differs".into(),
    }
}

/// What holds an apply back, with the way out.
fn obstacle(compared: &Compared, want: &Want) -> Option<Block> {
    let cluster = &want.cluster;
    Some(match compared.obstacle.as_ref()? {
        Obstacle::Conflict(conflicts) => {
            let fields: Vec<String> = conflicts.iter().map(|c| format!("`{}` ({})", c.field, c.manager)).collect();
            Block {
                code: Code::FieldConflict,
                reason: format!("{} on `{cluster}`: other field managers have set {}", want.id, fields.join(", ")),
                way_out: "make the manifest say what is there, have the other manager give the fields up, or take them over with \
                          `migrationToolkit.forceConflicts: true`"
                    .into(),
            }
        }
        Obstacle::Refused(why) => Block {
            code: Code::ServerRefuses,
            reason: format!("`{cluster}` does not take {}: {}", want.id, super::scene::shorten(why)),
            way_out: "change the manifest, or what refuses it (a webhook, a quota, an admission policy)".into(),
        },
        Obstacle::Going(finalizers) => Block {
            code: Code::Deleting,
            reason: match finalizers.as_slice() {
                [] => format!("{} on `{cluster}` is being deleted", want.id),
                some => format!("{} on `{cluster}` is being deleted, and waits for {}", want.id, some.join(", ")),
            },
            way_out: "wait until it is gone; see that what takes its finalizers off is running".into(),
        },
        Obstacle::Foreign(whose) => Block {
            code: Code::NotOwned,
            reason: format!("{} on `{cluster}` is of {whose}", want.id),
            way_out: format!(
                "one fleet has a cluster: take it out of the other repository, or take the label `{}` off by hand",
                crate::kind::cluster::objects::FLEET_LABEL
            ),
        },
    })
}
