//! Moves of real guests between the lab's two hosts, beside `virsh` on the same connection and in the same way
//! (peer-to-peer, the definition goes along).

#[path = "../../tests/it/lab.rs"]
mod lab;

use drover::journal::PassRecord;
use lab::{Guest, Lab};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Guests of an evacuation.
const GUESTS: usize = 8;

/// Seconds; medians.
pub struct Seen {
    /// One move: `drover apply` as a whole, without a move to make, the step alone, and `virsh migrate`.
    pub apply: f64,
    pub nothing: f64,
    pub step: f64,
    pub virsh: f64,
    /// Eight: `drover apply`, and a serial loop of `virsh migrate`.
    pub evacuate: f64,
    pub serial: f64,
}

struct Fleet<'l> {
    lab: &'l Lab,
    folder: &'l Path,
    guests: Vec<Guest<'l>>,
}

impl Fleet<'_> {
    /// Host `away` is emptied, so all are on the other.
    fn hosts(&self, away: &str) {
        let host = |name: &str| {
            let maintenance = if name == away { "Evacuate" } else { "None" };
            format!(
                "apiVersion: drover/v1alpha1\nkind: Host\nmetadata: {{name: kvm-{name}}}\nspec:\n  \
                 uri: qemu+ssh://root@kvm-{name}/system\n  maintenance: {maintenance}\n---\n"
            )
        };
        let settings = "apiVersion: drover/v1alpha1\nkind: Settings\nmetadata: {name: bench}\nspec: {}\n";
        fs::write(self.folder.join("fleet/hosts.yaml"), host("a") + &host("b") + settings).unwrap();
    }

    fn machines(&self, count: usize) {
        for (i, guest) in self.guests.iter().enumerate() {
            let file = self.folder.join(format!("fleet/{}.yaml", guest.name()));
            let text = format!(
                "apiVersion: drover/v1alpha1\nkind: VirtualMachine\nmetadata: {{name: {}}}\nspec:\n  placement: {{}}\n  \
                 type: qemu\n  machine: q35\n  cpus: 1\n  memory: 64Mi\n  powerState: {}\n",
                guest.name(),
                if i < count { "Running" } else { "Stopped" }
            );
            fs::write(file, text).unwrap();
        }
    }

    fn state(&self) -> String {
        self.folder.join("state").display().to_string()
    }

    /// `drover apply`, and how long it took.
    fn apply(&self) -> f64 {
        let fleet = self.folder.join("fleet").display().to_string();
        timed(&mut self.lab.drover(&["apply", &fleet, "--auto-approve", "--state", &self.state()]))
    }

    /// How long the moves of the last pass took.
    fn steps(&self) -> Vec<f64> {
        let mut command = self.lab.drover(&["history", "--state", &self.state(), "-o", "json"]);
        let out = command.stdin(Stdio::null()).output().unwrap();
        let passes: Vec<PassRecord> = serde_json::from_slice(&out.stdout).unwrap();
        let moves = passes[0].steps.iter().filter(|s| s.action == "MigrateVirtualMachine");
        moves.map(|s| s.finished_at.unwrap().duration_since(s.started_at).as_secs_f64()).collect()
    }

    /// `virsh migrate`, one guest after the other.
    fn virsh(&self, count: usize, from: &str, to: &str) -> f64 {
        let uri = |h: &str| format!("qemu+ssh://root@kvm-{h}/system");
        let way = ["migrate", "--live", "--p2p", "--persistent", "--undefinesource"];
        self.guests
            .iter()
            .take(count)
            .map(|guest| {
                let (source, target) = (uri(from), uri(to));
                let args = [&["-c", &*source][..], &way, &[guest.name(), &*target]].concat();
                timed(&mut self.lab.client_command("virsh", &args))
            })
            .sum()
    }
}

fn timed(command: &mut Command) -> f64 {
    let began = Instant::now();
    let out = command.stdin(Stdio::null()).output().unwrap();
    let took = began.elapsed().as_secs_f64();
    let said = || String::from_utf8_lossy(&[&*out.stdout, &*out.stderr].concat()).into_owned();
    assert!(out.status.success(), "{}", said());
    took
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Moves them to and fro. `None` where this machine cannot have a lab.
pub fn measured(folder: &Path, runs: usize) -> Option<Seen> {
    let lab = Lab::alone()?;
    fs::create_dir_all(folder.join("fleet")).unwrap();
    let guests = (0..GUESTS).map(|n| lab.guest(&format!("bench-{n}"))).collect();
    let fleet = Fleet { lab: &lab, folder, guests };
    let mut seen: [Vec<f64>; 6] = Default::default();
    for (count, whole, theirs) in [(1, 0, 3), (GUESTS, 4, 5)] {
        fleet.machines(count);
        fleet.hosts("b");
        fleet.apply();
        for _ in 0..runs {
            // In turn, so that what else the machine does meets both.
            let virsh = fleet.virsh(count, "a", "b");
            fleet.hosts("b");
            let apply = fleet.apply();
            seen[theirs].push(virsh);
            seen[whole].push(apply);
            if count == 1 {
                seen[2].extend(fleet.steps().into_iter().take(1));
                seen[1].push(fleet.apply());
            }
        }
    }
    let [apply, nothing, step, virsh, evacuate, serial] = seen.map(median);
    Some(Seen { apply, nothing, step, virsh, evacuate, serial })
}
