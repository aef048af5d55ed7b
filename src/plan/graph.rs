//! From drafts to ordered steps: ties needs to offers, gives ids, sorts, spreads blocks to what depends on them.

use super::{Block, Drafts, Fact, Step, StepDraft};
use crate::action::{Action, ClusterAction, MachineAction};
use crate::finding::{Code, Finding};
use petgraph::algo::tarjan_scc;
use petgraph::graph::DiGraph;
use sha2::{Digest, Sha256};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The ordered steps of some drafts. Equal drafts in any order of kinds give equal steps: among steps that are ready at
/// once, the one of the highest rank comes first, then the one drafted first.
///
/// `hold` may add to what each step comes after, and hold steps back, before they are ordered.
pub fn order(drafts: &mut Drafts, hold: impl FnOnce(&mut [StepDraft], &mut [BTreeSet<usize>])) -> Vec<Step> {
    let mut steps = std::mem::take(&mut drafts.steps);
    let mut edges = edges(&steps);
    hold(&mut steps, &mut edges);
    let mut sequence = topological(&steps, &edges);
    let mut in_circle = BTreeSet::new();
    if sequence.len() < steps.len() {
        let left: BTreeSet<usize> = (0..steps.len()).filter(|i| !sequence.contains(i)).collect();
        in_circle = circle(&edges, &left);
        drafts.findings.push(
            Finding::new(
                Code::Cycle,
                format!(
                    "steps wait for each other in a circle: {}",
                    in_circle.iter().map(|i| steps[*i].summary.as_str()).collect::<Vec<_>>().join("; ")
                ),
            )
            .hint("take one of these changes out of the commit and make it in a second one"),
        );
        sequence.extend(left);
    }
    let ids: Vec<String> = unique_ids(&steps);
    let mut blocked: BTreeMap<usize, String> = BTreeMap::new();
    let mut out = Vec::with_capacity(steps.len());
    let mut steps: Vec<Option<StepDraft>> = steps.into_iter().map(Some).collect();
    for i in sequence {
        let Some(draft) = steps[i].take() else { continue };
        let mut blocks = draft.blocked_by;
        if in_circle.contains(&i) {
            blocks.push(Block {
                code: Code::Cycle,
                reason: "it waits for itself through other steps".into(),
                way_out: "make one of the changes in a second commit".into(),
            });
        }
        if blocks.is_empty()
            && let Some(first) = edges[i].iter().find_map(|d| blocked.get(d))
        {
            blocks.push(waits_for(first));
        }
        if !blocks.is_empty() {
            blocked.insert(i, draft.summary.clone());
        }
        out.push(Step {
            id: ids[i].clone(),
            action: draft.action,
            resource: draft.resource,
            summary: draft.summary,
            why: draft.why,
            depends_on: edges[i].iter().map(|d| ids[*d].clone()).collect(),
            disruption: draft.disruption,
            interruption: draft.interruption,
            undo: draft.undo,
            estimate: draft.estimate,
            blocked_by: blocks,
            checks: draft.checks,
        });
    }
    out
}

/// The block of a step that depends on one that is held back.
fn waits_for(summary: &str) -> Block {
    Block {
        code: Code::GuardRail,
        reason: format!("{}{summary}", super::types::AFTER_ANOTHER),
        way_out: "free that step".into(),
    }
}

/// Spreads blocks, that were added after ordering, to everything that depends on the blocked steps.
pub fn spread(steps: &mut [Step]) {
    let mut blocked: BTreeMap<String, String> = BTreeMap::new();
    for step in steps {
        if !step.is_blocked()
            && let Some(first) = step.depends_on.iter().find_map(|d| blocked.get(d))
        {
            step.blocked_by.push(waits_for(first));
        }
        if step.is_blocked() {
            blocked.insert(step.id.clone(), step.summary.clone());
        }
    }
}

/// For each step the steps it comes after.
fn edges(steps: &[StepDraft]) -> Vec<BTreeSet<usize>> {
    let mut offers: BTreeMap<&Fact, Vec<usize>> = BTreeMap::new();
    for (i, step) in steps.iter().enumerate() {
        for fact in &step.offers {
            offers.entry(fact).or_default().push(i);
        }
    }
    steps
        .iter()
        .enumerate()
        .map(|(i, step)| {
            let explicit = step.after.iter().map(|d| d.0);
            let through_facts = step.needs.iter().flat_map(|f| offers.get(f).into_iter().flatten().copied());
            explicit.chain(through_facts).filter(|d| *d != i).collect()
        })
        .collect()
}

/// Kahn's order, highest rank and smallest index first; leaves out what is in or behind a circle.
fn topological(steps: &[StepDraft], edges: &[BTreeSet<usize>]) -> Vec<usize> {
    let mut waiting: Vec<usize> = edges.iter().map(BTreeSet::len).collect();
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
    for (i, before) in edges.iter().enumerate() {
        for d in before {
            followers[*d].push(i);
        }
    }
    let key = |i: usize| (Reverse(steps[i].rank), i);
    let mut ready: BTreeSet<(Reverse<i32>, usize)> = (0..steps.len()).filter(|i| waiting[*i] == 0).map(key).collect();
    let mut sequence = Vec::with_capacity(steps.len());
    while let Some((_, i)) = ready.pop_first() {
        sequence.push(i);
        for f in &followers[i] {
            waiting[*f] -= 1;
            if waiting[*f] == 0 {
                ready.insert(key(*f));
            }
        }
    }
    sequence
}

/// The first circle among the steps that could not be ordered.
fn circle(edges: &[BTreeSet<usize>], left: &BTreeSet<usize>) -> BTreeSet<usize> {
    let mut graph = DiGraph::<usize, ()>::new();
    let nodes: BTreeMap<usize, _> = left.iter().map(|i| (*i, graph.add_node(*i))).collect();
    for (i, node) in &nodes {
        for d in &edges[*i] {
            if let Some(before) = nodes.get(d) {
                graph.add_edge(*before, *node, ());
            }
        }
    }
    tarjan_scc(&graph)
        .into_iter()
        .filter(|c| c.len() > 1)
        .map(|c| c.into_iter().map(|n| graph[n]).collect::<BTreeSet<_>>())
        .min()
        .unwrap_or_default()
}

fn unique_ids(steps: &[StepDraft]) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    steps
        .iter()
        .map(|s| {
            let id = step_id(s);
            let n = seen.entry(id.clone()).and_modify(|n| *n += 1).or_insert(1);
            if *n == 1 { id } else { format!("{id}-{n}") }
        })
        .collect()
}

/// The id of a step: its resource, its action, and a hash of what the action is aimed at. What may differ between two
/// computations of the same step (the edits to a definition, a migration's tuning) is left out, so that a restarted
/// Drover finds the step again.
fn step_id(draft: &StepDraft) -> String {
    let mut target = serde_json::to_value(&draft.action).unwrap_or_default();
    if let Some(parameters) = target.get_mut("parameters").and_then(|p| p.as_object_mut()) {
        match &draft.action {
            Action::Machine(MachineAction::UpdateDomain { .. } | MachineAction::DefineDomain { .. }) => {
                parameters.retain(|k, _| matches!(k.as_str(), "host" | "uuid"));
            }
            Action::Machine(MachineAction::MoveDisk(_) | MachineAction::CancelDiskMove { .. }) => {
                parameters.retain(|k, _| matches!(k.as_str(), "host" | "uuid" | "target" | "to"));
            }
            Action::Machine(MachineAction::VerifySharedPool { .. }) => {
                parameters.retain(|k, _| matches!(k.as_str(), "host" | "pool"));
            }
            Action::Machine(MachineAction::MigrateVirtualMachine(_)) => {
                parameters.retain(|k, _| matches!(k.as_str(), "from" | "to" | "uuid"));
            }
            // A definition is what it is now at every computation; which object it is stays.
            Action::Cluster(ClusterAction::ApplyObject { .. } | ClusterAction::PatchObject { .. }) => {
                parameters.retain(|k, _| matches!(k.as_str(), "cluster" | "id"));
            }
            Action::Machine(_) | Action::Cluster(_) => {}
        }
    }
    let hash = hex(&Sha256::digest(format!("{}\n{target}", draft.resource)), 4);
    format!("{}-{}-{hash}", draft.resource.name, draft.action.name())
}

/// The first `bytes` of a digest as hexadecimal digits.
pub(super) fn hex(digest: &[u8], bytes: usize) -> String {
    digest.iter().take(bytes).fold(String::new(), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ResourceId;

    fn draft(name: &str) -> StepDraft {
        let action = MachineAction::StartStoragePool { host: "a".into(), pool: name.into() };
        StepDraft::new(
            Action::Machine(action),
            ResourceId::new("StoragePool".into(), name),
            format!("start {name}"),
            "",
        )
    }

    fn fact(pool: &str) -> Fact {
        Fact::PoolActive { host: "a".into(), pool: pool.into() }
    }

    #[test]
    fn a_need_is_tied_to_the_offer_wherever_it_was_drafted() {
        let mut drafts = Drafts::default();
        let mut user = draft("user");
        user.needs.push(fact("p"));
        let mut maker = draft("maker");
        maker.offers.push(fact("p"));
        drafts.step(user);
        drafts.step(maker);
        let steps = order(&mut drafts, |_, _| {});
        assert_eq!(steps.iter().map(|s| s.resource.name.as_str()).collect::<Vec<_>>(), ["maker", "user"]);
        assert_eq!(steps[1].depends_on, [steps[0].id.clone()]);
    }

    #[test]
    fn a_block_reaches_everything_behind_it_and_nothing_else() {
        let mut drafts = Drafts::default();
        let mut first = draft("first");
        first.blocked_by.push(Block { code: Code::Suspended, reason: "x".into(), way_out: "y".into() });
        let first = drafts.step(first);
        let mut second = draft("second");
        second.after.push(first);
        let second = drafts.step(second);
        let mut third = draft("third");
        third.after.push(second);
        drafts.step(third);
        drafts.step(draft("other"));
        let blocked: Vec<_> =
            order(&mut drafts, |_, _| {}).iter().map(|s| (s.resource.name.clone(), s.is_blocked())).collect();
        assert_eq!(
            blocked,
            [("first".into(), true), ("second".into(), true), ("third".into(), true), ("other".to_owned(), false)]
        );
    }

    #[test]
    fn a_circle_is_named_and_held_back() {
        let mut drafts = Drafts::default();
        let (mut a, mut b) = (draft("a"), draft("b"));
        (a.needs, a.offers) = (vec![fact("b")], vec![fact("a")]);
        (b.needs, b.offers) = (vec![fact("a")], vec![fact("b")]);
        drafts.step(a);
        drafts.step(b);
        drafts.step(draft("free"));
        let steps = order(&mut drafts, |_, _| {});
        assert_eq!(steps.iter().filter(|s| s.is_blocked()).count(), 2);
        assert_eq!(drafts.findings[0].code, Code::Cycle);
        assert!(drafts.findings[0].message.contains("start a; start b"));
    }
}
