//! Changes to a machine where it is: definition, live devices, autostart, name.

use super::disk::DiskMoves;
use super::{Chain, Draft, Here};
use crate::action::MachineAction;
use crate::domain_xml;
use crate::finding::{Code, Finding};
use crate::kind::virtual_machine::compare::{Definitions, compare_trees};
use crate::kind::virtual_machine::identity;
use crate::plan::{Drafts, Effect, Health, Operation, StepDraft};
use serde_json::json;

impl Draft<'_> {
    /// Drafts the changes; tells whether a restart is needed and allowed. `None`: the definition could not be compared, and
    /// nothing more may be done to the machine (one without a persistent definition would vanish when it is shut down).
    pub(super) fn in_place(
        &self,
        here: Here<'_>,
        moves: &DiskMoves,
        chain: &mut Chain,
        out: &mut Drafts,
    ) -> Option<bool> {
        // First of all: a disk that is being copied can be neither changed nor unplugged.
        let why = "an earlier run began it, and the manifest does not ask for it any more";
        self.end_copies(here, moves.unwanted(), why, chain, out);
        let (volumes, made) = self.volumes(here.host, here.state, Some(here.domain), moves, out);
        chain.join(volumes);
        // A disk that moves is where it should be once it has moved: it is not put into the definition here.
        let m = moves.manifest(self.m);
        let compared = Definitions::read(self.m, here.domain).and_then(|trees| {
            let owner = self.owner_from(Some(here.domain), trees.persistent_owner(), made);
            let difference = compare_trees(m, here.domain, &trees, here.state, self.ctx.resources, &owner)?;
            Ok((owner, difference))
        });
        let (owner, mut difference) = match compared {
            Ok(compared) => compared,
            Err(finding) => {
                out.report(&self.id, None).health = Health::Degraded;
                out.finding(finding);
                return None;
            }
        };
        self.collapse(&mut difference);
        for path in &difference.recreate {
            out.report(&self.id, None).health = Health::Degraded;
            out.finding(
                Finding::new(
                    Code::RecreateNeeded,
                    format!("`{path}` of `{}` cannot be changed on the existing machine", self.m.name()),
                )
                .of(self.m, path)
                .hint("set it back, or make a new machine and move the data"),
            );
        }
        let name = identity::domain_name(self.m);
        let renamed = here.domain.name != name;
        let changed = !difference.changes.is_empty();
        for change in difference.changes {
            out.change(&self.id, None, change);
        }
        let wants_restart = !difference.restart.is_empty() || renamed;
        let mut waiting = difference.restart;
        // The running machine first: once the persistent definition is right, some live differences (a balloon that no
        // driver obeyed) can no longer be told from what a restart would mend, and a crash in between would lose them.
        for (change, summary) in difference.live {
            self.note(Operation::Update, out);
            let step = self.step(
                MachineAction::ChangeLive { host: here.host.into(), uuid: here.domain.uuid, change },
                format!("{summary} ({} on {})", self.m.name(), here.host),
                "the running machine differs from the manifest",
            );
            chain.push(step, out);
        }
        // Adoption writes the mark by itself.
        let only_the_mark =
            chain.adopt.is_some() && difference.edits.iter().all(|e| e.at().starts_with("/domain/metadata"));
        if !difference.edits.is_empty() && !only_the_mark || !here.domain.persistent {
            if changed || !here.domain.persistent {
                self.note(Operation::Update, out);
            }
            if !here.domain.persistent {
                self.change("status.persistent", json!(false), json!(true), Effect::Live, out);
            }
            let update = self.definition(here, difference.edits);
            chain.push(update, out);
        }
        let adopted = self.adopt(here, owner.volumes.clone(), chain, out);
        // What a running machine is known by, and what becomes of it without a manifest, is read from its live mark.
        if !adopted && here.domain.is_active() && here.domain.owner.as_ref().is_some_and(|mark| *mark != owner) {
            self.note(Operation::Update, out);
            let step = self.step(
                MachineAction::SetOwner { host: here.host.into(), uuid: here.domain.uuid, owner: owner.clone() },
                format!("renew the ownership mark of {} on {}", self.m.name(), here.host),
                "its volumes, its `deletionPolicy` or its name are others now",
            );
            chain.push(step, out);
        }
        if let Some(on) = self.m.spec.autostart
            && on != here.domain.autostart
            && self.ctx.survey.target(self.m.name()).is_some()
        {
            self.note(Operation::Update, out);
            self.change("spec.autostart", json!(here.domain.autostart), json!(on), Effect::Live, out);
            chain.push(self.autostart(here.keeper, here.domain.uuid, on), out);
        }
        // After the definition: an update expects the one that was observed.
        self.move_disks(here, moves, &owner, chain, out);
        if renamed {
            self.note(Operation::Update, out);
            self.change("metadata.name", json!(here.domain.name), json!(name), Effect::Restart, out);
            if here.domain.is_active() {
                waiting.push("metadata.name".into());
            } else {
                self.rename_off(here, chain, out);
            }
        }
        if !wants_restart || !here.domain.is_active() {
            return Some(false);
        }
        let is_home = here.keeper == here.host;
        if self.may_restart() && is_home {
            return Some(true);
        }
        if !waiting.is_empty() {
            out.finding(
                Finding::new(
                    Code::WaitsForRestart,
                    format!("`{}`: {} takes effect at the next restart", self.m.name(), waiting.join(", ")),
                )
                .of(self.m, waiting.first().map_or("spec", String::as_str))
                .hint(match is_home {
                    true => "restart the machine, or set `restartPolicy: Allow`",
                    false => "it is elsewhere for a while: restart it once it is home",
                }),
            );
        }
        Some(false)
    }

    /// Writes its persistent definition; a machine that is transient gets one.
    pub(super) fn definition(&self, here: Here<'_>, edits: Vec<domain_xml::Edit>) -> StepDraft {
        let expect = here.domain.persistent_xml.as_deref().map(domain_xml::digest).unwrap_or_default();
        self.step(
            MachineAction::UpdateDomain { host: here.keeper.into(), uuid: here.domain.uuid, edits, expect },
            format!("update the definition of {} on {}", self.m.name(), here.keeper),
            if here.domain.persistent {
                "the persistent definition differs from the manifest"
            } else {
                "it has no persistent definition, and would vanish when it stops"
            },
        )
    }

    /// Renames it, once it is off.
    pub(super) fn rename_off(&self, here: Here<'_>, chain: &mut Chain, out: &mut Drafts) {
        let name = identity::domain_name(self.m);
        if here.domain.name != name {
            let step = self.step(
                MachineAction::RenameDomain { host: here.host.into(), uuid: here.domain.uuid, name: name.into() },
                format!("rename {} to {name} on {}", here.domain.name, here.host),
                "the manifest has this name now",
            );
            chain.push(step, out);
        }
    }
}
