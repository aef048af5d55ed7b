//! Carries out what a plan does to a cluster: look, act, verify. Each is repeatable; the result of a write is never taken
//! for the truth, and no object is replaced as a whole.

use super::FIELD_MANAGER;
use super::approve::{self, Approval};
use super::ask::{Apply, apply, put, scrub, secret};
use super::await_object::{self, Met};
use super::client::Ask;
use super::clusters::{Clusters, connected, get, get_raw};
use super::error::{Fault, FaultKind};
use super::kinds::{Kinds, Resource, collection, path};
use super::object;
use super::patch::{Standing, standing};
use crate::action::ClusterAction;
use crate::model::{ObjectRef, Secret, SecretSource};
use crate::observed::{ObjectState, Progress};
use crate::provider::{ActError, Look, StepCtx};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How often a patch is tried again because somebody wrote in between.
const RACES: u32 = 8;
/// Pause before that.
const RACE_PAUSE: Duration = Duration::from_millis(50);
/// How often a deletion is looked at.
const DELETION_LOOK: Duration = Duration::from_secs(1);
/// How long a verification may take.
const VERIFY: Duration = Duration::from_secs(60);

/// Who works, on which cluster, and until when.
pub(super) struct Hands<'a> {
    pub clusters: &'a Clusters,
    pub cluster: &'a str,
    pub deadline: Instant,
}

impl<'a> Hands<'a> {
    fn of(clusters: &'a Clusters, action: &'a ClusterAction, time: Duration) -> Self {
        Self { clusters, cluster: action.cluster(), deadline: Instant::now() + time }
    }

    async fn get(&self, id: &ObjectRef) -> Result<Option<ObjectState>, Fault> {
        connected!(self.clusters, self.cluster, self.deadline, c => get(c, id, self.deadline))
    }

    async fn get_raw(&self, id: &ObjectRef) -> Result<Option<Value>, Fault> {
        connected!(self.clusters, self.cluster, self.deadline, c => get_raw(c, id, self.deadline))
    }

    async fn resource(&self, id: &ObjectRef) -> Result<Resource, Fault> {
        connected!(self.clusters, self.cluster, self.deadline, c => Kinds::one(c, id, self.deadline))
    }

    /// The object with its secret values, and these.
    async fn complete(
        &self,
        id: &ObjectRef,
        object: &Value,
        secrets: &BTreeMap<String, SecretSource>,
    ) -> Result<(Value, Vec<Secret<Vec<u8>>>), Fault> {
        let (mut object, mut values) = (object.clone(), Vec::new());
        for (pointer, source) in secrets {
            let value = secret(self.clusters, self.cluster, id, source, self.deadline).await?;
            put(id, &mut object, pointer, value.expose()).ok_or_else(|| {
                let why = format!("a secret value cannot stand at `{pointer}`");
                Fault::new(self.cluster, "apply", FaultKind::Invalid, why).of(Some(id))
            })?;
            values.push(value);
        }
        Ok((object, values))
    }

    async fn apply(&self, id: &ObjectRef, object: &Value, how: Apply) -> Result<Value, Fault> {
        let applied = async {
            connected!(self.clusters, self.cluster, self.deadline, c => apply(c, id, object, how, self.deadline))
        };
        let applied = applied.await;
        if !how.dry_run {
            self.written();
        }
        applied
    }

    async fn write(&self, ask: Ask<'_>) -> Result<(), Fault> {
        let asked = async {
            connected!(self.clusters, self.cluster, self.deadline, c => c.ask::<Value>(ask.clone(), self.deadline))
        };
        let asked = asked.await.map(drop);
        self.written();
        asked
    }

    /// What is known of the cluster may be out of date, also where the answer was lost.
    fn written(&self) {
        if let Some(watched) = &self.clusters.watched {
            watched.written(self.cluster);
        }
    }
}

/// What an action would meet now. Changes nothing.
pub(super) async fn look(clusters: &Clusters, action: &ClusterAction, ctx: &StepCtx) -> Result<Look, ActError> {
    let hands = Hands::of(clusters, action, ctx.deadline);
    match action {
        ClusterAction::ApplyObject { id, object, force, secrets, .. } => {
            let (object, values) = hands.complete(id, object, secrets).await.map_err(Fault::into_act)?;
            look_apply(&hands, id, &object, &values, *force).await
        }
        ClusterAction::CreateObject { id, .. } => match hands.get(id).await.map_err(Fault::into_act)? {
            Some(there) if there.deleting => Ok(Look::Refused { reason: leaving(&there) }),
            Some(_) => Ok(Look::AlreadyDone),
            None => Ok(Look::Ready),
        },
        ClusterAction::PatchObject { id, patch, .. } => match hands.get_raw(id).await.map_err(Fault::into_act)? {
            None => Ok(Look::Refused { reason: format!("{id} is not there any more") }),
            Some(there) => Ok(match standing(&there, patch) {
                Standing::Done => Look::AlreadyDone,
                Standing::Ready => Look::Ready,
                Standing::Stale(path) => Look::Refused { reason: stale(id, &path) },
                Standing::Odd(why) => {
                    Look::Refused { reason: format!("the patch of {id} cannot be carried out: {why}") }
                }
            }),
        },
        ClusterAction::ApproveInstallPlan { id, csv, .. } => {
            Ok(match approve::look(&hands, id, csv).await.map_err(Fault::into_act)? {
                Approval::Done => Look::AlreadyDone,
                Approval::Waits(..) | Approval::NotYet(_) => Look::Ready,
            })
        }
        ClusterAction::DeleteObject { id, uid, .. } => match hands.get(id).await.map_err(Fault::into_act)? {
            None => Ok(Look::AlreadyDone),
            Some(there) if there.uid != *uid => Ok(Look::Refused {
                reason: format!("{id} is another one: it was deleted and made anew since it was observed"),
            }),
            Some(there) if there.deleting => Ok(Look::Running),
            Some(_) => Ok(Look::Ready),
        },
        ClusterAction::AwaitObject { id, until, .. } => {
            let met = await_object::look(clusters, action.cluster(), id, until, hands.deadline).await;
            Ok(match met.map_err(Fault::into_act)? {
                Met::Yes => Look::AlreadyDone,
                Met::NotYet(_) | Met::Never(..) => Look::Ready,
            })
        }
    }
}

/// Whether an apply would change anything: by a dry run, held against what is there.
async fn look_apply(
    hands: &Hands<'_>,
    id: &ObjectRef,
    object: &Value,
    values: &[Secret<Vec<u8>>],
    force: bool,
) -> Result<Look, ActError> {
    let there = hands.get_raw(id).await.map_err(Fault::into_act)?;
    if let Some(there) = &there
        && there["metadata"]["deletionTimestamp"].is_string()
    {
        let there = object::read(hands.cluster, &id.api_version, &id.kind, there.clone()).map_err(Fault::into_act)?;
        return Ok(Look::Refused { reason: leaving(&there) });
    }
    let dry = hands.apply(id, object, Apply { force, dry_run: true }).await.map_err(|f| scrub(f, values));
    let would_be = match dry {
        Ok(would_be) => would_be,
        Err(fault) if fault.kind == FaultKind::Conflict => {
            let conflicts = fault.status.as_ref().map(|s| s.field_conflicts()).unwrap_or_default();
            let fields: Vec<String> = conflicts.iter().map(|c| format!("{} (`{}`)", c.field, c.manager)).collect();
            if fields.is_empty() {
                return Err(fault.into_act());
            }
            let reason = format!("other field managers have set what is to be set of {id}: {}", fields.join(", "));
            return Ok(Look::Refused { reason });
        }
        // It may be made by a step of this plan, and a dry run of a kind or in a namespace that is not there yet says nothing.
        Err(fault) if matches!(fault.kind, FaultKind::NotFound | FaultKind::NotServed) && there.is_none() => {
            return Err(ActError { transient: true, ..fault.into_act() });
        }
        Err(fault) if fault.why.contains("does not support dry run") => return Ok(Look::Ready),
        Err(fault) => return Err(fault.into_act()),
    };
    let is_same = there.is_some_and(|there| comparable(&there) == comparable(&would_be));
    Ok(if is_same { Look::AlreadyDone } else { Look::Ready })
}

/// What of an object counts where two states are compared: all but what changes with every write, and of the managers our own
/// fields.
fn comparable(object: &Value) -> (Value, Option<std::collections::BTreeSet<String>>) {
    let mut value = object.clone();
    let mut ours = None;
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        let managed = metadata.remove("managedFields");
        ours = managed.and_then(|m| object::managers(&m).remove(FIELD_MANAGER));
        metadata.remove("resourceVersion");
        metadata.remove("generation");
    }
    (value, ours)
}

fn stale(id: &ObjectRef, path: &str) -> String {
    format!("{id} is not as it was observed: `{path}` has changed since")
}

/// What holds an object that is on its way out.
fn leaving(there: &ObjectState) -> String {
    let mut text = format!("{} is being deleted", there.id);
    if !there.finalizers.is_empty() {
        text.push_str(&format!(
            ", and waits for what has to happen before (finalizers): {}",
            there.finalizers.join(", ")
        ));
    }
    let remaining = object::namespace(there).remaining;
    if there.id.kind == "Namespace" && !remaining.is_empty() {
        text.push_str(&format!("; in it: {}", remaining.join("; ")));
    }
    text
}

/// Carries an action out, or follows it to its end.
pub(super) async fn act(clusters: &Clusters, action: &ClusterAction, ctx: &StepCtx) -> Result<(), ActError> {
    let hands = Hands::of(clusters, action, ctx.deadline);
    let deadline = hands.deadline;
    match action {
        ClusterAction::ApplyObject { id, object, force, secrets, .. } => {
            let (object, values) = hands.complete(id, object, secrets).await.map_err(Fault::into_act)?;
            let how = Apply { force: *force, dry_run: false };
            hands.apply(id, &object, how).await.map(drop).map_err(|f| scrub(f, &values).into_act())
        }
        ClusterAction::CreateObject { id, object, .. } => {
            let resource = hands.resource(id).await.map_err(Fault::into_act)?;
            let namespace = id.namespace.as_deref().filter(|_| resource.namespaced);
            let path = collection(&id.api_version, &resource.plural, namespace);
            let target = format!("{path}?fieldManager={FIELD_MANAGER}");
            match hands.write(Ask::create("create", target, object).of(id)).await {
                Err(fault) if fault.kind == FaultKind::AlreadyExists => Ok(()),
                other => other.map_err(Fault::into_act),
            }
        }
        ClusterAction::PatchObject { id, patch, .. } => patch_object(&hands, id, patch).await,
        ClusterAction::ApproveInstallPlan { id, csv, .. } => approve::act(&hands, id, csv, ctx).await,
        ClusterAction::DeleteObject { id, uid, .. } => delete(&hands, id, uid, ctx).await,
        ClusterAction::AwaitObject { id, until, .. } => {
            await_object::wait(clusters, action.cluster(), id, until, deadline, ctx).await
        }
    }
}

pub(super) async fn patch_object(hands: &Hands<'_>, id: &ObjectRef, patch: &[Value]) -> Result<(), ActError> {
    let resource = hands.resource(id).await.map_err(Fault::into_act)?;
    let target = format!("{}?fieldManager={FIELD_MANAGER}", path(id, &resource));
    for race in 0.. {
        let fault = match hands.write(Ask::patch("patch", target.as_str(), patch).of(id)).await {
            Ok(()) => return Ok(()),
            Err(fault) => fault,
        };
        // 409: somebody wrote in between. 422: a test failed, or what is there then is not accepted.
        if !matches!(fault.kind, FaultKind::Conflict | FaultKind::Invalid) {
            return Err(fault.into_act());
        }
        let there = hands.get_raw(id).await.map_err(Fault::into_act)?;
        match there.map(|there| standing(&there, patch)) {
            Some(Standing::Done) => return Ok(()),
            Some(Standing::Stale(path)) => {
                return Err(ActError::permanent(format!("`{}`: {}", hands.cluster, stale(id, &path))));
            }
            Some(Standing::Ready) if fault.kind == FaultKind::Conflict && race < RACES => {
                tokio::time::sleep(RACE_PAUSE * (race + 1)).await;
            }
            _ => return Err(fault.into_act()),
        }
    }
    unreachable!("the loop ends by its number")
}

/// Deletes, and waits until it is gone. What the object owns is collected behind it (`Background`, as kubectl does), so the
/// name is free as soon as its finalizers are done.
async fn delete(hands: &Hands<'_>, id: &ObjectRef, uid: &str, ctx: &StepCtx) -> Result<(), ActError> {
    let (deadline, began) = (hands.deadline, Instant::now());
    let options = json!({
        "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background", "preconditions": {"uid": uid},
    });
    loop {
        let there = match hands.get(id).await.map_err(Fault::into_act)? {
            Some(there) if there.uid == uid => there,
            _ => return Ok(()),
        };
        if !there.deleting {
            let resource = hands.resource(id).await.map_err(Fault::into_act)?;
            match hands.write(Ask::delete("delete", path(id, &resource), &options).of(id)).await {
                Ok(()) => continue,
                Err(fault) if fault.kind == FaultKind::NotFound => return Ok(()),
                // Another one of this name by now: the one that was meant is gone.
                Err(fault) if fault.kind == FaultKind::Conflict => {}
                Err(fault) => return Err(fault.into_act()),
            }
        }
        tell(ctx, &leaving(&there), began);
        if Instant::now() + DELETION_LOOK >= deadline {
            return Err(stuck(hands.cluster, &there));
        }
        tokio::select! {
            () = tokio::time::sleep(DELETION_LOOK) => {}
            () = ctx.cancel.cancelled() => return Err(stuck(hands.cluster, &there)),
        }
    }
}

fn stuck(cluster: &str, there: &ObjectState) -> ActError {
    let error = ActError::transient(format!("`{cluster}`: {}", leaving(there)));
    error.hint(
        "look at what has to be done before: Drover takes no finalizer off. Often the operator that would do it is gone already",
    )
}

/// Tells how it goes.
pub(super) fn tell(ctx: &StepCtx, phase: &str, began: Instant) {
    let elapsed_millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    (ctx.progress)(Progress { phase: phase.to_owned(), elapsed_millis, ..Progress::default() });
}

/// Whether the outcome is really there.
pub(super) async fn verify(clusters: &Clusters, action: &ClusterAction, ctx: &StepCtx) -> Result<(), ActError> {
    // Waiting saw it with its own eyes, and what is waited for may blink: asking again says nothing more.
    if let ClusterAction::AwaitObject { .. } = action {
        return Ok(());
    }
    let ctx = StepCtx { deadline: ctx.deadline.min(VERIFY), ..ctx.clone() };
    let (cluster, id) = (action.cluster(), action.object());
    if let ClusterAction::DeleteObject { uid, .. } = action {
        // One of the same name that was made since is not the one that was deleted.
        let there = Hands::of(clusters, action, ctx.deadline).get(id).await.map_err(Fault::into_act)?;
        return match there.filter(|there| there.uid == *uid) {
            None => Ok(()),
            Some(there) => Err(stuck(cluster, &there)),
        };
    }
    match look(clusters, action, &ctx).await? {
        Look::AlreadyDone => Ok(()),
        Look::Refused { reason } => Err(ActError::permanent(format!("`{cluster}`: {reason}"))),
        Look::Ready | Look::Running => {
            let what = match action {
                ClusterAction::CreateObject { .. } => "is not there",
                _ => "is not as it was written: something else changes the same fields",
            };
            Err(ActError::transient(format!("`{cluster}`: {id} {what}")).hint(
                "look at `metadata.managedFields` of the object for who writes to it: `kubectl get --show-managed-fields -o yaml`",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_out_says_what_holds_it() {
        let value = json!({
            "metadata": {"name": "n", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]},
            "status": {"conditions": [{"type": "NamespaceFinalizersRemaining", "status": "True", "message": "x has c/d"}]},
        });
        let there = object::read("c", "v1", "Namespace", value).unwrap();
        let said = leaving(&there);
        assert!(said.contains("Namespace n") && said.contains("a/b") && said.ends_with("in it: x has c/d"), "{said}");
    }

    #[test]
    fn what_changes_with_every_write_is_no_difference_and_our_own_fields_are() {
        let managed = |field: &str| json!([{"manager": "drover", "fieldsV1": {"f:data": {field: {}}}}, {"manager": "x", "time": field}]);
        let of = |version: &str, field: &str| json!({"metadata": {"resourceVersion": version, "managedFields": managed(field)}, "data": {}});
        assert_eq!(comparable(&of("1", "f:a")), comparable(&of("2", "f:a")));
        assert_ne!(comparable(&of("1", "f:a")), comparable(&of("1", "f:b")));
    }
}
