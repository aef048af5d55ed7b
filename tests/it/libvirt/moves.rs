//! The libvirt provider on two real hosts: machines that move, and what comes in between.

use super::*;
use crate::lab::{Guest, Lab, wait_for};
use drover::action::{MigratedVolume, Migration, MigrationWay};
use drover::domain_xml::owner_xml;
use drover::observed::{OwnerMark, RunState};
use std::future::Future;
use std::time::{Instant, SystemTime};

/// Runs a test's work where the hosts can be reached: on a thread in the client's network. Threads that it starts, the
/// provider's among them, are there too.
pub(super) fn in_client<T: Send>(lab: &Lab, job: impl AsyncFnOnce() -> T + Send) -> T {
    let state = lab.ssh_key().ancestors().nth(2).unwrap().to_owned();
    let pid = std::fs::read_to_string(state.join("hosts/c/pid")).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            enter_network(&std::fs::File::open(format!("/proc/{}/ns/net", pid.trim())).unwrap());
            block_on(job())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn block_on<T>(job: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(job)
}

#[expect(unsafe_code, reason = "setns(2) has no safe form in the crates that are here")]
fn enter_network(namespace: &std::fs::File) {
    use std::os::fd::AsRawFd as _;
    // SAFETY: a plain system call on a descriptor that is open; it concerns this thread alone.
    let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// The lab's hosts by address: their names are known inside the lab only.
pub(super) fn uris() -> BTreeMap<String, HostSpec> {
    hosts(&[("a", "qemu+tcp://10.77.0.1/system"), ("b", "qemu+tcp://10.77.0.2/system")])
}

pub(super) fn writer() -> Writer {
    Writer::new(uris(), Options::default())
}

pub(super) fn mark(name: &str) -> OwnerMark {
    OwnerMark { fleet: "lab".into(), name: name.into(), delete: false, volumes: vec![] }
}

fn uuid_of(guest: &Guest, lab: &Lab, host: &str) -> Uuid {
    lab.virsh_ok(host, &["domuuid", guest.name()]).parse().unwrap()
}

/// Defines a guest that Drover owns, and starts it; its UUID.
pub(super) fn born(lab: &Lab, guest: &Guest, host: &str, settings: &[&str]) -> Uuid {
    let meta = format!("meta={}", owner_xml(&mark(guest.name())));
    guest.define(host, &[settings, &[&meta]].concat());
    guest.start(host);
    uuid_of(guest, lab, host)
}

/// A live move from a to b.
pub(super) fn migration(lab: &Lab, guest: &Guest, uuid: Uuid) -> Migration {
    Migration {
        timeout_millis: 120_000,
        ..Migration::new(uuid, guest.name(), ["a", "b"], MigrationWay::Live, lab.uri("b"))
    }
}

pub(super) fn moving(m: &Migration) -> MachineAction {
    MachineAction::MigrateVirtualMachine(Box::new(m.clone()))
}

pub(super) async fn act(writer: &Writer, m: &Migration, step: &Step) -> Result<(), ActError> {
    writer.act(&Action::Machine(moving(m)), &step.ctx).await
}

/// Follows an action to its end, and does something once bytes have flowed.
pub(super) async fn while_under_way(
    action: impl Future<Output = Result<(), ActError>>,
    step: &Step,
    disturb: impl AsyncFnOnce(),
) -> Result<(), ActError> {
    tokio::pin!(action);
    while step.heard.lock().unwrap().iter().all(|p| p.processed == 0) {
        tokio::select! {
            result = &mut action => panic!("it ended before it was under way: {result:?}"),
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
    tokio::join!(action, disturb()).0
}

/// Everything that must hold after a move: running and persistent there with its mark, gone here, and found done.
pub(super) async fn moved(writer: &Writer, m: &Migration) -> DomainState {
    writer.verify(&Action::Machine(moving(m)), &step(Duration::from_secs(60)).ctx).await.unwrap();
    assert_eq!(look(writer, &moving(m)).await.unwrap(), Look::AlreadyDone);
    assert!(domain(writer, &m.from, m.uuid).await.is_none(), "the source still has it");
    let there = domain(writer, &m.to, m.uuid).await.expect("the destination does not have it");
    assert_eq!((there.persistent, there.autostart, there.owner.clone()), (true, m.autostart, Some(mark(&m.name))));
    there
}

/// Everything that must hold after a failed move: running where it was, nothing of it at the destination.
pub(super) async fn stayed(writer: &Writer, m: &Migration) {
    let here = domain(writer, &m.from, m.uuid).await.expect("the source does not have it any more");
    assert_eq!((here.state, here.job.is_none()), (RunState::Running, true), "{here:?}");
    assert!(domain(writer, &m.to, m.uuid).await.is_none(), "the destination has something of it");
    assert_eq!(look(writer, &moving(m)).await.unwrap(), Look::Ready);
}

#[test]
fn a_running_machine_moves_and_keeps_running() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("live");
    let disk = vm.shared_disk(64);
    let uuid = born(&lab, &vm, "a", &[&format!("disk={disk}"), "drate=64", "dirty=32", "rate=4"]);
    lab.virsh_ok("a", &["autostart", vm.name()]);
    vm.wait_beats(5);
    let m = Migration { autostart: true, max_downtime_millis: Some(500), ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let writer = writer();
        assert_eq!(look(&writer, &moving(&m)).await.unwrap(), Look::Ready);
        let (step, begun) = (step(Duration::from_secs(120)), Instant::now());
        act(&writer, &m, &step).await.unwrap();
        eprintln!("moved within {} ms", begun.elapsed().as_millis());
        let there = moved(&writer, &m).await;
        assert_eq!((there.state, there.reason.as_str()), (RunState::Running, "migrated"));
        assert!(step.heard.lock().unwrap().iter().any(|p| p.total > 0 && p.processed > 0), "no progress was told");
    });
    vm.wait_beats(5);
    // And back, over SSH, with an operator's key and known hosts: the same machine, from the other side.
    let ssh = hosts(&[("a", "qemu+ssh://root@10.77.0.1/system"), ("b", "qemu+ssh://root@10.77.0.2/system")]);
    let back = Migration { from: "b".into(), to: "a".into(), destination_uri: lab.uri("a"), ..m };
    // The lab's hosts are known by name there, not by address: libvirt must say no until they are.
    let named = std::fs::read_to_string(lab.known_hosts()).unwrap();
    let key = named.lines().find_map(|l| l.strip_prefix("host-a ")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let known = folder.path().join("known_hosts");
    std::fs::write(&known, format!("10.77.0.1 {key}\n10.77.0.2 {key}\n")).unwrap();
    let options = |known| Options { keyfile: Some(lab.ssh_key()), known_hosts: Some(known), ..Options::default() };
    in_client(&lab, async || {
        let stranger = Reader::new(ssh.clone(), options(lab.known_hosts()));
        match stranger.observe("a", Duration::from_secs(20)).await {
            Reading::Unknown { why } => assert!(why.contains("host key"), "{why}"),
            Reading::Present(_) => panic!("a host whose key is not known was trusted"),
        }
        let writer = Writer::new(ssh, options(known));
        let since = SystemTime::now();
        act(&writer, &back, &step(Duration::from_secs(120))).await.unwrap();
        moved(&writer, &back).await;
        let gap = wait_for("beats from a", Duration::from_secs(20), || {
            let gap = vm.gap(since);
            if gap.sources.last().is_some_and(|s| s == "10.77.0.1") { Ok(gap) } else { Err(format!("{gap:?}")) }
        });
        assert_eq!(gap.back, 0, "the guest was restarted, or ran twice: {gap:?}");
    });
    assert!(vm.check_disk(&lab.shared_folder().join(format!("{}.img", vm.name()))).complete);
}

/// A pool over a folder of the host's own.
pub(super) async fn local_pool(writer: &Writer, host: &str) -> String {
    pool(writer, host, "local", "/srv/local").await
}

pub(super) async fn pool(writer: &Writer, host: &str, pool: &str, path: &str) -> String {
    let pool = pool.to_owned();
    let xml = format!("<pool type='dir'><name>{pool}</name><target><path>{path}</path></target></pool>");
    let define = MachineAction::DefineStoragePool { host: host.into(), pool: pool.clone(), xml, autostart: false };
    let start = MachineAction::StartStoragePool { host: host.into(), pool: pool.clone() };
    for action in [define, start].map(Action::Machine) {
        // Other tests use the pool, too, and one of them may be first.
        let ctx = step(Duration::from_secs(60)).ctx;
        if writer.look(&action, &ctx).await.unwrap() == Look::Ready {
            let _ = writer.act(&action, &ctx).await;
        }
        writer.verify(&action, &ctx).await.unwrap();
    }
    pool
}

pub(super) fn copied(guest: &Guest, mib: u64) -> MigratedVolume {
    MigratedVolume {
        backing: None,
        target: "vda".into(),
        pool: "local".into(),
        volume: format!("{}.img", guest.name()),
        path: format!("/srv/local/{}.img", guest.name()),
        to_pool: "local".into(),
        capacity: mib << 20,
        format: "raw".into(),
    }
}

#[test]
fn a_disk_that_is_not_shared_moves_along() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("copy");
    let disk = vm.local_disk("a", 64);
    let uuid = born(&lab, &vm, "a", &[&format!("disk={disk}"), "drate=256"]);
    vm.wait_beats(10);
    let m = Migration { copy: vec![copied(&vm, 64)], delete_source_copies: true, ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let writer = writer();
        local_pool(&writer, "a").await;
        local_pool(&writer, "b").await;
        act(&writer, &m, &step(Duration::from_secs(120))).await.unwrap();
        moved(&writer, &m).await;
        let marks = observe(&writer, "b").await.pools["local"].volumes.clone();
        assert!(!marks.keys().any(|v| v.starts_with(vm.name()) && v.ends_with(".drover-incoming")), "{marks:?}");
    });
    let image = format!("{}.img", vm.name());
    assert!(!lab.local_folder("a").join(&image).exists(), "the source's copy was to be deleted");
    vm.wait_beats(5);
    let check = vm.check_disk(&lab.local_folder("b").join(&image));
    assert!(check.complete && check.blocks > 10, "{check:?}");
}

#[test]
fn the_only_copy_of_a_disk_is_not_deleted() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("only");
    let disk = vm.shared_disk(8);
    let uuid = born(&lab, &vm, "a", &[&format!("disk={disk}"), "boot=none"]);
    // A plan that takes shared storage for local, and a machine that was moved by hand meanwhile.
    let volume = MigratedVolume { pool: "common".into(), to_pool: "common".into(), path: disk, ..copied(&vm, 8) };
    let m = Migration { copy: vec![volume], delete_source_copies: true, ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let writer = writer();
        pool(&writer, "a", "common", "/srv/shared").await;
        pool(&writer, "b", "common", "/srv/shared").await;
        let error = act(&writer, &m, &step(Duration::from_secs(60))).await.unwrap_err();
        assert!(error.message.contains("is already in pool `common`"), "{error}");
        let uri = lab.uri("b");
        lab.virsh_ok("a", &["migrate", "--live", "--p2p", "--persistent", "--undefinesource", vm.name(), &uri]);
        assert_eq!(look(&writer, &moving(&m)).await.unwrap(), Look::Running);
        let error = act(&writer, &m, &step(Duration::from_secs(60))).await.unwrap_err();
        assert!(error.message.contains("the same storage") && !error.transient, "{error}");
    });
    assert!(lab.shared_folder().join(format!("{}.img", vm.name())).exists());
    assert!(!lab.shared_folder().join(format!("{}.img.drover-leaving", vm.name())).exists(), "the probe is left");
}

#[test]
fn a_machine_that_is_off_moves_with_its_disk_and_one_that_runs_does_not() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("offline");
    let disk = vm.local_disk("a", 32);
    std::fs::write(lab.local_folder("a").join(format!("{}.img", vm.name())), vec![7; 32 << 20]).unwrap();
    let uuid = born(&lab, &vm, "a", &[&format!("disk={disk}"), "boot=none"]);
    let m = Migration {
        way: MigrationWay::Offline,
        copy: vec![copied(&vm, 32)],
        autostart: true,
        ..migration(&lab, &vm, uuid)
    };
    in_client(&lab, async || {
        let writer = writer();
        local_pool(&writer, "a").await;
        local_pool(&writer, "b").await;
        // libvirt would take it, and leave a second copy that can be started.
        assert!(refusal(&writer, &moving(&m)).await.contains("a move while off was planned"));
        let error = act(&writer, &m, &step(Duration::from_secs(60))).await.unwrap_err();
        assert!(error.message.contains("is not moved"), "{error}");
        let live = Migration { way: MigrationWay::Live, copy: vec![], ..m.clone() };
        lab.virsh_ok("a", &["destroy", vm.name()]);
        assert!(refusal(&writer, &moving(&live)).await.contains("a live migration was planned"));
        assert_eq!(look(&writer, &moving(&m)).await.unwrap(), Look::Ready);
        act(&writer, &m, &step(Duration::from_secs(60))).await.unwrap();
        let there = moved(&writer, &m).await;
        assert_eq!(there.state, RunState::Off);
    });
    let there = std::fs::read(lab.local_folder("b").join(format!("{}.img", vm.name()))).unwrap();
    assert!(there.len() == 32 << 20 && there.iter().all(|b| *b == 7), "the copy differs");
    assert!(lab.local_folder("a").join(format!("{}.img", vm.name())).exists(), "nobody asked for it to be deleted");
}

/// A guest whose migration takes a while at some MiB/s.
pub(super) fn slow(lab: &Lab, vm: &Guest) -> Uuid {
    let uuid = born(lab, vm, "a", &["dirty=48", "rate=2", "mem=256"]);
    vm.wait_beats(10);
    uuid
}

fn wait_for_job(lab: &Lab, vm: &Guest) {
    wait_for("a migration under way", Duration::from_secs(30), || {
        let job = lab.virsh_ok("a", &["domjobinfo", vm.name()]);
        // Memory has begun to flow: the destination's half is there.
        if job.contains("Memory processed") { Ok(()) } else { Err(job) }
    });
}

#[test]
fn a_migration_that_somebody_else_began_is_taken_up() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("adopt");
    let uuid = slow(&lab, &vm);
    let (name, uri) = (vm.name().to_owned(), lab.uri("b"));
    let args = ["migrate", "--live", "--p2p", "--persistent", "--undefinesource", "--bandwidth", "2", &name, &uri];
    let mut virsh = lab.client_command("virsh", &[&["-c", &lab.uri("a")], &args[..]].concat()).spawn().unwrap();
    wait_for_job(&lab, &vm);
    virsh.kill().unwrap();
    virsh.wait().unwrap();
    let m = Migration { autostart: true, ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let writer = writer();
        assert_eq!(look(&writer, &moving(&m)).await.unwrap(), Look::Running);
        let pause = MachineAction::PauseDomain { host: "a".into(), uuid };
        assert!(refusal(&writer, &pause).await.contains("being migrated"));
        let half = domain(&writer, "b", uuid).await.unwrap();
        assert!(half.is_in_migration(), "{half:?}");
        lab.virsh_ok("a", &["migrate-setspeed", vm.name(), "200"]);
        let step = step(Duration::from_secs(120));
        act(&writer, &m, &step).await.unwrap();
        assert!(!step.heard.lock().unwrap().is_empty(), "no progress was told");
        moved(&writer, &m).await;
    });
    assert_eq!(vm.state("b"), "running");
}

#[test]
fn a_migration_goes_on_when_its_step_is_cancelled_and_is_taken_up_again() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("cancel");
    let uuid = slow(&lab, &vm);
    let m = Migration { bandwidth_mib: Some(2), ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let first = writer();
        let step = step(Duration::from_secs(120));
        let cancel = step.ctx.cancel.clone();
        let result = while_under_way(act(&first, &m, &step), &step, async || cancel.cancel()).await;
        let error = result.unwrap_err();
        assert!(error.transient && error.message.contains("left going on"), "{error}");
        drop(first);
        // A Drover that starts now knows nothing but what the hosts say.
        let second = writer();
        assert_eq!(look(&second, &moving(&m)).await.unwrap(), Look::Running);
        let wait = MachineAction::AwaitMigration { host: "a".into(), uuid };
        assert_eq!(look(&second, &wait).await.unwrap(), Look::Running);
        lab.virsh_ok("a", &["migrate-setspeed", vm.name(), "200"]);
        let ctx = super::step(Duration::from_secs(120)).ctx;
        second.act(&Action::Machine(wait.clone()), &ctx).await.unwrap();
        second.verify(&Action::Machine(wait), &ctx).await.unwrap();
        moved(&second, &m).await;
    });
}

#[test]
fn a_migration_that_takes_too_long_is_aborted_and_leaves_no_litter() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("late");
    let disk = vm.local_disk("a", 256);
    std::fs::write(lab.local_folder("a").join(format!("{}.img", vm.name())), vec![3; 256 << 20]).unwrap();
    let uuid = born(&lab, &vm, "a", &[&format!("disk={disk}"), "boot=none"]);
    let m = Migration {
        copy: vec![copied(&vm, 256)],
        bandwidth_mib: Some(4),
        timeout_millis: 5_000,
        ..migration(&lab, &vm, uuid)
    };
    in_client(&lab, async || {
        let writer = writer();
        local_pool(&writer, "a").await;
        local_pool(&writer, "b").await;
        let begun = Instant::now();
        let error = act(&writer, &m, &step(Duration::from_secs(120))).await.unwrap_err();
        assert!(error.message.contains("it was not done within 5 s, so it was aborted"), "{error}");
        assert!(error.message.contains("running") && error.hint.is_some(), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(60));
        stayed(&writer, &m).await;
        // An image that is somebody's is never written to.
        let foreign = lab.local_folder("b").join(format!("{}.img", vm.name()));
        assert!(!foreign.exists(), "a half copy is left");
        std::fs::write(&foreign, b"precious").unwrap();
        let error = act(&writer, &m, &step(Duration::from_secs(60))).await.unwrap_err();
        assert!(error.message.contains("is already in pool `local`") && !error.transient, "{error}");
        assert_eq!(std::fs::read(&foreign).unwrap(), b"precious");
        std::fs::remove_file(&foreign).unwrap();
    });
}

#[test]
fn a_migration_that_does_not_converge_ends_in_post_copy() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("postcopy");
    let uuid = born(&lab, &vm, "a", &["dirty=96", "rate=60", "mem=256"]);
    vm.wait_beats(10);
    let m = Migration { bandwidth_mib: Some(20), post_copy_after_millis: Some(3_000), ..migration(&lab, &vm, uuid) };
    let since = SystemTime::now();
    in_client(&lab, async || {
        let writer = writer();
        act(&writer, &m, &step(Duration::from_secs(120))).await.unwrap();
        assert_eq!(moved(&writer, &m).await.state, RunState::Running);
    });
    vm.wait_beats(5);
    assert_eq!(vm.gap(since).back, 0);
}

#[test]
fn a_destination_whose_daemon_dies_leaves_the_machine_where_it_was() {
    let Some(lab) = Lab::alone() else { return };
    let vm = lab.guest("dead");
    let uuid = slow(&lab, &vm);
    let m = Migration { bandwidth_mib: Some(4), ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let writer = writer();
        let step = step(Duration::from_secs(200));
        let disturb = async || {
            lab.daemon("b", "kill");
            tokio::time::sleep(Duration::from_secs(3)).await;
            lab.daemon("b", "start");
        };
        let result = while_under_way(act(&writer, &m, &step), &step, disturb).await;
        let error = result.unwrap_err();
        assert!(error.transient && error.message.contains("it is running"), "{error}");
        eprintln!("{error} / {:?}", error.hint);
        stayed(&writer, &m).await;
        // And the next attempt, over the same connections, brings it there.
        let again = Migration { bandwidth_mib: None, ..m.clone() };
        act(&writer, &again, &super::step(Duration::from_secs(120))).await.unwrap();
        moved(&writer, &again).await;
    });
}

#[test]
fn a_link_that_is_cut_leaves_the_machine_where_it_was() {
    let Some(lab) = Lab::alone() else { return };
    let vm = lab.guest("cut");
    let uuid = slow(&lab, &vm);
    let m = Migration { bandwidth_mib: Some(4), ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let writer = writer();
        let step = step(Duration::from_secs(300));
        let begun = Instant::now();
        let result = while_under_way(act(&writer, &m, &step), &step, async || lab.cut("b")).await;
        let error = result.unwrap_err();
        eprintln!("after {} s: {error} / {:?}", begun.elapsed().as_secs(), error.hint);
        assert!(error.transient && error.message.contains("it is running"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(90));
        assert_eq!(domain(&writer, "a", uuid).await.unwrap().state, RunState::Running);
        // The other host is unknown, quickly, and the one that is there is read as ever.
        let begun = Instant::now();
        let unknown = writer.observe("b", Duration::from_secs(30)).await;
        assert!(matches!(unknown, Reading::Unknown { .. }), "{unknown:?}");
        assert!(begun.elapsed() < Duration::from_secs(15));
        lab.heal("b");
        ready(&writer, &m).await;
        stayed(&writer, &m).await;
    });
}

/// Waits until a migration can be started again.
pub(super) async fn ready(writer: &Writer, m: &Migration) {
    let begun = Instant::now();
    loop {
        match look(writer, &moving(m)).await {
            Ok(Look::Ready) => return,
            seen => assert!(begun.elapsed() < Duration::from_secs(60), "{seen:?}"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[test]
fn half_a_copy_behind_a_cut_link_is_made_anew() {
    let Some(lab) = Lab::alone() else { return };
    let vm = lab.guest("half");
    let disk = vm.local_disk("a", 64);
    let uuid = born(&lab, &vm, "a", &[&format!("disk={disk}"), "drate=64"]);
    vm.wait_beats(5);
    let m = Migration { copy: vec![copied(&vm, 64)], bandwidth_mib: Some(4), ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let writer = writer();
        local_pool(&writer, "a").await;
        local_pool(&writer, "b").await;
        let step = step(Duration::from_secs(300));
        // Longer than keepalive: libvirt gives up, but waits for its copy of the disk until the link is back.
        let disturb = async || {
            lab.cut("b");
            tokio::time::sleep(Duration::from_secs(40)).await;
            lab.heal("b");
        };
        let error = while_under_way(act(&writer, &m, &step), &step, disturb).await.unwrap_err();
        eprintln!("{error} / {:?}", error.hint);
        assert_eq!(domain(&writer, "a", uuid).await.unwrap().state, RunState::Running);
        let again = Migration { bandwidth_mib: None, ..m.clone() };
        ready(&writer, &again).await;
        act(&writer, &again, &super::step(Duration::from_secs(120))).await.unwrap();
        moved(&writer, &again).await;
    });
    vm.wait_beats(3);
    let check = vm.check_disk(&lab.local_folder("b").join(format!("{}.img", vm.name())));
    assert!(check.complete, "{check:?}");
}

#[test]
fn a_daemon_that_hangs_makes_its_host_unknown_and_no_other() {
    let Some(lab) = Lab::alone() else { return };
    in_client(&lab, async || {
        let reader = Reader::new(uris(), Options { max_hung_calls: 2, ..Options::default() });
        observe(&reader, "b").await;
        lab.daemon("b", "pause");
        for _ in 0..4 {
            let begun = Instant::now();
            let reading = reader.observe("b", Duration::from_secs(2)).await;
            assert!(matches!(reading, Reading::Unknown { .. }), "{reading:?}");
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
            observe(&reader, "a").await;
        }
        lab.daemon("b", "cont");
        let begun = Instant::now();
        while let Reading::Unknown { why } = reader.observe("b", Duration::from_secs(10)).await {
            assert!(begun.elapsed() < Duration::from_secs(60), "{why}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
}

#[test]
fn a_machine_is_not_started_while_it_runs_elsewhere() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("twin");
    let uuid = born(&lab, &vm, "a", &["boot=none"]);
    let meta = format!("meta={}", owner_xml(&mark(vm.name())));
    vm.define("b", &["boot=none", &meta]);
    in_client(&lab, async || {
        let writer = writer();
        let start = MachineAction::StartDomain { host: "b".into(), uuid, paused: false };
        assert!(refusal(&writer, &start).await.contains("running (booted) on host `a`"));
        lab.virsh_ok("a", &["destroy", vm.name()]);
        carry_out(&writer, start).await;
        // The same machine on both hosts, and it is not moved over itself.
        lab.virsh_ok("a", &["start", vm.name()]);
        let m = migration(&lab, &vm, uuid);
        assert!(refusal(&writer, &moving(&m)).await.contains("it runs on both hosts"));
    });
}

#[test]
fn an_image_in_a_folder_fills_a_volume_and_stays_under_an_overlay() {
    use drover::action::ImageSource;
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("image");
    let folder = lab.local_folder("a").join(format!("{}-base", vm.name()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("os.raw"), [&[9; 1 << 20][..], &[0; 3 << 20]].concat()).unwrap();
    in_client(&lab, async || {
        let writer = writer();
        let pool = local_pool(&writer, "a").await;
        let source = ImageSource { pool: pool.clone(), volume: format!("{}-base/os.raw", vm.name()) };
        let volume = |suffix: &str, capacity, image: Option<&ImageSource>, backing: Option<&ImageSource>| {
            MachineAction::CreateVolume {
                host: "a".into(),
                pool: pool.clone(),
                volume: format!("{}.{suffix}", vm.name()),
                capacity,
                format: "qcow2".into(),
                image: image.cloned(),
                backing: backing.cloned(),
            }
        };
        carry_out(&writer, volume("filled", 16 << 20, Some(&source), None)).await;
        carry_out(&writer, volume("overlay", 16 << 20, None, Some(&source))).await;
        let state = observe(&writer, "a").await;
        let volumes = &state.pools[&pool].volumes;
        let filled = &volumes[&format!("{}.filled", vm.name())];
        assert_eq!((filled.capacity, filled.format.as_str(), &filled.backing), (16 << 20, "qcow2", &None));
        let overlay = &volumes[&format!("{}.overlay", vm.name())];
        assert_eq!(overlay.backing, Some(format!("/srv/local/{}-base/os.raw", vm.name())));
        assert!(!state.pools.keys().any(|p| p.starts_with("drover-images")), "the passing pool is gone");
        let grow = MachineAction::ResizeVolume {
            host: "a".into(),
            pool: pool.clone(),
            volume: format!("{}.filled", vm.name()),
            capacity: 32 << 20,
            running: None,
        };
        carry_out(&writer, grow).await;
    });
    std::fs::remove_dir_all(folder).unwrap();
}
