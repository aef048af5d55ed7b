//! Where an object stands to a JSON Patch (RFC 6902), without carrying it out: done, ready, or made for something that is not
//! there any more.

use serde_json::Value;

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// All that it would bring about is there.
    Done,
    /// Its tests hold.
    Ready,
    /// A test does not hold: at this place.
    Stale(String),
    /// It is no patch that Drover writes.
    Odd(String),
}

/// Compares.
pub(super) fn standing(object: &Value, operations: &[Value]) -> Standing {
    let (mut done, mut stale) = (true, None);
    for operation in operations {
        let (Some(kind), Some(path)) = (operation["op"].as_str(), operation["path"].as_str()) else {
            return Standing::Odd(format!("`{operation}` has no `op` or no `path`"));
        };
        let there = object.pointer(path);
        match kind {
            "test" if there != Some(&operation["value"]) => {
                stale.get_or_insert_with(|| path.to_owned());
            }
            "test" => {}
            // The end of a list: anywhere in it will do.
            "add" if path.ends_with("/-") => {
                let list = path.strip_suffix("/-").and_then(|p| object.pointer(p)).and_then(Value::as_array);
                done &= list.is_some_and(|l| l.contains(&operation["value"]));
            }
            "add" | "replace" => done &= there == Some(&operation["value"]),
            "remove" => done &= there.is_none(),
            other => return Standing::Odd(format!("the operation `{other}` is not used")),
        }
    }
    match stale {
        _ if done => Standing::Done,
        Some(path) => Standing::Stale(path),
        None => Standing::Ready,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_is_done_ready_or_stale() {
        let patch = [
            json!({"op": "test", "path": "/spec/rules", "value": [1]}),
            json!({"op": "replace", "path": "/spec/rules", "value": [0, 1]}),
        ];
        assert_eq!(standing(&json!({"spec": {"rules": [1]}}), &patch), Standing::Ready);
        assert_eq!(standing(&json!({"spec": {"rules": [0, 1]}}), &patch), Standing::Done);
        assert_eq!(standing(&json!({"spec": {"rules": [2]}}), &patch), Standing::Stale("/spec/rules".into()));
        let approve = [json!({"op": "replace", "path": "/spec/approved", "value": true})];
        assert_eq!(standing(&json!({"spec": {"approved": true}}), &approve), Standing::Done);
        let remove = [json!({"op": "remove", "path": "/spec/a"})];
        assert_eq!(standing(&json!({"spec": {}}), &remove), Standing::Done);
        assert_eq!(standing(&json!({"spec": {"a": 1}}), &remove), Standing::Ready);
        let append = [json!({"op": "add", "path": "/list/-", "value": 3})];
        assert_eq!(standing(&json!({"list": [3]}), &append), Standing::Done);
        assert_eq!(standing(&json!({"list": []}), &append), Standing::Ready);
        assert!(matches!(standing(&json!({}), &[json!({"op": "copy", "path": "/a"})]), Standing::Odd(_)));
    }
}
