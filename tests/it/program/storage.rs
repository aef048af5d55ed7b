//! Storage under running machines: shared pools that are shared and that are not, and disks that go onto them.

use super::*;

impl Fleet<'_> {
    /// A pool on each host's own storage, beside the shared one; its name.
    fn local_pool(&self, shared: bool) -> String {
        let name = format!("{}-local", self.name);
        for host in HOSTS {
            std::fs::create_dir_all(self.lab.local_folder(host).join(&self.name)).unwrap();
        }
        let text = format!(
            "apiVersion: drover/v1alpha1\nkind: StoragePool\nmetadata: {{name: {name}}}\n\
             spec: {{hosts: [kvm-a, kvm-b], type: dir, target: /srv/local/{}, shared: {shared}}}\n",
            self.name
        );
        self.write("local.yaml", &text);
        name
    }

    fn shared_file(&self, name: &str) -> PathBuf {
        self.lab.shared_folder().join(&self.name).join(name)
    }

    fn local_file(&self, host: &str, name: &str) -> PathBuf {
        self.lab.local_folder(host).join(&self.name).join(name)
    }

    /// The path of a disk in a definition, live or persistent.
    fn disk_at(&self, vm: &Guest<'_>, host: &str, target: &str, flags: &[&str]) -> String {
        let list = self.lab.virsh_ok(host, &[&["domblklist", vm.name()], flags].concat());
        let line = list.lines().find(|l| l.trim_start().starts_with(target)).unwrap_or_default();
        line.split_whitespace().nth(1).unwrap_or_default().to_owned()
    }
}

/// Writes bytes that are not zero over a whole file.
fn fill(file: &Path) {
    let length = usize::try_from(std::fs::metadata(file).unwrap().len()).unwrap();
    let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8 | 1).collect();
    std::fs::write(file, bytes).unwrap();
}

/// One commit: the disk onto the shared pool, the machine to the other host. Both happen, in that order, and the guest
/// notices nothing.
#[test]
fn a_running_machine_goes_onto_shared_storage_and_then_to_another_host() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "onto");
    let local = fleet.local_pool(false);
    let vm = fleet.machine("web");
    let (from, to) = (format!("pool: {local}"), "pool: onto");
    fleet.change(&vm, to, &from);
    let first = fleet.push("web on kvm-a, on its own storage");
    fleet.start();
    fleet.settles(&first);
    vm.wait_beats(20);
    let volume = format!("{}-data.raw", vm.name());
    assert!(fleet.local_file("a", &volume).exists());

    fleet.change(&vm, &from, to);
    fleet.change(&vm, "host: kvm-a", "host: kvm-b");
    let plan = fleet.plan(&[]).exits(2);
    plan.says(&["live-move disk data", "stays in pool onto-local", "live-migrate"]);
    let since = SystemTime::now();
    let moved = fleet.push("onto shared storage, and to kvm-b");
    fleet.settles(&moved);
    fleet.runs_only_on(&vm, "b");
    fleet.has_lived(&vm, since, "b");
    let path = format!("/srv/shared/onto/{volume}");
    assert_eq!(fleet.disk_at(&vm, "b", "vda", &[]), path);
    assert_eq!(fleet.disk_at(&vm, "b", "vda", &["--inactive"]), path);
    let definition = lab.virsh_ok("b", &["dumpxml", vm.name()]);
    assert!(definition.matches(&volume).count() >= 3, "the mark names both volumes: {definition}");
    fleet.has_nothing_to_do();

    let heard = vm.gap(since);
    fleet.terminate();
    lab.virsh_ok("b", &["destroy", vm.name()]);
    let disk = vm.check_disk(&fleet.shared_file(&volume));
    assert!(disk.complete && disk.highest >= heard.writes && heard.writes > 0, "{disk:?} {heard:?}");
    assert!(fleet.local_file("a", &volume).exists(), "the old volume stays");
    let hidden = lab.virsh_ok("a", &["vol-list", "onto"]);
    assert!(hidden.contains(".drover-pool-"), "{hidden}");
    let said = fleet.drover(&["observe", &fleet.work(), "-o", "json"]).exits(0);
    assert!(!said.json()["hosts"]["kvm-a"].to_string().contains("\".drover-pool-"), "markers are no volumes");
}

/// Off: the volume is copied, the old one deleted as the policy says, and the machine starts on the new one.
#[test]
fn the_disk_of_a_machine_that_is_off_goes_to_another_pool() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "offmove");
    let local = fleet.local_pool(false);
    let vm = fleet.machine("web");
    fleet.change(&vm, "pool: offmove", &format!("pool: {local}"));
    fleet.edit(
        "policies.yaml",
        "  maxDowntime: 300ms",
        "  maxDowntime: 300ms\n  copyStorage: All\n  deleteSourceCopies: true",
    );
    let first = fleet.push("web on kvm-a");
    fleet.start();
    fleet.settles(&first);
    vm.wait_beats(20);
    // The lab's guest heeds no button.
    let off = "  powerState: Stopped\n  shutdownTimeout: 1s\n  forceShutdown: true\n  host: kvm-a";
    fleet.change(&vm, "  host: kvm-a", off);
    let off = fleet.push("off");
    fleet.settles(&off);
    let volume = format!("{}-data.raw", vm.name());
    let before = vm.check_disk(&fleet.local_file("a", &volume));
    assert!(before.highest > 0, "{before:?}");

    fleet.change(&vm, &format!("pool: {local}"), "pool: offmove");
    fleet.change(&vm, "size: 64Mi, format: raw", "size: 80Mi, format: raw");
    let moved = fleet.push("onto shared storage, and larger");
    fleet.settles(&moved);
    assert_eq!(fleet.disk_at(&vm, "a", "vda", &[]), format!("/srv/shared/offmove/{volume}"));
    let after = vm.check_disk(&fleet.shared_file(&volume));
    assert_eq!((after.complete, after.highest), (true, before.highest));
    assert_eq!(std::fs::metadata(fleet.shared_file(&volume)).unwrap().len(), 80 << 20);
    assert!(!fleet.local_file("a", &volume).exists(), "the policy deletes what is left behind");
    fleet.has_nothing_to_do();
    fleet.change(&vm, "  powerState: Stopped\n", "");
    let on = fleet.push("on again");
    fleet.settles(&on);
    vm.wait_beats(3);
    fleet.has_nothing_to_do();
}

/// The second disk of a machine's manifest, of so many MiB.
fn bulk(pool: &str, mib: u32) -> String {
    format!("    - {{name: bulk, pool: {pool}, size: {mib}Mi, format: raw, cache: none}}\n  interfaces:")
}

/// A machine that runs on host a with a second disk, full of data, on the host's own storage; its policy copies slowly.
fn with_bulk<'lab>(fleet: &mut Fleet<'lab>, local: &str, mib: u32, bandwidth: &str) -> Rc<Guest<'lab>> {
    let vm = fleet.machine("web");
    fleet.change(&vm, "  interfaces:", &bulk(local, mib));
    fleet.change(&vm, "  host: kvm-a", "  migrationPolicy: slow\n  powerState: Stopped\n  host: kvm-a");
    fleet.edit("policies.yaml", "bandwidth: 40Mbit/s", &format!("bandwidth: {bandwidth}"));
    let first = fleet.push("web on kvm-a, off");
    fleet.start();
    fleet.settles(&first);
    fill(&fleet.local_file("a", &format!("{}-bulk.raw", vm.name())));
    fleet.change(&vm, "  powerState: Stopped\n", "");
    let on = fleet.push("on");
    fleet.settles(&on);
    vm.wait_beats(3);
    vm
}

fn is_copying(fleet: &Fleet<'_>, vm: &Guest<'_>) -> bool {
    fleet.lab.virsh_ok("a", &["blockjob", vm.name(), "vdb", "--raw"]).contains("Block Copy")
}

fn copying(fleet: &Fleet<'_>, vm: &Guest<'_>) {
    wait_for("the copy is under way", PATIENCE, || match is_copying(fleet, vm) {
        true => Ok(()),
        false => Err(fleet.log_text()),
    });
}

/// `git revert` while a disk is copied, by a Drover that lives: the copy ends at once, the machine keeps its old disk and
/// nothing of the copy stays. Wanted again, and its policy given more bandwidth while it runs: it has it at once.
#[test]
fn a_copy_that_runs_heeds_what_git_says_now() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "heed");
    let local = fleet.local_pool(false);
    // One MiB a second: a minute and more.
    let vm = with_bulk(&mut fleet, &local, 80, "8Mbit/s");
    let since = SystemTime::now();
    let volume = format!("{}-bulk.raw", vm.name());
    let (old, new) = (fleet.local_file("a", &volume), fleet.shared_file(&volume));
    let half = fleet.shared_file(&format!("{volume}.drover-incoming"));

    fleet.change(&vm, &bulk(&local, 80), &bulk("heed", 80));
    fleet.push("bulk onto shared storage");
    copying(&fleet, &vm);
    assert!(half.exists() && new.exists());
    fleet.change(&vm, &bulk("heed", 80), &bulk(&local, 80));
    let back = fleet.push("no, stay");
    let begun = std::time::Instant::now();
    fleet.settles(&back);
    assert!(begun.elapsed() < Duration::from_secs(45), "the copy was waited for: {:?}", begun.elapsed());
    assert!(!is_copying(&fleet, &vm));
    assert!(!half.exists() && !new.exists(), "nothing of the copy stays");
    for flags in [&[][..], &["--inactive"]] {
        assert_eq!(fleet.disk_at(&vm, "a", "vdb", flags), old_path(&fleet, &volume));
    }
    let log = fleet.log_text();
    assert!(log.contains(&format!("is not wanted any more: the manifest says `{local}` again")), "{log}");
    fleet.has_nothing_to_do();

    fleet.change(&vm, &bulk(&local, 80), &bulk("heed", 80));
    fleet.push("yes, move");
    copying(&fleet, &vm);
    fleet.edit("policies.yaml", "bandwidth: 8Mbit/s", "bandwidth: 4Gbit/s");
    let faster = fleet.push("faster");
    let begun = std::time::Instant::now();
    fleet.settles(&faster);
    assert!(begun.elapsed() < Duration::from_secs(45), "at 8 Mbit/s it takes longer: {:?}", begun.elapsed());
    assert!(fleet.log_text().contains("bandwidth of a disk's copy is another now"), "{}", fleet.log_text());
    assert_eq!(fleet.disk_at(&vm, "a", "vdb", &[]), format!("/srv/shared/heed/{volume}"));
    assert!(!half.exists());
    assert!(std::fs::read(&old).unwrap() == std::fs::read(&new).unwrap(), "the copy is another");
    fleet.has_lived(&vm, since, "a");
    fleet.has_nothing_to_do();
}

fn old_path(fleet: &Fleet<'_>, volume: &str) -> String {
    format!("/srv/local/{}/{volume}", fleet.name)
}

/// Killed in the middle of a copy: the next Drover follows it to its end. Killed again, and the commit reverted: the copy is
/// aborted and nothing of it stays.
#[test]
fn a_copy_that_a_dead_drover_left_is_followed_or_aborted() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "halfway");
    let local = fleet.local_pool(false);
    let vm = with_bulk(&mut fleet, &local, 32, "16Mbit/s");
    let volume = format!("{}-bulk.raw", vm.name());
    let old = fleet.local_file("a", &volume);
    let bulk = |pool: &str| bulk(pool, 32);
    let copying = |fleet: &Fleet<'_>| copying(fleet, &vm);
    let half = format!("{volume}.drover-incoming");
    fleet.change(&vm, &bulk(&local), &bulk("halfway"));
    fleet.push("bulk onto shared storage");
    copying(&fleet);
    fleet.kill();
    assert!(fleet.shared_file(&half).exists(), "what is half a copy says so");
    fleet.change(&vm, &bulk("halfway"), &bulk(&local));
    let back = fleet.push("no, stay");
    fleet.start();
    fleet.settles(&back);
    let job = lab.virsh_ok("a", &["blockjob", vm.name(), "vdb", "--raw"]);
    assert!(!job.contains("Block Copy"), "{job}");
    assert!(!fleet.shared_file(&half).exists() && !fleet.shared_file(&volume).exists());
    assert_eq!(fleet.disk_at(&vm, "a", "vdb", &[]), format!("/srv/local/halfway/{volume}"));

    fleet.change(&vm, &bulk(&local), &bulk("halfway"));
    let moved = fleet.push("yes, move");
    copying(&fleet);
    fleet.kill();
    let went_on = lab.virsh_ok("a", &["blockjob", vm.name(), "vdb", "--raw"]);
    assert!(went_on.contains("Block Copy"), "{went_on}");
    fleet.start();
    fleet.settles(&moved);
    for flags in [&[][..], &["--inactive"]] {
        assert_eq!(fleet.disk_at(&vm, "a", "vdb", flags), format!("/srv/shared/halfway/{volume}"));
    }
    assert!(!fleet.shared_file(&half).exists());
    assert!(std::fs::read(&old).unwrap() == std::fs::read(fleet.shared_file(&volume)).unwrap(), "the copy is another");
    fleet.has_nothing_to_do();
}

/// Pools of one name on two storages, declared as shared: the trap that loses data. Nothing moves over them.
#[test]
fn what_is_declared_as_shared_and_is_not_holds_moves_back() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "trap");
    let local = fleet.local_pool(true);
    let vm = fleet.machine("web");
    fleet.change(&vm, "pool: trap", &format!("pool: {local}"));
    fleet.commit("web on kvm-a");
    let ran = fleet.drover(&["apply", &fleet.work(), "--auto-approve"]).exits(1);
    ran.says(&["not the same storage as on host `kvm-a`", "pool-refresh"]);
    assert_eq!(vm.state("a"), "running", "nothing else is held up");
    fleet.change(&vm, "host: kvm-a", "host: kvm-b");
    fleet.commit("web to kvm-b");
    let plan = fleet.plan(&[]);
    let plan = plan.says(&["D0616", "another storage on `kvm-b` than on `kvm-a`"]);
    assert_ne!(plan.code, 0);
    let _ = fleet.drover(&["apply", &fleet.work(), "--auto-approve"]);
    assert_eq!((vm.state("a").as_str(), vm.state("b").as_str()), ("running", "absent"));
}

/// The lab's kernel has no NFS: the pool is defined, and its start says why it fails and what mends it. The rest is done.
#[test]
fn an_nfs_pool_that_cannot_be_mounted_says_why_and_holds_nothing_up() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "nfs");
    let pool = "apiVersion: drover/v1alpha1\nkind: StoragePool\nmetadata: {name: nfs-local}\nspec:\n  hosts: [kvm-a, kvm-b]\n  \
                type: netfs\n  source: {host: 10.77.0.3, path: /srv/images, format: nfs, protocolVersion: '3'}\n  \
                target: /srv/local/nfs\n  mountOptions: [nolock, soft]\n  shared: true\n";
    fleet.write("nfs.yaml", pool);
    let vm = fleet.bare_machine("bare", "a");
    fleet.commit("an NFS pool and a machine that does not need it");
    let ran = fleet.drover(&["apply", &fleet.work(), "--auto-approve"]).exits(1);
    let said = format!("{}{}", ran.out, ran.err);
    assert!(said.contains("start pool `nfs-local`"), "{said}");
    assert!(said.contains("nfs-common"), "the hint says what mends it: {said}");
    assert_eq!(vm.state("a"), "running");
    for host in HOSTS {
        let xml = lab.virsh_ok(host, &["pool-dumpxml", "nfs-local"]);
        assert!(xml.contains("<protocol ver='3'/>") && xml.contains("name='nolock'"), "{xml}");
        assert!(lab.virsh_ok(host, &["pool-info", "nfs-local"]).contains("inactive"));
    }
}

/// A network disk is the same wherever the machine is: it moves without a pool and without a copy.
#[test]
fn a_machine_on_a_network_disk_moves_with_it() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "nbd");
    let vm = fleet.machine("web");
    let image = fleet.shared_file("disk.img");
    std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let port = (vm.port() + 2_000).to_string();
    let args = ["-x", "disk", "-f", "raw", "-p", &port, "-b", "10.77.0.3", "-e", "4", "-t", image.to_str().unwrap()];
    let server = Daemon(lab.client_command("qemu-nbd", &args).spawn().unwrap());
    fleet.change(&vm, "    - {name: data, pool: nbd, size: 64Mi, format: raw, cache: none}\n", "");
    fleet.change(&vm, "  disks:\n", "");
    let patch = format!(
        "  xmlPatches:\n    - op: add\n      at: /domain/devices\n      xml: |\n        <disk type='network' device='disk'>\
         <driver name='qemu' type='raw' cache='none'/><source protocol='nbd' name='disk'><host name='10.77.0.3' port='{port}'/></source>\
         <target dev='vda' bus='virtio'/></disk>\n  interfaces:"
    );
    fleet.change(&vm, "  interfaces:", &patch);
    let first = fleet.push("web on a network disk");
    fleet.start();
    fleet.settles(&first);
    vm.wait_beats(10);
    fleet.change(&vm, "host: kvm-a", "host: kvm-b");
    let since = SystemTime::now();
    let moved = fleet.push("web to kvm-b");
    fleet.settles(&moved);
    fleet.runs_only_on(&vm, "b");
    fleet.has_lived(&vm, since, "b");
    let heard = vm.gap(since);
    fleet.has_nothing_to_do();
    fleet.terminate();
    lab.virsh_ok("b", &["destroy", vm.name()]);
    drop(server);
    let disk = vm.check_disk(&image);
    assert!(disk.complete && disk.highest >= heard.writes && heard.writes > 0, "{disk:?} {heard:?}");
}
