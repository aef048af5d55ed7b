//! The file: made, checked, opened and read again after a failure; transactions on it, and what goes wrong with them in
//! words. What stands in it is the matter of the file above.

use super::{Group, JournalError, KEEP_PASSES, Sqlite};
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

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

/// What went wrong inside one call.
pub(super) enum Trouble {
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

    pub(super) fn error(&self, why: String) -> JournalError {
        JournalError { path: self.path.display().to_string(), why }
    }

    /// Says what is wrong and what to do about it.
    pub(super) fn explain(&self, what: &str, trouble: Trouble) -> JournalError {
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
    pub(super) fn write<T>(
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
    pub(super) fn read<T>(
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
