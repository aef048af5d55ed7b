//! Findings for people and for other programs: text with the line they are about, JSON, GitHub workflow commands, SARIF.

use super::escape;
use crate::finding::{Code, Finding, Severity, Source};
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Version of the JSON form.
pub const FORMAT_VERSION: &str = "1.0";

/// The longest line of a file that is shown; a longer one is not read by people.
const LINE_MAX: usize = 400;

/// Gives the text of a file that findings are about, where it is at hand.
pub type SourceText<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Findings as text, each with the line it is about where `text_of` knows it, and a last line that counts them. Empty for
/// no findings.
pub fn text(findings: &[Finding], text_of: &SourceText<'_>, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut files = BTreeMap::new();
    let mut out = String::new();
    for finding in findings {
        let excerpt = finding.source.as_ref().and_then(|source| {
            let text = files.entry(source.file.as_str()).or_insert_with(|| text_of(&source.file).map(Lines::new));
            text.as_ref().and_then(|lines| lines.excerpt(source))
        });
        out.push_str(&renderer.render(&[group(finding, excerpt)]));
        out.push_str("\n\n");
    }
    if let Some(count) = summary(findings) {
        out.push_str(&count);
        out.push('\n');
    }
    out
}

/// How many findings there are of each severity: `2 errors, 1 warning`; `None` for none.
pub fn summary(findings: &[Finding]) -> Option<String> {
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
    let parts: Vec<String> = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Info, "note")]
        .into_iter()
        .map(|(severity, word)| (count(severity), word))
        .filter(|(n, _)| *n > 0)
        .map(|(n, word)| format!("{n} {word}{}", if n == 1 { "" } else { "s" }))
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// The words of a finding.
fn group<'a>(finding: &'a Finding, excerpt: Option<Excerpt>) -> Group<'a> {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Info => Level::INFO,
    };
    let mut group = Group::with_title(level.primary_title(escape::line(&finding.message)).id(finding.code.as_str()));
    let path = finding.path.as_deref().map(escape::line);
    match (&finding.source, excerpt) {
        (Some(source), Some(excerpt)) => {
            let mark = AnnotationKind::Primary.span(excerpt.mark);
            group = group.element(
                Snippet::source(excerpt.line)
                    .line_start(source.line as usize)
                    .path(escape::line(&source.file).into_owned())
                    .annotation(match path {
                        Some(path) => mark.label(path),
                        None => mark,
                    }),
            );
        }
        (Some(source), None) => {
            let place =
                Origin::path(escape::line(&source.file)).line(source.line as usize).char_column(source.column as usize);
            group = group.element(place);
        }
        (None, _) => {}
    }
    for other in &finding.related {
        group = group.element(Level::NOTE.message(format!("see {}", escape::line(&other.to_string()))));
    }
    if let Some(hint) = &finding.hint {
        group = group.element(Level::HELP.with_name("hint").message(escape::line(hint)));
    }
    group
}

/// A file's text with the places where its lines begin.
struct Lines {
    text: String,
    starts: Vec<usize>,
}

/// One line and what is marked in it, in bytes.
struct Excerpt {
    line: String,
    mark: std::ops::Range<usize>,
}

impl Lines {
    fn new(text: String) -> Self {
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { text, starts }
    }

    /// The line of a place; not one that is too long, or holds characters that would have to be escaped: columns would
    /// not be true then.
    fn excerpt(&self, source: &Source) -> Option<Excerpt> {
        let index = (source.line as usize).checked_sub(1)?;
        let start = *self.starts.get(index)?;
        let end = self.starts.get(index + 1).copied().unwrap_or(self.text.len());
        let line = self.text.get(start..end)?.trim_end_matches(['\n', '\r']);
        if line.len() > LINE_MAX || escape::lines(line) != line {
            return None;
        }
        let column = (source.column as usize).checked_sub(1)?;
        let from = line.char_indices().map(|(i, _)| i).chain([line.len()]).nth(column)?;
        Some(Excerpt { mark: from..from + word(&line[from..]), line: line.to_owned() })
    }
}

/// How long the word at the beginning of a piece of YAML is: a quoted text, or up to what ends a plain one.
fn word(rest: &str) -> usize {
    if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        return rest[1..].find(quote).map_or(rest.len(), |i| i + 2);
    }
    let end = rest.find(|c: char| c.is_whitespace() || ",]}".contains(c)).unwrap_or(rest.len());
    let word = rest[..end].trim_end_matches(':');
    match word.len() {
        // At the end of a line there is nothing to mark but the place.
        0 => rest.chars().next().map_or(0, char::len_utf8),
        n => n,
    }
}

/// Findings as JSON, with a version and counts.
pub fn json_text(findings: &[Finding]) -> String {
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
    pretty(&json!({
        "formatVersion": FORMAT_VERSION,
        "summary": {
            "errors": count(Severity::Error),
            "warnings": count(Severity::Warning),
            "infos": count(Severity::Info),
        },
        "findings": findings,
    }))
}

/// A JSON value on several lines, safe to print.
fn pretty(value: &Value) -> String {
    // The alternate form of a JSON value is its pretty one; it cannot fail as serialising could.
    format!("{}\n", escape::json(&format!("{value:#}")))
}

/// Findings as workflow commands, which GitHub shows at the lines of a pull request.
pub fn github(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        out.push_str(match finding.severity {
            Severity::Error => "::error ",
            Severity::Warning => "::warning ",
            Severity::Info => "::notice ",
        });
        if let Some(source) = &finding.source {
            let file = escape::github_property(&source.file);
            let _ = write!(out, "file={file},line={},col={},", source.line, source.column);
        }
        let message = match &finding.hint {
            Some(hint) => format!("{}\nhint: {hint}", finding.message),
            None => finding.message.clone(),
        };
        let _ = writeln!(out, "title={}::{}", finding.code, escape::github_message(&message));
    }
    out
}

/// Findings as SARIF 2.1.0, for code scanning.
pub fn sarif(findings: &[Finding]) -> String {
    let rules: Vec<Code> = {
        let mut codes: Vec<Code> = findings.iter().map(|f| f.code).collect();
        codes.sort_unstable();
        codes.dedup();
        codes
    };
    let level = |severity| match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "note",
    };
    let place = |source: &Source| {
        json!({
            "artifactLocation": {"uri": uri(&source.file), "uriBaseId": "%SRCROOT%"},
            "region": {"startLine": source.line.max(1), "startColumn": source.column.max(1)},
        })
    };
    let results: Vec<Value> = findings
        .iter()
        .map(|f| {
            let text = match &f.hint {
                Some(hint) => format!("{}\nhint: {hint}", f.message),
                None => f.message.clone(),
            };
            let mut result = json!({
                "ruleId": f.code,
                "ruleIndex": rules.binary_search(&f.code).unwrap_or(0),
                "level": level(f.severity),
                "message": {"text": text},
            });
            if let Some(source) = &f.source {
                let mut location = json!({"physicalLocation": place(source)});
                if let Some(path) = &f.path {
                    location["logicalLocations"] = json!([{"fullyQualifiedName": path}]);
                }
                result["locations"] = json!([location]);
            }
            if !f.related.is_empty() {
                let related: Vec<Value> = f.related.iter().map(|s| json!({"physicalLocation": place(s)})).collect();
                result["relatedLocations"] = related.into();
            }
            result
        })
        .collect();
    let rules: Vec<Value> = rules
        .iter()
        .map(|code| {
            json!({
                "id": code,
                "shortDescription": {"text": code.meaning()},
                "defaultConfiguration": {"level": level(code.severity())},
            })
        })
        .collect();
    pretty(&json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "drover", "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    }))
}

/// A path as the relative part of a URI (RFC 3986, section 3.3).
fn uri(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{KindName, ResourceId};

    fn finding() -> Finding {
        let mut f = Finding::new(Code::UnknownField, "unknown field `memroy` in `spec`")
            .on(ResourceId::new(KindName::from("VirtualMachine"), "web-1"))
            .at(Source { file: "vms.yaml".into(), line: 3, column: 3 })
            .hint("did you mean `memory`?");
        f.path = Some("spec.memroy".into());
        f
    }

    const TEXT: &str = "kind: VirtualMachine\r\nspec:\r\n  memroy: 4Gi\r\n";

    #[test]
    fn a_finding_shows_its_line() {
        let shown = text(&[finding()], &|file| (file == "vms.yaml").then(|| TEXT.into()), false);
        assert_eq!(
            shown,
            "error[D0202]: unknown field `memroy` in `spec`\n \
             --> vms.yaml:3:3\n  \
               |\n\
             3 |   memroy: 4Gi\n  \
               |   ^^^^^^ spec.memroy\n  \
               |\n  \
               = hint: did you mean `memory`?\n\n\
             1 error\n"
        );
    }

    #[test]
    fn without_the_file_there_is_the_place() {
        let shown = text(&[finding().see(Source { file: "b.yaml".into(), line: 1, column: 2 })], &|_| None, false);
        for part in [
            "error[D0202]: unknown field",
            "--> vms.yaml:3:3",
            "= note: see b.yaml:1:2",
            "= hint: did you mean `memory`?",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }

    #[test]
    fn places_that_are_not_there_and_lines_that_are_too_long_are_no_panic() {
        for (line, column) in [(0, 0), (3, 0), (3, 4000), (99, 1), (3, 14), (4, 1), (u32::MAX, u32::MAX)] {
            let f = finding().at(Source { file: "vms.yaml".into(), line, column });
            assert!(text(&[f], &|_| Some(TEXT.into()), false).contains("D0202"));
        }
        let shown = text(
            &[finding().at(Source { file: "a".into(), line: 1, column: 1 })],
            &|_| Some("x".repeat(1 << 20)),
            false,
        );
        assert!(shown.len() < 1000);
    }

    #[test]
    fn hostile_text_is_shown_and_not_obeyed() {
        let hostile = "a\u{1b}[31m\r\n::error::x\u{202e}\u{9b}";
        let mut f =
            Finding::new(Code::BadName, hostile).at(Source { file: hostile.into(), line: 1, column: 1 }).hint(hostile);
        f.path = Some(hostile.into());
        let all = [f];
        let shown = [text(&all, &|_| Some(hostile.into()), false), github(&all), json_text(&all), sarif(&all)];
        for shown in shown {
            assert!(!shown.contains(['\u{1b}', '\r', '\u{202e}', '\u{9b}']), "{shown}");
            assert!(!shown.lines().any(|l| l.starts_with("::error::x")), "{shown}");
        }
    }

    #[test]
    fn github_gets_one_command_for_each() {
        assert_eq!(
            github(&[finding()]),
            "::error file=vms.yaml,line=3,col=3,title=D0202::unknown field `memroy` in `spec`%0Ahint: did you mean `memory`?\n"
        );
    }

    #[test]
    fn json_and_sarif_can_be_read_back() {
        let all = [finding(), Finding::new(Code::Ignored, "x")];
        let read: Value = serde_json::from_str(&json_text(&all)).unwrap();
        assert_eq!(read["summary"], json!({"errors": 1, "warnings": 0, "infos": 1}));
        assert_eq!(serde_json::from_value::<Vec<Finding>>(read["findings"].clone()).unwrap(), all);
        let read: Value = serde_json::from_str(&sarif(&all)).unwrap();
        let result = &read["runs"][0]["results"][0];
        assert_eq!(result["locations"][0]["physicalLocation"]["region"], json!({"startLine": 3, "startColumn": 3}));
        let rule = &read["runs"][0]["tool"]["driver"]["rules"][result["ruleIndex"].as_u64().unwrap() as usize];
        assert_eq!(rule["id"], result["ruleId"]);
        assert_eq!(uri("a b/ü.yaml"), "a%20b/%C3%BC.yaml");
    }

    #[test]
    fn colour_is_never_the_only_carrier_of_meaning() {
        let coloured = text(&[finding()], &|_| None, true);
        assert!(coloured.contains('\u{1b}') && coloured.contains("error[D0202]"));
        assert_eq!(summary(&[]), None);
        assert_eq!(text(&[], &|_| None, false), "");
    }
}
