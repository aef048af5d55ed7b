//! The journal in a SQLite file: one row a pass, one row a step, written by key. SQLite because it is durable when it says
//! so (write-ahead log, an fsync at each commit), tells a damaged file from an empty one, can be read beside a running
//! daemon, and can be opened by anybody with `sqlite3`.
//!
//! *Guarantees*: each write has reached the disk when it returns (records of steps that run at once share one commit); a write that fails leaves the file as it was. After a
//! failed write the connection is given up and the file is read anew, because after a failed fsync nothing that is in
//! memory can be trusted. A file that is damaged, or that is not a journal, is never emptied or overwritten.

use self::group::Group;
use super::{Errand, InDoubt, Journal, JournalError, MoveRecord, Outcome, PassRecord, StepRecord};
use crate::plan::precopy::PastMove;
use crate::plan::{Plan, Step};
use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// How many passes are kept. A pass with a step in doubt is kept whatever its age.
pub const KEEP_PASSES: u32 = 200;

/// `DRVR`: tells a journal from any other SQLite file.
const APPLICATION_ID: i64 = 0x4452_5652;

/// Version of the tables. A change that an older Drover would misread raises it.
const VERSION: i64 = 1;

/// How long a write waits for another process's short transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
CREATE TABLE passes (
    pass      INTEGER PRIMARY KEY AUTOINCREMENT,
    revision  TEXT,
    plan_hash TEXT NOT NULL,
    began_at  TEXT NOT NULL,
    ended_at  TEXT,
    result    TEXT
) STRICT;
CREATE TABLE steps (
    pass        INTEGER NOT NULL REFERENCES passes (pass) ON DELETE CASCADE,
    id          TEXT NOT NULL,
    position    INTEGER NOT NULL,
    action      TEXT NOT NULL,
    resource    TEXT NOT NULL,
    summary     TEXT NOT NULL,
    started_at  TEXT,
    finished_at TEXT,
    outcome     TEXT,
    body        TEXT, -- the whole step, while it is in doubt
    seal        TEXT, -- digest of the record in doubt
    PRIMARY KEY (pass, id)
) STRICT;
CREATE INDEX steps_in_doubt ON steps (id, pass) WHERE started_at IS NOT NULL AND outcome IS NULL;
";

/// Added later, and to older files when they are opened for writing: an older Drover does not look at it. Without an index
/// of its own, whose pages a check of the file leaves out.
const MOVES: &str = "
CREATE TABLE IF NOT EXISTS moves (
    pass    INTEGER NOT NULL,
    id      TEXT NOT NULL,
    machine TEXT NOT NULL,
    figures TEXT NOT NULL,
    PRIMARY KEY (pass, id)
) STRICT, WITHOUT ROWID;
";

/// Added later, as [`MOVES`] was: the moves that migrations made, and for which revision.
const ERRANDS: &str = "
CREATE TABLE IF NOT EXISTS errands (
    pass        INTEGER NOT NULL,
    id          TEXT NOT NULL,
    machine     TEXT NOT NULL,
    origin      TEXT NOT NULL,
    destination TEXT NOT NULL,
    revision    TEXT NOT NULL,
    PRIMARY KEY (pass, id)
) STRICT, WITHOUT ROWID;
";

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

/// What went wrong inside one call.
enum Trouble {
    Sqlite(rusqlite::Error),
    /// Something that the file says and that cannot be.
    Damaged(String),
    /// The caller asked for something that is not there.
    Wrong(String),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Sqlite {
    /// Opens the journal at `path` for writing, and makes it (readable by its owner only) where there is none. Checks the
    /// file's structure. Blocks; a second writer is kept away by the daemon's own lock, not here.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, JournalError> {
        let path = path.into();
        let journal =
            Self { path, keep: KEEP_PASSES, read_only: false, connection: Mutex::new(None), group: Group::default() };
        if !journal.path.exists() {
            create(&journal.path).map_err(|why| journal.error(why))?;
        }
        if is_cut_short(&journal.path) {
            return Err(journal.explain("check", Trouble::Damaged("the file is cut short".into())));
        }
        let connection = journal.connect()?;
        let verdict: String = connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|e| journal.explain("check", Trouble::Sqlite(e)))?;
        if verdict != "ok" {
            return Err(journal.explain("check", Trouble::Damaged(verdict)));
        }
        *journal.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        Ok(journal)
    }

    /// Opens the journal at `path` for reading, also beside a running daemon. Writes fail.
    pub fn open_read_only(path: impl Into<PathBuf>) -> Result<Self, JournalError> {
        let path = path.into();
        let journal =
            Self { path, keep: KEEP_PASSES, read_only: true, connection: Mutex::new(None), group: Group::default() };
        let connection = journal.connect()?;
        *journal.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        Ok(journal)
    }

    /// Keeps this many passes instead of [`KEEP_PASSES`].
    #[must_use]
    pub fn keep(mut self, passes: u32) -> Self {
        self.keep = passes.max(1);
        self
    }

    fn connect(&self) -> Result<Connection, JournalError> {
        match fs::metadata(&self.path) {
            Ok(meta) if !meta.is_file() => {
                return Err(self.error("is not a regular file; give the journal a path of its own".into()));
            }
            // A journal is made complete and then put in its place, so it is never empty in any healthy life.
            Ok(meta) if meta.len() == 0 => {
                return Err(self.explain("open", Trouble::Damaged("the file is empty".into())));
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(self.error("is not there; no pass was recorded here yet".into()));
            }
            Err(e) => return Err(self.error(format!("cannot be read: {e}"))),
        }
        let access = if self.read_only { OpenFlags::SQLITE_OPEN_READ_ONLY } else { OpenFlags::SQLITE_OPEN_READ_WRITE };
        let set_up = || -> Result<Connection, Trouble> {
            let connection = Connection::open_with_flags(&self.path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            let id: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
            let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            if id != APPLICATION_ID {
                return Err(Trouble::Wrong(
                    "is a SQLite database, but not a journal of Drover; give the journal a path of its own".into(),
                ));
            }
            if version != VERSION {
                return Err(Trouble::Wrong(format!(
                    "has format {version}, and this Drover knows format {VERSION}: it was written by a newer version. \
                     Use that version, or move the file away; only history is lost with it"
                )));
            }
            if !self.read_only {
                let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
                if mode != "wal" {
                    return Err(Trouble::Wrong(format!(
                        "cannot have a write-ahead log here (SQLite stays with `{mode}`); put it on a local file system"
                    )));
                }
                connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
                connection.execute_batch(MOVES)?;
                connection.execute_batch(ERRANDS)?;
            }
            Ok(connection)
        };
        set_up().map_err(|trouble| self.explain("open", trouble))
    }

    fn error(&self, why: String) -> JournalError {
        JournalError { path: self.path.display().to_string(), why }
    }

    /// Says what is wrong and what to do about it.
    fn explain(&self, what: &str, trouble: Trouble) -> JournalError {
        let path = self.path.display();
        let mend = format!(
            "Nothing was changed in it. Stop Drover, move the file and its `-wal` and `-shm` neighbours away \
             (`mv {path} {path}.damaged`), and start again: only history is lost"
        );
        let error = match trouble {
            Trouble::Wrong(why) => return self.error(why),
            Trouble::Damaged(how) => return self.error(format!("is damaged ({how}). {mend}")),
            Trouble::Sqlite(error) => error,
        };
        let said = error.to_string();
        self.error(match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => format!("is damaged ({said}). {mend}"),
            code if code == Some(ErrorCode::DiskFull)
                || matches!(code, Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen)) && self.has_no_room() =>
            {
                format!("cannot be written, the disk is full ({said}): free some space; nothing is begun until then")
            }
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                format!("cannot be written ({said}): check the mount and the owner of the file and its folder")
            }
            Some(ErrorCode::CannotOpen) => {
                format!("cannot be opened ({said}): check the permissions of the file and of its folder")
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                format!("is held by another program ({said}): is a second Drover running on it?")
            }
            Some(ErrorCode::SystemIoFailure) => {
                format!("{what} failed, the disk reports an error ({said}): check the disk and the kernel's log")
            }
            _ => format!("{what} failed: {said}"),
        })
    }

    /// Whether its folder takes nothing more. SQLite calls that an input/output error where it makes its `-wal` and `-shm`
    /// files.
    fn has_no_room(&self) -> bool {
        let folder = self.path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let probe = folder.join(format!(".journal.room-{}", std::process::id()));
        // As much as the shared memory of the write-ahead log takes.
        let written = fs::write(&probe, [0; 32 << 10]);
        let _ = fs::remove_file(&probe);
        written.is_err_and(|e| matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// Runs one write as a transaction that is on disk when this returns.
    fn write<T>(
        &self,
        what: &str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Trouble>,
    ) -> Result<T, JournalError> {
        let mut slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let attempt = || -> Result<T, Trouble> {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        let result = attempt();
        if !matches!(result, Err(Trouble::Sqlite(_))) {
            *slot = Some(connection);
        }
        result.map_err(|trouble| self.explain(what, trouble))
    }

    /// Runs one read on one consistent state.
    fn read<T>(
        &self,
        what: &str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Trouble>,
    ) -> Result<T, JournalError> {
        let mut slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = match &mut *slot {
            Some(connection) => connection,
            empty => empty.insert(self.connect()?),
        };
        let attempt = || -> Result<T, Trouble> {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
            work(&transaction)
        };
        attempt().map_err(|trouble| self.explain(what, trouble))
    }

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

/// Makes a complete, empty journal beside `path` and puts it in its place in one step, so that no crash leaves half a
/// file there. A journal that another process put there in the meantime stays.
fn create(path: &Path) -> Result<(), String> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or("is not a file name")?.to_string_lossy();
    let draft = folder.join(format!(".{name}.new-{}", std::process::id()));
    let make = || -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let _ = fs::remove_file(&draft);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&draft)?;
        let build = || -> rusqlite::Result<()> {
            let connection = Connection::open(&draft)?;
            connection.execute_batch(&format!(
                "PRAGMA journal_mode = OFF; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA application_id = {APPLICATION_ID};
                 BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"
            ))?;
            connection.close().map_err(|(_, e)| e)
        };
        build().map_err(io::Error::other)?;
        File::open(&draft)?.sync_all()?;
        match fs::hard_link(&draft, path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            linked => linked?,
        }
        File::open(folder)?.sync_all()
    };
    let made = make();
    let _ = fs::remove_file(&draft);
    made.map_err(|e| format!("cannot be made: {e}; check that `{}` is there and can be written", folder.display()))
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

/// Whether a file has fewer pages than its header says (<https://www.sqlite.org/fileformat.html>, 1.3): SQLite itself takes
/// what is missing of an empty page for zeros. With a write-ahead log beside it the file may be behind for good reason.
fn is_cut_short(path: &Path) -> bool {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    if fs::metadata(&wal).is_ok_and(|m| m.len() > 0) {
        return false;
    }
    let mut header = [0_u8; 32];
    let Ok(mut file) = File::open(path) else { return false };
    let Some(length) = file.metadata().ok().filter(fs::Metadata::is_file).map(|m| m.len()) else { return false };
    if io::Read::read_exact(&mut file, &mut header).is_err() {
        return false;
    }
    let page = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        size => u64::from(size),
    };
    let pages = u32::from_be_bytes([header[28], header[29], header[30], header[31]]);
    length < u64::from(pages) * page
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

mod group;
#[cfg(test)]
mod tests;
