//! Changes to a machine that runs, made while it runs: what can be changed live is, and the guest is not restarted.

use super::*;

#[test]
fn hardware_comes_and_goes_while_the_machine_runs() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "live");
    let vm = fleet.machine("web");
    fleet.change(&vm, "cpus: 1", "cpus: 1\n  maxCpus: 2");
    let first = fleet.push("web on kvm-a");
    fleet.start();
    fleet.settles(&first);
    vm.wait_beats(10);
    let since = SystemTime::now();
    let domid = lab.virsh_ok("a", &["domid", vm.name()]);
    let lists = |verb: &str| lab.virsh_ok("a", &[verb, vm.name()]);
    let cpus = |which: &str| lab.virsh_ok("a", &["vcpucount", vm.name(), "--current", which]).trim().to_owned();
    assert_eq!((cpus("--live").as_str(), cpus("--config").as_str()), ("1", "1"));

    // A CPU, a disk and an interface are plugged in, and it starts with its host from now on.
    let pool = &fleet.name;
    let disk =
        format!("    - {{name: more, pool: {pool}, size: 8Mi, format: raw}}\n  interfaces:\n    - {{bridge: br0}}\n");
    fleet.change(&vm, "cpus: 1\n", "cpus: 2\n  autostart: true\n");
    fleet.change(&vm, "  interfaces:\n", &disk);
    let more = fleet.push("more of everything");
    fleet.plan(&[]).exits(2).says(&["spec.cpus: 1 -> 2", "(live", "spec.disks", "spec.interfaces"]);
    fleet.settles(&more);
    assert_eq!((cpus("--live").as_str(), cpus("--config").as_str()), ("2", "2"));
    let more_disk = format!("{}-more.raw", vm.name());
    assert!(lists("domblklist").contains(&more_disk), "{}", lists("domblklist"));
    assert_eq!(lists("domiflist").matches("br0").count(), 2, "{}", lists("domiflist"));
    assert!(lists("dominfo").contains("enable"), "{}", lists("dominfo"));
    fleet.has_nothing_to_do();

    // The disk and the interface are unplugged; the volume stays.
    let text = fleet.machine_text(&vm);
    let text = swap(&text, &disk, "  interfaces:\n");
    fleet.write(&format!("{}.yaml", vm.name()), &text);
    let less = fleet.push("less again");
    fleet.settles(&less);
    assert!(!lists("domblklist").contains(&more_disk), "{}", lists("domblklist"));
    assert_eq!(lists("domiflist").matches("br0").count(), 1, "{}", lists("domiflist"));
    assert!(lab.shared_folder().join("live").join(&more_disk).exists(), "a volume is not deleted with a disk");
    fleet.has_nothing_to_do();

    // It is the same process with the same guest in it.
    assert_eq!(lab.virsh_ok("a", &["domid", vm.name()]), domid, "it was restarted");
    vm.wait_beats(5);
    let gap = vm.gap(since);
    assert_eq!(gap.back, 0, "{gap:?}");
}
