//! Disks that the manifest wants in another pool than the one that they are in: their volumes are moved, while the machine
//! runs or while it is off. Without this a new volume would be made in their place, and the machine would find it empty.

use super::{Draft, Here};
use crate::action::{DiskMove, DiskPlace, MachineAction};
use crate::domain_xml::{self, Element};
use crate::finding::{Code, Finding};
use crate::kind::migration_policy::MigrationPolicySpec;
use crate::kind::storage_pool::{Sharing, sharing};
use crate::kind::virtual_machine::disks::{Place, places};
use crate::kind::virtual_machine::storage::is_block;
use crate::kind::virtual_machine::{DiskDevice, VirtualMachineSpec, VolumeWish, volumes};
use crate::model::{Bytes, Manifest};
use crate::observed::{DomainState, HALF_COPY, HostState, OwnedVolume, OwnerMark, Reading, VolumeState};
use crate::plan::{Block, Disruption, Drafts, Effect, Estimate, Fact, Interruption, Operation};
use serde_json::{Value, json};

/// Bytes a second that a copy within a host is taken to make: a disk that is not fast.
const COPY_RATE: u64 = 100_000_000;

/// What becomes of a machine's disks that are not where the manifest wants them.
#[derive(Default)]
pub(super) struct DiskMoves {
    moves: Vec<Planned>,
    /// Drover's own copies that run, by the disk's target.
    pub under_way: Vec<(String, DiskPlace)>,
    /// Disks that are new, and made when the machine is home again.
    later: Vec<usize>,
    /// The manifest with these disks where they are: what everything else is compared with.
    still: Option<Manifest<VirtualMachineSpec>>,
    /// The machine once its disks are where they should be.
    pub after: Option<DomainState>,
}

struct Planned {
    wish: VolumeWish,
    place: Place,
    /// The volume that it is in now. None where it only has to be finished.
    from: Option<(DiskPlace, VolumeState)>,
    block: bool,
    blocks: Vec<Block>,
    /// Hosts that have the new pool as the same storage.
    shared_with: Vec<String>,
    /// Why the old volume stays, though the policy deletes what is left behind.
    kept: Option<String>,
}

impl Planned {
    fn to(&self) -> DiskPlace {
        let VolumeWish { libvirt_pool, volume, path, .. } = &self.wish;
        DiskPlace { pool: libvirt_pool.clone(), volume: volume.clone(), path: path.clone() }
    }
}

impl DiskMoves {
    /// Whether a disk of the manifest has its volume elsewhere, so that none is to be made.
    pub fn concerns(&self, index: usize) -> bool {
        self.later.contains(&index) || self.moves.iter().any(|p| p.wish.index == index)
    }

    /// Whether a disk can go first where the machine is about to move to a host: its new pool is there, too.
    pub fn reaches(&self, index: usize, host: &str) -> bool {
        let on_the_way =
            |p: &Planned| !p.blocks.is_empty() || p.from.is_none() || p.shared_with.iter().any(|h| h == host);
        self.moves.iter().filter(|p| p.wish.index == index).any(on_the_way)
    }

    /// Leaves the disks where they are for now. What else would be in their way is asked when it is their time.
    pub fn put_off(&mut self, reason: &str, way_out: &str) {
        self.after = None;
        for planned in &mut self.moves {
            let (reason, way_out) = (reason.into(), way_out.into());
            planned.blocks = vec![Block { code: Code::InProgress, reason, way_out }];
        }
    }

    /// Copies that run and that the manifest does not ask for.
    pub fn unwanted(&self) -> impl Iterator<Item = &(String, DiskPlace)> {
        let is_wanted = |(target, to): &(String, DiskPlace)| {
            self.moves.iter().any(|p| p.place.target == *target && p.wish.path == to.path)
        };
        self.under_way.iter().filter(move |copy| !is_wanted(copy))
    }

    /// The manifest that the definition is compared with.
    pub fn manifest<'m>(&'m self, m: &'m Manifest<VirtualMachineSpec>) -> &'m Manifest<VirtualMachineSpec> {
        self.still.as_ref().unwrap_or(m)
    }
}

/// The limit of a live copy in MiB/s, by the policy's bandwidth.
pub(super) fn copy_rate(policy: &MigrationPolicySpec) -> Option<u64> {
    policy.bandwidth.map(|rate| (rate.bytes_per_second() >> 20).max(1))
}

/// The volume at a path: its pool, its name, and what it is.
fn volume_at<'h>(host: &'h HostState, path: &str) -> Option<(&'h str, &'h str, &'h VolumeState)> {
    let mut pools = host.pools.iter().filter(|(_, p)| p.active);
    pools.find_map(|(pool, p)| {
        p.volumes.iter().find(|(_, v)| v.path == path).map(|(name, v)| (pool.as_str(), name.as_str(), v))
    })
}

/// Whether a machine has a volume as a disk, by its path or by its name.
fn has_disk(domain: &DomainState, host: &HostState, path: &str) -> bool {
    let trees = [&domain.live_xml, &domain.persistent_xml].into_iter().flatten().map(|xml| domain_xml::parse(xml));
    let named = |e: &Element| {
        let volume = host.pools.get(e.attribute("pool")?)?.volumes.get(e.attribute("volume")?)?;
        Some(volume.path.clone())
    };
    let is_it =
        |e: &Element| ["file", "dev"].iter().any(|a| e.attribute(a) == Some(path)) || named(e).as_deref() == Some(path);
    fn any(e: &Element, is_it: &dyn Fn(&Element) -> bool) -> bool {
        e.name == "source" && is_it(e) || e.elements().any(|below| any(below, is_it))
    }
    // What cannot be read may have it.
    trees.into_iter().any(|tree| tree.map_or(true, |root| root.get("devices").is_some_and(|d| any(d, &is_it))))
}

fn is_marked(host: &HostState, pool: &str, volume: &str) -> bool {
    host.pools.get(pool).is_some_and(|p| p.volumes.contains_key(&format!("{volume}{HALF_COPY}")))
}

impl Draft<'_> {
    /// Finds the disks that are in another pool than the manifest says.
    pub(super) fn disk_moves(&self, here: Here<'_>) -> DiskMoves {
        let mut found = DiskMoves::default();
        let Ok(wishes) = volumes(self.m, here.state, self.ctx.resources) else { return found };
        let xml = here.domain.live_xml.as_deref().or(here.domain.persistent_xml.as_deref()).unwrap_or_default();
        // The usual case, and the one that thousands of machines are in: every disk is where it should be.
        let settled =
            |w: &VolumeWish| xml.contains(w.path.as_str()) && !is_marked(here.state, &w.libvirt_pool, &w.volume);
        if wishes.iter().all(settled) && !xml.contains("<mirror") {
            return found;
        }
        found.under_way = domain_xml::mirrors(xml)
            .into_iter()
            .filter_map(|(target, path)| {
                let (pool, volume, _) = volume_at(here.state, &path)?;
                // What has no marker is somebody else's.
                let to = DiskPlace { pool: pool.into(), volume: volume.into(), path: path.clone() };
                is_marked(here.state, pool, volume).then_some((target, to))
            })
            .collect();
        let Ok(places) = places(self.m, here.domain, here.state, self.ctx.resources) else { return found };
        for wish in wishes {
            if let Some(Some(place)) = places.get(wish.index) {
                self.disk_move(here, wish, place, &mut found);
            }
        }
        let mut after = here.domain.clone();
        for planned in found.moves.iter().filter(|p| p.blocks.is_empty()) {
            for xml in [&mut after.live_xml, &mut after.persistent_xml].into_iter().flatten() {
                let (target, path) = (&planned.place.target, &planned.wish.path);
                let format = super::storage::format_name(planned.wish.format);
                if let Ok(Some(moved)) = domain_xml::with_disk_at(xml, target, path, planned.block, format) {
                    *xml = moved;
                }
            }
        }
        if !found.moves.is_empty() {
            let mut still = self.m.clone();
            for planned in found.moves.iter().filter(|p| p.from.is_some() || !p.blocks.is_empty()) {
                if let Some(disk) = still.spec.disks.iter_mut().flatten().nth(planned.wish.index) {
                    disk.file = Some(planned.place.path.clone());
                    (disk.pool, disk.volume, disk.image, disk.backing_image) = (None, None, None, None);
                    (disk.size, disk.format, disk.block) = (None, None, None);
                }
            }
            found.still = Some(still);
            found.after = Some(after);
        }
        found
    }

    fn disk_move(&self, here: Here<'_>, wish: VolumeWish, place: &Place, found: &mut DiskMoves) {
        let Some(disk) = self.m.spec.disks.iter().flatten().nth(wish.index) else { return };
        let Some(pool) = self.ctx.resources.storage_pools.get(&wish.pool) else { return };
        if disk.device != DiskDevice::Disk {
            return;
        }
        let marked = is_marked(here.state, &wish.libvirt_pool, &wish.volume);
        let block = is_block(pool.spec.r#type);
        let shared_with = if pool.spec.shared { pool.spec.hosts.clone() } else { Vec::new() };
        let planned = |from, blocks| Planned {
            place: place.clone(),
            from,
            block,
            blocks,
            shared_with,
            kept: None,
            wish: wish.clone(),
        };
        if place.path == wish.path {
            if marked {
                found.moves.push(planned(None, Vec::new()));
            }
            return;
        }
        if place.is_wanted {
            return;
        }
        let Some((from_pool, from_volume, state)) = volume_at(here.state, &place.path) else {
            let block = Block {
                code: Code::CannotMove,
                reason: format!(
                    "disk `{}` is to be in pool `{}`, and its image {} is in no started pool of `{}`, so it cannot be moved",
                    wish.disk, wish.pool, place.path, here.host
                ),
                way_out: "declare a StoragePool for the image's folder, or refresh the pool (`virsh pool-refresh`)"
                    .into(),
            };
            found.moves.push(planned(None, vec![block]));
            return;
        };
        let there = here.state.pools.get(&wish.libvirt_pool).and_then(|p| p.volumes.get(&wish.volume));
        let there = there.or_else(|| self.shared(&wish)).filter(|_| !marked);
        // Another volume by name is another disk, and takes the place of this one at the next restart. One that is not there
        // is no disk yet: in the same pool as well, where another format asks for it.
        let is_another =
            from_pool == wish.libvirt_pool || disk.volume.as_deref().is_some_and(|name| name != from_volume);
        if is_another && (there.is_some() || wish.must_exist) {
            return;
        }
        let mut blocks = Vec::new();
        let mut block = |code, reason: String, way_out: &str| {
            blocks.push(Block { code, reason, way_out: way_out.into() });
        };
        if there.is_some() {
            block(
                Code::CannotMove,
                format!("pool `{}` has a volume `{}` already, and it is not overwritten", wish.pool, wish.volume),
                "look at what it is, and remove or rename it (`virsh vol-delete`); or give the disk another `volume`",
            );
        }
        if place.shareable {
            block(
                Code::CannotMove,
                format!("disk `{}` is shareable: a copy would be another disk", wish.disk),
                "move it by hand, with all machines that have it off",
            );
        }
        if place.read_only && here.domain.is_active() {
            block(
                Code::CannotMove,
                format!("disk `{}` is read-only, and libvirt copies none while its machine runs", wish.disk),
                "stop the machine first (`powerState: Stopped`)",
            );
        }
        if let Some(kind) = place.peculiar {
            block(
                Code::CannotMove,
                format!("disk `{}` is {kind}: a copy would not be what it is", wish.disk),
                "copy it by hand, with the machine off",
            );
        }
        if here.domain.snapshots > 0 || here.domain.managed_save {
            block(
                Code::CannotMove,
                "it has snapshots or a saved memory image, which name the old disk".into(),
                "delete them (`virsh snapshot-delete`, `virsh managedsave-remove`)",
            );
        }
        if here.domain.checkpoints > 0 {
            block(
                Code::CannotMove,
                "it has checkpoints, whose bitmaps are in the old volume: the next incremental backup would miss changes"
                    .into(),
                "delete them (`virsh checkpoint-delete`), and begin with a full backup afterwards",
            );
        }
        if let Some(who) = marked.then(|| self.others_with(here, &wish.libvirt_pool, &wish.path)).flatten() {
            block(
                Code::CannotMove,
                format!("half a copy lies at volume `{}` of pool `{}`, and {who}", wish.volume, wish.pool),
                "it is made anew once nobody else can have it",
            );
        }
        let pool_there = here.state.pools.get(&wish.libvirt_pool);
        if !pool_there.is_some_and(|p| p.active) && !pool.spec.hosts.iter().any(|h| h == here.host) {
            block(
                Code::Incompatible,
                format!("`{}` does not have the pool `{}` of disk `{}`", here.host, wish.libvirt_pool, wish.disk),
                "add the host to the pool's `hosts`",
            );
        }
        if let Some(room) = pool_there.filter(|p| p.active && !marked).map(|p| p.available)
            && room < state.allocation
        {
            block(
                Code::CannotMove,
                format!(
                    "pool `{}` has {} free, disk `{}` takes {}",
                    wish.pool,
                    Bytes(room >> 20 << 20),
                    wish.disk,
                    Bytes(state.allocation)
                ),
                "make room there",
            );
        }
        let from = DiskPlace { pool: from_pool.into(), volume: from_volume.into(), path: place.path.clone() };
        let kept = self.others_with(here, &from.pool, &from.path);
        found.moves.push(Planned { kept, ..planned(Some((from, state.clone())), blocks) });
    }

    /// Who else may have a volume of a pool, in words: a machine on a host that the pool reaches, an image over it, or a
    /// host of the pool that could not be read. Those of the host itself are seen by the step, at the last moment.
    fn others_with(&self, here: Here<'_>, libvirt_pool: &str, path: &str) -> Option<String> {
        let declared: Vec<_> = self
            .ctx
            .resources
            .storage_pools
            .values()
            .filter(|p| p.spec.libvirt_name(p.name()) == libvirt_pool && p.spec.hosts.iter().any(|h| h == here.host))
            .collect();
        // Of a pool that nobody declared it is not known whom it reaches.
        let reaches = |host: &str| {
            declared.is_empty()
                || declared.iter().any(|p| {
                    let is_on = p.spec.hosts.iter().any(|h| h == host);
                    is_on && (p.spec.shared || sharing(p, self.ctx.observed, here.host, host) == Sharing::Same)
                })
        };
        if let Some((host, why)) = self.ctx.survey.unknown().iter().find(|(host, _)| reaches(host)) {
            return Some(format!("`{host}`, which may use it, could not be read: {why}"));
        }
        for (host, reading) in &self.ctx.observed.hosts {
            let Reading::Present(state) = reading else { continue };
            if host != here.host && !reaches(host) {
                continue;
            }
            let above = state.pools.values().flat_map(|p| &p.volumes).find(|(_, v)| v.backing.as_deref() == Some(path));
            if let Some((volume, _)) = above {
                return Some(format!("volume `{volume}` on `{host}` is an overlay over it"));
            }
            let others = state.domains.iter().filter(|d| d.uuid != here.domain.uuid);
            if let Some(other) = others.into_iter().find(|d| has_disk(d, state, path)) {
                return Some(format!("`{}` on `{host}` has it as a disk", other.name));
            }
        }
        None
    }

    /// Drafts the end of copies that run.
    pub(super) fn end_copies<'c>(
        &self,
        here: Here<'_>,
        copies: impl IntoIterator<Item = &'c (String, DiskPlace)>,
        why: &str,
        chain: &mut super::Chain,
        out: &mut Drafts,
    ) {
        for (target, to) in copies {
            self.note(Operation::Update, out);
            let host = here.host;
            let action = MachineAction::CancelDiskMove {
                host: host.into(),
                uuid: here.domain.uuid,
                target: target.clone(),
                to: to.clone(),
            };
            let summary = format!("abort the copy of disk {target} of {} to pool {} on {host}", self.m.name(), to.pool);
            chain.push(self.step(action, summary, why), out);
        }
    }

    /// The disks of a machine that is elsewhere for a while: they stay where they are, and what its home would not have is
    /// not made.
    pub(super) fn disks_away(&self, here: Here<'_>, out: &mut Drafts) -> DiskMoves {
        let mut found = self.disk_moves(here);
        found.put_off("it is elsewhere for a while", "its disk moves when it is home again");
        let (Ok(wishes), Ok(places)) = (
            volumes(self.m, here.state, self.ctx.resources),
            places(self.m, here.domain, here.state, self.ctx.resources),
        ) else {
            return found;
        };
        let is_at_home = |wish: &VolumeWish| {
            let pool = self.ctx.resources.storage_pools.get(&wish.pool);
            pool.is_some_and(|p| p.spec.shared && p.spec.hosts.iter().any(|h| h == here.keeper))
                || here.domain.persistent_xml.as_deref().is_some_and(|xml| xml.contains(&wish.path))
        };
        let is_new = |wish: &&VolumeWish| {
            !wish.must_exist && matches!(places.get(wish.index), None | Some(None)) && !found.concerns(wish.index)
        };
        let later: Vec<&VolumeWish> = wishes.iter().filter(is_new).filter(|w| !is_at_home(w)).collect();
        if later.is_empty() {
            return found;
        }
        for wish in &later {
            let path = format!("spec.disks[{}]", wish.disk);
            self.change(&path, Value::Null, json!({"pool": wish.pool, "volume": wish.volume}), Effect::None, out);
            out.finding(
                Finding::new(
                    Code::InProgress,
                    format!(
                        "`{}` is elsewhere for a while: its new disk `{}` in pool `{}`, which `{}` does not share with `{}`, is made when it is home again",
                        self.m.name(),
                        wish.disk,
                        wish.pool,
                        here.keeper,
                        here.host
                    ),
                )
                .of(self.m, &format!("spec.disks[{}]", wish.index))
                .hint("put it on storage that both hosts share to have it at once"),
            );
        }
        found.later = later.iter().map(|w| w.index).collect();
        let mut still = found.still.take().unwrap_or_else(|| self.m.clone());
        if let Some(disks) = &mut still.spec.disks {
            let mut index = 0;
            disks.retain(|_| {
                index += 1;
                !found.later.contains(&(index - 1))
            });
        }
        found.still = Some(still);
        found
    }

    /// Drafts the moves after what is in the chain. `owner` is the mark that the machine has before them.
    pub(super) fn move_disks(
        &self,
        here: Here<'_>,
        moves: &DiskMoves,
        owner: &OwnerMark,
        chain: &mut super::Chain,
        out: &mut Drafts,
    ) {
        let policy = self.policy();
        let mut owner = owner.clone();
        for planned in &moves.moves {
            let step = self.move_one(here, planned, &policy, &mut owner, out);
            if !step.blocked_by.is_empty() {
                // The machine stays on the old disk: nothing else has to wait.
                out.step(step);
                continue;
            }
            let id = chain.push(step, out);
            let after = Here { domain: moves.after.as_ref().unwrap_or(here.domain), ..here };
            if let Some((_, state)) = &planned.from {
                let grown = self.grow(here.host, &planned.wish, state.capacity, Some(after.domain), Some(id), out);
                chain.join(grown);
            }
        }
    }

    fn move_one(
        &self,
        here: Here<'_>,
        planned: &Planned,
        policy: &MigrationPolicySpec,
        owner: &mut OwnerMark,
        out: &mut Drafts,
    ) -> crate::plan::StepDraft {
        let Planned { wish, place, from, .. } = planned;
        let runs = here.domain.is_active();
        let delete_source = policy.delete_source_copies && from.is_some() && planned.kept.is_none();
        if planned.blocks.is_empty() {
            if let (true, Some((old, _))) = (delete_source, from) {
                owner.volumes.retain(|v| v.pool != old.pool || v.volume != old.volume);
            }
            owner.volumes.push(OwnedVolume { pool: wish.libvirt_pool.clone(), volume: wish.volume.clone() });
            owner.volumes.sort();
            owner.volumes.dedup();
        }
        let action = DiskMove {
            host: here.host.into(),
            uuid: here.domain.uuid,
            name: here.domain.name.clone(),
            target: place.target.clone(),
            from: from.as_ref().map(|(from, _)| from.clone()),
            to: planned.to(),
            block: planned.block,
            format: super::storage::format_name(wish.format).into(),
            delete_source,
            bandwidth_mib: copy_rate(policy),
            owner: owner.clone(),
        };
        self.note(Operation::Update, out);
        let (summary, why) = match from {
            Some((from, _)) => {
                let old = if delete_source {
                    format!(
                        "the old volume {} in pool {} is deleted afterwards (`deleteSourceCopies`)",
                        from.volume, from.pool
                    )
                } else {
                    let why = match planned.kept.as_ref().filter(|_| policy.delete_source_copies) {
                        Some(why) => format!(", because {why}"),
                        None => String::new(),
                    };
                    format!("the old volume {} stays in pool {}{why}", from.volume, from.pool)
                };
                let (verb, way) = match (runs, from.pool == wish.libvirt_pool) {
                    (true, true) => ("live-copy", format!("to volume {} of its pool {}", wish.volume, from.pool)),
                    (false, true) => ("copy", format!("to volume {} of its pool {}", wish.volume, from.pool)),
                    (true, false) => ("live-move", format!("from pool {} to {}", from.pool, wish.libvirt_pool)),
                    (false, false) => ("move", format!("from pool {} to {}", from.pool, wish.libvirt_pool)),
                };
                (
                    format!("{verb} disk {} of {} {way} on {}", wish.disk, self.m.name(), here.host),
                    match from.pool == wish.libvirt_pool {
                        true => format!("the manifest asks for a volume `{}`; {old}", wish.volume),
                        false => format!("the manifest says `{}`; {old}", wish.pool),
                    },
                )
            }
            None => (
                format!(
                    "finish the move of disk {} of {} to pool {} on {}",
                    wish.disk,
                    self.m.name(),
                    wish.libvirt_pool,
                    here.host
                ),
                "an earlier run moved it and did not come to its end".to_owned(),
            ),
        };
        let effect = if runs { Effect::Live } else { Effect::None };
        let (field, before, after) = match from {
            Some((from, _)) if from.pool == wish.libvirt_pool => ("volume", json!(from.volume), json!(wish.volume)),
            Some((from, _)) => ("pool", json!(from.pool), json!(wish.pool)),
            None => ("pool", json!(place.path), json!(wish.pool)),
        };
        self.change(&format!("spec.disks[{}].{field}", wish.disk), before, after, effect, out);
        for block in &planned.blocks {
            out.finding(
                Finding::new(block.code, block.reason.clone())
                    .of(self.m, &format!("spec.disks[{}].pool", wish.index))
                    .hint(block.way_out.clone()),
            );
        }
        let mut step = self.step(MachineAction::MoveDisk(Box::new(action)), summary, why);
        let bytes = from.as_ref().map_or(0, |(_, state)| state.allocation);
        let rate = policy.bandwidth.map_or(COPY_RATE, |rate| rate.bytes_per_second().clamp(1, COPY_RATE));
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let seconds = (bytes as f64 / rate as f64 * 10.0).round() / 10.0;
        step.estimate = Estimate { seconds: seconds + 1.0, bytes, ..Estimate::default() };
        // The guest waits for its disk for a moment when it is switched over.
        step.disruption = if runs && from.is_some() { Disruption::Brief } else { Disruption::None };
        step.interruption = Interruption::Drainable;
        step.needs.push(Fact::PoolActive { host: here.host.into(), pool: wish.libvirt_pool.clone() });
        step.offers.push(Fact::VolumeReady {
            host: here.host.into(),
            pool: wish.libvirt_pool.clone(),
            volume: wish.volume.clone(),
        });
        step.blocked_by.clone_from(&planned.blocks);
        step
    }
}
