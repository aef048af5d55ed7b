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

mod follow;
mod judge;
mod prove;
mod retune;
mod storage;

use super::connect::{Host, Hosts};
use super::domain::{self, word};
use super::error::{During, Fault};
use super::{ffi, volume};
use crate::action::{AtTimeout, Control, Migration, MigrationWay, Tuning};
use crate::kind::host::{Transport, parse_uri};
use crate::observed::{DomainState, Progress};
use crate::provider::{ActError, Look, StepCtx};
use follow::Followed;
use judge::{Place, Sides};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use virt_sys as sys;

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
    let (uuid, name) = (m.uuid, m.name.clone());
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
        Place::Moving { .. } => Ok(Look::Running),
        Place::There if is_clean(from, m, &sides).await? => Ok(Look::AlreadyDone),
        // It has moved; what is left is to clean up after it.
        Place::There => Ok(Look::Running),
        Place::Here => Ok(match sides.objection(live(m)) {
            None => Look::Ready,
            Some(reason) => Look::Refused { reason },
        }),
        Place::Clearing => refused("a half of an earlier migration is still at the destination"),
        Place::Broken => refused("a post-copy migration of it broke"),
        Place::Twice => refused("it runs on both hosts"),
        Place::Nowhere => refused("it is not on the source any more"),
    }
}

/// Whether nothing is left to do after a move.
async fn is_clean(from: &Host, m: &Migration, sides: &Sides) -> Result<bool, Fault> {
    let Some(there) = &sides.destination else { return Ok(false) };
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
        Place::There => return clean(from, to, m, None).await,
        Place::Moving { .. } => {
            tracing::info!(uuid = %m.uuid, from = %m.from, to = %m.to, "taking up a migration that is under way");
            match follow::follow(from, m.uuid, Some(m), ctx, None).await {
                Followed::Left { why } => return Err(left(m, &why)),
                Followed::Ended { aborted } => Ended { fault: None, aborted },
            }
        }
        Place::Here => match before.objection(live(m)) {
            Some(why) => return Err(ActError::permanent(format!("`{}` is not moved: {why}", m.name))),
            None => start(from, to, m, ctx, before.source.as_ref()).await?,
        },
        place => return Err(stop(m, place, &before, None)),
    };
    judge(from, to, m, before.source.as_ref(), ended).await?;
    if live(m) {
        for words in prove::prove(to, m, before.source.as_ref()).await {
            (ctx.note)(format!("`{}` has moved to `{}`: {words}", m.name, m.to));
        }
    }
    Ok(())
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
            for v in &m.copy {
                let remaining = Duration::from_millis(m.timeout_millis).min(ctx.deadline);
                volume::copy_between(from, to, v, remaining, ctx.progress.clone(), ctx.cancel.clone()).await?;
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
    let paused = source.is_some_and(|s| s.state == crate::observed::RunState::Paused);
    loop {
        let ended = drive(from, to, m, ctx, paused, managed).await?;
        let falls_back = !managed && may_manage && ended.aborted.is_none();
        match &ended.fault {
            Some(fault) if falls_back && is_cut_off(fault, &m.destination_uri) => {
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
    let over = CancellationToken::new();
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
                call(c, &m, paused, destination.as_ref().and_then(|session| session.connect()))
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

/// The call that moves a machine; it holds its thread until the end.
fn call(
    c: &virt::connect::Connect,
    m: &Migration,
    paused: bool,
    destination: Option<&virt::connect::Connect>,
) -> Result<(), Fault> {
    let what = || format!("move `{}` to host `{}`", m.name, m.to);
    let domain = c.lookup_domain_by_uuid_string(&m.uuid.to_string()).during(what())?;
    let mut parameters = ffi::MigrationParameters::new();
    let mut flags = sys::VIR_MIGRATE_PERSIST_DEST | sys::VIR_MIGRATE_UNDEFINE_SOURCE;
    if destination.is_none() {
        flags |= sys::VIR_MIGRATE_PEER2PEER;
    }
    if live(m) {
        flags |= sys::VIR_MIGRATE_LIVE | sys::VIR_MIGRATE_ABORT_ON_ERROR;
        if let Some(uri) = &m.listen_uri {
            parameters.text(sys::VIR_MIGRATE_PARAM_URI, uri).during(what())?;
        }
        if let Some(mib) = m.bandwidth_mib {
            parameters.ullong(sys::VIR_MIGRATE_PARAM_BANDWIDTH, mib).during(what())?;
        }
        if let Some(n) = m.parallel {
            flags |= sys::VIR_MIGRATE_PARALLEL;
            let n = i32::try_from(n).unwrap_or(i32::MAX);
            parameters.int(sys::VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS, n).during(what())?;
        }
        if m.auto_converge {
            flags |= sys::VIR_MIGRATE_AUTO_CONVERGE;
        }
        // A paused guest has nothing to fetch pages for: libvirt refuses post-copy for it.
        let post_copy = m.may_post_copy() && !paused;
        if post_copy {
            flags |= sys::VIR_MIGRATE_POSTCOPY;
        }
        flags |= tune(&m.tuning, post_copy, &mut parameters).during(what())?;
        if !m.copy.is_empty() {
            flags |= if m.incremental { sys::VIR_MIGRATE_NON_SHARED_INC } else { sys::VIR_MIGRATE_NON_SHARED_DISK };
            for v in &m.copy {
                parameters.text(sys::VIR_MIGRATE_PARAM_MIGRATE_DISKS, &v.target).during(what())?;
            }
        }
        if let Some(millis) = m.max_downtime_millis {
            // Some releases take it only while a migration runs; the follower tries again then.
            let _ = domain.migrate_set_max_downtime(millis, 0);
        }
    } else {
        flags |= sys::VIR_MIGRATE_OFFLINE;
        // The last look: libvirt would take a running machine, too, and leave a second copy that can be started.
        if domain.is_active().during(what())? {
            let why = format!("`{}` runs, and a move while off was planned", m.name);
            return Err(Fault::refused(why, "plan again"));
        }
    }
    match destination {
        Some(destination) => ffi::migrate_managed(&domain, destination, &parameters, flags),
        None => ffi::migrate(&domain, &m.destination_uri, &parameters, flags),
    }
    .during(what())
}

/// The flags and parameters of how a migration converges and travels.
fn tune(
    tuning: &Tuning,
    post_copy: bool,
    parameters: &mut ffi::MigrationParameters,
) -> Result<u32, virt::error::Error> {
    let mut flags = 0;
    let per_cent = [
        (sys::VIR_MIGRATE_PARAM_AUTO_CONVERGE_INITIAL, tuning.throttle_initial),
        (sys::VIR_MIGRATE_PARAM_AUTO_CONVERGE_INCREMENT, tuning.throttle_increment),
    ];
    for (name, value) in per_cent {
        if let Some(value) = value {
            parameters.int(name, i32::try_from(value).unwrap_or(i32::MAX))?;
        }
    }
    if let Some(method) = &tuning.compression {
        flags |= sys::VIR_MIGRATE_COMPRESSED;
        parameters.text(sys::VIR_MIGRATE_PARAM_COMPRESSION, method)?;
    }
    if let Some(mib) = tuning.post_copy_bandwidth_mib.filter(|_| post_copy) {
        parameters.ullong(sys::VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY, mib)?;
    }
    for (on, flag) in [
        (tuning.zero_copy, sys::VIR_MIGRATE_ZEROCOPY),
        (tuning.tls, sys::VIR_MIGRATE_TLS),
        (tuning.tunnelled, sys::VIR_MIGRATE_TUNNELLED),
        (tuning.synchronous_writes, sys::VIR_MIGRATE_NON_SHARED_SYNCHRONOUS_WRITES),
    ] {
        if on {
            flags |= flag;
        }
    }
    Ok(flags)
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

fn left(m: &Migration, why: &str) -> ActError {
    ActError::transient(format!(
        "the migration of `{}` from `{}` to `{}` is left going on: {why}",
        m.name, m.from, m.to
    ))
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
                Place::Moving { .. } | Place::Clearing if settling => {}
                Place::Here => {
                    give_up(to, m).await;
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

fn said(ended: &Ended) -> String {
    ended.fault.as_ref().map(|f| format!(": {}", f.words())).unwrap_or_default()
}

/// The machine is where it was, and the destination cannot be read.
fn stayed_alone(m: &Migration, source: &DomainState, unread: &Fault, ended: &Ended) -> ActError {
    ActError::transient(format!(
        "the migration of `{}` from `{}` to `{}` failed{}; it is {} on `{}`, and {unread}",
        m.name,
        m.from,
        m.to,
        said(ended),
        word(source),
        m.from
    ))
    .hint("bring the destination back; what a failed copy left there is cleared by the next attempt")
}

/// Nobody can tell where the machine is.
fn untold(m: &Migration, unread: &Fault, ended: &Ended) -> ActError {
    ActError::transient(format!("where `{}` is now cannot be told{}; {unread}", m.name, said(ended)))
        .hint("nothing is started or removed before both hosts can be read")
}

/// Removes what was made at the destination for a move that did not take place.
async fn give_up(to: &Host, m: &Migration) {
    if let Err(fault) = storage::discard(to, &m.copy).await {
        tracing::warn!(host = %to.name, uuid = %m.uuid, error = %fault, "a half copy stays at the destination until the next attempt");
    }
}

/// The machine is where it was.
fn failed(m: &Migration, words: &str, ended: Ended) -> ActError {
    let Ended { fault, aborted } = ended;
    let head = format!("the migration of `{}` from `{}` to `{}` failed", m.name, m.from, m.to);
    if let Some(why) = aborted {
        let mut error = ActError::permanent(format!("{head}: {why}, so it was aborted; {words}"));
        if why.starts_with(NOT_WANTED) {
            return error.hint("nothing is to be done: it is what the newer commit says");
        }
        // What did not end in time may another time, where the policy says to try.
        error.transient = m.retries.is_some_and(|n| n > 0);
        return error.hint(
            "give its policy more time or bandwidth, a longer pause (`maxDowntime`), `autoConverge`, or `postCopy`; where \
             nothing moved, check the ports between the hosts (`spec.migration.ports`)",
        );
    }
    match fault {
        Some(fault) => {
            let aborted = fault.code() == Some(sys::VIR_ERR_OPERATION_ABORTED);
            let hint = fault.hint().or_else(|| aborted.then(|| "somebody aborted it on the host".to_owned()));
            ActError { message: format!("{head}: {}; {words}", fault.words()), transient: fault.is_transient(), hint }
        }
        None => {
            ActError::transient(format!("{head}; {words}")).hint("the source's libvirt log says why (/var/log/libvirt)")
        }
    }
}

/// A person is needed.
fn stop(m: &Migration, place: Place, sides: &Sides, fault: Option<&Fault>) -> ActError {
    let words = sides.words(&m.from, &m.to);
    let said = fault.map(|f| format!(" ({})", f.words())).unwrap_or_default();
    let error = |text: &str| ActError::permanent(format!("`{}`: {text}{said}; {words}", m.name));
    match place {
        Place::Broken | Place::Moving { post_copy: true } => error("its post-copy migration broke").hint(
            "heal the link between the hosts: QEMU goes on by itself. Do not destroy, undefine or restart either side: \
             each holds a part of its memory",
        ),
        Place::Twice => error("it runs on both hosts").hint("find out which copy is the right one and stop the other"),
        Place::Nowhere => error("it is on neither host").hint("look for it on other hosts before it is defined anew"),
        Place::Clearing | Place::Moving { post_copy: false } => {
            let mut e = error("a half of its migration is still there");
            e.transient = true;
            e
        }
        Place::Here | Place::There => error("it has changed since it was looked at"),
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
    let stays = storage::remove_stale_definition(from, m.uuid).await.map_err(partly)?;
    if let Some(why) = stays {
        return Err(ActError::permanent(format!(
            "`{}` has moved to `{}`, but its definition on `{}` stays: {why}",
            m.name, m.to, m.from
        ))
        .hint(format!("undefine it on `{}` by hand (`virsh undefine {}`) once you are sure", m.from, m.name)));
    }
    let (uuid, autostart) = (m.uuid, m.autostart);
    let owner = before.and_then(|b| b.owner.clone());
    // Paused by Drover so that the migration ends: it goes on where it is now.
    let resumes = m.tuning.at_timeout == AtTimeout::Suspend
        && before.is_some_and(|b| b.state == crate::observed::RunState::Running);
    to.call("set mark and autostart", move |c| {
        let (found, there) = domain::get(c, uuid)?;
        if resumes && there.state == crate::observed::RunState::Paused && !there.is_in_migration() {
            found.resume().map(drop).during("let it go on")?;
        }
        if there.persistent && there.autostart != autostart {
            domain::set_autostart(c, uuid, autostart)?;
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
    if now.source.is_some() || !there.is_some_and(|d| d.persistent) {
        let words = now.words(&m.from, &m.to);
        return Err(ActError::permanent(format!("`{}` has not moved for good: {words}", m.name))
            .hint("it must be persistent at the destination and gone at the source"));
    }
    Ok(())
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
