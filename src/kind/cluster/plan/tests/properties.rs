//! Whatever was there: a plan that is carried out leaves nothing to do, and nothing of others is lost.

use super::*;
use crate::kind::cluster::objects::NAMESPACE;
use crate::model::ObjectRef;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Something that somebody else has done before, or between two passes.
#[derive(Clone, Debug)]
enum Deed {
    Label(usize, u8),
    Annotation(usize, u8),
    Field(usize, u8),
    Remove(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        (any::<usize>(), 0u8..4).prop_map(|(o, n)| Deed::Label(o, n)),
        (any::<usize>(), 0u8..4).prop_map(|(o, n)| Deed::Annotation(o, n)),
        (any::<usize>(), 0u8..4).prop_map(|(o, n)| Deed::Field(o, n)),
        any::<usize>().prop_map(Deed::Remove),
    ]
}

fn toolkit() -> impl Strategy<Value = String> {
    let settings = proptest::sample::subsequence(
        vec![
            "rsyncEndpointType: NodePort",
            "podLimit: 5",
            "noProxy: [.a.com], httpProxy: 'http://p:1'",
            "variables: {new_one: {a: 1, b: [1, 2]}}",
            "stunnelTcpProxy: {secretRef: {env: S}}",
            "console: false",
        ],
        0..6,
    );
    let more = proptest::sample::subsequence(
        vec![
            "rsyncNetworkPolicies: true, exemptedNamespaces: [default]",
            "approval: Manual, approve: mtc-operator.v1.7.4",
            "forceConflicts: true",
        ],
        0..3,
    );
    (settings, more).prop_map(|(settings, more)| {
        let more: String = more.iter().map(|m| format!(", {m}")).collect();
        format!(
            "role: Control, migrationToolkit: {{install: OLM, channel: release-v1.7{more}, controller: {{{}}}}}",
            settings.join(", ")
        )
    })
}

/// Does a deed on one of the objects that plans are about, and notes what then is somebody else's.
fn act(world: &mut World, deed: &Deed, theirs: &mut Vec<(ObjectRef, String, Value)>) {
    let server = world.fake.on("ocp4");
    // Policies of Drover's own go with everything on them.
    let kinds = ["Namespace", "OperatorGroup", "Subscription", "MigrationController"];
    let about: Vec<ObjectRef> = server
        .objects
        .keys()
        .filter(|o| kinds.contains(&o.kind.as_str()) && o.name != "kube-system")
        .cloned()
        .collect();
    let (Deed::Label(i, _) | Deed::Annotation(i, _) | Deed::Field(i, _) | Deed::Remove(i)) = deed;
    let id = about[i % about.len()].clone();
    let (pointer, fields) = match deed {
        Deed::Label(_, n) => {
            (format!("/metadata/labels/l{n}"), json!({"metadata": {"labels": {format!("l{n}"): "x"}}}))
        }
        Deed::Annotation(_, n) => {
            (format!("/metadata/annotations/a{n}"), json!({"metadata": {"annotations": {format!("a{n}"): "x"}}}))
        }
        Deed::Field(_, n) => (format!("/spec/others{n}"), json!({"spec": {format!("others{n}"): [1, {"b": 2}]}})),
        // Of what Drover made; a namespace would take all the rest with it.
        Deed::Remove(_) => {
            if id.kind != "Namespace" && id.namespace.as_deref() == Some(NAMESPACE) {
                server.objects.remove(&id);
                theirs.retain(|(o, ..)| *o != id);
                world.fake.play();
            }
            return;
        }
    };
    server.put("somebody", id.clone(), fields);
    theirs.push((id.clone(), pointer.clone(), server.objects[&id].value.pointer(&pointer).unwrap().clone()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn plans_converge_and_leave_what_is_others(
        first in toolkit(), second in toolkit(),
        before in proptest::collection::vec(deed(), 0..4), between in proptest::collection::vec(deed(), 0..6),
    ) {
        let mut world = World::new(&[("ocp4", "openshift-4.10", &first)]);
        let mut theirs = Vec::new();
        for deed in &before {
            act(&mut world, deed, &mut theirs);
        }
        world.converge();
        for deed in &between {
            act(&mut world, deed, &mut theirs);
        }
        world.says(&[("ocp4", &second)]);
        world.converge();
        for (id, pointer, value) in &theirs {
            let there = world.fake.on("ocp4").objects.get(id).and_then(|o| o.value.pointer(pointer));
            prop_assert_eq!(there, Some(value), "{} {}", id, pointer);
        }
        // And all of it goes again.
        world.says(&[("ocp4", "role: Control, migrationToolkit: {install: None, prune: true}")]);
        world.converge();
        prop_assert!(world.fake.on("ocp4").objects.keys().all(|o| o.namespace.as_deref() != Some(NAMESPACE)));
    }

    /// A plan that breaks off after any step is continued by the next one.
    #[test]
    fn a_plan_that_breaks_off_is_taken_up_again(spec in toolkit(), after in 0usize..20) {
        let mut world = World::new(&[("ocp4", "openshift-4.10", &spec)]);
        let plan = world.plan();
        for step in plan.steps.iter().take(after) {
            prop_assert_eq!(of_cluster(&step.action), "ocp4");
            world.fake.act(&step.action);
        }
        world.converge();
        world.says(&[("ocp4", "role: Control, migrationToolkit: {install: None, prune: true}")]);
        let plan = world.plan();
        for step in plan.steps.iter().take(after) {
            world.fake.act(&step.action);
        }
        world.converge();
        prop_assert!(world.fake.on("ocp4").objects.keys().all(|o| o.namespace.as_deref() != Some(NAMESPACE)));
    }
}
