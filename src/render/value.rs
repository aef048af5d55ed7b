//! Values of fields as people read them.

use super::escape;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};
use std::borrow::Cow;

/// Longest list or mapping that is shown in one line, in characters.
const ONE_LINE: usize = 80;

/// More lines than this on both sides are not compared: the comparison takes up to their product in time, and nobody
/// reads the result.
const MOST_LINES: usize = 4_000;

/// A value's form in the output.
pub enum Shown {
    /// Before and after in one line; `None` for nothing.
    Line(Option<String>, Option<String>),
    /// Lines, each with its sign in front.
    Lines(Vec<(Sign, String)>),
}

/// What a line of a multi-line value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// The same before and after.
    Same,
    /// New.
    Added,
    /// Gone.
    Removed,
    /// Not a line of the value: a hunk's heading, or what was left out.
    Note,
}

/// Prepares a change's values. `full` shows every line, where two lines of context are shown otherwise.
pub fn show(before: &Value, after: &Value, full: bool) -> Shown {
    if is_long(before) || is_long(after) {
        Shown::Lines(diff(&lines(before), &lines(after), full))
    } else {
        Shown::Line(short(before), short(after))
    }
}

/// A value in one line: text without quotes where nothing else could be meant.
pub fn short(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(s) if is_plain(s) => Some(s.clone()),
        Value::String(s) => Some(format!("\"{}\"", escape::line(&s.replace('\\', "\\\\").replace('"', "\\\"")))),
        other => Some(escape::line(&other.to_string()).into_owned()),
    }
}

/// Text that cannot be mistaken for another type, or for the output's own words.
fn is_plain(s: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | ':' | '@' | '+' | '-');
    !s.is_empty() && s.chars().all(word) && !matches!(s, "true" | "false" | "null" | "->") && s.parse::<f64>().is_err()
}

fn is_long(value: &Value) -> bool {
    match value {
        Value::String(s) => s.contains('\n'),
        Value::Array(_) | Value::Object(_) => value.to_string().chars().count() > ONE_LINE,
        _ => false,
    }
}

fn lines(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed(""),
        Value::String(s) => Cow::Borrowed(s),
        other => Cow::Owned(serde_json::to_string_pretty(other).unwrap_or_else(|_| other.to_string())),
    }
}

fn diff(before: &str, after: &str, full: bool) -> Vec<(Sign, String)> {
    let plain = |sign: Sign, text: &str| (sign, escape::line(text.trim_end_matches(['\r', '\n'])).into_owned());
    let (old, new) = (before.lines().count(), after.lines().count());
    if old > MOST_LINES && new > MOST_LINES {
        return vec![(Sign::Note, format!("@@ {old} lines are replaced by {new} @@"))];
    }
    let diff = TextDiff::from_lines(before, after);
    let mut out = Vec::new();
    for group in diff.grouped_ops(if full { old.max(new) } else { 2 }) {
        if let (Some(first), Some(last)) = (group.first(), group.last())
            && old > 0
            && new > 0
        {
            let span = |r: std::ops::Range<usize>, end: usize| format!("{},{}", r.start + 1, end - r.start);
            out.push((
                Sign::Note,
                format!(
                    "@@ -{} +{} @@",
                    span(first.old_range(), last.old_range().end),
                    span(first.new_range(), last.new_range().end)
                ),
            ));
        }
        for op in &group {
            for change in diff.iter_changes(op) {
                let sign = match change.tag() {
                    ChangeTag::Equal => Sign::Same,
                    ChangeTag::Insert => Sign::Added,
                    ChangeTag::Delete => Sign::Removed,
                };
                out.push(plain(sign, change.value()));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_is_quoted_only_where_it_could_be_mistaken() {
        let shown = |v: Value| short(&v).unwrap_or_else(|| "nothing".into());
        assert_eq!(shown(json!("kvm-a")), "kvm-a");
        assert_eq!(shown(json!("4Gi")), "4Gi");
        assert_eq!(shown(json!("4")), "\"4\"");
        assert_eq!(shown(json!(4)), "4");
        assert_eq!(shown(json!("true")), "\"true\"");
        assert_eq!(shown(json!("")), "\"\"");
        assert_eq!(shown(json!("a b")), "\"a b\"");
        assert_eq!(shown(json!("\u{1b}[31m")), "\"\\u{1b}[31m\"");
        assert_eq!(shown(json!(null)), "nothing");
    }

    #[test]
    fn texts_of_several_lines_are_compared_with_two_lines_around() {
        let before = (1..=9).map(|n| format!("line {n}\n")).collect::<String>();
        let after = before.replace("line 5", "other");
        let Shown::Lines(lines) = show(&json!(before), &json!(after), false) else { panic!("one line") };
        let text: Vec<_> = lines.iter().map(|(_, l)| l.as_str()).collect();
        assert_eq!(text, ["@@ -3,5 +3,5 @@", "line 3", "line 4", "line 5", "other", "line 6", "line 7"]);
        assert_eq!(lines[3].0, Sign::Removed);
        assert_eq!(lines[4].0, Sign::Added);
    }

    #[test]
    fn a_new_text_has_no_hunk_heading() {
        let Shown::Lines(lines) = show(&Value::Null, &json!("a\nb\n"), false) else { panic!("one line") };
        assert_eq!(lines, [(Sign::Added, "a".to_owned()), (Sign::Added, "b".to_owned())]);
    }
}
