//! Hosts in memory, for `uri: sim:…`: what the quick start runs on where there is no libvirt, and the world in which the
//! executor and the planner are tested. Behaves as libvirt does where Drover could tell the difference: what is unique,
//! what a running machine keeps of its old definition, what a migration leaves behind, and that a migration goes on when
//! who began it is gone.
//!
//! A [`World`] outlives everybody who acts on it: dropping a call is what a crash of Drover is to a real host. Time is
//! tokio's, so a test may pause it. Nothing is random.
//!
//! Differences from libvirt, on purpose: every folder below `/srv` is one file system on all hosts; nothing checks a
//! guest's memory against the host's on start; UUIDs and MAC addresses that are filled in are derived from names.

mod act;
mod ask;
mod define;
mod disk;
mod faults;
mod look;
mod migrate;
mod state;

pub use faults::{Call, Effect, Fault};

use super::{ActError, Actor, Look, Observer, ReadFleet, StepCtx, WriteFleet};
use crate::action::{Action, AtTimeout, DiskMove, DiskPlace, MachineAction, Migration, Order};
use crate::observed::{
    Answer, CellState, DomainState, HostState, InterfaceState, NetworkState, Question, Reading, RunState, VolumeState,
};
use async_trait::async_trait;
use faults::Faults;
use migrate::Mishap;
use state::{FORMAT_VERSION, Host, Shutdown, State, Timer};
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// How often a call that waits looks again.
const TICK: Duration = Duration::from_millis(200);

/// How long a guest takes to shut down, in milliseconds.
const SHUTDOWN_MILLIS: u64 = 2_000;

/// Largest file a world is loaded from, in bytes.
const FILE_MAX: u64 = 256 << 20;

/// Simulated hosts and everything on them. Clones are handles to one world.
#[derive(Clone, Debug, Default)]
pub struct World(Arc<Inner>);

/// A world that stands still ([`World::freeze`]).
#[derive(Clone, Debug)]
pub struct Frozen(State);

impl Frozen {
    /// A world that goes on from there, on its own and without faults.
    pub fn thaw(&self) -> World {
        let world = World::new();
        *world.state() = self.0.clone();
        world
    }
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    faults: Mutex<Faults>,
    file: Mutex<Option<PathBuf>>,
}

impl World {
    /// A world without hosts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an empty host; one of this name that is there already stays as it is.
    pub fn add_host(&self, name: &str) {
        let host = || Host { state: default_host(name), unreachable: None };
        self.state().hosts.entry(name.to_owned()).or_insert_with(host);
    }

    /// Its hosts' names.
    pub fn hosts(&self) -> Vec<String> {
        self.state().hosts.keys().cloned().collect()
    }

    /// Reads its hosts.
    pub fn observer(&self) -> Arc<dyn Observer> {
        Arc::new(self.clone())
    }

    /// Changes its hosts.
    pub fn actor(&self) -> Arc<dyn Actor> {
        Arc::new(self.clone())
    }

    /// All its hosts.
    pub fn fleet(&self) -> WriteFleet {
        let (observer, actor) = (self.observer(), self.actor());
        let read = self.hosts().into_iter().map(|host| (host, observer.clone())).collect();
        let write = self.hosts().into_iter().map(|host| (host, actor.clone())).collect();
        WriteFleet::new(ReadFleet::new(read), write)
    }

    /// Changes a host by hand, behind Drover's back: capabilities, pools, domains. Volumes are not in its pools; see
    /// [`World::put_volume`].
    pub fn edit(&self, host: &str, change: impl FnOnce(&mut HostState)) {
        let mut state = self.state();
        if let Some(host) = state.hosts.get_mut(host) {
            change(&mut host.state);
            host.state.domains.sort_by(|a, b| a.name.cmp(&b.name));
        }
        state.settle(Instant::now());
        state.audit();
    }

    /// Puts a volume into a pool by hand; `false` where there is no such pool.
    pub fn put_volume(&self, host: &str, pool: &str, name: &str, format: &str, capacity: u64) -> bool {
        let mut state = self.state();
        let path = act::volume_path(&state, host, pool, name);
        let volume = VolumeState { path, format: format.into(), capacity, allocation: capacity / 4, backing: None };
        state.volumes_mut(host, pool).map(|v| v.insert(name.to_owned(), volume)).is_some()
    }

    /// Leaves what a Drover leaves that dies while it copies a running machine's disk to another pool; `false` where that
    /// cannot be.
    pub fn leave_half_copy(&self, host: &str, uuid: Uuid, target: &str, to: &DiskPlace) -> bool {
        disk::leave_half(&mut self.state(), host, uuid, target, to).is_ok()
    }

    /// Makes every image that a volume is to be filled from be there: for a world that nobody furnished.
    pub fn have_every_image(&self) {
        self.state().has_every_image = true;
    }

    /// Makes a folder one file system on every host (`/srv` is from the start).
    pub fn share_path(&self, folder: &str) {
        self.state().shared_paths.insert(folder.trim_end_matches('/').to_owned());
    }

    /// Defines a domain by hand, as `virsh define` does.
    ///
    /// # Errors
    /// What libvirt would say.
    pub fn define(&self, host: &str, xml: &str) -> Result<Uuid, String> {
        let mut state = self.state();
        let filled = define::fill_in(xml, state.host(host).ok_or("no such host")?)?;
        let (name, uuid) = define::identity(&filled)?;
        let action = MachineAction::DefineDomain { host: host.into(), name, uuid, xml: filled };
        act::act(&mut state, &action).map_err(|e| e.message)?;
        Ok(uuid)
    }

    /// Cuts the way to a host; it goes on living.
    pub fn cut_off(&self, host: &str, why: &str) {
        if let Some(host) = self.state().hosts.get_mut(host) {
            host.unreachable = Some(why.to_owned());
        }
    }

    /// Ends what [`World::cut_off`] began.
    pub fn bring_back(&self, host: &str) {
        if let Some(host) = self.state().hosts.get_mut(host) {
            host.unreachable = None;
        }
    }

    /// Breaks every migration from or to a host, as a cut between hosts does.
    pub fn break_migrations(&self, host: &str, why: &str) {
        let mut state = self.state();
        state.settle(Instant::now());
        let touched = |m: &Migration| m.from == host || m.to == host;
        let broken: Vec<Uuid> =
            state.moves.iter().filter(|(_, m)| m.end.is_none() && touched(&m.migration)).map(|(u, _)| *u).collect();
        for uuid in broken {
            state.abort(uuid, why);
        }
    }

    /// Makes a guest ignore requests to shut down, or heed them again.
    pub fn ignore_shutdown(&self, uuid: Uuid, ignores: bool) {
        let mut state = self.state();
        if ignores {
            state.stubborn.insert(uuid);
        } else {
            state.stubborn.remove(&uuid);
        }
    }

    /// How fast a guest writes to its memory, in bytes a second; each has a rate of its own where nobody says one.
    pub fn set_dirty_rate(&self, uuid: Uuid, bytes_per_second: u64) {
        self.state().dirty_rates.insert(uuid, bytes_per_second);
    }

    /// How long each call takes.
    pub fn set_latency(&self, latency: Duration) {
        self.faults().latency = latency;
    }

    /// Adds a fault.
    pub fn inject(&self, fault: Fault) {
        self.faults().add(fault);
    }

    /// Ends all faults; hosts that are cut off stay so.
    pub fn heal(&self) {
        self.faults().heal();
    }

    /// A host as it is now, whether it can be reached or not.
    pub fn view(&self, host: &str) -> Option<HostState> {
        let mut state = self.state();
        state.settle(Instant::now());
        state.view(host)
    }

    /// Where a machine is, in whatever state: hosts with their domains.
    pub fn find(&self, uuid: Uuid) -> Vec<(String, DomainState)> {
        let mut state = self.state();
        state.settle(Instant::now());
        let on = |(name, _): (&String, &Host)| {
            let domain = state.domain(name, uuid)?;
            Some((name.clone(), DomainState { moves: define::moves(domain), ..domain.clone() }))
        };
        state.hosts.iter().filter_map(on).collect()
    }

    /// Machines that ran in two places at once, ever.
    pub fn ran_twice(&self) -> Vec<String> {
        self.state().ran_twice.iter().cloned().collect()
    }

    /// Checks what must always hold, and that no machine ever ran twice and no action was carried out against its
    /// preconditions.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn check(&self) -> Result<(), String> {
        let mut state = self.state();
        state.settle(Instant::now());
        let wrong = state.check();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    /// Loads a world from a file.
    ///
    /// # Errors
    /// When the file cannot be read, or is not a world of this version.
    pub fn load(path: &Path) -> io::Result<Self> {
        let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()));
        let size = std::fs::metadata(path)?.len();
        if size > FILE_MAX {
            return Err(wrong(format!("has {size} bytes; a simulated world has at most {FILE_MAX}")));
        }
        let state: State = serde_json::from_slice(&std::fs::read(path)?)
            .map_err(|e| wrong(format!("is not a simulated world: {e}; remove it to begin anew")))?;
        let major = |v: &str| v.split('.').next().map(str::to_owned);
        if major(&state.format_version) != major(FORMAT_VERSION) {
            return Err(wrong(format!("has format {}, this Drover knows {FORMAT_VERSION}", state.format_version)));
        }
        let world = Self::new();
        *world.state() = state;
        Ok(world)
    }

    /// Saves the world; the file is complete or as it was.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        // One at a time: an older state must not come to lie over a newer one.
        static SAVING: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _alone = SAVING.lock().unwrap_or_else(PoisonError::into_inner);
        let text = {
            let mut state = self.state();
            state.note_time(Instant::now());
            serde_json::to_vec_pretty(&*state).map_err(io::Error::other)?
        };
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".new-{}", std::process::id()));
        let draft = PathBuf::from(draft);
        let mut file = std::fs::File::create(&draft)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    }

    /// Loads the world in a file, or begins a new one, and saves it there after every change.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn keep_in(path: &Path) -> io::Result<Self> {
        let world = match Self::load(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Self::new(),
            loaded => loaded?,
        };
        world.save(path)?;
        *world.0.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.to_owned());
        Ok(world)
    }

    /// The world as it is now, standing still: a world to begin from again and again.
    pub fn freeze(&self) -> Frozen {
        let mut state = self.state();
        state.note_time(Instant::now());
        let mut still = state.clone();
        still.stop_time();
        Frozen(still)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.0.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Saves, where the world has a file. A simulation that cannot be saved goes on in memory.
    async fn kept(&self) {
        let file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(path) = file else { return };
        let world = self.clone();
        let saved = tokio::task::spawn_blocking(move || world.save(&path)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "the simulated world could not be saved");
        }
    }

    /// Begins a call: latency, faults, and whether the hosts can be reached.
    async fn call(&self, call: Call, action: Option<&str>, hosts: &[&str]) -> Result<Vec<Effect>, ActError> {
        let (effects, latency) = {
            let mut faults = self.faults();
            (faults.hit(call, action, hosts), faults.latency)
        };
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        for effect in &effects {
            match effect {
                Effect::Fails { message, transient } => {
                    return Err(ActError { message: message.clone(), transient: *transient, hint: None });
                }
                Effect::Hangs => std::future::pending().await,
                Effect::Panics => {
                    let bug = Box::new(format!("injected into {call:?} {}", action.unwrap_or_default()));
                    std::panic::resume_unwind(bug)
                }
                Effect::ReplyLost | Effect::Breaks { .. } | Effect::LeavesDefinition => {}
            }
        }
        self.reach(hosts)?;
        Ok(effects)
    }

    fn reach(&self, hosts: &[&str]) -> Result<(), ActError> {
        let mut state = self.state();
        state.settle(Instant::now());
        for host in hosts {
            match state.hosts.get(*host).map(|h| h.unreachable.clone()) {
                Some(None) => {}
                Some(Some(why)) => return Err(ActError::transient(format!("{host}: {why}"))),
                None => return Err(ActError::permanent(format!("there is no simulated host `{host}`"))),
            }
        }
        Ok(())
    }

    fn look_now(&self, action: &MachineAction) -> Look {
        let mut state = self.state();
        state.settle(Instant::now());
        look::look(&state, action)
    }

    async fn carry_out(&self, action: &MachineAction, ctx: &StepCtx, effects: &[Effect]) -> Result<(), ActError> {
        match action {
            MachineAction::MigrateVirtualMachine(m) => self.migrate(m, ctx, effects).await,
            MachineAction::AwaitMigration { .. } => self.follow(action, ctx).await,
            MachineAction::ShutdownDomain { host, uuid, timeout_millis, force } => {
                self.shut_down(action, host, *uuid, Duration::from_millis(*timeout_millis), *force, ctx).await
            }
            MachineAction::MoveDisk(m) => self.move_disk(action, m, ctx).await,
            other => {
                let mut state = self.state();
                state.settle(Instant::now());
                act::act(&mut state, other)
            }
        }
    }

    /// Copies a running machine's disk for as long as that takes, and switches it over.
    async fn move_disk(&self, action: &MachineAction, m: &DiskMove, ctx: &StepCtx) -> Result<(), ActError> {
        let (mut begun, mut done) = (Instant::now(), 0.0);
        let (mut rate, mut news) = (m.bandwidth_mib, ctx.orders.clone());
        let Some(bytes) = disk::begin(&mut self.state(), m).map_err(ActError::permanent)? else {
            return act::act(&mut self.state(), action);
        };
        self.kept().await;
        loop {
            match news.news() {
                Some(Order::Abort { why }) => {
                    let mut state = self.state();
                    disk::cancel(&mut state, &m.host, m.uuid, &m.target, &m.to).map_err(ActError::permanent)?;
                    return Err(ActError::permanent(format!("{}: not wanted any more: {why}", m.host)));
                }
                Some(Order::CopyRate(newer)) => {
                    done += disk::copied(rate, begun.elapsed());
                    (begun, rate) = (Instant::now(), newer);
                }
                Some(Order::Limits(_)) | None => {}
            }
            if !disk::goes_on(&mut self.state(), m) {
                let message = format!("{}: the copy of disk `{}` ended before it was complete", m.host, m.target);
                return Err(ActError::permanent(message));
            }
            let copied = done + disk::copied(rate, begun.elapsed());
            (ctx.progress)(disk::progress(copied, bytes));
            if disk::is_copied(copied, bytes) {
                break;
            }
            self.wait(ctx).await?;
            self.reach(&[&m.host])?;
        }
        let mut state = self.state();
        disk::act(&mut state, m).map_err(ActError::permanent)?;
        state.audit();
        Ok(())
    }

    async fn shut_down(
        &self,
        action: &MachineAction,
        host: &str,
        uuid: Uuid,
        timeout: Duration,
        force: bool,
        ctx: &StepCtx,
    ) -> Result<(), ActError> {
        let begun = Instant::now();
        {
            let mut state = self.state();
            state.settle(begun);
            match look::look(&state, action) {
                Look::Ready => {}
                Look::AlreadyDone | Look::Running => return Ok(()),
                Look::Refused { reason } => {
                    state.violations.push(format!("{}: {reason}", action.name()));
                    return Err(ActError::permanent(reason));
                }
            }
            state.shutdowns.entry(uuid).or_insert_with(|| Shutdown {
                host: host.to_owned(),
                timer: Timer::start(begun),
                takes_millis: SHUTDOWN_MILLIS,
            });
        }
        loop {
            if self.look_now(action) == Look::AlreadyDone {
                return Ok(());
            }
            if begun.elapsed() >= timeout {
                break;
            }
            self.wait(ctx).await?;
            self.reach(&[host])?;
        }
        if force {
            self.state().power_off(host, uuid, RunState::Off, "destroyed");
            return Ok(());
        }
        self.state().shutdowns.remove(&uuid);
        let message = format!("{host}: the guest did not shut down within {} s", timeout.as_secs());
        Err(ActError::permanent(message).hint("look at its console, or set `forceShutdown: true`"))
    }

    async fn follow(&self, action: &MachineAction, ctx: &StepCtx) -> Result<(), ActError> {
        let begun = Instant::now();
        while self.look_now(action) == Look::Running {
            if begun.elapsed() >= ctx.deadline {
                return Err(ActError::transient("the migration goes on still"));
            }
            self.wait(ctx).await?;
            self.reach(&action.hosts())?;
        }
        Ok(())
    }

    /// Begins a migration, or finds it under way, and stays with it to its end.
    async fn migrate(&self, m: &Migration, ctx: &StepCtx, effects: &[Effect]) -> Result<(), ActError> {
        let begun = Instant::now();
        let mishap = effects.iter().fold(Mishap::default(), |mishap, effect| match effect {
            Effect::Breaks { at } => Mishap { breaks_at: Some(*at), ..mishap },
            Effect::LeavesDefinition => Mishap { leaves_definition: true, ..mishap },
            _ => mishap,
        });
        {
            let mut state = self.state();
            state.settle(begun);
            migrate::begin(&mut state, m, mishap, begun)?;
        }
        self.kept().await;
        let mut news = ctx.orders.clone();
        while let Some(progress) = self.under_way(m) {
            (ctx.progress)(progress);
            if let Some(Order::Abort { why }) = news.news() {
                let mut state = self.state();
                state.settle(Instant::now());
                state.abort(m.uuid, &format!("it was aborted: {why}"));
                continue;
            }
            // A migration that switches to post-copy, or whose guest is paused, comes to its end by itself.
            let gives_up = m.tuning.at_timeout == AtTimeout::Abort;
            if gives_up && begun.elapsed() >= Duration::from_millis(m.timeout_millis) {
                let mut state = self.state();
                state.settle(Instant::now());
                let why = format!("not done within {} s, and aborted", m.timeout_millis / 1000);
                state.abort(m.uuid, &why);
                continue;
            }
            if let Err(left) = self.wait(ctx).await {
                self.state().abort(m.uuid, "canceled by client");
                migrate::clean(&mut self.state(), m.uuid);
                return Err(left);
            }
            self.reach(&[&m.from, &m.to])?;
        }
        let failed = {
            let state = self.state();
            let elsewhere = state.domain(&m.to, m.uuid).is_none();
            let end = state.moves.get(&m.uuid).and_then(|one| one.end.clone());
            end.and_then(Result::err)
                .filter(|_| elsewhere || state.domain(&m.from, m.uuid).is_some_and(DomainState::is_active))
        };
        if let Some(why) = failed {
            migrate::clean(&mut self.state(), m.uuid);
            let message = format!("{}: migration of `{}` to `{}` failed: {why}", m.from, m.name, m.to);
            return Err(ActError::permanent(message).hint("the machine stays where it was"));
        }
        loop {
            let left = look::tail(&self.state(), m);
            let Some(next) = left.first() else { return Ok(()) };
            let latency = self.faults().latency;
            tokio::time::sleep(latency).await;
            self.reach(&[&m.from, &m.to])?;
            migrate::finish(&mut self.state(), m, *next)?;
        }
    }

    /// The progress of a live migration, while there is one.
    fn under_way(&self, m: &Migration) -> Option<crate::observed::Progress> {
        let mut state = self.state();
        state.settle(Instant::now());
        state.domain(&m.from, m.uuid).filter(|d| look::leaves(d))?.job.clone().map(|job| job.progress)
    }

    /// Waits a little, or until the step is to end.
    async fn wait(&self, ctx: &StepCtx) -> Result<(), ActError> {
        tokio::select! {
            () = tokio::time::sleep(TICK) => Ok(()),
            () = ctx.cancel.cancelled() => Err(ActError::transient("asked to leave")),
        }
    }
}

/// What a simulated host offers.
fn default_host(name: &str) -> HostState {
    let q35 = "pc-q35-10.0".to_owned();
    let pc = "pc-i440fx-10.0".to_owned();
    let bridge = InterfaceState { r#type: "bridge".into(), mtu: Some(1500) };
    HostState {
        hostname: name.to_owned(),
        uuid: Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("sim-host:{name}").as_bytes()).to_string(),
        driver: "SIM".into(),
        libvirt_version: "11.3.0".into(),
        hypervisor_version: "10.0.2".into(),
        arch: "x86_64".into(),
        cpu: Some(ask::default_cpu()),
        cpus: 16,
        memory: 64 << 30,
        free_memory: 64 << 30,
        domain_types: vec!["kvm".into(), "qemu".into()],
        emulators: Vec::new(),
        machine_types: vec![pc.clone(), "pc-i440fx-7.2".into(), q35.clone(), "pc-q35-7.2".into()],
        machine_aliases: [("pc".to_owned(), pc), ("q35".to_owned(), q35)].into(),
        networks: [("default".to_owned(), true)].into(),
        security_models: Vec::new(),
        network_states: [("default".to_owned(), NetworkState { forward: "nat".into(), ..Default::default() })].into(),
        interfaces: Some([("br0".to_owned(), bridge)].into()),
        cells: vec![CellState {
            id: 0,
            memory: 64 << 30,
            free_memory: Some(64 << 30),
            cpus: (0..16).collect(),
            huge_pages: BTreeMap::new(),
        }],
        firmware: None,
        probe: None,
        pools: BTreeMap::new(),
        domains: Vec::new(),
    }
}

#[async_trait]
impl Observer for World {
    fn name(&self) -> &'static str {
        "simulator"
    }

    async fn observe(&self, host: &str, deadline: Duration) -> Reading<HostState> {
        let unknown = |why: String| Reading::Unknown { why };
        let effects = match tokio::time::timeout(deadline, self.call(Call::Observe, None, &[host])).await {
            Err(_) => return unknown(format!("no answer within {} s", deadline.as_secs_f64())),
            Ok(Err(error)) => return unknown(error.message),
            Ok(Ok(effects)) => effects,
        };
        if effects.contains(&Effect::ReplyLost) {
            return unknown(format!("{host}: client socket is closed"));
        }
        let view = self.state().view(host);
        view.map_or_else(|| unknown(format!("there is no simulated host `{host}`")), Reading::Present)
    }

    async fn ask(&self, host: &str, question: Question, _deadline: Duration) -> Result<Answer, String> {
        let effects = self.call(Call::Ask, None, &[host]).await.map_err(|e| e.message)?;
        lost(&effects).map_err(|e| e.message)?;
        ask::answer(&self.state(), host, question)
    }
}

#[async_trait]
impl Actor for World {
    async fn look(&self, action: &Action, _ctx: &StepCtx) -> Result<Look, ActError> {
        let Action::Machine(action) = action else { return Err(ActError::not_of("simulator", action)) };
        let effects = self.call(Call::Look, Some(action.name()), &action.hosts()).await?;
        let found = self.look_now(action);
        lost(&effects)?;
        Ok(found)
    }

    async fn act(&self, action: &Action, ctx: &StepCtx) -> Result<(), ActError> {
        let Action::Machine(action) = action else { return Err(ActError::not_of("simulator", action)) };
        let effects = self.call(Call::Act, Some(action.name()), &action.hosts()).await?;
        let result = self.carry_out(action, ctx, &effects).await;
        self.kept().await;
        lost(&effects)?;
        result
    }

    async fn verify(&self, action: &Action, _ctx: &StepCtx) -> Result<(), ActError> {
        let Action::Machine(action) = action else { return Err(ActError::not_of("simulator", action)) };
        let effects = self.call(Call::Verify, Some(action.name()), &action.hosts()).await?;
        let found = self.look_now(action);
        let updated = look::was_updated(&self.state(), action);
        lost(&effects)?;
        let is_not =
            |what: String| Err(ActError::permanent(format!("{} is not as it should be: {what}", action.name())));
        match found {
            Look::AlreadyDone => Ok(()),
            Look::Running => Err(ActError::transient("it is still under way")),
            _ if updated => Ok(()),
            Look::Refused { reason } => is_not(reason),
            Look::Ready => is_not("nothing of it is there".into()),
        }
    }
}

fn lost(effects: &[Effect]) -> Result<(), ActError> {
    if effects.contains(&Effect::ReplyLost) {
        return Err(ActError::transient("client socket is closed"));
    }
    Ok(())
}
