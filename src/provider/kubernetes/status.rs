//! A failure as an API server words it (`metav1.Status`), and what of it can be read as data.

use crate::observed::FieldConflict;
use serde::Deserialize;

/// `metav1.Status`, as far as it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The HTTP code.
    pub code: u16,
    /// `Conflict`, `Forbidden`.
    pub reason: String,
    /// In words.
    pub message: String,
    /// More.
    pub details: Option<Details>,
}

/// `metav1.StatusDetails`, as far as it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Details {
    /// One by one.
    pub causes: Vec<Cause>,
    /// Seconds after which it may be tried again.
    pub retry_after_seconds: Option<u64>,
}

/// `metav1.StatusCause`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Cause {
    /// `FieldManagerConflict`, `FieldValueInvalid`.
    pub reason: String,
    /// `conflict with "kubectl" using v1`.
    pub message: String,
    /// `.spec.channel`.
    pub field: String,
}

/// Most characters of a server's message that are kept.
const LONGEST: usize = 2000;

impl Status {
    /// What the server says, bounded, with the code where it says nothing.
    pub fn words(&self) -> String {
        let text = if self.message.is_empty() { &self.reason } else { &self.message };
        if text.is_empty() {
            return format!("HTTP {}", self.code);
        }
        match text.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.clone(),
        }
    }

    /// Whether fields of another manager are in the way of an apply.
    pub fn is_field_conflict(&self) -> bool {
        self.code == 409 && self.details.iter().flat_map(|d| &d.causes).any(|c| c.reason == "FieldManagerConflict")
    }

    /// Whose fields are in the way of an apply: `conflict with "kubectl" using apps/v1`, also `with "x" with subresource "s"`.
    pub fn field_conflicts(&self) -> Vec<FieldConflict> {
        let causes = self.details.iter().flat_map(|d| &d.causes).filter(|c| c.reason == "FieldManagerConflict");
        let conflicts = causes.map(|cause| {
            let manager = cause.message.split('"').nth(1).unwrap_or("another manager");
            FieldConflict { manager: manager.to_owned(), field: cause.field.clone() }
        });
        conflicts.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conflicts_name_the_other_manager_and_the_field() {
        let status: Status = serde_json::from_value(json!({
            "kind": "Status", "code": 409, "reason": "Conflict", "message": "Apply failed with 1 conflict",
            "details": {"name": "x", "causes": [
                {"reason": "FieldManagerConflict", "message": "conflict with \"kubectl\" using v1", "field": ".data.key"},
            ]},
        }))
        .unwrap();
        assert!(status.is_field_conflict());
        assert_eq!(status.field_conflicts(), [FieldConflict { manager: "kubectl".into(), field: ".data.key".into() }]);
    }

    #[test]
    fn what_it_says_is_bounded() {
        let long = Status { message: "ä".repeat(5000), ..Status::default() };
        assert_eq!(long.words().chars().count(), LONGEST + 1);
        assert_eq!(Status { code: 502, ..Status::default() }.words(), "HTTP 502");
    }
}
