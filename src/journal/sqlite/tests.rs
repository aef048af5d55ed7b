//! Durability, damage and neighbours of the SQLite journal.

use super::*;
use crate::journal::contract::{self, at, plan, step};
use std::fs;

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    (folder, path)
}

#[test]
fn keeps_the_contract() {
    for promise in [
        contract::a_step_is_in_doubt_from_started_to_finished as fn(&dyn Journal),
        contract::a_new_attempt_takes_the_place_of_the_old_one,
        contract::history_tells_what_was_judged,
        contract::what_a_move_was_stands_beside_what_was_predicted,
        contract::moves_of_a_migration_are_kept_with_its_revision,
    ] {
        let (_folder, path) = fresh();
        promise(&Sqlite::open(path).unwrap());
    }
}

#[test]
fn what_was_started_is_in_doubt_after_a_restart() {
    let (_folder, path) = fresh();
    let journal = Sqlite::open(&path).unwrap();
    let pass = journal.begin(&plan(vec![step("a")]), at(1)).unwrap();
    journal.started(pass, &step("a"), at(2)).unwrap();
    // No clean end: the connection is leaked, as a kill -9 would leave it.
    std::mem::forget(journal);
    let again = Sqlite::open(&path).unwrap();
    assert_eq!(again.in_doubt().unwrap()[0].step, step("a"));
}

#[test]
fn records_written_at_once_are_each_there_when_their_call_returns() {
    let (_folder, path) = fresh();
    let journal = Sqlite::open(&path).unwrap();
    let steps: Vec<_> = (0..40).map(|i| step(&format!("s{i}"))).collect();
    let pass = journal.begin(&plan(steps.clone()), at(1)).unwrap();
    std::thread::scope(|scope| {
        for step in &steps {
            let (journal, path) = (&journal, &path);
            scope.spawn(move || {
                let others = Sqlite::open_read_only(path).unwrap();
                let in_doubt = || others.in_doubt().unwrap().iter().any(|d| d.step.id == step.id);
                journal.started(pass, step, at(2)).unwrap();
                assert!(in_doubt(), "{}", step.id);
                let wrong = journal.finished(pass, &format!("no-{}", step.id), &Outcome::Done, at(3)).unwrap_err();
                assert!(wrong.why.contains(&format!("no step `no-{}`", step.id)), "{wrong}");
                journal.finished(pass, &step.id, &Outcome::Done, at(3)).unwrap();
                assert!(!in_doubt(), "{}", step.id);
            });
        }
    });
    assert_eq!(journal.history(1).unwrap()[0].steps.len(), 40);
}

#[test]
fn can_be_read_beside_a_writer() {
    let (_folder, path) = fresh();
    assert!(Sqlite::open_read_only(&path).unwrap_err().why.contains("no pass was recorded"));
    let writer = Sqlite::open(&path).unwrap();
    let reader = Sqlite::open_read_only(&path).unwrap();
    let pass = writer.begin(&plan(vec![step("a")]), at(1)).unwrap();
    assert_eq!(reader.history(5).unwrap()[0].pass, pass);
    writer.end(pass, "succeeded", at(2)).unwrap();
    assert_eq!(reader.history(5).unwrap()[0].result.as_deref(), Some("succeeded"));
    let refused = reader.end(pass, "failed", at(3)).unwrap_err();
    assert!(refused.why.contains("cannot be written"), "{refused}");
}

#[test]
fn old_passes_go_except_those_in_doubt() {
    let (_folder, path) = fresh();
    let journal = Sqlite::open(path).unwrap().keep(3);
    let first = journal.begin(&plan(vec![step("a")]), at(1)).unwrap();
    journal.started(first, &step("a"), at(1)).unwrap();
    for i in 0..6 {
        let pass = journal.begin(&plan(vec![step("b")]), at(i)).unwrap();
        journal.end(pass, "succeeded", at(i)).unwrap();
    }
    let kept: Vec<_> = journal.history(100).unwrap().iter().map(|p| p.pass).collect();
    assert_eq!(kept, [7, 6, 5, first]);
    journal.resolve(first, "a", &Outcome::Interrupted, at(9)).unwrap();
    journal.begin(&plan(vec![]), at(10)).unwrap();
    assert_eq!(journal.history(100).unwrap().last().unwrap().pass, 6);
}

#[test]
fn a_full_disk_is_an_error_that_passes_when_there_is_space() {
    let (_folder, path) = fresh();
    let journal = Sqlite::open(path).unwrap();
    let pass = journal.begin(&plan(vec![]), at(1)).unwrap();
    let limit = |pages: &str| {
        let slot = journal.connection.lock().unwrap();
        let _: i64 = slot
            .as_ref()
            .unwrap()
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get(0))
            .unwrap();
    };
    limit("1");
    let mut large = step("a");
    large.summary = "x".repeat(100_000);
    let full = journal.started(pass, &large, at(2)).unwrap_err();
    assert!(full.why.contains("the disk is full") && full.why.contains("free some space"), "{full}");
    assert!(full.path.ends_with("journal.db"));
    // The connection that failed is not used again; a new one has no such limit.
    journal.started(pass, &large, at(3)).unwrap();
    assert_eq!(journal.in_doubt().unwrap().len(), 1);
}

#[test]
fn a_newer_format_is_refused() {
    let (_folder, path) = fresh();
    drop(Sqlite::open(&path).unwrap());
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 2").unwrap();
    let before = fs::read(&path).unwrap();
    let refused = Sqlite::open(&path).unwrap_err();
    assert!(refused.why.contains("format 2") && refused.why.contains("newer version"), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn what_is_not_a_journal_is_left_alone() {
    let (_folder, path) = fresh();
    for content in [&b""[..], b"not a database at all, but long enough to be read as one ".repeat(20).as_slice()] {
        fs::write(&path, content).unwrap();
        for refused in [Sqlite::open(&path).unwrap_err(), Sqlite::open_read_only(&path).unwrap_err()] {
            assert!(refused.why.contains("damaged") && refused.why.contains("only history is lost"), "{refused}");
        }
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE mine (x)").unwrap();
    assert!(Sqlite::open(&path).unwrap_err().why.contains("not a journal of Drover"));
    let (folder, _) = fresh();
    assert!(Sqlite::open(folder.path()).unwrap_err().why.contains("not a regular file"));
}

/// Cuts and bit flips anywhere: the journal says the same as before, or that it is damaged; it is never read as empty.
#[test]
fn damage_is_never_read_as_emptiness() {
    let (_folder, path) = fresh();
    let journal = Sqlite::open(&path).unwrap();
    let pass = journal.begin(&plan(vec![step("a"), step("b")]), at(1)).unwrap();
    journal.started(pass, &step("a"), at(2)).unwrap();
    drop(journal); // the last connection moves the write-ahead log into the file
    let whole = fs::read(&path).unwrap();
    let read = |content: &[u8]| -> Result<Vec<InDoubt>, JournalError> {
        for neighbour in ["-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{neighbour}", path.display()));
        }
        fs::write(&path, content).unwrap();
        Sqlite::open(&path)?.in_doubt()
    };
    let good = read(&whole).unwrap();
    assert_eq!(good.len(), 1);
    let judge = |content: &[u8], what: String| match read(content) {
        Ok(found) => assert_eq!(found, good, "{what}"),
        Err(e) => assert!(!e.why.is_empty(), "{what}"),
    };
    for cut in (0..whole.len()).step_by(509) {
        assert!(read(&whole[..cut]).is_err(), "cut at {cut} of {}", whole.len());
    }
    for place in (0..whole.len()).step_by(61) {
        let mut flipped = whole.clone();
        flipped[place] ^= 1 << (place % 8);
        judge(&flipped, format!("bit flipped in byte {place}"));
    }
}

/// A torn tail of the write-ahead log (power lost in the middle of a write) costs the last record at most.
#[test]
fn a_torn_log_keeps_what_was_acknowledged_before() {
    let (_folder, path) = fresh();
    let journal = Sqlite::open(&path).unwrap();
    let pass = journal.begin(&plan(vec![step("a"), step("b")]), at(1)).unwrap();
    journal.started(pass, &step("a"), at(2)).unwrap();
    let log = PathBuf::from(format!("{}-wal", path.display()));
    let acknowledged = fs::metadata(&log).unwrap().len();
    journal.started(pass, &step("b"), at(3)).unwrap();
    let (file, tail) = (fs::read(&path).unwrap(), fs::read(&log).unwrap());
    drop(journal);
    let acknowledged = usize::try_from(acknowledged).unwrap();
    assert!(tail.len() > acknowledged);
    for cut in (acknowledged..tail.len()).step_by(97) {
        let (_other, copy) = fresh();
        fs::write(&copy, &file).unwrap();
        fs::write(format!("{}-wal", copy.display()), &tail[..cut]).unwrap();
        let doubt = Sqlite::open(&copy).unwrap().in_doubt().unwrap();
        assert_eq!(doubt[0].step.id, "a", "cut at {cut} of {}", tail.len());
    }
}

#[cfg(unix)]
#[test]
fn only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, path) = fresh();
    let _journal = Sqlite::open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|n| n.to_string_lossy().starts_with("journal.db")), "nothing is left over: {names:?}");
}
