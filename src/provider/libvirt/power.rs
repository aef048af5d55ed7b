//! What a domain is doing: started, resumed, paused, shut down.

use super::connect::Hosts;
use super::domain::{find_with_state, get, look, word};
use super::error::{During, Fault};
use crate::observed::RunState;
use crate::provider::Look;
use std::time::{Duration, Instant};
use uuid::Uuid;
use virt::connect::Connect;
use virt_sys as sys;

/// How long the other hosts are given to say whether they run a machine that is about to be started.
const OTHERS_ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How often a guest that does not obey is asked again to shut down: one that is still booting hears nothing.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(15);

pub(super) fn look_start(connect: &Connect, uuid: Uuid, paused: bool) -> Result<Look, Fault> {
    look(connect, uuid, |_, state| {
        Ok(match state.state {
            RunState::Off | RunState::Crashed => Look::Ready,
            RunState::Paused if paused => Look::AlreadyDone,
            RunState::Running | RunState::Suspended if !paused => Look::AlreadyDone,
            _ => Look::Refused { reason: format!("`{}` is {} and not off", state.name, word(state)) },
        })
    })
}

/// The single-writer rule, at the last moment: libvirt itself starts one machine on two hosts without a word. Every other
/// host is asked at once. One that cannot be read stops nothing here, because a plan never starts a machine that may be
/// on a host it could not read; unless the definition is one that a move left behind, which only its new host can clear.
pub(super) async fn runs_elsewhere(hosts: &Hosts, host: &str, uuid: Uuid) -> Result<Option<String>, Fault> {
    let moved_away = hosts
        .get(host)?
        .call("look the machine up", move |c| Ok(find_with_state(c, uuid)?.is_some_and(|(_, s)| s.moved_away())))
        .await?;
    let answers = futures::future::join_all(hosts.others(host).filter(|h| !h.spec.fenced).map(|other| async move {
        let found = other
            .call_within("look for a second copy of the machine", OTHERS_ANSWER_WITHIN, move |c| {
                Ok(find_with_state(c, uuid)?.map(|(_, state)| state))
            })
            .await;
        (other.name.clone(), found)
    }))
    .await;
    for (other, found) in answers {
        match found {
            Ok(Some(state)) if state.is_active() => {
                return Ok(Some(format!("`{}` is {} on host `{other}`", state.name, word(&state))));
            }
            Ok(_) => {}
            Err(fault) if moved_away => {
                return Ok(Some(format!(
                    "it moved away from here, and whether it runs elsewhere is not known: {fault}"
                )));
            }
            Err(fault) => tracing::debug!(host = %other, error = %fault, "cannot ask for a second copy"),
        }
    }
    Ok(None)
}

pub(super) fn start(connect: &Connect, uuid: Uuid, paused: bool) -> Result<(), Fault> {
    let (domain, state) = get(connect, uuid)?;
    let flags = if paused { sys::VIR_DOMAIN_START_PAUSED } else { sys::VIR_DOMAIN_NONE };
    match domain.create_with_flags(flags).during(format!("start `{}`", state.name)) {
        // Somebody else was faster.
        Err(fault) if get(connect, uuid)?.1.is_active() => {
            tracing::debug!(error = %fault, "started by somebody else");
            Ok(())
        }
        other => other.map(drop),
    }
}

pub(super) fn look_resume(connect: &Connect, uuid: Uuid) -> Result<Look, Fault> {
    look(connect, uuid, |_, state| {
        Ok(match state.state {
            RunState::Running => Look::AlreadyDone,
            RunState::Paused | RunState::Suspended => Look::Ready,
            _ => Look::Refused { reason: format!("`{}` is {} and not paused", state.name, word(state)) },
        })
    })
}

pub(super) fn resume(connect: &Connect, uuid: Uuid) -> Result<(), Fault> {
    let (domain, state) = get(connect, uuid)?;
    let what = format!("resume `{}`", state.name);
    match state.state {
        RunState::Suspended => domain.pm_wakeup(0).during(what),
        _ => domain.resume().during(what).map(drop),
    }
}

pub(super) fn look_pause(connect: &Connect, uuid: Uuid) -> Result<Look, Fault> {
    look(connect, uuid, |_, state| {
        Ok(match state.state {
            RunState::Paused => Look::AlreadyDone,
            RunState::Running | RunState::Suspended => Look::Ready,
            _ => Look::Refused { reason: format!("`{}` is {} and not running", state.name, word(state)) },
        })
    })
}

pub(super) fn pause(connect: &Connect, uuid: Uuid) -> Result<(), Fault> {
    let (domain, state) = get(connect, uuid)?;
    domain.suspend().during(format!("pause `{}`", state.name)).map(drop)
}

pub(super) fn look_shutdown(connect: &Connect, uuid: Uuid) -> Result<Look, Fault> {
    look(connect, uuid, |_, state| Ok(if state.is_active() { Look::Ready } else { Look::AlreadyDone }))
}

/// Whether a domain is off. A transient one is gone when it is off.
pub(super) fn is_off(connect: &Connect, uuid: Uuid) -> Result<bool, Fault> {
    Ok(find_with_state(connect, uuid)?.is_none_or(|(_, state)| !state.is_active()))
}

/// Asks the guest to shut down, through its agent or by ACPI as libvirt finds, and waits. A paused guest cannot obey and is
/// resumed by nobody: it counts as one that does not.
pub(super) fn shutdown(
    connect: &Connect,
    uuid: Uuid,
    timeout: Duration,
    force: bool,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<(), Fault> {
    let begun = Instant::now();
    let mut asked: Option<Instant> = None;
    loop {
        let Some((domain, state)) = find_with_state(connect, uuid)? else { return Ok(()) };
        if !state.is_active() {
            return Ok(());
        }
        if state.is_in_migration() {
            let why = format!("`{}` is being migrated ({})", state.name, word(&state));
            return Err(Fault::refused(why, "wait until the migration has ended"));
        }
        if begun.elapsed() >= timeout {
            if !force {
                let why = format!("the guest of `{}` did not shut down within {} s", state.name, timeout.as_secs_f64());
                return Err(Fault::refused(
                    why,
                    "shut it down from inside, give it more time (`shutdownTimeout`), or set `forceShutdown: true`",
                ));
            }
            let what = format!("cut the power of `{}`", state.name);
            return match domain.destroy_flags(sys::VIR_DOMAIN_DESTROY_DEFAULT).during(what) {
                Err(_) if is_off(connect, uuid)? => Ok(()),
                other => other.map(drop),
            };
        }
        if is_cancelled() {
            let why = format!("stopped waiting for the guest of `{}`, which may still shut down", state.name);
            return Err(Fault::left(why));
        }
        if asked.is_none_or(|at| at.elapsed() >= ASK_AGAIN_AFTER) && state.state != RunState::Paused {
            let result = domain.shutdown_flags(sys::VIR_DOMAIN_SHUTDOWN_DEFAULT);
            match result.during(format!("ask the guest of `{}` to shut down", state.name)) {
                Err(_) if is_off(connect, uuid)? => return Ok(()),
                // An agent that does not answer now may answer later, and the time-out decides.
                Err(fault) if fault.is_transient() => tracing::debug!(error = %fault, "the guest cannot be asked yet"),
                other => drop(other?),
            }
            asked = Some(Instant::now());
        }
        std::thread::sleep(Duration::from_millis(250).min(timeout));
    }
}
