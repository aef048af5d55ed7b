//! Machines that cannot move as their manifests ask: `drover plan` says why with figures before anything begins, and
//! nothing is changed on either host.

use super::*;
use serde_json::Value;

/// What a machine of this test is, and what the plan must say of it.
struct Case {
    machine: String,
    name: &'static str,
    verdict: &'static str,
    code: &'static str,
    words: Vec<String>,
}

/// The identity that libvirt gave a domain.
fn uuid(lab: &Lab, host: &str, name: &str) -> String {
    lab.virsh_ok(host, &["domuuid", name])
}

/// Everything on the hosts that a move could change: domains with their states and definitions, pools with their volumes.
fn everything(lab: &Lab, machines: &[Rc<Guest<'_>>], pools: &[&str]) -> Vec<String> {
    let script = "for d in $MACHINES; do echo $d; virsh -q domstate $d; virsh -q dumpxml --inactive $d; done 2>&1; \
                  for p in $POOLS; do echo $p; virsh -q vol-list $p; done";
    let names: Vec<&str> = machines.iter().map(|m| m.name()).collect();
    let (names, pools) = (format!("MACHINES={}", names.join(" ")), format!("POOLS={}", pools.join(" ")));
    let see = |host: &str| {
        let seen = lab.inside(host, &["env", &names, &pools, "sh", "-c", script]);
        assert!(seen.status.success(), "{seen:?}");
        String::from_utf8_lossy(&seen.stdout).into_owned()
    };
    HOSTS.map(see).into()
}

impl<'lab> Fleet<'lab> {
    /// A machine that somebody made by hand on host a, and that is to be on host b and Drover's.
    fn strange(&mut self, name: &str, settings: &[&str], power: &str) -> Rc<Guest<'lab>> {
        let vm = self.guest(name);
        vm.define("a", &[&["boot=none", "mem=32"], settings].concat());
        if power == "Running" {
            vm.start("a");
        }
        self.adopted(&vm, power);
        vm
    }

    fn adopted(&self, vm: &Guest<'_>, power: &str) {
        let info = self.lab.virsh_ok("a", &["dominfo", vm.name()]);
        let memory = info.lines().find_map(|l| l.strip_prefix("Max memory:")?.trim().strip_suffix(" KiB"));
        let memory = memory.unwrap_or_else(|| panic!("no memory in {info}"));
        let text = format!(
            "apiVersion: drover/v1alpha1\nkind: VirtualMachine\nmetadata:\n  name: {name}\n  annotations: {{drover/adopt: 'true'}}\n\
             spec:\n  host: kvm-b\n  uuid: {uuid}\n  powerState: {power}\n  memory: {memory}Ki\n",
            name = vm.name(),
            uuid = uuid(self.lab, "a", vm.name())
        );
        self.write(&format!("{}.yaml", vm.name()), &text);
    }
}

/// The checks of a machine's migration in a plan as JSON.
pub(super) fn checks(plan: &Value, machine: &str) -> Vec<Value> {
    let steps = plan["steps"].as_array().unwrap();
    let step = steps.iter().find(|s| s["action"] == "MigrateVirtualMachine" && s["resource"]["name"] == machine);
    step.unwrap_or_else(|| panic!("no move of {machine} in {plan:#}"))["checks"].as_array().unwrap().clone()
}

#[test]
fn a_move_that_cannot_be_is_refused_in_the_plan_with_figures_and_nothing_changes() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "prechecks");
    // Host b holds little for machines that come: pools of its own, and strangers.
    let (shared, local) = (fleet.name.clone(), format!("{}-local", fleet.name));
    for host in HOSTS {
        let folder = lab.local_folder(host).join(&local);
        std::fs::create_dir_all(&folder).unwrap();
        for (pool, target) in [(&shared, format!("/srv/shared/{shared}")), (&local, format!("/srv/local/{local}"))] {
            lab.virsh_ok(host, &["pool-define-as", pool, "dir", "--target", &target]);
            lab.virsh_ok(host, &["pool-autostart", pool]);
            lab.virsh_ok(host, &["pool-start", pool]);
        }
    }
    let _pools = Pools(&lab, local.clone());
    fleet.write(
        "local.yaml",
        &format!(
            "apiVersion: drover/v1alpha1\nkind: StoragePool\nmetadata: {{name: {local}}}\n\
             spec: {{hosts: [kvm-a, kvm-b], type: dir, target: /srv/local/{local}}}\n"
        ),
    );
    let local_file = |name: &str| {
        let file = lab.local_folder("a").join(&local).join(name);
        std::fs::File::create(file).unwrap().set_len(8 << 20).unwrap();
        format!("/srv/local/{local}/{name}")
    };
    let shared_image = |name: &str| {
        let path = format!("/srv/shared/{shared}/{name}");
        let made = lab.inside("a", &["qemu-img", "create", "-q", "-f", "qcow2", &path, "8M"]);
        assert!(made.status.success(), "{made:?}");
        path
    };
    let mut cases: Vec<Case> = Vec::new();
    let mut case = |guest: &Guest<'_>, name, verdict, code, words: &[&str]| {
        let words = words.iter().map(|w| (*w).to_owned()).collect();
        cases.push(Case { machine: guest.name().to_owned(), name, verdict, code, words });
    };

    let bridge =
        fleet.strange("bridge", &["extra=<interface type='bridge'><source bridge='br9'/></interface>"], "Stopped");
    case(&bridge, "bridges", "Block", "D0623", &["`kvm-b` has no bridge `br9`; it has br0"]);
    let network = fleet.strange(
        "network",
        &["extra=<interface type='network'><source network='nowhere'/></interface>"],
        "Stopped",
    );
    case(&network, "networks", "Block", "D0622", &["`kvm-b` has no network `nowhere`"]);
    let disk = format!("disk={}", local_file("disk.img"));
    let not_shared = fleet.strange("disk", &[&disk], "Stopped");
    case(
        &not_shared,
        "disks",
        "Block",
        "D0615",
        &["vda", "disk.img", "is not on storage that `kvm-a` and `kvm-b` share"],
    );
    let named = fleet.strange("name", &[], "Stopped");
    let other = "77777777-7777-4777-8777-777777777777";
    named.define("b", &["boot=none", "mem=32", &format!("uuid={other}")]);
    case(&named, "name", "Block", "D0626", &["on `kvm-b` belongs to the domain", other]);
    let shmem = format!(
        "extra=<shmem name='{}-glass'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem>",
        fleet.name
    );
    let device = fleet.strange("device", &[&shmem], "Running");
    case(&device, "devices", "Block", "D0607", &["device of the host: shmem", "-glass"]);
    let usb = "extra=<hostdev mode='subsystem' type='usb' managed='yes'><source><vendor id='0x1234'/>\
               <product id='0xbeef'/></source></hostdev>";
    let usb = fleet.strange("usb", &[usb], "Stopped");
    case(&usb, "devices", "Warn", "D0607", &["hostdev (usb) vendor 0x1234 product 0xbeef", "must have the same"]);
    let snapshot = format!("disk={}", shared_image("snapshot.qcow2"));
    let snapshot = fleet.strange("snapshot", &[&snapshot, "fmt=qcow2"], "Stopped");
    lab.virsh_ok("a", &["snapshot-create-as", snapshot.name(), "before"]);
    case(&snapshot, "snapshots", "Block", "D0630", &["it has 1 snapshot, which libvirt does not move"]);
    let checkpoint = format!("disk={}", shared_image("checkpoint.qcow2"));
    let checkpoint = fleet.strange("checkpoint", &[&checkpoint, "fmt=qcow2", "cache=writeback"], "Running");
    lab.virsh_ok("a", &["checkpoint-create-as", checkpoint.name(), "backup"]);
    case(&checkpoint, "checkpoints", "Block", "D0631", &["it has 1 checkpoint"]);
    case(&checkpoint, "diskCache", "Warn", "D0619", &["disk vda has `cache: writeback` on shared storage"]);
    let saved = fleet.strange("saved", &[], "Running");
    lab.virsh_ok("a", &["managedsave", saved.name()]);
    fleet.adopted(&saved, "Stopped");
    case(&saved, "managedSave", "Block", "D0629", &["a saved memory image"]);
    // 4 TiB: more than any machine that this runs on.
    let large = fleet.strange("large", &["mem=4194304"], "Stopped");
    fleet.adopted(&large, "Running");
    case(&large, "memory", "Block", "D0613", &["of memory free", "and it needs 4Ti"]);
    let pinned = fleet.strange("pinned", &["cpu=<cputune><vcpupin vcpu='0' cpuset='4000'/></cputune>"], "Stopped");
    case(&pinned, "pinning", "Block", "D0611", &["pinned to the CPUs 4000", "not 4000"]);
    let huge = fleet.strange("huge", &["mem=64", "cpu=<memoryBacking><hugepages/></memoryBacking>"], "Stopped");
    fleet.adopted(&huge, "Running");
    case(&huge, "hugePages", "Block", "D0612", &["has 0 of 0 huge pages of 2Mi free, and it needs 32"]);
    let iso = local_file("install.iso");
    let drive = format!(
        "extra=<disk type='file' device='cdrom'><source file='{iso}'/><target dev='sda' bus='sata'/><readonly/></disk>"
    );
    let drive = fleet.strange("drive", &[&drive], "Stopped");
    case(&drive, "hostPaths", "Block", "D0610", &["install.iso in sda is not in pool", "of `kvm-b`"]);
    let mac = "extra=<interface type='bridge'><mac address='52:54:00:0d:0d:01'/><source bridge='br0'/></interface>";
    let twin = fleet.strange("twin", &[mac], "Stopped");
    let stranger = fleet.guest("stranger");
    stranger.define("b", &["boot=none", "mem=32", mac]);
    case(&twin, "mac", "Block", "D0628", &[stranger.name(), "52:54:00:0d:0d:01"]);
    for host in HOSTS {
        lab.virsh_ok(host, &["pool-refresh", &local]);
        lab.virsh_ok(host, &["pool-refresh", &shared]);
    }

    let machines = fleet.machines.clone();
    let before = everything(&lab, &machines, &[&local, &shared]);
    let plan = fleet.plan(&["-o", "json"]).exits(4).json();
    for Case { machine, name, verdict, code, words } in &cases {
        let all = checks(&plan, machine);
        let of: Vec<&Value> = all.iter().filter(|c| c["name"] == *name && c["verdict"] == *verdict).collect();
        let text = of.iter().map(|c| c["message"].as_str().unwrap()).collect::<Vec<_>>().join("\n");
        assert!(!of.is_empty() && of.iter().all(|c| c["code"] == *code), "{name} of {}: {all:#?}", machine);
        for word in words {
            assert!(text.contains(word.as_str()), "{name} of {}: `{word}` in `{text}`", machine);
        }
        // Nothing that is right is held against it, and nothing is passed that was not read.
        for passed in ["hostRead", "hostIdentity", "hypervisor", "versions", "machineType"] {
            assert!(
                all.iter().any(|c| c["name"] == passed && c["verdict"] == "Pass"),
                "{passed} of {}: {all:#?}",
                machine
            );
        }
        let is_blocked = all.iter().any(|c| c["verdict"] == "Block");
        let step = plan["steps"]
            .as_array()
            .unwrap()
            .iter()
            .find(|s| s["action"] == "MigrateVirtualMachine" && s["resource"]["name"] == *machine);
        let blocks = step.unwrap()["blockedBy"].as_array().unwrap();
        assert_eq!(
            blocks.iter().any(|b| b["code"].as_str().is_some_and(|c| c.starts_with("D06"))),
            is_blocked,
            "{}: {blocks:#?}",
            machine
        );
    }
    // What a person sees: the counts, what is in the way with figures, and everything where that is asked for.
    let text = fleet.plan(&[]).exits(4);
    for Case { name, code, words, .. } in &cases {
        let words: Vec<&str> = words.iter().map(String::as_str).chain([*code, *name]).collect();
        assert!(words.iter().all(|w| text.out.contains(w)), "{words:?} in\n{}", text.out);
    }
    assert!(text.out.contains("prechecks: ") && text.out.contains(" passed, 1 not passed"), "{}", text.out);
    assert!(!text.out.contains("passed[D0601]"), "{}", text.out);
    fleet.plan(&["--full"]).exits(4).says(&["passed[D0601] hostIdentity: host UUIDs"]);
    fleet.plan(&["-o", "markdown"]).exits(4).says(&["Held back", "D0623", "prechecks: "]);
    assert_eq!(everything(&lab, &machines, &[&local, &shared]), before);
}

/// A pool of this test on both hosts, with what is in it.
struct Pools<'lab>(&'lab Lab, String);

impl Drop for Pools<'_> {
    fn drop(&mut self) {
        for host in HOSTS {
            for verb in ["pool-destroy", "pool-undefine"] {
                let _ = self.0.virsh(host, &[verb, &self.1]);
            }
            let _ = std::fs::remove_dir_all(self.0.local_folder(host).join(&self.1));
        }
    }
}

/// What only another release would show, by an observation of the two hosts in which one of them is older: its machine
/// types, its version, an unread part. The plan that was refused is not carried out.
#[test]
fn an_older_destination_is_refused_and_what_was_not_read_is_not_passed() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "older");
    let vm = fleet.strange("older", &["net=1"], "Running");
    let observed: Value = fleet.drover(&["observe", &fleet.work(), "-o", "json"]).exits(0).json();
    // The real hosts tell all of it.
    for host in ["kvm-a", "kvm-b"] {
        let state = &observed["hosts"][host]["present"];
        assert_eq!(state["interfaces"]["br0"]["type"], "bridge", "{state:#}");
        assert_eq!(state["interfaces"]["br0"]["mtu"], 1500);
        assert!(state["cells"][0]["memory"].as_u64() > Some(1 << 28) && state["cells"][0]["cpus"][0] == 0, "{state:#}");
        assert_eq!(state["probe"]["outcome"], "Refused", "{state:#}");
    }
    let plan_with = |change: &dyn Fn(&mut Value)| {
        let mut observed = observed.clone();
        change(&mut observed["hosts"]["kvm-b"]["present"]);
        let file = fleet.state.path().join("observed.json");
        std::fs::write(&file, observed.to_string()).unwrap();
        fleet.plan(&["--observed", &file.to_string_lossy(), "-o", "json"])
    };
    let verdict = |ran: &Ran, name: &str| -> (String, String) {
        let all = checks(&ran.json(), vm.name());
        let check = all.iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("{name} in {all:#?}"));
        (check["verdict"].as_str().unwrap().to_owned(), check["message"].as_str().unwrap().to_owned())
    };
    let as_it_is = plan_with(&|_| {});
    for name in ["machineType", "versions", "bridges", "mtu", "memory", "reachability"] {
        assert_eq!(verdict(&as_it_is, name).0, "Pass", "{name}: {}", verdict(&as_it_is, name).1);
    }
    let older = plan_with(&|b| {
        b["machineTypes"] = serde_json::json!(["pc-q35-7.2"]);
        b["machineAliases"] = serde_json::json!({});
        b["hypervisorVersion"] = "7.2.22".into();
        b["interfaces"]["br0"]["mtu"] = 9000.into();
    });
    assert_eq!(older.code, 4, "{}", older.err);
    let (found, text) = verdict(&older, "machineType");
    assert!(found == "Block" && text.contains("newest of that family is pc-q35-7.2"), "{found}: {text}");
    assert_eq!(verdict(&older, "versions").0, "Warn");
    assert!(verdict(&older, "mtu").1.contains("1500 on `kvm-a` and 9000 on `kvm-b`"));
    let unread = plan_with(&|b| {
        for field in ["machineTypes", "cells", "interfaces", "probe"] {
            b.as_object_mut().unwrap().remove(field);
        }
        b["freeMemory"] = 0.into();
    });
    for name in ["machineType", "bridges", "memory"] {
        assert_eq!(verdict(&unread, name).0, "Unknown", "{name}");
    }
    // A policy that wants it proven holds the move back; one that does not care lets it go.
    fleet.edit(
        "policies.yaml",
        "maxDowntime: 300ms",
        "maxDowntime: 300ms\n  prechecks: {memory: Require, versions: Ignore}",
    );
    let strict = plan_with(&|b| b["freeMemory"] = 0.into());
    assert_eq!((strict.code, verdict(&strict, "memory").0.as_str()), (4, "Block"), "{}", strict.err);
    fleet.edit("policies.yaml", "memory: Require", "disks: Ignore");
    fleet.drover(&["validate", &fleet.work()]).exits(3).says(&["`disks` cannot be ignored", "lose data"]);
    // And with nothing in the way, the machine moves.
    fleet.edit("policies.yaml", "disks: Ignore", "machineType: Require");
    fleet.drover(&["apply", &fleet.work(), "--auto-approve"]).exits(0);
    fleet.runs_only_on(&vm, "b");
}
