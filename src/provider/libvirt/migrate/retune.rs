//! Changing a migration that is under way, because its policy changed.

use super::follow::set_downtime;
use crate::action::{Migration, Tuning};
use crate::provider::libvirt::connect::Host;
use crate::provider::libvirt::error::{During, Fault};
use virt_sys as sys;

/// libvirt's own word for "no limit": the most that QEMU takes, in MiB/s (`QEMU_DOMAIN_MIG_BANDWIDTH_MAX`).
const UNLIMITED: u64 = (i64::MAX as u64) >> 20;

/// Tells the source's libvirt of new limits. What it does not take is logged; the migration goes on as it was.
pub(super) async fn retune(from: &Host, now: &Migration, newer: &Migration) {
    if newer.bandwidth_mib != now.bandwidth_mib {
        set_speed(from, now, newer.bandwidth_mib, 0, "bandwidth").await;
    }
    let post_copy = |m: &Migration| m.tuning.post_copy_bandwidth_mib;
    if post_copy(newer) != post_copy(now) {
        let flag = sys::VIR_DOMAIN_MIGRATE_MAX_SPEED_POSTCOPY;
        set_speed(from, now, post_copy(newer), flag, "bandwidth of post-copy").await;
    }
    if newer.max_downtime_millis != now.max_downtime_millis {
        // 300 ms is libvirt's own.
        let millis = newer.max_downtime_millis.unwrap_or(300);
        if set_downtime(from, now.uuid, millis).await {
            tracing::info!(host = %from.name, uuid = %now.uuid, millis, "the longest pause of a running migration is another now");
        }
    }
}

/// Takes over what can be changed while a migration runs; what its start settled stays.
pub(super) fn take(now: &mut Migration, newer: Migration, began_with_post_copy: bool) {
    now.bandwidth_mib = newer.bandwidth_mib;
    now.max_downtime_millis = newer.max_downtime_millis;
    now.timeout_millis = newer.timeout_millis;
    let Tuning { downtime_up_to_millis, downtime_every_millis, post_copy_bandwidth_mib, at_timeout, .. } = newer.tuning;
    now.tuning = Tuning {
        downtime_up_to_millis,
        downtime_every_millis,
        post_copy_bandwidth_mib,
        at_timeout,
        ..std::mem::take(&mut now.tuning)
    };
    if began_with_post_copy {
        now.post_copy_after_millis = newer.post_copy_after_millis;
        now.tuning.post_copy_passes = newer.tuning.post_copy_passes;
    }
}

async fn set_speed(
    from: &Host,
    m: &Migration,
    mib: Option<u64>,
    flags: sys::virDomainMigrateMaxSpeedFlags,
    what: &str,
) {
    let (uuid, limit) = (m.uuid, mib.unwrap_or(UNLIMITED));
    let set: Result<(), Fault> = from
        .call("set the bandwidth", move |c| {
            c.lookup_domain_by_uuid_string(&uuid.to_string())
                .and_then(|d| d.migrate_set_max_speed(limit, flags))
                .during("set the bandwidth")
        })
        .await;
    match set {
        Ok(()) => tracing::info!(host = %from.name, %uuid, mib, "the {what} of a running migration is another now"),
        Err(fault) => tracing::warn!(host = %from.name, %uuid, error = %fault, "the {what} cannot be changed now"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{AtTimeout, MigrationWay};

    #[test]
    fn what_a_migrations_start_settled_stays() {
        let way = MigrationWay::Live;
        let began = Migration::new(uuid::Uuid::nil(), "web-1", ["a", "b"], way, String::new());
        let mut newer = began.clone();
        newer.bandwidth_mib = Some(10);
        newer.parallel = Some(4);
        newer.post_copy_after_millis = Some(1);
        newer.tuning = Tuning { tls: true, at_timeout: AtTimeout::Suspend, ..Tuning::default() };
        let mut now = began.clone();
        take(&mut now, newer, false);
        let tuning = Tuning { at_timeout: AtTimeout::Suspend, ..Tuning::default() };
        assert_eq!(now, Migration { bandwidth_mib: Some(10), tuning, ..began });
    }
}
