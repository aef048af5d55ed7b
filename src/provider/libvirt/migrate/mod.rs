//! Moves of machines, peer-to-peer where that can be: the source's daemon drives the move and finishes it without Drover.
//!
//! ```text
//!   look ──Ready──► prepare ──► start ──► follow ──► judge ──There──► clean ──► done
//!    │                 │                    ▲          │
//!    │                 └─fails─► discard    │          ├─Here────► discard ──► failed, as it was
//!    └──Running (adopted)───────────────────┘          └─Broken, Twice, Nowhere ──► a person
//! ```
//!
//! *Guarantees*: what the hosts' domains say decides, never a call's result (`judge.rs`). Nothing is destroyed or undefined
//! on either side while a half of a migration is there. A machine that runs is never moved as if it were off. An image at
//! the destination that is not known to be a copy is never written to (`storage.rs`). Killed at any moment, the next Drover
//! finds the job, or the outcome, and goes on from there.

mod call;
mod check;
mod follow;
mod judge;
mod prove;
mod retune;
mod storage;
mod words;

use super::connect::{Host, Hosts};
use super::domain::{self, word};
use super::error::{During, Fault};
use super::{ffi, volume};
use crate::action::{AtTimeout, Control, Migration, MigrationWay};
use crate::kind::host::{Transport, parse_uri};
use crate::observed::{DomainState, MoveMark, Progress};
use crate::provider::{ActError, Look, Note, StepCtx};
use call::call;
use follow::Followed;
use judge::{Place, Sides};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use virt_sys as sys;
use words::{failed, left, stayed_alone, stop, untold};

/// How long the two hosts may take to agree after a migration's end: a destination that lost its peer keeps its half until
/// its keepalive runs out (seen: 27 to 30 s).
const SETTLES_WITHIN: Duration = Duration::from_secs(45);

/// How long the call may outlast the time-out: aborting waits for the daemon's locks, 136 s on a filtered port.
const GRACE: Duration = Duration::from_secs(300);

/// How the reason of an abort begins that Git asked for.
const NOT_WANTED: &str = "it is not wanted any more";

fn live(m: &Migration) -> bool {
    m.way == MigrationWay::Live
}

/// Reads the machine on both hosts at once.
async fn sides(from: &Host, to: &Host, m: &Migration) -> Result<Sides, Fault> {
    let (uuid, name) = (m.uuid, m.name_there().to_owned());
    let read = move |c: &virt::connect::Connect| Ok(domain::find_with_state(c, uuid)?.map(|(_, state)| state));
    let read_there = move |c: &virt::connect::Connect| {
        if let Some((_, state)) = domain::find_with_state(c, uuid)? {
            return Ok((Some(state), false));
        }
        match c.lookup_domain_by_name(&name).during(format!("look domain `{name}` up")) {
            Ok(_) => Ok((None, true)),
            Err(fault) if fault.is_absent() => Ok((None, false)),
            Err(fault) => Err(fault),
        }
    };
    let what = "read the machine";
    // A connection that died since it was last used is worth a second try: what is read here decides.
    let twice_source = async {
        match from.call(what, read).await {
            Err(fault) if fault.broke_connection() && !matches!(fault, Fault::Hung { .. }) => {
                from.call(what, read).await
            }
            other => other,
        }
    };
    let twice_destination = async {
        match to.call(what, read_there.clone()).await {
            Err(fault) if fault.broke_connection() && !matches!(fault, Fault::Hung { .. }) => {
                to.call(what, read_there.clone()).await
            }
            other => other,
        }
    };
    let (source, there) = tokio::join!(twice_source, twice_destination);
    let (destination, name_taken) = there?;
    Ok(Sides { source: source?, destination, name_taken })
}

/// Checks what a migration would meet.
pub(super) async fn look(hosts: &Hosts, m: &Migration) -> Result<Look, Fault> {
    let (from, to) = (hosts.get(&m.from)?, hosts.get(&m.to)?);
    let sides = sides(from, to, m).await?;
    let refused = |why: &str| Ok(Look::Refused { reason: format!("{why}: {}", sides.words(&m.from, &m.to)) });
    match sides.place() {
        Place::Moving { .. } | Place::HandingOver => Ok(Look::Running),
        Place::There if is_clean(from, m, &sides).await? => Ok(Look::AlreadyDone),
        // It has moved; what is left is to clean up after it.
        Place::There => Ok(Look::Running),
        Place::Here => Ok(match objection(from, to, m, &sides).await? {
            None => Look::Ready,
            Some(reason) => Look::Refused { reason },
        }),
        Place::Clearing => refused("a half of an earlier migration is still at the destination"),
        Place::Broken => refused("a post-copy migration of it broke"),
        Place::Twice => match check::one_host(from, to).await? {
            Some(reason) => Ok(Look::Refused { reason }),
            None => refused("it runs on both hosts"),
        },
        Place::Nowhere => refused("it is not on the source any more"),
    }
}

/// Why a migration that would start now must not, if so.
async fn objection(from: &Host, to: &Host, m: &Migration, sides: &Sides) -> Result<Option<String>, Fault> {
    match sides.objection(live(m), m.permanent) {
        None if !live(m) => check::unstartable(from, to, m).await,
        found => Ok(found),
    }
}

/// Whether nothing is left to do after a move.
async fn is_clean(from: &Host, m: &Migration, sides: &Sides) -> Result<bool, Fault> {
    let Some(there) = &sides.destination else { return Ok(false) };
    let is_marked = |s: &DomainState| m.mark.as_ref().is_none_or(|mark| s.moves.contains(&done(mark)));
    if !is_marked(there) {
        return Ok(false);
    }
    if !m.permanent {
        return Ok(sides.source.as_ref().is_none_or(|s| !s.persistent || is_marked(s)));
    }
    if sides.source.is_some() || (there.persistent && there.autostart != m.autostart) {
        return Ok(false);
    }
    Ok(!m.delete_source_copies || storage::left_at_source(from, &m.copy).await?.is_empty())
}

/// Moves a machine, or follows the move that is under way.
pub(super) async fn act(hosts: &Hosts, m: &Migration, ctx: &StepCtx) -> Result<(), ActError> {
    let (from, to) = (hosts.get(&m.from)?, hosts.get(&m.to)?);
    let before = sides(from, to, m).await?;
    let ended = match before.place() {
        Place::There => {
            clean(from, to, m, None).await?;
            // What it was before nobody knows any more.
            tell(to, m, before.destination.as_ref(), ctx).await;
            return Ok(());
        }
        Place::Moving { .. } => {
            tracing::info!(uuid = %m.uuid, from = %m.from, to = %m.to, "taking up a migration that is under way");
            match follow::follow(from, m.uuid, Some(m), ctx, None).await {
                Followed::Left { why } => return Err(left(m, &why)),
                Followed::Ended { aborted } => Ended { fault: None, aborted },
            }
        }
        Place::HandingOver => Ended { fault: None, aborted: None },
        Place::Here => match objection(from, to, m, &before).await? {
            Some(why) => return Err(ActError::permanent(format!("`{}` is not moved: {why}", m.name))),
            None => start(from, to, m, ctx, before.source.as_ref()).await?,
        },
        place => {
            if place == Place::Twice
                && let Some(why) = check::one_host(from, to).await?
            {
                return Err(ActError::permanent(format!("`{}` is not moved: {why}", m.name))
                    .hint("declare the host once, or give each a `host_uuid` of its own in libvirtd.conf"));
            }
            return Err(stop(m, place, &before, None));
        }
    };
    judge(from, to, m, before.source.as_ref(), ended).await?;
    tell(to, m, before.source.as_ref(), ctx).await;
    Ok(())
}

/// Tells what a move was that has come about, and what is not in order with its machine. `before` is the machine as it was.
async fn tell(to: &Host, m: &Migration, before: Option<&DomainState>, ctx: &StepCtx) {
    if !live(m) {
        return;
    }
    if let Some(progress) = completed(to, m.uuid).await {
        (ctx.progress)(progress);
    }
    for Note { text, hint } in prove::prove(to, m, before).await {
        (ctx.note)(Note { text: format!("`{}` has moved to `{}`: {text}", m.name, m.to), hint });
    }
}

/// What a migration was, from the statistics of the completed job, which the destination keeps. Nothing after a post-copy
/// migration: they are empty then.
async fn completed(to: &Host, uuid: Uuid) -> Option<Progress> {
    let read = to.call("read the figures of the completed migration", move |c| {
        let Some(domain) = domain::find(c, uuid)? else { return Ok(None) };
        ffi::job_stats(&domain, true).during("read the figures of the completed migration").map(Some)
    });
    match read.await {
        Ok(stats) => stats
            .filter(|s| {
                s.number("operation") == u64::from(sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN)
                    || s.number("operation") == u64::from(sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT)
            })
            .map(|s| Progress { phase: "done".into(), completed: true, ..super::observe::progress(&s) })
            .filter(|p| p.elapsed_millis > 0),
        // Only the history is poorer.
        Err(fault) => {
            tracing::debug!(%uuid, error = %fault, "the figures of a completed migration cannot be read");
            None
        }
    }
}

/// How a migration's call, or its job, ended.
struct Ended {
    fault: Option<Fault>,
    /// Why Drover aborted it, if it did.
    aborted: Option<String>,
}

/// Prepares and starts a migration, and follows it to its end.
async fn start(
    from: &Arc<Host>,
    to: &Arc<Host>,
    m: &Migration,
    ctx: &StepCtx,
    source: Option<&DomainState>,
) -> Result<Ended, ActError> {
    let may_manage = m.control == Control::Auto && !m.tuning.tunnelled;
    let mut managed = m.control == Control::Managed;
    if !managed && let Err(refused) = probe_destination(m).await {
        if !may_manage {
            return Err(refused);
        }
        managed = true;
    }
    let prepared = async {
        if m.copy.is_empty() {
            return Ok(());
        }
        (ctx.progress)(Progress { phase: "making room".into(), ..Progress::default() });
        let sources = storage::measure(from, m.uuid, live(m), &m.copy).await?;
        storage::prepare(to, live(m), &m.copy, &sources).await?;
        if !live(m) {
            // libvirt moves no storage with a machine that is off.
            let since = storage::written(from, &m.copy).await?;
            for v in &m.copy {
                let remaining = Duration::from_millis(m.timeout_millis).min(ctx.deadline);
                volume::copy_between(from, to, v, remaining, ctx.progress.clone(), ctx.cancel.clone()).await?;
            }
            // It may have been started and stopped again meanwhile: then the copy is of no one moment.
            if storage::written(from, &m.copy).await? != since {
                let why = "its disks were written to while they were copied".to_owned();
                return Err(Fault::refused(why, "leave it off until it has moved, or move it while it runs"));
            }
        }
        Ok::<(), Fault>(())
    };
    if let Err(fault) = prepared.await {
        give_up(to, m).await;
        let mut error = ActError::from(fault);
        error.message = format!("`{}` is not moved: {}", m.name, error.message);
        return Err(error);
    }
    if let Some(mark) = &m.mark {
        // Whose move it is has to be known while it goes on, also to a Drover that knows nothing else.
        let marks = mark.put_into(source.map(|s| s.moves.as_slice()).unwrap_or_default());
        let uuid = m.uuid;
        if let Err(fault) = from.call("mark the move", move |c| domain::set_moves(c, uuid, &marks)).await {
            give_up(to, m).await;
            return Err(fault.into());
        }
    }
    let paused = source.is_some_and(|s| s.state == crate::observed::RunState::Paused);
    loop {
        let ended = drive(from, to, m, ctx, paused, managed).await?;
        let falls_back = !managed && may_manage && ended.aborted.is_none();
        match &ended.fault {
            // Only where it has not begun: both hosts say so.
            Some(fault)
                if falls_back
                    && is_cut_off(fault, &m.destination_uri)
                    && sides(from, to, m).await.is_ok_and(|now| now.place() == Place::Here) =>
            {
                tracing::warn!(
                    uuid = %m.uuid, from = %m.from, to = %m.to, error = %fault,
                    "the source cannot reach the destination's daemon: Drover drives the migration itself, and has to run until its end"
                );
                managed = true;
            }
            _ => return Ok(ended),
        }
    }
}

/// Whether a peer-to-peer migration failed before it began, because the source's daemon had no way to the destination's.
fn is_cut_off(fault: &Fault, destination_uri: &str) -> bool {
    let port = parse_uri(destination_uri).ok().and_then(|c| super::connect::port(&c));
    let at_daemon =
        port.is_some_and(|port| fault.says("unable to connect to server at") && fault.says(&format!(":{port}'")));
    at_daemon
        || [
            "failed to connect to remote libvirt",
            "unable to resolve address",
            "cannot recv data",
            "authentication failed",
        ]
        .iter()
        .any(|words| fault.says(words))
}

/// Starts a migration, by the source's daemon or by this program, and follows it to its end.
async fn drive(
    from: &Arc<Host>,
    to: &Arc<Host>,
    m: &Migration,
    ctx: &StepCtx,
    paused: bool,
    managed: bool,
) -> Result<Ended, ActError> {
    let mut adapted = m.clone();
    if managed && live(m) && m.may_post_copy() && !check::keeps_halves(from, to).await {
        tracing::warn!(
            uuid = %m.uuid, from = %m.from, to = %m.to,
            "post-copy is left out: Drover drives this migration, and this libvirt would lose the machine's memory with Drover"
        );
        adapted.leave_out_post_copy();
    }
    let m = &adapted;
    let over = CancellationToken::new();
    let keeps_holes = live(m) && !m.copy.is_empty() && !m.incremental && check::keeps_holes(from, to).await;
    let call = async {
        let m = m.clone();
        let deadline = Duration::from_millis(m.timeout_millis).saturating_add(GRACE).max(ctx.deadline);
        let destination = if managed {
            match to.dedicated(ctx.deadline).await {
                Ok(session) => Some(session),
                Err(fault) => {
                    over.cancel();
                    return Err(fault);
                }
            }
        } else {
            None
        };
        let result = from
            .call_alone("migrate it", deadline, move |c| {
                call(c, &m, paused, keeps_holes, destination.as_ref().and_then(|session| session.connect()))
            })
            .await;
        over.cancel();
        result
    };
    let follow = follow::follow(from, m.uuid, Some(m), ctx, Some(&over));
    tokio::pin!(call, follow);
    let (result, followed) = tokio::select! {
        result = &mut call => (result, follow.await),
        followed = &mut follow => match followed {
            Followed::Left { why } => return Err(left(m, &why)),
            ended @ Followed::Ended { .. } => (call.await, ended),
        },
    };
    let aborted = match followed {
        Followed::Ended { aborted } => aborted,
        Followed::Left { .. } => None,
    };
    Ok(Ended { fault: result.err(), aborted })
}

/// Where the destination's daemon refuses a connection from here, the source would fare no better. Silence means less:
/// the source may be on another network.
async fn probe_destination(m: &Migration) -> Result<(), ActError> {
    let Ok(connection) = parse_uri(&m.destination_uri) else { return Ok(()) };
    if connection.transport == Transport::Ssh {
        // ssh says so itself, and its server holds connections that come to nothing against whoever makes them.
        return Ok(());
    }
    let Some(port) = super::connect::port(&connection) else { return Ok(()) };
    let host = connection.host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let attempt = tokio::net::TcpStream::connect((host.as_str(), port));
    match tokio::time::timeout(Duration::from_secs(5), attempt).await {
        Ok(Err(e)) if e.kind() == std::io::ErrorKind::ConnectionRefused => Err(ActError::transient(format!(
            "`{}` is not moved: nothing listens at `{host}` port {port}, where host `{}` would reach host `{}`",
            m.name, m.from, m.to
        ))
        .hint("start the libvirt daemon there, or correct `spec.migration.uri` of the destination Host")),
        _ => Ok(()),
    }
}

/// Reads both hosts until they agree on where the machine is, and acts on it.
async fn judge(
    from: &Host,
    to: &Host,
    m: &Migration,
    before: Option<&DomainState>,
    ended: Ended,
) -> Result<(), ActError> {
    let begun = Instant::now();
    loop {
        let settling = begun.elapsed() < SETTLES_WITHIN;
        match sides(from, to, m).await {
            Ok(now) => match now.place() {
                Place::There => return clean(from, to, m, before).await,
                Place::Moving { .. } | Place::HandingOver | Place::Clearing if settling => {}
                Place::Here => {
                    give_up(to, m).await;
                    if live(m) && m.max_downtime_millis.is_some() {
                        follow::set_downtime(from, m.uuid, follow::LONGEST_PAUSE).await;
                    }
                    return Err(failed(m, &now.words(&m.from, &m.to), ended));
                }
                place => return Err(stop(m, place, &now, ended.fault.as_ref())),
            },
            Err(unread) => {
                // One host cannot be read. The source alone can tell that the machine never left it.
                let uuid = m.uuid;
                let source =
                    from.call("read the machine", move |c| Ok(domain::find_with_state(c, uuid)?.map(|(_, s)| s))).await;
                match source {
                    Ok(Some(s))
                        if s.job.is_none() && s.is_active() == live(m) && !s.is_in_migration() && !s.moved_away() =>
                    {
                        return Err(stayed_alone(m, &s, &unread, &ended));
                    }
                    _ if settling => {}
                    _ => return Err(untold(m, &unread, &ended)),
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Removes what was made at the destination for a move that did not take place.
async fn give_up(to: &Host, m: &Migration) {
    if let Err(fault) = storage::discard(to, &m.copy).await {
        tracing::warn!(host = %to.name, uuid = %m.uuid, error = %fault, "a half copy stays at the destination until the next attempt");
    }
}

/// After the machine was seen at the destination: the old definition goes, mark and autostart are carried over, copies are
/// settled. Each part can be repeated.
async fn clean(from: &Host, to: &Host, m: &Migration, before: Option<&DomainState>) -> Result<(), ActError> {
    let partly = |fault: Fault| {
        let mut error = ActError::from(fault);
        error.message =
            format!("`{}` has moved to `{}`, but cleaning up after it failed: {}", m.name, m.to, error.message);
        error
    };
    let stays = match m.permanent {
        true => storage::remove_stale_definition(from, m.uuid).await.map_err(partly)?,
        false => None,
    };
    if let Some(why) = stays {
        return Err(ActError::permanent(format!(
            "`{}` has moved to `{}`, but its definition on `{}` stays: {why}",
            m.name, m.to, m.from
        ))
        .hint(format!("undefine it on `{}` by hand (`virsh undefine {}`) once you are sure", m.from, m.name)));
    }
    let (uuid, autostart, permanent) = (m.uuid, m.autostart, m.permanent);
    let mark = m.mark.as_ref().map(done);
    if let Some(mark) = mark.clone().filter(|_| !m.permanent) {
        // The definition at home has to know, too, or the move would be made again once the machine is back.
        from.call("mark the move as done", move |c| match domain::find_with_state(c, uuid)? {
            Some((_, home)) if home.persistent && !home.is_in_migration() => {
                domain::set_moves(c, uuid, &mark.put_into(&home.moves))
            }
            _ => Ok(()),
        })
        .await
        .map_err(partly)?;
    }
    let owner = before.and_then(|b| b.owner.clone());
    // Paused by Drover so that the migration ends: it goes on where it is now.
    let resumes = !m.arrive_paused
        && m.tuning.at_timeout == AtTimeout::Suspend
        && before.is_some_and(|b| b.state == crate::observed::RunState::Running);
    to.call("set mark and autostart", move |c| {
        let (found, there) = domain::get(c, uuid)?;
        if resumes && there.state == crate::observed::RunState::Paused && !there.is_in_migration() {
            found.resume().map(drop).during("let it go on")?;
        }
        if permanent && there.persistent && there.autostart != autostart {
            domain::set_autostart(c, uuid, autostart)?;
        }
        if let Some(mark) = mark {
            domain::set_moves(c, uuid, &mark.put_into(&there.moves))?;
        }
        match owner {
            Some(owner) if there.owner.as_ref() != Some(&owner) => domain::set_owner(c, uuid, Some(&owner)),
            _ => Ok(()),
        }
    })
    .await
    .map_err(partly)?;
    storage::settle(to, &m.copy).await.map_err(partly)?;
    if m.delete_source_copies {
        storage::delete_sources(from, to, &m.copy).await.map_err(partly)?;
    }
    let left = storage::left_at_source(from, &m.copy).await.map_err(partly)?;
    if !left.is_empty() {
        tracing::info!(host = %from.name, uuid = %m.uuid, images = ?left, "the move left images behind");
    }
    Ok(())
}

/// Judges from both hosts whether a migration has come about, and does what is left of the cleaning: a migration that was
/// adopted after a crash has had none.
pub(super) async fn verify(hosts: &Hosts, m: &Migration) -> Result<(), ActError> {
    let (from, to) = (hosts.get(&m.from)?, hosts.get(&m.to)?);
    let now = sides(from, to, m).await?;
    if now.place() != Place::There {
        return Err(stop(m, now.place(), &now, None));
    }
    if !is_clean(from, m, &now).await? {
        clean(from, to, m, None).await?;
    }
    let now = sides(from, to, m).await?;
    let there = now.destination.as_ref();
    if !m.permanent {
        return match there.is_some_and(DomainState::is_active) {
            true => Ok(()),
            false => Err(ActError::permanent(format!(
                "`{}` does not run where it went: {}",
                m.name,
                now.words(&m.from, &m.to)
            ))),
        };
    }
    if now.source.is_some() || !there.is_some_and(|d| d.persistent) {
        let words = now.words(&m.from, &m.to);
        return Err(ActError::permanent(format!("`{}` has not moved for good: {words}", m.name))
            .hint("it must be persistent at the destination and gone at the source"));
    }
    Ok(())
}

/// A mark once its move is made.
fn done(mark: &MoveMark) -> MoveMark {
    MoveMark { done: true, ..mark.clone() }
}

/// Whether there is a migration to abort, and whether that can still be done.
pub(super) async fn look_abort(hosts: &Hosts, m: &Migration) -> Result<Look, Fault> {
    let (from, to) = (hosts.get(&m.from)?, hosts.get(&m.to)?);
    let now = sides(from, to, m).await?;
    Ok(match now.place() {
        Place::Moving { post_copy: false } => Look::Ready,
        Place::Clearing | Place::HandingOver => Look::Running,
        Place::Moving { post_copy: true } | Place::Broken => Look::Refused {
            reason: format!(
                "the memory of `{}` is on both hosts already, so it can only go forward: {}",
                m.name,
                now.words(&m.from, &m.to)
            ),
        },
        // It stayed, or it has arrived: there is nothing to abort any more.
        Place::Here | Place::There | Place::Twice | Place::Nowhere => Look::AlreadyDone,
    })
}

/// Aborts a migration, waits until both hosts agree that it is over, and removes what it made at the destination.
pub(super) async fn act_abort(hosts: &Hosts, m: &Migration, ctx: &StepCtx) -> Result<(), ActError> {
    let (from, to) = (hosts.get(&m.from)?, hosts.get(&m.to)?);
    let begun = Instant::now();
    let mut asked: Option<Instant> = None;
    loop {
        let now = sides(from, to, m).await?;
        match now.place() {
            Place::Moving { post_copy: false } if begun.elapsed() < ctx.deadline => {
                if asked.is_none_or(|at| at.elapsed() >= Duration::from_secs(5)) {
                    asked = Some(Instant::now());
                    follow::abort(from, m.uuid).await;
                }
            }
            Place::Clearing | Place::HandingOver if begun.elapsed() < ctx.deadline => {}
            Place::Here => {
                give_up(to, m).await;
                return Ok(());
            }
            Place::There => {
                tracing::info!(uuid = %m.uuid, to = %m.to, "it had arrived before it could be aborted");
                return Ok(());
            }
            place => return Err(stop(m, place, &now, None)),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Whether a migration of somebody else's still leaves a host.
pub(super) async fn look_await(hosts: &Hosts, host: &str, uuid: Uuid) -> Result<Look, Fault> {
    let read = move |c: &virt::connect::Connect| Ok(domain::find_with_state(c, uuid)?.map(|(_, state)| state));
    let state = hosts.get(host)?.call("read the machine", read).await?;
    Ok(match state {
        Some(s) if s.is_active() && s.reason == "postcopy-failed" => {
            Look::Refused { reason: format!("a post-copy migration of `{}` broke: it is {}", s.name, word(&s)) }
        }
        Some(s) if s.is_in_migration() => Look::Running,
        _ => Look::AlreadyDone,
    })
}

/// Follows a migration of somebody else's to its end, without a limit of its own.
pub(super) async fn act_await(hosts: &Hosts, host: &str, uuid: Uuid, ctx: &StepCtx) -> Result<(), ActError> {
    match follow::follow(hosts.get(host)?, uuid, None, ctx, None).await {
        Followed::Ended { .. } => Ok(()),
        Followed::Left { why } => {
            Err(ActError::transient(format!("the migration of {uuid} from host `{host}` is left going on: {why}")))
        }
    }
}
