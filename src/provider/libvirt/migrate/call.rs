//! The call that moves a machine: a migration's flags and parameters in libvirt's words.

use super::{follow, live};
use crate::action::{Migration, Tuning};
use crate::provider::libvirt::error::{During, Fault};
use crate::provider::libvirt::ffi;
use virt_sys as sys;

/// The call that moves a machine; it holds its thread until the end.
pub(super) fn call(
    c: &virt::connect::Connect,
    m: &Migration,
    paused: bool,
    keeps_holes: bool,
    destination: Option<&virt::connect::Connect>,
) -> Result<(), Fault> {
    let what = || format!("move `{}` to host `{}`", m.name, m.to);
    let domain = c.lookup_domain_by_uuid_string(&m.uuid.to_string()).during(what())?;
    let mut parameters = ffi::MigrationParameters::new();
    let mut flags = 0;
    if m.permanent {
        flags |= sys::VIR_MIGRATE_PERSIST_DEST | sys::VIR_MIGRATE_UNDEFINE_SOURCE;
    }
    if m.arrive_paused && live(m) {
        flags |= sys::VIR_MIGRATE_PAUSED;
    }
    if let Some(name) = &m.rename {
        parameters.text(sys::VIR_MIGRATE_PARAM_DEST_NAME, name).during(what())?;
    }
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
        let post_copy = m.may_post_copy() && !paused && !m.arrive_paused;
        if post_copy {
            flags |= sys::VIR_MIGRATE_POSTCOPY;
        }
        flags |= tune(&m.tuning, post_copy, &mut parameters).during(what())?;
        if !m.copy.is_empty() {
            flags |= if m.incremental { sys::VIR_MIGRATE_NON_SHARED_INC } else { sys::VIR_MIGRATE_NON_SHARED_DISK };
            for v in &m.copy {
                parameters.text(sys::VIR_MIGRATE_PARAM_MIGRATE_DISKS, &v.target).during(what())?;
                if keeps_holes {
                    // Without it QEMU fills the whole of a raw image with zeroes first.
                    parameters.text(sys::VIR_MIGRATE_PARAM_MIGRATE_DISKS_DETECT_ZEROES, &v.target).during(what())?;
                }
            }
        }
        // Some releases take it only while a migration runs; the follower tries again then. libvirt's own is set, too: what
        // an aborted migration was given stays with the machine.
        let longest = m.max_downtime_millis.unwrap_or(follow::LONGEST_PAUSE);
        let _ = domain.migrate_set_max_downtime(longest, 0);
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
