//! Answers questions to a cluster. Nothing is changed there: an apply is a server-side dry run.

use super::FIELD_MANAGER;
use super::client::{Ask, Connection};
use super::clusters::{Clusters, connected, get_raw};
use super::error::{Fault, FaultKind};
use super::kinds::{Kinds, path};
use super::{ends, object};
use crate::action::ClusterAction;
use crate::model::{ObjectRef, Secret, SecretSource};
use crate::observed::{ClusterAnswer, ClusterQuestion};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tokio::time::Instant;

/// Answers one question, by `deadline`.
pub(super) async fn ask(
    clusters: &Clusters,
    cluster: &str,
    question: &ClusterQuestion,
    deadline: Instant,
) -> Result<ClusterAnswer, Fault> {
    match question {
        ClusterQuestion::Apply { id, object, force } => {
            let how = Apply { force: *force, dry_run: true };
            let would_be = async {
                connected!(clusters, cluster, deadline, connection => apply(connection, id, object, how, deadline))
            };
            match would_be.await {
                Ok(Value::Object(mut value)) => {
                    if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
                        metadata.remove("managedFields");
                    }
                    object::hide(&mut value);
                    Ok(ClusterAnswer::WouldBe(value.into()))
                }
                Ok(_) => Err(Fault::new(cluster, "apply (dry run)", FaultKind::BadAnswer, "the answer is no object")
                    .of(Some(id))),
                Err(fault) => refusal(fault),
            }
        }
        ClusterQuestion::Secrets { id, values } => {
            let there = connected!(clusters, cluster, deadline, connection => get_raw(connection, id, deadline))?;
            let mut same = BTreeMap::new();
            for (pointer, source) in values {
                let is_same = match &there {
                    None => false,
                    Some(there) => {
                        let wanted = secret(clusters, cluster, id, source, deadline).await?;
                        holds(id, there, pointer, wanted.expose())
                    }
                };
                same.insert(pointer.clone(), is_same);
            }
            Ok(ClusterAnswer::Same(same))
        }
    }
}

/// What a refusal of a dry run says of the plan.
fn refusal(fault: Fault) -> Result<ClusterAnswer, Fault> {
    let conflicts = fault.status.as_ref().map(|s| s.field_conflicts()).unwrap_or_default();
    match fault.kind {
        FaultKind::Conflict if !conflicts.is_empty() => Ok(ClusterAnswer::Conflict(conflicts)),
        // A webhook that cannot say without doing: no answer, and no refusal.
        FaultKind::Admission | FaultKind::Invalid if fault.why.contains("does not support dry run") => Err(fault),
        FaultKind::Admission if fault.status.as_ref().is_some_and(|s| s.code >= 500) => Err(fault),
        FaultKind::Admission | FaultKind::Invalid => Ok(ClusterAnswer::Refused(fault.why)),
        _ => Err(fault),
    }
}

/// How something is applied.
#[derive(Clone, Copy)]
pub(super) struct Apply {
    pub force: bool,
    pub dry_run: bool,
}

/// Server-side apply: gives the object as it is then, with its managed fields and secret values.
pub(super) async fn apply(
    connection: &Connection,
    id: &ObjectRef,
    object: &Value,
    how: Apply,
    deadline: Instant,
) -> Result<Value, Fault> {
    let resource = Kinds::one(connection, id, deadline).await?;
    let mut target = format!("{}?fieldManager={FIELD_MANAGER}", path(id, &resource));
    if how.force {
        target.push_str("&force=true");
    }
    if how.dry_run {
        target.push_str("&dryRun=All");
    }
    let during = if how.dry_run { "apply (dry run)" } else { "apply" };
    Ok(connection.ask(Ask::apply(during, target, object).of(id), deadline).await?.value)
}

/// A secret value that goes into an object.
pub(super) async fn secret(
    clusters: &Clusters,
    cluster: &str,
    id: &ObjectRef,
    source: &SecretSource,
    deadline: Instant,
) -> Result<Secret<Vec<u8>>, Fault> {
    clusters.secret(source, deadline).await.map_err(|f| {
        let kind = if f.transient { FaultKind::Connection } else { FaultKind::Access };
        Fault::new(cluster, "take a secret value for", kind, f.to_string()).of(Some(id)).hint(f.hint)
    })
}

/// A fault without these values: a server may quote what it does not accept.
pub(super) fn scrub(mut fault: Fault, values: &[Secret<Vec<u8>>]) -> Fault {
    fault.status = fault.status.map(|s| Box::new(super::status::Status { message: String::new(), ..*s }));
    for value in values {
        let plain = String::from_utf8_lossy(value.expose()).into_owned();
        for form in [plain, ends::to_base64(value.expose())].iter().filter(|f| f.len() >= SHORTEST) {
            fault.why = fault.why.replace(form.as_str(), object::HIDDEN);
        }
    }
    fault
}

/// A shorter value is part of too many words to be taken out of them, and no secret either.
const SHORTEST: usize = 4;

/// Whether an object has a secret value at a place. What is written to a Secret's `stringData` is found in its `data`.
pub(super) fn holds(id: &ObjectRef, object: &Value, pointer: &str, wanted: &[u8]) -> bool {
    let is_secret = id.group().is_empty() && id.kind == "Secret";
    let pointer = match pointer.strip_prefix("/stringData/").filter(|_| is_secret) {
        Some(key) => format!("/data/{key}"),
        None => pointer.to_owned(),
    };
    let Some(text) = object.pointer(&pointer).and_then(Value::as_str) else { return false };
    if ClusterAction::is_bytes(id, &pointer) {
        ends::base64(text).is_some_and(|there| there == wanted)
    } else {
        text.as_bytes() == wanted
    }
}

/// Puts a secret value into an object, in the form that its place wants. None where the place cannot be.
pub(super) fn put(id: &ObjectRef, object: &mut Value, pointer: &str, value: &[u8]) -> Option<()> {
    let text = match ClusterAction::is_bytes(id, pointer) {
        true => ends::to_base64(value),
        false => String::from_utf8(value.to_vec()).ok()?,
    };
    let mut at = object;
    let parts: Vec<String> =
        pointer.strip_prefix('/')?.split('/').map(|p| p.replace("~1", "/").replace("~0", "~")).collect();
    let (last, before) = parts.split_last()?;
    for part in before {
        at = at.as_object_mut()?.entry(part.clone()).or_insert_with(|| Map::new().into());
    }
    at.as_object_mut()?.insert(last.clone(), text.into());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secret_values_are_put_and_found_in_the_form_of_their_place() {
        let id = ObjectRef::new("v1", "Secret", "n", "s");
        let mut secret = json!({"kind": "Secret", "type": "Opaque"});
        put(&id, &mut secret, "/data/saToken", b"hunter2").unwrap();
        assert_eq!(secret["data"]["saToken"], "aHVudGVyMg==");
        assert!(
            holds(&id, &secret, "/data/saToken", b"hunter2") && holds(&id, &secret, "/stringData/saToken", b"hunter2")
        );
        assert!(!holds(&id, &secret, "/data/saToken", b"hunter3") && !holds(&id, &secret, "/data/other", b"hunter2"));
        let id = ObjectRef::new("migration.openshift.io/v1alpha1", "MigrationController", "n", "c");
        let mut controller = json!({"spec": {"a": 1}});
        put(&id, &mut controller, "/spec/stunnel_tcp_proxy", b"http://u:p@h:1").unwrap();
        assert!(holds(&id, &controller, "/spec/stunnel_tcp_proxy", b"http://u:p@h:1"));
        assert_eq!(put(&id, &mut controller, "/spec/a/b", b"x"), None, "a number has no fields");
        assert_eq!(put(&id, &mut controller, "/spec/b", &[0xff]), None, "no text");
        put(&id, &mut controller, "/metadata/annotations/a~1b", b"x").unwrap();
        assert_eq!(controller["metadata"]["annotations"]["a/b"], "x");
        let id = ObjectRef::new("migration.openshift.io/v1alpha1", "MigCluster", "n", "c");
        let mut cluster = json!({});
        put(&id, &mut cluster, "/spec/caBundle", b"pem").unwrap();
        assert_eq!(cluster["spec"]["caBundle"], "cGVt");
    }
}
