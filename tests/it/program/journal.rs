//! The disk of the state folder is full: what cannot be written down is not begun.

use super::*;
use drover::daemon::PassResult;
use std::io::Write as _;

impl Fleet<'_> {
    /// Starts the daemon with its state folder on a file system of its own, of 8 MiB. It is mounted in a namespace that
    /// ends with the daemon, and nowhere else: without one nothing is mounted. Gives the folder as seen from outside.
    fn start_on_a_small_disk(&mut self) -> PathBuf {
        let state = self.state_folder();
        std::fs::create_dir_all(&state).unwrap();
        let mount = "[ \"$(readlink /proc/self/ns/mnt)\" != \"$1\" ] && mount -t tmpfs -o size=8m,mode=700 tmpfs \"$2\" && shift 2 && exec \"$@\"";
        let client = Ran::of(&mut self.lab.client_command("readlink", &["/proc/self/ns/mnt"])).exits(0).out;
        let folder = state.display().to_string();
        let flags = ["--mount", "--propagation", "private", "sh", "-c", mount, "-", client.trim(), &folder];
        let args = self.daemon_command(&state);
        let program = [env!("CARGO_BIN_EXE_drover")];
        let args: Vec<&str> = flags.into_iter().chain(program).chain(args.iter().map(String::as_str)).collect();
        self.start_as(self.lab.client_command("unshare", &args));
        PathBuf::from(format!("/proc/{}/root{folder}", self.running().pid()))
    }
}

/// Takes all the room that is left.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("filler");
    let mut file = File::options().create(true).append(true).open(&path).unwrap();
    let full = std::iter::repeat_with(|| file.write_all(&[7; 4096])).find_map(Result::err).unwrap();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
    path
}

fn no_room_for_the_journal(status: &DaemonStatus) -> bool {
    let error = status.last.as_ref().and_then(|l| l.summary.error.as_ref());
    error.is_some_and(|e| e.contains("journal") && e.contains("disk is full") && e.contains("free some space"))
}

#[test]
fn a_full_disk_begins_nothing_says_so_and_is_got_over() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "full");
    let vm = fleet.bare_machine("web", "a");
    let first = fleet.push("web on kvm-a");
    let folder = fleet.start_on_a_small_disk();
    fleet.settles(&first);
    let steps_before = fleet.log_text().matches("a step ended").count();

    let filler = fill(&folder);
    // Something to do for the commit in force, which the journal has to know of first.
    lab.virsh_ok("a", &["destroy", vm.name()]);
    let status = fleet.until("the pass cannot go on", no_room_for_the_journal);
    assert_eq!(status.last.unwrap().summary.result, PassResult::Failed);
    fleet.status_text().exits(0).says(&["failed", "journal", "the disk is full", "free some space"]);
    // What the journal has let go of is taken, too.
    fill(&folder);
    // And a push, which cannot even be fetched.
    fleet.change(&vm, "host: kvm-a", "host: kvm-b");
    let commit = fleet.push("to kvm-b");
    let status = fleet.until("the push cannot be fetched", |s| s.fetch.error.is_some());
    let error = status.fetch.error.unwrap();
    assert!(error.message.to_lowercase().contains("no space"), "{error:?}");
    assert!(error.hint.is_some_and(|h| h.contains("space")));
    assert_eq!(status.good.as_deref(), Some(first.as_str()));
    let failures = status.failures;
    let status = fleet.until("it has been tried again", |s| s.failures > failures + 1);
    assert!(no_room_for_the_journal(&status), "{status:#?}");
    assert_eq!(HOSTS.map(|h| vm.state(h)), ["shut off", "absent"], "something was begun");
    assert_eq!(fleet.log_text().matches("a step ended").count(), steps_before);

    std::fs::remove_file(filler).unwrap();
    fleet.settles(&commit);
    fleet.runs_only_on(&vm, "b");
    fleet.has_nothing_to_do();
    // The journal is whole, and knows of it. Where the daemon is: a mount elsewhere does not lead to its file.
    let (pid, state) = (fleet.running().pid().to_string(), fleet.state_folder().display().to_string());
    let history = [env!("CARGO_BIN_EXE_drover"), "history", "--state", &state];
    Ran::of(Command::new("nsenter").args(["-t", &pid, "-m", "--"]).args(history))
        .exits(0)
        .says(&[&format!("{} from kvm-a to kvm-b", vm.name()), "succeeded"]);
}
