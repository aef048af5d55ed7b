//! `drover import`: manifests for what is there, after which nothing is to do.

use super::*;

const HOST: &str = "t=test:///default";

#[test]
fn the_plan_after_an_import_is_empty_and_the_first_change_takes_the_machine_over() {
    let world = World::new();
    let (code, out, err) = world.run(&["import", "host", HOST, "-o", "fleet"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(out, "fleet/hosts/t.yaml\nfleet/pools/default-pool.yaml\nfleet/machines/test.yaml\n");
    let manifest = std::fs::read_to_string(world.path().join("fleet/machines/test.yaml")).unwrap();
    assert!(manifest.contains("drover/adopt: on-change"), "{manifest}");
    let (code, out, err) = world.run(&["validate", "fleet"]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) = world.run(&["plan", "fleet", "--detailed-exitcode"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("No changes."), "{out}");

    world_write(&world, "fleet/machines/test.yaml", &manifest.replace("cpus: 2", "cpus: 3"));
    let (code, out, _) = world.run(&["plan", "fleet", "--detailed-exitcode"]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("spec.cpus: 2 -> 3") && out.contains("adopt test on t"), "{out}");
}

#[test]
fn what_is_declared_is_not_imported_again_and_no_file_is_written_over() {
    let world = World::new();
    assert_eq!(world.run(&["import", "host", HOST, "-o", "fleet"]).0, 0);
    let (code, out, err) = world.run(&["import", "host", "t", "-o", "fleet"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""));
    let empty = world.with("empty/.keep", "");
    let (code, _, err) = empty.run(&["import", "host", HOST, "--path", "empty", "-o", "fleet"]);
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("is there already; nothing was written"), "{err}");
}

#[test]
fn one_machine_to_standard_output_is_one_stream_of_manifests() {
    let world = World::new();
    let (code, out, err) = world.run(&["import", "host", HOST, "--vm", "test"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let mut validate = world.drover(&["validate", "-"]);
    let checked = validate.write_stdin(out.clone()).output().unwrap();
    assert!(checked.status.success(), "{out}\n{}", String::from_utf8_lossy(&checked.stderr));
    assert!(out.contains("kind: Host") && out.contains("kind: VirtualMachine"), "{out}");
    let (code, _, err) = world.run(&["import", "host", HOST, "--vm", "tset"]);
    assert_eq!(code, 1);
    assert!(err.contains("there is no domain `tset`"), "{err}");
}

#[test]
fn a_host_that_is_not_declared_or_not_there_is_said() {
    let world = World::new();
    let (code, _, err) = world.run(&["import", "host", "kvm-a"]);
    assert_eq!(code, 64);
    assert!(err.contains("kvm-a=qemu+ssh://"), "{err}");
    let (code, _, err) = world.run(&["import", "host", "kvm-a=nonsense"]);
    assert_eq!(code, 64, "{err}");
    let (code, out, err) = world.run(&["import", "host", "kvm-a=qemu+tcp://127.0.0.1:1/system", "-o", "fleet"]);
    assert_eq!((code, out.as_str()), (5, ""), "{err}");
    assert!(err.contains("could not be read, and nothing of it was imported"), "{err}");
    assert!(!world.path().join("fleet").exists());
}

#[test]
fn what_drover_made_is_imported_as_its_own() {
    let world = fleet();
    assert_eq!(simulated(&world, APPLY).0, 0);
    let hosts = ["kvm-a=sim://a", "kvm-b=sim://b"];
    let (code, out, err) = simulated(&world, &["import", "host", hosts[0], hosts[1], "-o", "again"]);
    assert_eq!(code, 0, "{out}{err}");
    let manifest = std::fs::read_to_string(world.path().join("again/machines/web-1.yaml")).unwrap();
    assert!(!manifest.contains("drover/adopt"), "it has Drover's mark: {manifest}");
    let (code, out, err) = simulated(&world, &["plan", "again", "--detailed-exitcode"]);
    assert_eq!(code, 0, "{out}{err}");
}
