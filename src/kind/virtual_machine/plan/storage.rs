//! A machine's volumes: made where they are missing, grown where they are too small, never overwritten, never shrunk.

use super::Draft;
use super::disk::DiskMoves;
use crate::action::{ImageSource, MachineAction};
use crate::finding::{Code, Finding, Severity};
use crate::kind::virtual_machine::{DiskFormat, VolumeWish, volumes};
use crate::model::Bytes;
use crate::observed::{DomainState, HostState, OwnedVolume, VolumeState};
use crate::plan::{Block, DraftId, Drafts, Effect, Estimate, Fact, Operation};
use serde_json::{Value, json};

impl Draft<'_> {
    /// Whether a volume that it should have is not on the host that it is on, and cannot be brought there before it moves
    /// to `target`.
    pub(super) fn lacks_volumes(&self, here: super::Here<'_>, moves: &DiskMoves, target: &str) -> bool {
        let has = |wish: &VolumeWish| match moves.concerns(wish.index) {
            true => moves.reaches(wish.index, target),
            false => here.state.pools.get(&wish.libvirt_pool).is_some_and(|p| p.volumes.contains_key(&wish.volume)),
        };
        volumes(self.m, here.state, self.ctx.resources).is_ok_and(|wishes| !wishes.iter().all(has))
    }

    /// Drafts its volumes on a host; gives the steps, and the volumes that Drover makes. Those that move are not made.
    pub(super) fn volumes(
        &self,
        host: &str,
        state: &HostState,
        domain: Option<&DomainState>,
        moves: &DiskMoves,
        out: &mut Drafts,
    ) -> (Vec<DraftId>, Vec<OwnedVolume>) {
        let mut steps = Vec::new();
        let mut made = Vec::new();
        let wishes = match volumes(self.m, state, self.ctx.resources) {
            Ok(wishes) => wishes,
            Err(finding) => {
                out.finding(finding);
                return (steps, made);
            }
        };
        for wish in wishes.into_iter().filter(|w| !moves.concerns(w.index)) {
            let pool = state.pools.get(&wish.libvirt_pool);
            let found =
                pool.filter(|p| p.active).and_then(|p| p.volumes.get(&wish.volume)).or_else(|| self.shared(&wish));
            let path = format!("spec.disks[{}]", wish.index);
            if let Some(volume) = found {
                steps.extend(self.grow(host, &wish, volume.capacity, domain, None, out));
                continue;
            }
            // A disk without a size or an image names a volume that somebody else makes.
            if wish.must_exist {
                if pool.is_some_and(|p| p.active) {
                    out.finding(
                        Finding::new(Code::MissingReference, format!("pool `{}` on `{host}` has no volume `{}`", wish.libvirt_pool, wish.volume))
                            .of(self.m, &path)
                            .hint("give the disk a `size` or an `image`, and it is made; or refresh the pool if the volume is there (`virsh pool-refresh`)"),
                    );
                }
                continue;
            }
            let source = wish.image.as_ref().or(wish.backing.as_ref());
            if let (Some(source), Some(pool)) = (source, pool.filter(|p| p.active))
                && !pool.volumes.contains_key(source)
            {
                out.finding(
                    Finding::new(Code::MissingReference, format!("pool `{}` on `{host}` does not list the image `{source}`", wish.libvirt_pool))
                        .severity(Severity::Warning)
                        .of(self.m, &format!("{path}.{}", if wish.image.is_some() { "image" } else { "backingImage" }))
                        .hint("put it there, or mend its name: the volume is not made without it. What came since the pool's last refresh is found when the volume is made"),
                );
            }
            // 0: as large as the image, whose pool is not started yet.
            let capacity = Bytes(wish.capacity.unwrap_or(0));
            let image = |name: &Option<String>| {
                name.as_ref().map(|v| ImageSource { pool: wish.libvirt_pool.clone(), volume: v.clone() })
            };
            let mut step = self.step(
                MachineAction::CreateVolume {
                    host: host.into(),
                    pool: wish.libvirt_pool.clone(),
                    volume: wish.volume.clone(),
                    capacity: capacity.0,
                    format: format_name(wish.format).into(),
                    image: image(&wish.image),
                    backing: image(&wish.backing),
                },
                format!("create volume {} ({capacity}) in pool {} on {host}", wish.volume, wish.libvirt_pool),
                match (&wish.image, &wish.backing) {
                    (Some(i), _) => format!("the pool does not have it; it is filled from {i}"),
                    (None, Some(b)) => format!("the pool does not have it; it is an overlay of {b}"),
                    (None, None) => "the pool does not have it".to_owned(),
                },
            );
            step.estimate = Estimate { seconds: 1.0, ..Estimate::default() };
            step.needs.push(Fact::PoolActive { host: host.into(), pool: wish.libvirt_pool.clone() });
            step.offers.push(Fact::VolumeReady {
                host: host.into(),
                pool: wish.libvirt_pool.clone(),
                volume: wish.volume.clone(),
            });
            if let Some(domain) = domain.filter(|d| uses(d, &wish.path)) {
                // The domain says that the disk is there and the pool says it is not: an empty one in its place would be
                // read as the machine's data.
                step.blocked_by.push(Block {
                    code: Code::NeedsAPerson,
                    reason: format!(
                        "`{}` already has this disk at {}, but the pool does not list it",
                        domain.name, wish.path
                    ),
                    way_out: format!(
                        "refresh the pool (`virsh pool-refresh {}`), or bring the image back",
                        wish.libvirt_pool
                    ),
                });
            }
            self.note(Operation::Update, out);
            self.change(
                &path,
                Value::Null,
                json!(format!("{}/{} ({capacity})", wish.libvirt_pool, wish.volume)),
                Effect::Live,
                out,
            );
            made.push(OwnedVolume { pool: wish.libvirt_pool.clone(), volume: wish.volume.clone() });
            steps.push(out.step(step));
        }
        (steps, made)
    }

    /// The volume as another host sees it, where the pool is one storage on all its hosts: a host lists what others made
    /// only after a refresh of its pool.
    pub(super) fn shared(&self, wish: &VolumeWish) -> Option<&VolumeState> {
        let pool = self.ctx.resources.storage_pools.get(&wish.pool).filter(|p| p.spec.shared)?;
        let states = pool.spec.hosts.iter().filter_map(|h| self.ctx.observed.host(h)?.pools.get(&wish.libvirt_pool));
        states.filter(|p| p.active).find_map(|p| p.volumes.get(&wish.volume))
    }

    /// Grows a volume, where the manifest asks for more than it is; after a step, where it comes into its pool with that.
    pub(super) fn grow(
        &self,
        host: &str,
        wish: &VolumeWish,
        is: u64,
        domain: Option<&DomainState>,
        after: Option<DraftId>,
        out: &mut Drafts,
    ) -> Option<DraftId> {
        let capacity = self.m.spec.disks.as_ref()?.get(wish.index)?.size?;
        let path = format!("spec.disks[{}].size", wish.index);
        let named = format!("spec.disks[{}].size", wish.disk);
        if capacity.0 == is {
            return None;
        }
        let before = json!(Bytes(is));
        if capacity.0 < is {
            self.change(&named, before.clone(), json!(capacity), Effect::Recreate, out);
            out.finding(
                Finding::new(
                    Code::RecreateNeeded,
                    format!("volume `{}` has {before}; a volume is never made smaller", wish.volume),
                )
                .of(self.m, &path)
                .hint(format!("write `size: {}`", Bytes(is))),
            );
            return None;
        }
        self.note(Operation::Update, out);
        self.change(&named, before.clone(), json!(capacity), Effect::Live, out);
        let running = domain.filter(|d| d.is_active()).and_then(|d| {
            let target = crate::domain_xml::disk_target(d.live_xml.as_deref()?, &wish.path)?;
            Some((d.uuid, target))
        });
        let mut step = self.step(
            MachineAction::ResizeVolume {
                host: host.into(),
                pool: wish.libvirt_pool.clone(),
                volume: wish.volume.clone(),
                capacity: capacity.0,
                running,
            },
            format!("grow volume {} in pool {} on {host} to {capacity}", wish.volume, wish.libvirt_pool),
            format!("it has {before}"),
        );
        step.after.extend(after);
        Some(out.step(step))
    }
}

/// Whether a domain has a disk at this path.
fn uses(domain: &DomainState, path: &str) -> bool {
    [&domain.live_xml, &domain.persistent_xml]
        .into_iter()
        .flatten()
        .any(|xml| crate::domain_xml::disk_target(xml, path).is_some())
}

pub(super) fn format_name(format: DiskFormat) -> &'static str {
    match format {
        DiskFormat::Qcow2 => "qcow2",
        DiskFormat::Raw => "raw",
    }
}
