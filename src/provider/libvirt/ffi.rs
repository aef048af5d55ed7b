//! The one room with `unsafe`: what the `virt` crate lacks, or does unsoundly, straight from `virt-sys`.
//!
//! - Job statistics: `virt::Domain::job_stats` builds a `Vec` from a null pointer when there is no job (undefined
//!   behaviour, an abort in a debug build) and frees C memory with Rust's allocator.
//! - State: `virt::Domain::state` drops the error, so that a failed call reads as an unknown state.
//! - Migration parameters: `virt::domain::MigrateParameters` leaks every string it is given.
//! - Aborting a job, the switch to post-copy, sparse streams, checkpoints: absent.
//! - Block jobs: absent (`block.rs`).
//! - Events of domains, pools and the connection itself: absent (`events.rs`).
//! - The baseline of CPUs and their comparison with a hypervisor's: absent (`cpu.rs`).
//! - Dirty rates: absent; statistics of domains leak every record (`dirty.rs`).
//!
//! Each function borrows a live `virt` object for the whole call, hands libvirt only pointers that outlive it, and frees
//! what libvirt allocated with libvirt's own function. Nothing else in the crate may use `unsafe`.
#![allow(unsafe_code)]

mod block;
pub(super) mod cpu;
pub(super) mod dirty;
mod events;

pub(super) use block::{BlockJob, block_copy, block_job, end_block_job, set_block_job_speed};
pub(super) use events::{Listening, Told};

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_longlong, c_uint};
use std::ptr;
use std::sync::Once;
use std::time::Duration;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt::stream::Stream;
use virt_sys as sys;

/// Prepares libvirt for this process, once, before the first connection: the event loop that keepalive and events need must
/// be registered before a connection opens, and libvirt's habit of printing every error to standard error is ended.
pub(super) fn initialise() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        virt::error::clear_error_callback();
        if let Err(e) = virt::event::event_register_default_impl() {
            tracing::warn!(
                error = e.message(),
                "libvirt's event loop cannot be registered: dead connections are noticed late, changes on hosts by the next full pass"
            );
            return;
        }
        let spawned = std::thread::Builder::new().name("libvirt-events".into()).spawn(|| {
            loop {
                if virt::event::event_run_default_impl().is_err() {
                    // Never seen; a loop that fails at once must not burn a core.
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        });
        if let Err(e) = spawned {
            tracing::warn!(error = %e, "no thread for libvirt's event loop: dead connections are noticed late, changes on hosts by the next full pass");
        }
    });
}

/// A domain's state and reason as libvirt's numbers (`virDomainGetState`).
pub(super) fn state(domain: &Domain) -> Result<(c_uint, c_int), Error> {
    let (mut state, mut reason): (c_int, c_int) = (0, 0);
    // SAFETY: the domain is alive for the call; both out pointers are to locals.
    let result = unsafe { sys::virDomainGetState(domain.as_ptr(), &mut state, &mut reason, 0) };
    if result < 0 { Err(Error::last_error()) } else { Ok((state.max(0).unsigned_abs(), reason)) }
}

/// Memory of a host that its kernel gives back at once, in bytes: buffers and page cache (`virNodeGetMemoryStats`).
pub(super) fn reclaimable_memory(connect: &Connect) -> Result<u64, Error> {
    let mut count: c_int = 0;
    // SAFETY: the connection is alive; asked for nothing, libvirt only says how many figures there are.
    let asked = unsafe {
        sys::virNodeGetMemoryStats(
            connect.as_ptr(),
            sys::VIR_NODE_MEMORY_STATS_ALL_CELLS,
            std::ptr::null_mut(),
            &mut count,
            0,
        )
    };
    if asked < 0 {
        return Err(Error::last_error());
    }
    let blank = sys::virNodeMemoryStats { field: [0; 80], value: 0 };
    let mut figures = vec![blank; usize::try_from(count).unwrap_or(0)];
    // SAFETY: there is room for as many figures as `count` says.
    let read = unsafe {
        sys::virNodeGetMemoryStats(
            connect.as_ptr(),
            sys::VIR_NODE_MEMORY_STATS_ALL_CELLS,
            figures.as_mut_ptr(),
            &mut count,
            0,
        )
    };
    if read < 0 {
        return Err(Error::last_error());
    }
    let kibibytes = |name: &str| {
        let is_it = |one: &&sys::virNodeMemoryStats| {
            one.field.iter().take_while(|c| **c != 0).map(|c| c.cast_unsigned()).eq(name.bytes())
        };
        figures.iter().find(is_it).map_or(0, |one| one.value)
    };
    Ok((kibibytes("buffers") + kibibytes("cached")).saturating_mul(1024))
}

/// Disks of a running domain that have given errors, with what (`virDomainGetDiskErrors`).
pub(super) fn disk_errors(domain: &Domain) -> Result<Vec<(String, &'static str)>, Error> {
    // SAFETY: asked for nothing, libvirt only says how much room is needed.
    let room = unsafe { sys::virDomainGetDiskErrors(domain.as_ptr(), std::ptr::null_mut(), 0, 0) };
    if room < 0 {
        return Err(Error::last_error());
    }
    let mut errors: Vec<sys::virDomainDiskError> = Vec::new();
    errors.resize_with(usize::try_from(room).unwrap_or(0), || sys::virDomainDiskError {
        disk: std::ptr::null_mut(),
        error: 0,
    });
    // SAFETY: there is room for as many records as are announced.
    let found =
        unsafe { sys::virDomainGetDiskErrors(domain.as_ptr(), errors.as_mut_ptr(), room.max(0).unsigned_abs(), 0) };
    if found < 0 {
        return Err(Error::last_error());
    }
    let record = |one: &sys::virDomainDiskError| {
        let words = match u32::try_from(one.error) {
            Ok(sys::VIR_DOMAIN_DISK_ERROR_NO_SPACE) => "no space is left",
            _ => "an I/O error",
        };
        // SAFETY: libvirt filled this record with a string that the caller owns.
        let name = unsafe { CStr::from_ptr(one.disk) }.to_string_lossy().into_owned();
        // SAFETY: allocated by libvirt with malloc, freed once.
        unsafe { libc::free(one.disk.cast()) };
        (name, words)
    };
    Ok(errors.iter().take(usize::try_from(found).unwrap_or(0)).filter(|one| !one.disk.is_null()).map(record).collect())
}

/// How many checkpoints a domain has (`virDomainListAllCheckpoints`).
pub(super) fn checkpoints(domain: &Domain) -> Result<u32, Error> {
    // SAFETY: the domain is alive for the call; libvirt only counts where it is given no place for a list.
    let count = unsafe { sys::virDomainListAllCheckpoints(domain.as_ptr(), ptr::null_mut(), 0) };
    u32::try_from(count).map_err(|_| Error::last_error())
}

/// The statistics of a job (`virDomainGetJobStats`).
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct JobStats {
    /// `virDomainJobType`; 0 is no job.
    pub kind: c_int,
    numbers: BTreeMap<String, u64>,
}

impl JobStats {
    /// A numeric field by the name that libvirt-domain.h gives it (`memory_processed`); 0 where it is not there.
    pub(super) fn number(&self, field: &str) -> u64 {
        self.numbers.get(field).copied().unwrap_or(0)
    }

    /// Whether a job is under way.
    pub(super) fn is_running(&self) -> bool {
        matches!(u32::try_from(self.kind), Ok(sys::VIR_DOMAIN_JOB_BOUNDED | sys::VIR_DOMAIN_JOB_UNBOUNDED))
    }

    #[cfg(test)]
    pub(super) fn of(kind: c_int, numbers: &[(&str, u64)]) -> Self {
        Self { kind, numbers: numbers.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect() }
    }
}

/// The statistics of the job that runs on a domain, or of the last one that completed.
pub(super) fn job_stats(domain: &Domain, completed: bool) -> Result<JobStats, Error> {
    let mut kind: c_int = 0;
    let mut params: sys::virTypedParameterPtr = ptr::null_mut();
    let mut count: c_int = 0;
    let flags =
        if completed { sys::VIR_DOMAIN_JOB_STATS_COMPLETED | sys::VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED } else { 0 };
    // SAFETY: the domain is alive for the call; all out pointers are to locals. On success libvirt has stored an array of
    // `count` parameters, or null where there is no job.
    let result = unsafe { sys::virDomainGetJobStats(domain.as_ptr(), &mut kind, &mut params, &mut count, flags) };
    if result < 0 {
        return Err(Error::last_error());
    }
    let mut numbers = BTreeMap::new();
    if !params.is_null() {
        let length = usize::try_from(count).unwrap_or(0);
        // SAFETY: not null, and libvirt says how many there are; the slice ends before the array is freed.
        for param in unsafe { std::slice::from_raw_parts(params, length) } {
            if let Some(value) = number(param) {
                numbers.insert(field(param), value);
            }
        }
        // SAFETY: allocated by libvirt in the call above, freed once, not used afterwards.
        unsafe { sys::virTypedParamsFree(params, count) };
    }
    Ok(JobStats { kind, numbers })
}

/// A parameter's name: NUL-terminated within its 80 bytes, which is checked rather than trusted.
fn field(param: &sys::virTypedParameter) -> String {
    #[expect(clippy::cast_sign_loss, reason = "c_char is signed on some platforms; the bytes are what matters")]
    let bytes: Vec<u8> = param.field.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A parameter's value where it is a number that is not negative.
fn number(param: &sys::virTypedParameter) -> Option<u64> {
    // SAFETY: `type_` says which member of the union libvirt wrote; all of these are plain numbers.
    unsafe {
        match u32::try_from(param.type_).ok()? {
            sys::VIR_TYPED_PARAM_INT => u64::try_from(param.value.i).ok(),
            sys::VIR_TYPED_PARAM_UINT => Some(param.value.ui.into()),
            sys::VIR_TYPED_PARAM_LLONG => u64::try_from(param.value.l).ok(),
            sys::VIR_TYPED_PARAM_ULLONG => Some(param.value.ul),
            sys::VIR_TYPED_PARAM_BOOLEAN => Some(u64::from(param.value.b != 0)),
            _ => None,
        }
    }
}

/// Aborts the job on a domain (`virDomainAbortJob`). libvirt refuses it in post-copy.
pub(super) fn abort_job(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain is alive for the call.
    if unsafe { sys::virDomainAbortJob(domain.as_ptr()) } < 0 { Err(Error::last_error()) } else { Ok(()) }
}

/// Switches a migration that was begun with `VIR_MIGRATE_POSTCOPY` to post-copy (`virDomainMigrateStartPostCopy`).
pub(super) fn start_post_copy(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain is alive for the call.
    if unsafe { sys::virDomainMigrateStartPostCopy(domain.as_ptr(), 0) } < 0 {
        Err(Error::last_error())
    } else {
        Ok(())
    }
}

/// Parameters of a migration, in memory that libvirt owns and this value frees.
pub(super) struct MigrationParameters {
    params: sys::virTypedParameterPtr,
    count: c_int,
    room: c_int,
}

impl MigrationParameters {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { params: ptr::null_mut(), count: 0, room: 0 }
    }

    /// Adds a text; libvirt copies it.
    pub(super) fn text(&mut self, name: &CStr, value: &str) -> Result<(), Error> {
        let value = CString::new(value)?;
        // SAFETY: the three out pointers are this value's own fields; name and value outlive the call, which copies them.
        let result = unsafe {
            sys::virTypedParamsAddString(
                &mut self.params,
                &mut self.count,
                &mut self.room,
                name.as_ptr(),
                value.as_ptr(),
            )
        };
        if result < 0 { Err(Error::last_error()) } else { Ok(()) }
    }

    /// Adds a signed number.
    pub(super) fn int(&mut self, name: &CStr, value: i32) -> Result<(), Error> {
        // SAFETY: as in `text`.
        let result = unsafe {
            sys::virTypedParamsAddInt(&mut self.params, &mut self.count, &mut self.room, name.as_ptr(), value)
        };
        if result < 0 { Err(Error::last_error()) } else { Ok(()) }
    }

    /// Adds a large number.
    pub(super) fn ullong(&mut self, name: &CStr, value: u64) -> Result<(), Error> {
        // SAFETY: as in `text`.
        let result = unsafe {
            sys::virTypedParamsAddULLong(&mut self.params, &mut self.count, &mut self.room, name.as_ptr(), value)
        };
        if result < 0 { Err(Error::last_error()) } else { Ok(()) }
    }
}

impl Drop for MigrationParameters {
    fn drop(&mut self) {
        // SAFETY: allocated by libvirt's Add functions, freed once; null with a count of 0 is allowed.
        unsafe { sys::virTypedParamsFree(self.params, self.count) };
    }
}

/// Moves a domain (`virDomainMigrateToURI3`). Blocks until the migration ends, for hours if need be.
pub(super) fn migrate(
    domain: &Domain,
    destination: &str,
    parameters: &MigrationParameters,
    flags: sys::virDomainMigrateFlags,
) -> Result<(), Error> {
    let destination = CString::new(destination)?;
    // SAFETY: domain, URI and parameters are borrowed for the whole call; libvirt does not keep or change them.
    let result = unsafe {
        sys::virDomainMigrateToURI3(
            domain.as_ptr(),
            destination.as_ptr(),
            parameters.params,
            parameters.count.max(0).unsigned_abs(),
            flags,
        )
    };
    if result < 0 { Err(Error::last_error()) } else { Ok(()) }
}

/// Moves a domain over this program's own connections to both daemons (`virDomainMigrate3`). Blocks until the migration
/// ends; it is cancelled when this program dies.
pub(super) fn migrate_managed(
    domain: &Domain,
    destination: &Connect,
    parameters: &MigrationParameters,
    flags: sys::virDomainMigrateFlags,
) -> Result<(), Error> {
    // SAFETY: domain, connection and parameters are borrowed for the whole call; libvirt does not keep or change them.
    let moved = unsafe {
        sys::virDomainMigrate3(
            domain.as_ptr(),
            destination.as_ptr(),
            parameters.params,
            parameters.count.max(0).unsigned_abs(),
            flags,
        )
    };
    if moved.is_null() {
        return Err(Error::last_error());
    }
    // SAFETY: a reference to the moved domain that the caller owns; dropping it gives it back.
    drop(unsafe { Domain::from_ptr(moved) });
    Ok(())
}

/// What comes next in a sparse stream.
pub(super) enum Piece {
    /// So many bytes were put into the buffer.
    Data(usize),
    /// A hole of so many bytes.
    Hole(i64),
    /// The end.
    End,
}

/// Receives from a sparse stream (`virStreamRecvFlags` with `VIR_STREAM_RECV_STOP_AT_HOLE`).
pub(super) fn receive(stream: &Stream, buffer: &mut [u8]) -> Result<Piece, Error> {
    // SAFETY: the stream is alive for the call; libvirt writes at most `len` bytes into the buffer.
    let result = unsafe {
        sys::virStreamRecvFlags(
            stream.as_ptr(),
            buffer.as_mut_ptr().cast::<c_char>(),
            buffer.len(),
            sys::VIR_STREAM_RECV_STOP_AT_HOLE,
        )
    };
    match result {
        -3 => {
            let mut length: c_longlong = 0;
            // SAFETY: as above; the out pointer is to a local.
            if unsafe { sys::virStreamRecvHole(stream.as_ptr(), &mut length, 0) } < 0 {
                return Err(Error::last_error());
            }
            Ok(Piece::Hole(length))
        }
        0 => Ok(Piece::End),
        n => usize::try_from(n).map(Piece::Data).map_err(|_| Error::last_error()),
    }
}

/// Sends a hole into a sparse stream (`virStreamSendHole`).
pub(super) fn send_hole(stream: &Stream, length: i64) -> Result<(), Error> {
    // SAFETY: the stream is alive for the call.
    if unsafe { sys::virStreamSendHole(stream.as_ptr(), length, 0) } < 0 { Err(Error::last_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use virt::connect::Connect;

    #[test]
    fn a_domain_without_a_job_has_no_statistics_and_the_state_is_read() {
        initialise();
        let connect = Connect::open(Some("test:///default")).unwrap();
        let domain = connect.lookup_domain_by_name("test").unwrap();
        // The test driver has no job statistics: the call fails, and must fail tidily.
        assert!(job_stats(&domain, false).map_or(true, |s| !s.is_running()));
        assert_eq!(state(&domain).unwrap().0, sys::VIR_DOMAIN_RUNNING);
    }

    #[test]
    fn parameters_take_what_a_migration_needs() {
        let mut p = MigrationParameters::new();
        p.text(sys::VIR_MIGRATE_PARAM_URI, "tcp://10.0.0.2").unwrap();
        p.int(sys::VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS, 4).unwrap();
        p.ullong(sys::VIR_MIGRATE_PARAM_BANDWIDTH, 100).unwrap();
        assert!(p.text(sys::VIR_MIGRATE_PARAM_URI, "a\0b").is_err());
        assert_eq!(p.count, 3);
    }
}
