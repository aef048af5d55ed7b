//! How a command ends: results and errors to exit codes, all in this file.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done, or nothing to do |
//! | 1 | failed |
//! | 2 | there are changes (only with `--detailed-exitcode`) |
//! | 3 | invalid manifests |
//! | 4 | refused by a guard rail or policy |
//! | 5 | incomplete: a target could not be read |
//! | 64 | wrong usage |

use crate::finding::Code;
use crate::journal::Outcome;
use crate::load::TreeError;
use crate::plan::Plan;
use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

/// How a command ended that could do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0
    Done,
    /// 1: some of the work failed, and has been reported.
    Failed,
    /// 2
    Changes,
    /// 3: findings have been reported.
    Invalid,
    /// 4: what is held back has been reported.
    Refused,
    /// 5: what could not be read has been reported.
    Incomplete,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Changes => 2,
            Exit::Invalid => 3,
            Exit::Refused => 4,
            Exit::Incomplete => 5,
        })
    }
}

/// `EX_USAGE` of sysexits.h: clap's own code for wrong usage is 2, which means changes here.
pub const USAGE: u8 = 64;

/// Why a command could not do its work.
#[derive(Debug)]
pub struct CliError {
    kind: Kind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Failed,
    Refused,
    Usage,
    /// Whoever read our output has gone away, which is their right (`| head`).
    BrokenPipe,
}

impl CliError {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// Something went wrong.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// Something is not done, for safety.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Kind::Refused, message)
    }

    /// The command line makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what it comes from.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether nobody reads the output any more.
    pub fn is_broken_pipe(&self) -> bool {
        self.kind == Kind::BrokenPipe
    }

    /// What is printed, without colour and escapes: the message, the chain of causes, the hint.
    pub fn text(&self) -> String {
        let mut text = self.message.clone();
        let mut cause: Option<&(dyn Error + 'static)> = self.source.as_deref().map(|s| s as _);
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        text
    }

    /// What to do, if anything is known.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self.kind {
            Kind::Failed => 1,
            Kind::Refused => 4,
            Kind::Usage => USAGE,
            Kind::BrokenPipe => 0,
        }
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Kind::BrokenPipe, "nobody reads the output"),
            _ => Self::failed("the output could not be written").caused_by(error),
        }
    }
}

impl From<TreeError> for CliError {
    fn from(error: TreeError) -> Self {
        Self::failed("the manifests could not be read").caused_by(error)
    }
}

/// How a plan alone is judged: what could not be read first, because then nothing else is certain; then what is held
/// back; then changes, if they are asked for.
pub fn of_plan(plan: &Plan, detailed: bool) -> Exit {
    let refused = plan.steps.iter().flat_map(|s| &s.blocked_by).any(|b| is_refusal(b.code))
        || plan.findings.iter().any(|f| f.is_error() && is_refusal(f.code));
    if plan.summary.unknown > 0 || has_unknown_host(plan) {
        Exit::Incomplete
    } else if refused {
        Exit::Refused
    } else if detailed && (plan.summary.changes() > 0 || !plan.steps.is_empty()) {
        Exit::Changes
    } else {
        Exit::Done
    }
}

/// How a plan that was carried out is judged: by what failed, then as the plan alone.
pub fn of_outcomes<'a>(plan: &Plan, outcomes: impl IntoIterator<Item = &'a Outcome>) -> Exit {
    let all_done = outcomes.into_iter().all(|o| matches!(o, Outcome::Done | Outcome::AlreadyDone));
    if all_done { of_plan(plan, false) } else { Exit::Failed }
}

fn has_unknown_host(plan: &Plan) -> bool {
    plan.findings.iter().any(|f| f.is_error() && f.code == Code::HostUnknown)
        || plan.steps.iter().flat_map(|s| &s.blocked_by).any(|b| b.code == Code::HostUnknown)
}

/// Blocks and errors that wait for a decision of somebody. Others end by themselves (a window opens, a back-off ends, an operation
/// that goes on), or are a matter of reading ([`Exit::Incomplete`]).
fn is_refusal(code: Code) -> bool {
    // A precheck that holds back does so because a policy says so, whatever it does by itself.
    code >= Code::OneHost
        || code.severity() == crate::finding::Severity::Error && !matches!(code, Code::HostUnknown | Code::BackingOff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_has_its_code_of_the_contract() {
        // `ExitCode` compares only through its `Debug` form.
        let code = |exit: Exit| format!("{:?}", ExitCode::from(exit));
        let all = [Exit::Done, Exit::Failed, Exit::Changes, Exit::Invalid, Exit::Refused, Exit::Incomplete];
        for (n, exit) in all.into_iter().enumerate() {
            assert_eq!(code(exit), format!("{:?}", ExitCode::from(n as u8)));
        }
        assert_eq!(CliError::failed("x").code(), 1);
        assert_eq!(CliError::refused("x").code(), 4);
        assert_eq!(CliError::usage("x").code(), 64);
        assert_eq!(CliError::from(io::Error::from(io::ErrorKind::BrokenPipe)).code(), 0);
        assert_eq!(CliError::from(io::Error::from(io::ErrorKind::StorageFull)).code(), 1);
    }

    #[test]
    fn an_error_shows_its_causes_once_each() {
        let inner = io::Error::other("no space left");
        let error = CliError::failed("`plan.json` could not be written").caused_by(inner).hint("make room");
        assert_eq!(error.text(), "`plan.json` could not be written: no space left");
        assert_eq!(error.hint_text(), Some("make room"));
    }
}
