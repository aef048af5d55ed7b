//! Which function carries which action out. Looks and short actions run on the host's shared connection within the call
//! deadline; actions that wait for storage or for a guest run on a connection of their own within the step's.

use super::connect::{Host, Hosts};
use super::error::Fault;
use super::{disk, domain, migrate, pool, power, volume};
use crate::action::{Action, MachineAction};
use crate::provider::{ActError, Look, StepCtx};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use virt::connect::Connect;

/// Checks what an action would meet.
pub(super) async fn look(hosts: &Hosts, action: &Action) -> Result<Look, ActError> {
    let Action::Machine(action) = action else { return Err(ActError::not_of("libvirt", action)) };
    let found = match action {
        MachineAction::MigrateVirtualMachine(m) => migrate::look(hosts, m).await?,
        MachineAction::AwaitMigration { host, uuid } => migrate::look_await(hosts, host, *uuid).await?,
        MachineAction::AbortMigration(m) => migrate::look_abort(hosts, m).await?,
        _ => {
            let copy = action.clone();
            host(hosts, action)?.call(&format!("look at it for {}", action.name()), move |c| look_on(c, &copy)).await?
        }
    };
    if let (MachineAction::StartDomain { host, uuid, .. }, Look::Ready) = (action, &found)
        && let Some(reason) = power::runs_elsewhere(hosts, host, *uuid).await?
    {
        return Ok(Look::Refused { reason });
    }
    Ok(found)
}

/// Carries an action out, or follows it.
pub(super) async fn act(hosts: &Hosts, action: &Action, ctx: &StepCtx) -> Result<(), ActError> {
    let Action::Machine(action) = action else { return Err(ActError::not_of("libvirt", action)) };
    match action {
        MachineAction::MigrateVirtualMachine(m) => migrate::act(hosts, m, ctx).await,
        MachineAction::AwaitMigration { host, uuid } => migrate::act_await(hosts, host, *uuid, ctx).await,
        MachineAction::AbortMigration(m) => migrate::act_abort(hosts, m, ctx).await,
        MachineAction::MoveDisk(m) => disk::act(hosts, m, ctx).await,
        _ => {
            let (host, copy, what) = (host(hosts, action)?, action.clone(), format!("carry out {}", action.name()));
            let ticket = Ticket { until: Instant::now() + ctx.deadline, cancel: ctx.cancel.clone() };
            if takes_long(action) {
                host.call_alone(&what, ctx.deadline, move |c| act_on(c, &copy, &ticket)).await?;
            } else {
                let deadline = ctx.deadline.min(host.call_deadline());
                host.call_within(&what, deadline, move |c| act_on(c, &copy, &ticket)).await?;
            }
            Ok(())
        }
    }
}

/// Tells whether an action's outcome is there.
pub(super) async fn verify(hosts: &Hosts, action: &Action) -> Result<(), ActError> {
    let Action::Machine(action) = action else { return Err(ActError::not_of("libvirt", action)) };
    match action {
        MachineAction::MigrateVirtualMachine(m) => migrate::verify(hosts, m).await,
        MachineAction::AbortMigration(m) => match migrate::look_abort(hosts, m).await? {
            Look::AlreadyDone => Ok(()),
            _ => {
                Err(ActError::transient(format!("the migration of `{}` from host `{}` still goes on", m.name, m.from)))
            }
        },
        MachineAction::AwaitMigration { host, uuid } => match migrate::look_await(hosts, host, *uuid).await? {
            Look::AlreadyDone => Ok(()),
            _ => Err(ActError::transient(format!("the migration of {uuid} from host `{host}` is still under way"))),
        },
        _ => {
            let (host, copy) = (host(hosts, action)?, action.clone());
            let what = format!("verify {}", action.name());
            match host.call(&what, move |c| verify_on(c, &copy)).await? {
                None => Ok(()),
                Some(why) => Err(ActError::transient(format!(
                    "{} on host `{}` did not take effect: {why}",
                    action.name(),
                    host.name
                ))),
            }
        }
    }
}

fn host<'a>(hosts: &'a Hosts, action: &MachineAction) -> Result<&'a std::sync::Arc<Host>, Fault> {
    hosts.get(action.hosts().first().copied().unwrap_or_default())
}

/// Whether an action waits for storage or for a guest.
fn takes_long(action: &MachineAction) -> bool {
    use MachineAction as A;
    match action {
        A::DefineStoragePool { .. }
        | A::StartStoragePool { .. }
        | A::CreateVolume { .. }
        | A::ResizeVolume { .. }
        | A::DeleteVolume { .. }
        | A::MarkStoragePool { .. }
        | A::VerifySharedPool { .. }
        | A::ChangeLive { .. }
        | A::StartDomain { .. }
        | A::ShutdownDomain { .. }
        | A::MoveDisk(_)
        | A::CancelDiskMove { .. }
        | A::MigrateVirtualMachine(_)
        | A::AbortMigration(_)
        | A::AwaitMigration { .. } => true,
        A::SetStoragePoolAutostart { .. }
        | A::DefineDomain { .. }
        | A::UpdateDomain { .. }
        | A::SetOwner { .. }
        | A::RemoveOwner { .. }
        | A::SetMoves { .. }
        | A::RenameDomain { .. }
        | A::SetAutostart { .. }
        | A::ResumeDomain { .. }
        | A::PauseDomain { .. }
        | A::UndefineDomain { .. } => false,
    }
}

/// How long a blocking action may go on.
struct Ticket {
    until: Instant,
    cancel: CancellationToken,
}

fn look_on(c: &Connect, action: &MachineAction) -> Result<Look, Fault> {
    use MachineAction as A;
    match action {
        A::DefineStoragePool { pool, xml, autostart, .. } => pool::look_define(c, pool, xml, *autostart),
        A::StartStoragePool { pool, .. } => pool::look_start(c, pool),
        A::SetStoragePoolAutostart { pool, autostart, .. } => pool::look_autostart(c, pool, *autostart),
        A::MarkStoragePool { pool, marker, .. } => pool::look_mark(c, pool, *marker),
        A::VerifySharedPool { pool, markers, .. } => pool::look_shared(c, pool, markers),
        A::MoveDisk(m) => disk::look(c, m),
        A::CancelDiskMove { uuid, target, to, .. } => disk::look_cancel(c, *uuid, target, to),
        A::CreateVolume { .. } => volume::look_create(c, &wanted(action)?),
        A::ResizeVolume { pool, volume, capacity, running, .. } => {
            volume::look_resize(c, pool, volume, *capacity, running.as_ref())
        }
        A::DeleteVolume { pool, volume, path, .. } => volume::look_delete(c, pool, volume, path),
        A::DefineDomain { name, uuid, xml, .. } => domain::look_define(c, name, *uuid, xml),
        A::UpdateDomain { uuid, edits, expect, .. } => domain::look_update(c, *uuid, edits, expect),
        A::SetOwner { uuid, owner, .. } => domain::look_owner(c, *uuid, Some(owner)),
        A::RemoveOwner { uuid, .. } => domain::look_owner(c, *uuid, None),
        A::SetMoves { uuid, moves, .. } => domain::look_moves(c, *uuid, moves),
        A::RenameDomain { uuid, name, .. } => domain::look_rename(c, *uuid, name),
        A::ChangeLive { uuid, change, .. } => domain::look_change(c, *uuid, change),
        A::SetAutostart { uuid, autostart, .. } => domain::look_autostart(c, *uuid, *autostart),
        A::StartDomain { uuid, paused, .. } => power::look_start(c, *uuid, *paused),
        A::ResumeDomain { uuid, .. } => power::look_resume(c, *uuid),
        A::PauseDomain { uuid, .. } => power::look_pause(c, *uuid),
        A::ShutdownDomain { uuid, .. } => power::look_shutdown(c, *uuid),
        A::UndefineDomain { uuid, .. } => domain::look_undefine(c, *uuid),
        A::MigrateVirtualMachine(_) | A::AbortMigration(_) | A::AwaitMigration { .. } => Err(on_two_hosts(action)),
    }
}

fn act_on(c: &Connect, action: &MachineAction, ticket: &Ticket) -> Result<(), Fault> {
    use MachineAction as A;
    let is_cancelled = || ticket.cancel.is_cancelled();
    match action {
        A::DefineStoragePool { pool, xml, autostart, .. } => pool::define(c, pool, xml, *autostart),
        A::StartStoragePool { pool, .. } => pool::start(c, pool),
        A::SetStoragePoolAutostart { pool, autostart, .. } => pool::set_autostart(c, pool, *autostart),
        A::MarkStoragePool { pool, marker, .. } => pool::mark(c, pool, *marker),
        A::VerifySharedPool { pool, with, markers, own, .. } => {
            pool::verify_shared(c, pool, with, markers, *own, ticket.until, &is_cancelled)
        }
        A::CancelDiskMove { uuid, target, to, .. } => disk::cancel(c, *uuid, target, to),
        A::CreateVolume { .. } => volume::create(c, &wanted(action)?),
        A::ResizeVolume { pool, volume, capacity, running, .. } => {
            volume::resize(c, pool, volume, *capacity, running.as_ref())
        }
        A::DeleteVolume { pool, volume, .. } => volume::delete(c, pool, volume),
        A::DefineDomain { name, xml, .. } => domain::define(c, name, xml),
        A::UpdateDomain { uuid, edits, expect, .. } => domain::update(c, *uuid, edits, expect),
        A::SetOwner { uuid, owner, .. } => domain::set_owner(c, *uuid, Some(owner)),
        A::RemoveOwner { uuid, .. } => domain::set_owner(c, *uuid, None),
        A::SetMoves { uuid, moves, .. } => domain::set_moves(c, *uuid, moves),
        A::RenameDomain { uuid, name, .. } => domain::rename(c, *uuid, name),
        A::ChangeLive { uuid, change, .. } => domain::change(c, *uuid, change, ticket.until, &is_cancelled),
        A::SetAutostart { uuid, autostart, .. } => domain::set_autostart(c, *uuid, *autostart),
        A::StartDomain { uuid, paused, .. } => power::start(c, *uuid, *paused),
        A::ResumeDomain { uuid, .. } => power::resume(c, *uuid),
        A::PauseDomain { uuid, .. } => power::pause(c, *uuid),
        A::ShutdownDomain { uuid, timeout_millis, force, .. } => {
            power::shutdown(c, *uuid, Duration::from_millis(*timeout_millis), *force, &is_cancelled)
        }
        A::UndefineDomain { uuid, nvram, .. } => domain::undefine(c, *uuid, *nvram),
        A::MigrateVirtualMachine(_) | A::AbortMigration(_) | A::AwaitMigration { .. } | A::MoveDisk(_) => {
            Err(on_two_hosts(action))
        }
    }
}

/// What is missing from an action's outcome; nothing where it is there.
fn verify_on(c: &Connect, action: &MachineAction) -> Result<Option<String>, Fault> {
    use MachineAction as A;
    let held = |is: bool, why: &str| Ok((!is).then(|| why.to_owned()));
    match action {
        A::UpdateDomain { uuid, edits, expect, .. } => {
            held(domain::is_updated(c, *uuid, edits, expect)?, "the definition is what it was before")
        }
        A::ChangeLive { uuid, change, .. } => {
            let (domain, state) = domain::get(c, *uuid)?;
            held(domain::is_changed(&domain, &state, change)?, "the running machine is what it was before")
        }
        // A transient machine is gone when it is off.
        A::ShutdownDomain { uuid, .. } => held(power::is_off(c, *uuid)?, "it is not off"),
        _ => match look_on(c, action)? {
            Look::AlreadyDone => Ok(None),
            Look::Refused { reason } => Ok(Some(reason)),
            Look::Ready | Look::Running => held(false, "nothing has changed"),
        },
    }
}

/// Moves are carried out in `migrate` and `disk`; reaching this is a mistake in the dispatch above.
fn on_two_hosts(action: &MachineAction) -> Fault {
    Fault::odd(format!("carry out {}", action.name()), "it is not an action of a single call")
}

fn wanted(action: &MachineAction) -> Result<volume::Wanted<'_>, Fault> {
    match action {
        MachineAction::CreateVolume { pool, volume, capacity, format, image, backing, .. } => Ok(volume::Wanted {
            pool,
            volume,
            capacity: *capacity,
            format,
            image: image.as_ref(),
            backing: backing.as_ref(),
        }),
        other => Err(Fault::odd("make a volume", format!("{} makes none", other.name()))),
    }
}
