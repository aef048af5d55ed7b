//! What a machine is doing, and what it should be doing.

use super::super::writers::{definition, written};
use super::super::{DiskDevice, PowerState, RestartPolicy, disk_path};
use super::{Chain, Draft, Here};
use crate::action::MachineAction;
use crate::finding::{Code, Finding};
use crate::kind::virtual_machine::footprint;
use crate::model::Span;
use crate::observed::{DomainState, RunState};
use crate::plan::{Block, Disruption, Drafts, Effect, Estimate, Interruption, Load, Operation, StepDraft};
use serde_json::json;
use uuid::Uuid;

/// How long a guest may take to shut down where the manifest does not say.
const SHUTDOWN: Span = Span::seconds(120);

/// Observed and wanted power state, in the manifest's words, where they differ.
pub(super) fn difference(wanted: PowerState, state: RunState) -> Option<(&'static str, &'static str)> {
    let now = match state {
        RunState::Running => PowerState::Running,
        RunState::Paused => PowerState::Paused,
        RunState::Off | RunState::Crashed => PowerState::Stopped,
        RunState::ShuttingDown | RunState::Suspended => return None,
    };
    let word = |s| match s {
        PowerState::Running => "Running",
        PowerState::Paused => "Paused",
        PowerState::Stopped => "Stopped",
    };
    (now != wanted).then(|| (word(now), word(wanted)))
}

impl Draft<'_> {
    /// Starts, stops, pauses, resumes or restarts it where it is.
    pub(super) fn power(&self, here: Here<'_>, restart: bool, chain: &mut Chain, out: &mut Drafts) {
        let wanted = self.m.spec.power_state;
        let (host, uuid) = (here.host, here.domain.uuid);
        if let Some((before, after)) = difference(wanted, here.domain.state) {
            self.note(Operation::Update, out);
            self.change("spec.powerState", json!(before), json!(after), Effect::Live, out);
        }
        match (wanted, here.domain.state) {
            (_, RunState::ShuttingDown) => out.finding(
                Finding::new(Code::InProgress, format!("`{}` is shutting down", self.m.name()))
                    .of(self.m, "spec.powerState"),
            ),
            (PowerState::Running | PowerState::Paused, RunState::Suspended) => out.finding(
                Finding::new(Code::InProgress, format!("`{}` was suspended by its guest", self.m.name()))
                    .of(self.m, "spec.powerState")
                    .hint(
                        "wake it with `virsh dompmwakeup`; Drover does not wake a guest that went to sleep by itself",
                    ),
            ),
            (PowerState::Running | PowerState::Paused, RunState::Off | RunState::Crashed) => {
                chain.push(self.start(here, wanted == PowerState::Paused), out);
            }
            (PowerState::Running, RunState::Paused) => {
                let mut resume = self.step(
                    MachineAction::ResumeDomain { host: host.into(), uuid },
                    format!("resume {} on {host}", self.m.name()),
                    "it is paused and should run",
                );
                if matches!(here.domain.reason.as_str(), "ioerror" | "watchdog" | "crashed") {
                    resume.blocked_by.push(Block {
                        code: Code::NeedsAPerson,
                        reason: format!("the hypervisor paused it: {}", here.domain.reason),
                        way_out: "mend the cause (a full or lost disk), then `virsh resume`".into(),
                    });
                }
                chain.push(resume, out);
            }
            (PowerState::Paused, RunState::Running) => {
                let mut pause = self.step(
                    MachineAction::PauseDomain { host: host.into(), uuid },
                    format!("pause {} on {host}", self.m.name()),
                    "`powerState` is Paused",
                );
                pause.disruption = Disruption::Downtime;
                chain.push(pause, out);
            }
            (PowerState::Stopped, RunState::Running | RunState::Paused | RunState::Suspended) => {
                chain.push(self.shut_down(here, "`powerState` is Stopped"), out);
            }
            (PowerState::Running, RunState::Running) | (PowerState::Paused, RunState::Paused) if restart => {
                let mut start = self.start(here, wanted == PowerState::Paused);
                // It runs here, so it runs nowhere else.
                start.blocked_by.retain(|b| b.code == Code::StorageInUse);
                let mut down = self.shut_down(here, "changes need a restart, and `restartPolicy` allows it");
                down.blocked_by.extend_from_slice(&start.blocked_by);
                chain.push(down, out);
                self.rename_off(here, chain, out);
                chain.push(start, out);
            }
            _ => {}
        }
    }

    /// What it takes of a host on which it is started; nothing where that is not known.
    pub(super) fn load(&self, host: &str, domain: Option<&DomainState>) -> Option<Load> {
        let used = footprint(Some(self.m), domain);
        let memory = self.m.spec.memory.map_or(used.memory, |m| m.0);
        (memory > 0 || used.cpus > 0).then(|| Load { host: host.into(), memory, vcpus: used.cpus })
    }

    /// Starts it. Held back while it may run on a host that could not be read.
    pub(super) fn start(&self, here: Here<'_>, paused: bool) -> StepDraft {
        let mut start = self.step(
            MachineAction::StartDomain { host: here.host.into(), uuid: here.domain.uuid, paused },
            format!("start {} on {}", self.m.name(), here.host),
            format!("it is off ({}) and `powerState` is {:?}", here.domain.reason, self.m.spec.power_state),
        );
        start.load = self.load(here.host, Some(here.domain));
        start.blocked_by = self.elsewhere(here);
        start.blocked_by.extend(self.disk_in_use(here.host, here.domain.uuid, definition(here.domain)));
        start
    }

    /// Why a machine that is off here may be running elsewhere. The hypervisor's own word that it went off here is
    /// evidence that it does not; a definition that says nothing is not.
    pub(super) fn elsewhere(&self, here: Here<'_>) -> Vec<Block> {
        let unknown = self.ctx.survey.unknown();
        let went_off_here =
            matches!(here.domain.reason.as_str(), "shutdown" | "destroyed" | "crashed" | "saved" | "failed");
        if unknown.is_empty() || went_off_here {
            return Vec::new();
        }
        let hosts = unknown.keys().cloned().collect::<Vec<_>>().join(", ");
        vec![Block {
            code: Code::HostUnknown,
            reason: format!("{hosts} could not be read, and the machine may run there"),
            way_out: "bring the host back; if it is really off, say `fenced: true` in its manifest".into(),
        }]
    }

    /// Why a machine of this definition must not start on a host, because somebody else's guest writes to one of its disks.
    pub(super) fn disk_in_use(&self, host: &str, uuid: Uuid, xml: &str) -> Option<Block> {
        let (observed, resources) = (self.ctx.observed, self.ctx.resources);
        let state = observed.host(host)?;
        let mut paths = written(xml, state);
        // Those that its manifest gives it before it starts.
        for (index, disk) in self.m.spec.disks.iter().flatten().enumerate() {
            let is_alone =
                disk.device == DiskDevice::Disk && disk.read_only != Some(true) && disk.shareable != Some(true);
            if let Ok(source) = disk_path(self.m, index, disk, state, resources)
                && let Some(path) = source.path().filter(|_| is_alone)
                && !paths.iter().any(|p| p == path)
            {
                paths.push(path.to_owned());
            }
        }
        let (writer, path) =
            self.ctx.survey.writers(observed).other_than(uuid, (host, state), paths, resources, observed)?;
        Some(Block {
            code: Code::StorageInUse,
            reason: format!("`{}` on `{}` runs and writes to its disk {path}", writer.name, writer.host),
            way_out: "shut that one down, or give one of them another disk; two guests that write to one image destroy it (`shareable` where both know)".into(),
        })
    }

    /// Asks the guest to shut down.
    pub(super) fn shut_down(&self, here: Here<'_>, why: &str) -> StepDraft {
        let timeout = self.m.spec.shutdown_timeout.unwrap_or(SHUTDOWN);
        let mut step = self.step(
            MachineAction::ShutdownDomain {
                host: here.host.into(),
                uuid: here.domain.uuid,
                timeout_millis: timeout.0,
                force: self.m.spec.force_shutdown,
            },
            format!("shut down {} on {}", self.m.name(), here.host),
            why,
        );
        step.disruption = Disruption::Downtime;
        step.interruption = Interruption::Interruptible;
        step.estimate = Estimate { seconds: 15.0, downtime_millis: 15_000, ..Estimate::default() };
        step
    }

    /// Whether changes that need a restart may make one.
    pub(super) fn may_restart(&self) -> bool {
        self.m.spec.restart_policy == RestartPolicy::Allow
    }

    /// Sets whether it starts with its host.
    pub(super) fn autostart(&self, host: &str, uuid: Uuid, on: bool) -> StepDraft {
        self.step(
            MachineAction::SetAutostart { host: host.into(), uuid, autostart: on },
            format!("turn autostart of {} on {host} {}", self.m.name(), if on { "on" } else { "off" }),
            format!("`autostart` is {on}"),
        )
    }
}
