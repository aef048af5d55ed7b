//! The journal in a SQLite file: one row a pass, one row a step, written by key. SQLite because it is durable when it says
//! so (write-ahead log, an fsync at each commit), tells a damaged file from an empty one, can be read beside a running
//! daemon, and can be opened by anybody with `sqlite3`.
//!
//! *Guarantees*: each write has reached the disk when it returns (records of steps that run at once share one commit); a write that fails leaves the file as it was. After a
//! failed write the connection is given up and the file is read anew, because after a failed fsync nothing that is in
//! memory can be trusted. A file that is damaged, or that is not a journal, is never emptied or overwritten.

use self::file::Trouble;
use self::group::Group;
use super::{Errand, InDoubt, Journal, JournalError, MoveRecord, Outcome, PassRecord, StepRecord};
use crate::plan::precopy::PastMove;
use crate::plan::{Plan, Step};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use uuid::Uuid;

/// How many passes are kept. A pass with a step in doubt is kept whatever its age.
pub const KEEP_PASSES: u32 = 200;

/// Most moves that are read for predictions.
const MOST_MOVES: i64 = 20_000;

/// A journal in a SQLite file.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    keep: u32,
    read_only: bool,
    /// `None` after a failed write, until the next call opens the file anew.
    connection: Mutex<Option<Connection>>,
    group: Group<Record, JournalError>,
}

/// What steps that run at once have written together.
#[derive(Debug)]
enum Record {
    /// A step is about to act.
    Intent(Intent),
    /// A step ended.
    End { pass: i64, id: String, outcome: Outcome, now: Timestamp },
}

/// The record of a step that is about to act.
#[derive(Debug)]
struct Intent {
    pass: i64,
    id: String,
    action: &'static str,
    resource: String,
    summary: String,
    now: String,
    body: String,
    seal: String,
    errand: Option<Errand>,
}

impl Sqlite {
    /// Has a record written in one transaction with what other threads record at the same time.
    fn record(&self, what: &str, record: Record) -> Result<(), JournalError> {
        let written = self.group.write(record, |records| {
            let all = self.write(what, |t| {
                let mut results = Vec::with_capacity(records.len());
                for record in &records {
                    results.push(match record.write(t) {
                        // Found before anything of this record was written: it does not stand in the way of the others.
                        Err(Trouble::Wrong(why)) => Err(self.error(why)),
                        Err(trouble) => return Err(trouble),
                        Ok(()) => Ok(()),
                    });
                }
                Ok(results)
            });
            all.unwrap_or_else(|e| records.iter().map(|_| Err(e.clone())).collect())
        });
        written.unwrap_or_else(|| Err(self.error(format!("{what} failed: the thread that wrote it ended early"))))
    }

    fn record_end(
        transaction: &Transaction<'_>,
        pass: i64,
        step: &str,
        outcome: &Outcome,
        now: Timestamp,
    ) -> Result<(), Trouble> {
        let changed = transaction
            .prepare_cached(
                "UPDATE steps SET finished_at = ?3, outcome = ?4, body = NULL, seal = NULL WHERE pass = ?1 AND id = ?2",
            )?
            .execute(params![pass, step, now.to_string(), to_json(outcome)?])?;
        match changed {
            1 => Ok(()),
            _ => Err(Trouble::Wrong(format!("has no step `{step}` in pass {pass}"))),
        }
    }
}

impl Record {
    /// Writes it; what is [`Trouble::Wrong`] with it is found before anything is written.
    fn write(&self, t: &Transaction<'_>) -> Result<(), Trouble> {
        let intent = match self {
            Self::Intent(intent) => intent,
            Self::End { pass, id, outcome, now } => return Sqlite::record_end(t, *pass, id, outcome, *now),
        };
        let Intent { pass, id, action, resource, summary, now, body, seal, errand } = intent;
        let known: Option<i64> = t
            .prepare_cached("SELECT pass FROM passes WHERE pass = ?1")?
            .query_row([pass], |row| row.get(0))
            .optional()?;
        if known.is_none() {
            return Err(Trouble::Wrong(format!("has no pass {pass}")));
        }
        t.prepare_cached(
            "UPDATE steps SET finished_at = ?3, outcome = ?4, body = NULL, seal = NULL
             WHERE id = ?2 AND pass <> ?1 AND started_at IS NOT NULL AND outcome IS NULL",
        )?
        .execute(params![pass, id, now, to_json(&Outcome::Interrupted)?])?;
        let planned = t
            .prepare_cached(
                "UPDATE steps SET started_at = ?3, body = ?4, seal = ?5, finished_at = NULL, outcome = NULL
                 WHERE pass = ?1 AND id = ?2",
            )?
            .execute(params![pass, id, now, body, seal])?;
        if planned == 0 {
            // Its place is behind all others. Counting them takes a look at each, so not for every step.
            t.prepare_cached(
                "INSERT INTO steps (pass, id, position, action, resource, summary, started_at, body, seal)
                 VALUES (?1, ?2, (SELECT COUNT(*) FROM steps WHERE pass = ?1), ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![pass, id, action, resource, summary, now, body, seal])?;
        }
        if let Some(Errand { machine, from, to, revision }) = errand {
            t.prepare_cached("DELETE FROM errands WHERE pass NOT IN (SELECT pass FROM passes)")?.execute([])?;
            t.prepare_cached(
                "INSERT OR REPLACE INTO errands (pass, id, machine, origin, destination, revision)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![pass, id, machine, from, to, revision])?;
        }
        Ok(())
    }
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String, Trouble> {
    serde_json::to_string(value).map_err(|e| Trouble::Wrong(format!("cannot hold a record: {e}")))
}

fn from_json<T: DeserializeOwned>(text: &str, pass: i64, step: &str) -> Result<T, Trouble> {
    serde_json::from_str(text)
        .map_err(|e| Trouble::Damaged(format!("the record of step `{step}` of pass {pass} does not read: {e}")))
}

fn time(text: &str) -> Result<Timestamp, Trouble> {
    text.parse().map_err(|e| Trouble::Damaged(format!("`{text}` is not a time: {e}")))
}

fn optional_time(text: Option<&str>) -> Result<Option<Timestamp>, Trouble> {
    text.map(time).transpose()
}

/// SQLite finds a damaged page, not a damaged text; this finds both in the records that decisions rest on.
fn seal(pass: i64, step: &str, started_at: &str, body: &str) -> String {
    let mut digest = Sha256::new();
    for part in [&pass.to_string(), step, started_at, body] {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

impl Journal for Sqlite {
    fn begin(&self, plan: &Plan, now: Timestamp) -> Result<i64, JournalError> {
        let now = now.to_string();
        self.write("beginning a pass", |t| {
            t.execute("UPDATE passes SET ended_at = ?1, result = 'interrupted' WHERE ended_at IS NULL", [&now])?;
            t.execute(
                "INSERT INTO passes (revision, plan_hash, began_at) VALUES (?1, ?2, ?3)",
                params![plan.revision.commit, plan.hash, now],
            )?;
            let pass = t.last_insert_rowid();
            t.execute(
                "DELETE FROM passes WHERE pass <= ?1 AND pass NOT IN
                     (SELECT pass FROM steps WHERE started_at IS NOT NULL AND outcome IS NULL)",
                [pass - i64::from(self.keep)],
            )?;
            let mut insert = t.prepare_cached(
                "INSERT INTO steps (pass, id, position, action, resource, summary) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            for (position, step) in plan.steps.iter().filter(|s| !s.is_blocked()).enumerate() {
                insert.execute(params![
                    pass,
                    step.id,
                    i64::try_from(position).unwrap_or(i64::MAX),
                    step.action.name(),
                    step.resource.to_string(),
                    step.summary
                ])?;
            }
            Ok(pass)
        })
    }

    fn started(&self, pass: i64, step: &Step, now: Timestamp) -> Result<(), JournalError> {
        let what = "recording the start of a step";
        let body = to_json(step).map_err(|trouble| self.explain(what, trouble))?;
        let now = now.to_string();
        let intent = Intent {
            pass,
            action: step.action.name(),
            resource: step.resource.to_string(),
            summary: step.summary.clone(),
            seal: seal(pass, &step.id, &now, &body),
            id: step.id.clone(),
            errand: Errand::of(step),
            body,
            now,
        };
        self.record(what, Record::Intent(intent))
    }

    fn finished(&self, pass: i64, step: &str, outcome: &Outcome, now: Timestamp) -> Result<(), JournalError> {
        self.record(
            "recording the end of a step",
            Record::End { pass, id: step.to_owned(), outcome: outcome.clone(), now },
        )
    }

    fn finished_all(&self, pass: i64, steps: &[(&str, Outcome)], now: Timestamp) -> Result<(), JournalError> {
        self.write("recording skipped steps", |t| {
            steps.iter().try_for_each(|(step, outcome)| Self::record_end(t, pass, step, outcome, now))
        })
    }

    fn end(&self, pass: i64, result: &str, now: Timestamp) -> Result<(), JournalError> {
        self.write("ending a pass", |t| {
            let changed = t.execute(
                "UPDATE passes SET ended_at = ?2, result = ?3 WHERE pass = ?1",
                params![pass, now.to_string(), result],
            )?;
            if changed == 0 { Err(Trouble::Wrong(format!("has no pass {pass}"))) } else { Ok(()) }
        })
    }

    fn in_doubt(&self) -> Result<Vec<InDoubt>, JournalError> {
        self.read("reading the steps in doubt", |t| {
            let mut query = t.prepare_cached(
                "SELECT pass, id, started_at, body, seal FROM steps
                 WHERE started_at IS NOT NULL AND outcome IS NULL ORDER BY pass, position",
            )?;
            let mut rows = query.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let (pass, id): (i64, String) = (row.get(0)?, row.get(1)?);
                let started_at: String = row.get(2)?;
                let (body, sealed): (Option<String>, Option<String>) = (row.get(3)?, row.get(4)?);
                let body = body.unwrap_or_default();
                if sealed.as_deref() != Some(&seal(pass, &id, &started_at, &body)) {
                    let what = format!("the record of step `{id}` of pass {pass} is not what was written");
                    return Err(Trouble::Damaged(what));
                }
                let step = from_json(&body, pass, &id)?;
                found.push(InDoubt { pass, step, started_at: time(&started_at)? });
            }
            Ok(found)
        })
    }

    fn resolve(&self, pass: i64, step: &str, outcome: &Outcome, now: Timestamp) -> Result<(), JournalError> {
        self.finished(pass, step, outcome, now)
    }

    fn measured(&self, pass: i64, step: &str, machine: Uuid, figures: &PastMove) -> Result<(), JournalError> {
        self.write("recording what a move was", |t| {
            t.execute(
                "INSERT OR REPLACE INTO moves (pass, id, machine, figures) VALUES (?1, ?2, ?3, ?4)",
                params![pass, step, machine.to_string(), to_json(figures)?],
            )?;
            t.execute("DELETE FROM moves WHERE pass NOT IN (SELECT pass FROM passes)", [])?;
            Ok(())
        })
    }

    fn past_moves(&self, limit: usize) -> Result<BTreeMap<Uuid, Vec<PastMove>>, JournalError> {
        self.read("reading earlier moves", |t| {
            let mut found: BTreeMap<Uuid, Vec<PastMove>> = BTreeMap::new();
            if !has_table(t, "moves")? {
                return Ok(found);
            }
            let mut query = t.prepare_cached("SELECT machine, figures FROM moves ORDER BY pass DESC, id LIMIT ?1")?;
            let mut rows = query.query([MOST_MOVES])?;
            while let Some(row) = rows.next()? {
                let (machine, figures): (String, String) = (row.get(0)?, row.get(1)?);
                // Written by another version, perhaps; nothing but a prediction rests on it.
                let (Ok(machine), Ok(figures)) = (Uuid::parse_str(&machine), serde_json::from_str(&figures)) else {
                    continue;
                };
                let of = found.entry(machine).or_default();
                if of.len() < limit {
                    of.push(figures);
                }
            }
            Ok(found)
        })
    }

    fn moves(&self) -> Result<Vec<MoveRecord>, JournalError> {
        self.read("reading what migrations did", |t| {
            let mut found = Vec::new();
            if !has_table(t, "errands")? {
                return Ok(found);
            }
            let mut query = t.prepare_cached(
                "SELECT p.revision, s.resource, e.machine, e.origin, e.destination, e.revision, s.started_at,
                        s.finished_at, s.outcome, e.pass, e.id
                 FROM errands e JOIN steps s ON s.pass = e.pass AND s.id = e.id JOIN passes p ON p.pass = e.pass
                 WHERE s.started_at IS NOT NULL ORDER BY e.pass DESC, s.started_at DESC, e.machine LIMIT ?1",
            )?;
            let mut rows = query.query([MOST_MOVES])?;
            while let Some(row) = rows.next()? {
                let (pass, id): (i64, String) = (row.get(9)?, row.get(10)?);
                let outcome: Option<String> = row.get(8)?;
                found.push(MoveRecord {
                    commit: row.get(0)?,
                    resource: row.get(1)?,
                    machine: row.get(2)?,
                    from: row.get(3)?,
                    to: row.get(4)?,
                    revision: row.get(5)?,
                    started_at: time(&row.get::<_, String>(6)?)?,
                    finished_at: optional_time(row.get::<_, Option<String>>(7)?.as_deref())?,
                    outcome: outcome.map(|text| from_json(&text, pass, &id)).transpose()?,
                });
            }
            Ok(found)
        })
    }

    fn history(&self, limit: usize) -> Result<Vec<PassRecord>, JournalError> {
        self.read("reading the history", |t| {
            let mut query = t.prepare_cached(
                "SELECT pass, revision, plan_hash, began_at, ended_at, result FROM passes ORDER BY pass DESC LIMIT ?1",
            )?;
            let mut rows = query.query([i64::try_from(limit).unwrap_or(i64::MAX)])?;
            let mut passes = Vec::new();
            while let Some(row) = rows.next()? {
                let pass: i64 = row.get(0)?;
                passes.push(PassRecord {
                    pass,
                    commit: row.get(1)?,
                    plan_hash: row.get(2)?,
                    began_at: time(&row.get::<_, String>(3)?)?,
                    ended_at: optional_time(row.get::<_, Option<String>>(4)?.as_deref())?,
                    result: row.get(5)?,
                    steps: step_records(t, pass)?,
                });
            }
            Ok(passes)
        })
    }
}

/// Whether a table that was added later is here at all; not in an older file that is only read.
fn has_table(t: &Transaction<'_>, name: &str) -> Result<bool, Trouble> {
    let found = t
        .prepare_cached("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1")?
        .query_row([name], |_| Ok(()))
        .optional()?;
    Ok(found.is_some())
}

/// What the moves of a pass were, by step.
fn figures(t: &Transaction<'_>, pass: i64) -> Result<BTreeMap<String, PastMove>, Trouble> {
    let mut found = BTreeMap::new();
    if has_table(t, "moves")? {
        let mut query = t.prepare_cached("SELECT id, figures FROM moves WHERE pass = ?1")?;
        let mut rows = query.query([pass])?;
        while let Some(row) = rows.next()? {
            let (id, text): (String, String) = (row.get(0)?, row.get(1)?);
            if let Ok(figures) = serde_json::from_str(&text) {
                found.insert(id, figures);
            }
        }
    }
    Ok(found)
}

/// The steps of a pass that were started or judged, in the plan's order.
fn step_records(t: &Transaction<'_>, pass: i64) -> Result<Vec<StepRecord>, Trouble> {
    let mut query = t.prepare_cached(
        "SELECT id, action, resource, summary, COALESCE(started_at, finished_at), finished_at, outcome FROM steps
         WHERE pass = ?1 AND (started_at IS NOT NULL OR finished_at IS NOT NULL) ORDER BY position, id",
    )?;
    let mut rows = query.query([pass])?;
    let mut figures = figures(t, pass)?;
    let mut steps = Vec::new();
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        let outcome: Option<String> = row.get(6)?;
        let outcome = outcome.map(|text| from_json(&text, pass, &id)).transpose()?;
        steps.push(StepRecord {
            figures: figures.remove(&id),
            id,
            action: row.get(1)?,
            resource: row.get(2)?,
            summary: row.get(3)?,
            started_at: time(&row.get::<_, String>(4)?)?,
            finished_at: optional_time(row.get::<_, Option<String>>(5)?.as_deref())?,
            outcome,
        });
    }
    Ok(steps)
}

mod file;
mod group;
#[cfg(test)]
mod tests;
