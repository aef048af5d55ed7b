//! What is measured with: a fleet as people write it, and inputs that exhaust other readers.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Hosts of every fleet.
pub const HOSTS: usize = 10;

/// A folder of manifests: about 40 lines a machine, one file each, 250 files a folder, ten hosts, one pool.
pub fn generate(folder: &Path, machines: usize) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("base.yaml"), base(|_| "sim:".into())).unwrap();
    for i in 0..machines {
        let file = file_of(folder, i);
        if i % 250 == 0 {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
        }
        fs::write(file, machine(i, i % HOSTS)).unwrap();
    }
}

/// Makes the hosts of a fleet's folder ones that refuse every connection at once.
pub fn send_hosts_away(folder: &Path) {
    let nobody_listens = |host: usize| format!("qemu+tcp://127.0.0.1:{}/system", host + 1);
    fs::write(folder.join("base.yaml"), base(nobody_listens)).unwrap();
}

/// The file of a machine.
pub fn file_of(folder: &Path, i: usize) -> PathBuf {
    folder.join(format!("rack-{:04}/vm-{i:06}.yaml", i / 250))
}

/// Everything but the machines.
fn base(uri: impl Fn(usize) -> String) -> String {
    let hosts: Vec<String> = (0..HOSTS).map(|h| format!("kvm-{h}")).collect();
    let mut text = String::new();
    for (i, host) in hosts.iter().enumerate() {
        let uri = uri(i);
        let _ = write!(
            text,
            "apiVersion: drover/v1alpha1\nkind: Host\nmetadata:\n  name: {host}\nspec:\n  uri: '{uri}'\n---\n"
        );
    }
    let hosts = hosts.join(", ");
    let _ = write!(
        text,
        "apiVersion: drover/v1alpha1\nkind: StoragePool\nmetadata:\n  name: images\nspec:\n  hosts: [{hosts}]\n  \
         type: dir\n  target: /srv/images\n  shared: true\n---\napiVersion: drover/v1alpha1\nkind: Settings\nmetadata:\n  \
         name: bench\nspec:\n  maxConcurrent: 64\n"
    );
    text
}

/// One machine on a host.
pub fn machine(i: usize, host: usize) -> String {
    format!(
        "# Machine {i} of team {team}: ask them before it is stopped.
apiVersion: drover/v1alpha1
kind: VirtualMachine
metadata:
  name: vm-{i:06}
  labels:
    app: web
    team: team-{team}
    tier: backend
  annotations:
    example.com/owner: team-{team}@example.com
    example.com/ticket: OPS-{i}
spec:
  host: kvm-{host}
  powerState: Running
  cpus: {cpus}
  maxCpus: 8
  memory: {memory}Gi
  maxMemory: 16Gi
  machine: q35
  firmware: bios
  cpu:
    mode: host-model
  disks:
    - name: root
      pool: images
      size: 20Gi
      format: qcow2
      bus: virtio
      cache: none
      bootOrder: 1
    - name: data
      pool: images
      size: 100Gi
      format: raw
      bus: virtio
  interfaces:
    - network: default
      model: virtio
  guestAgent: true
  restartPolicy: Never
  deletionPolicy: Orphan
",
        team = i % 17,
        cpus = 1 + i % 4,
        memory = 1 + i % 8,
    )
}

/// Inputs that take other readers minutes or gigabytes; none is larger than the limit of a file, so each is read.
pub fn hostile() -> Vec<(&'static str, String)> {
    let limit = drover::load::Limits::default().file_bytes;
    let most = |text: &str| text.repeat(usize::try_from(limit).unwrap() / text.len() - 50);
    let head = "apiVersion: drover/v1alpha1\nkind: VirtualMachine\nmetadata: {name: a}\nspec:\n";
    let mut laughs = "a0: &a0 lol\n".to_owned();
    for i in 1..20 {
        let _ = writeln!(laughs, "a{i}: &a{i} [{}]", vec![format!("*a{}", i - 1); 9].join(", "));
    }
    vec![
        ("aliases of aliases", laughs),
        ("one anchor, many aliases", format!("a: &a {}\nb: [{}]\n", "x".repeat(1000), most("*a,"))),
        ("nested lists in one line", most("[")),
        ("nested mappings in one line", most("{a: ")),
        ("dashes", most("- ")),
        ("documents", most("---\na: 1\n")),
        ("empty documents", most("---\n")),
        ("one long text", format!("a: {}\n", most("x"))),
        ("comments", most("#\n") + "a: 1\n"),
        ("different keys", (0..330_000).map(|i| format!("k{i}: 1\n")).collect()),
        ("one key again and again", format!("{head}{}", "  a: 1\n".repeat(90_000))),
        ("unknown fields in many items", format!("{head}  disks:\n{}", "    - {x: 1}\n".repeat(45_000))),
        ("many items of the wrong type", format!("{head}  formerNames: [{}]\n", "{},".repeat(90_000))),
    ]
}
