//! Moves that a machine makes for the sake of a VirtualMachineMigration and not of its own manifest: there, back home, and
//! what becomes of one that is under way. A machine without a manifest is given a stand-in for one.

use super::super::VirtualMachineSpec;
use super::super::survey::Copy;
use super::migrate::Planned;
use super::{Chain, Draft, Here, MIGRATION};
use crate::action::{MachineAction, MigrationWay};
use crate::finding::{Code, Finding};
use crate::kind::virtual_machine::PowerState;
use crate::kind::virtual_machine_migration::{Away, MIGRATION_KIND, Wish};
use crate::model::{Manifest, ResourceId};
use crate::observed::{DomainState, MoveMark, RunState};
use crate::plan::{Block, Context, Disruption, Drafts, Effect, Health, Operation, StepDraft, Sync};

/// For whose sake a machine moves.
#[derive(Clone)]
pub(in crate::kind) enum Errand {
    /// A migration takes it somewhere.
    There(Wish),
    /// Nobody wants it elsewhere any more.
    Home {
        /// The host that it is at home on.
        host: String,
    },
}

impl Errand {
    /// Whether the destination keeps it.
    pub(super) fn is_permanent(&self) -> bool {
        matches!(self, Self::There(wish) if wish.permanent)
    }

    pub(super) fn mark(&self) -> Option<MoveMark> {
        match self {
            Self::There(wish) => Some(wish.mark.clone()),
            Self::Home { .. } => None,
        }
    }

    /// Its turn among the machines of its migration.
    pub(super) fn rank(&self) -> u32 {
        match self {
            Self::There(wish) => wish.rank,
            Self::Home { .. } => 0,
        }
    }

    /// What the summary of its step says beside the hosts.
    pub(super) fn words(&self) -> &'static str {
        match self {
            Self::There(wish) if wish.permanent => "",
            Self::There(_) => ", for a while",
            Self::Home { .. } => ", its home",
        }
    }

    /// Why it moves.
    pub(super) fn why(&self) -> String {
        match self {
            Self::There(wish) => format!("`{}` says so", wish.migration),
            Self::Home { host } => format!("no migration wants it elsewhere any more, and `{host}` has its definition"),
        }
    }
}

impl<'a> Draft<'a> {
    /// The draft of this machine for the sake of a migration: its steps are that migration's.
    pub(super) fn on(&self, migration: &str, errand: Errand) -> Draft<'a> {
        Draft {
            m: self.m,
            id: ResourceId::new(MIGRATION_KIND, migration),
            ctx: self.ctx,
            baseline: self.baseline,
            errand: Some(errand),
        }
    }

    /// The move that a migration asks of a machine that is where its manifest says, or on its way to `target`.
    pub(super) fn wish(&self, here: Here<'_>, target: &str) -> Option<&'a Wish> {
        let wish = self.ctx.survey.moves().wish(self.m.name())?;
        match wish.permanent {
            true => (wish.to == target && target != here.host).then_some(wish),
            // What is off has no business elsewhere: it goes once it runs.
            false => {
                let runs = here.domain.is_active() && self.m.spec.power_state != PowerState::Stopped;
                (target == here.host && wish.to != here.host && runs).then_some(wish)
            }
        }
    }

    /// A machine that is elsewhere for a while: what its manifest says of its definition is done at home, what it says of the
    /// running machine where it runs. Where nobody wants it there any more it comes home.
    pub(super) fn away(&self, copy: &'a Copy, away: &'a Away, out: &mut Drafts) {
        let Some(there) = self.here(copy) else { return };
        self.health(there, out);
        let home = away.home.as_ref().and_then(|home| self.here(home));
        let Some(home) = home else {
            let why = self.ctx.survey.unknown().get(&away.home_host).cloned().unwrap_or_default();
            out.finding(
                Finding::new(
                    Code::HostUnknown,
                    format!(
                        "`{}` runs on `{}` for a while; its home `{}` could not be read: {why}",
                        self.m.name(),
                        there.host,
                        away.home_host
                    ),
                )
                .of(self.m, "metadata.name")
                .hint("it goes on running there; what its manifest says of it is done once its home can be read"),
            );
            out.report(&self.id, None).sync = Sync::Unknown;
            return;
        };
        out.finding(
            Finding::new(
                Code::InProgress,
                format!("`{}` is on `{}` for a while; its home is `{}`", self.m.name(), there.host, home.host),
            )
            .of(self.m, "metadata.name")
            .hint(match away.in_force {
                true => format!("`{}` wants it there; when it shuts down it is its home's again", away.migration),
                false => "nobody wants it there any more: it comes home".to_owned(),
            }),
        );
        // One machine of two halves: it runs there, and its definition is at home.
        let both = DomainState {
            persistent: true,
            persistent_xml: home.domain.persistent_xml.clone(),
            autostart: home.domain.autostart,
            ..there.domain.clone()
        };
        let here = Here { host: there.host, state: there.state, domain: &both, keeper: home.host };
        let mut chain = Chain::default();
        if self.only_reports() {
            self.report_drift(here, here.host, out);
        } else {
            let disks = self.disks_away(here, out);
            if self.in_place(here, &disks, &mut chain, out).is_none() {
                return;
            }
            // A restart would be one at home: it waits until the machine is there.
            self.power(here, false, &mut chain, out);
        }
        let goes_off = self.m.spec.power_state == PowerState::Stopped;
        if !away.in_force && !goes_off {
            let errand = Errand::Home { host: home.host.to_owned() };
            self.on(&away.migration, errand).migrate(there, home.host, false, &mut chain, out);
        }
    }

    /// A migration that is under way for the sake of a VirtualMachineMigration: followed while that wants it, aborted when it
    /// does not. Tells whether it is one.
    pub(super) fn errand_under_way(
        &self,
        from: &'a Copy,
        to: Option<&Copy>,
        has_manifest: bool,
        out: &mut Drafts,
    ) -> bool {
        let Some(here) = self.here(from) else { return false };
        let moves = self.ctx.survey.moves();
        let goes_to = |host: &str| to.is_none_or(|c| c.host == host);
        if let Some(mark) = moves.begun(here.domain).filter(|mark| goes_to(&mark.to) && mark.from == here.host) {
            let migration = self.ctx.resources.virtual_machine_migrations.get(&mark.migration);
            let wanted = migration.filter(|m| {
                !m.spec.suspend
                    && m.spec.revision(self.ctx.resources) == mark.revision
                    && moves.names(m.name(), has_manifest, self.m.name())
            });
            let wish = Wish {
                migration: mark.migration.clone(),
                to: mark.to.clone(),
                permanent: !mark.temporary,
                policy: migration.and_then(|m| m.spec.migration_policy.clone()),
                mark: mark.clone(),
                rank: 0,
            };
            let draft = self.on(&mark.migration, Errand::There(wish));
            match wanted {
                Some(_) => draft.go_on(here, &mark.to, out),
                None => draft.abort(here, mark, migration.is_some(), out),
            }
            return true;
        }
        let comes_home = here.domain.moves.iter().find(|mark| {
            mark.fleet == self.ctx.resources.fleet()
                && mark.temporary
                && mark.to == here.host
                && goes_to(&mark.from)
                && !here.domain.persistent
        });
        let Some(mark) = comes_home else { return false };
        self.on(&mark.migration, Errand::Home { host: mark.from.clone() }).go_on(here, &mark.from, out);
        true
    }

    fn go_on(&self, here: Here<'_>, to: &str, out: &mut Drafts) {
        self.note(Operation::Migrate, out);
        out.report(&self.id, None).health = Health::Progressing;
        self.moves_from(here.host, to, Effect::Live, out);
        let policy = self.policy();
        let Planned { migration, prediction, .. } = self.migration(here, to, MigrationWay::Live, &policy, Vec::new());
        let mut step = self.step(
            MachineAction::MigrateVirtualMachine(Box::new(migration)),
            self.route(here.host, to, MigrationWay::Live),
            "it is already under way, and is followed to its end",
        );
        step.estimate = self.estimate(here, to, MigrationWay::Live, &policy, 0, prediction);
        out.step(StepDraft { disruption: Disruption::Brief, interruption: MIGRATION, ..step });
    }

    fn abort(&self, here: Here<'_>, mark: &MoveMark, is_there: bool, out: &mut Drafts) {
        let why = match is_there {
            true => format!("`{}` is suspended, or says something else now", mark.migration),
            false => format!("`{}` is not in Git any more", mark.migration),
        };
        out.report(&self.id, None).sync = Sync::OutOfSync;
        self.note(Operation::Update, out);
        if here.domain.state == RunState::Paused && here.domain.reason == "postcopy" {
            out.finding(
                Finding::new(
                    Code::InProgress,
                    format!(
                        "{why}; but the memory of `{}` is on `{}` and `{}` already, so its move cannot be aborted any more",
                        self.m.name(),
                        mark.from,
                        mark.to
                    ),
                )
                .on(self.id.clone())
                .hint("it is followed to its end; move it back from there"),
            );
            let step = self.step(
                MachineAction::AwaitMigration { host: here.host.into(), uuid: here.domain.uuid },
                format!("follow the migration of {} away from {}", self.m.name(), here.host),
                "it is past the point of no return",
            );
            out.step(StepDraft { disruption: Disruption::Brief, interruption: MIGRATION, ..step });
            return;
        }
        let migration = self.migration(here, &mark.to, MigrationWay::Live, &self.policy(), Vec::new()).migration;
        let step = self.step(
            MachineAction::AbortMigration(Box::new(migration)),
            format!("abort the migration of {} from {} to {}", self.m.name(), mark.from, mark.to),
            why,
        );
        out.step(step);
    }
}

/// Drafts the move of a machine that has no manifest.
pub(in crate::kind) fn go(
    m: &Manifest<VirtualMachineSpec>,
    ctx: &Context<'_>,
    copy: &Copy,
    migration: &str,
    errand: Errand,
    out: &mut Drafts,
) {
    let draft = Draft { m, id: m.id(), ctx, baseline: None, errand: None }.on(migration, errand.clone());
    let Some(here) = draft.here(copy) else { return };
    let to = match &errand {
        Errand::There(wish) => &wish.to,
        Errand::Home { host } => host,
    };
    draft.migrate(here, to, false, &mut Chain::default(), out);
}

/// Drafts what becomes of a move of a machine without a manifest that is under way.
pub(in crate::kind) fn under_way(
    m: &Manifest<VirtualMachineSpec>,
    ctx: &Context<'_>,
    from: Option<&Copy>,
    to: Option<&Copy>,
    id: &ResourceId,
    out: &mut Drafts,
) {
    let draft = Draft { m, id: id.clone(), ctx, baseline: None, errand: None };
    let Some(from) = from else {
        out.report(id, None).sync = Sync::Unknown;
        return;
    };
    if draft.errand_under_way(from, to, false, out) {
        return;
    }
    let Some(here) = draft.here(from) else { return };
    let step = draft.step(
        MachineAction::AwaitMigration { host: here.host.into(), uuid: here.domain.uuid },
        format!("follow the migration of {} away from {}", m.name(), here.host),
        "somebody else moves it; what remains is planned after that",
    );
    out.step(StepDraft { disruption: Disruption::Brief, interruption: MIGRATION, ..step });
}

/// Why a machine cannot be elsewhere for a while.
pub(super) fn temporary_blocks(here: Here<'_>, way: MigrationWay, copies: bool) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut block = |reason: &str, way_out: &str| {
        blocks.push(Block { code: Code::CannotMove, reason: reason.into(), way_out: way_out.into() });
    };
    if way == MigrationWay::Offline {
        block("it is off, and only what runs can be elsewhere for a while", "start it, or move it for good");
    }
    if copies {
        block(
            "its disks would have to be copied, and what it wrote to the copies would be lost when it shuts down there",
            "put them on storage that both hosts share, or move it for good",
        );
    }
    if way == MigrationWay::Live && here.domain.is_active() && !here.domain.persistent {
        block(
            "it has no definition that could stay at home: it would vanish when it shuts down",
            "give it one (`virsh define`), or move it for good",
        );
    }
    blocks
}
