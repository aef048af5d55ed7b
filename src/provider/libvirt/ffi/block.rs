//! Block jobs: what copies a running machine's disk. Absent from the `virt` crate.
//!
//! As in `ffi.rs`: each function borrows a live object for the whole call and hands libvirt only pointers that outlive it.

use super::MigrationParameters;
use std::ffi::{CString, c_ulong};
use virt::domain::Domain;
use virt::error::Error;
use virt_sys as sys;

/// A job on a disk (`virDomainGetBlockJobInfo`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::provider::libvirt) struct BlockJob {
    /// `virDomainBlockJobType`.
    pub kind: u32,
    /// How far it is, in bytes of its own counting.
    pub done: u64,
    /// Where it ends, as known now.
    pub end: u64,
}

/// The job on a disk, if there is one.
pub(in crate::provider::libvirt) fn block_job(domain: &Domain, target: &str) -> Result<Option<BlockJob>, Error> {
    let target = CString::new(target)?;
    let mut info = sys::_virDomainBlockJobInfo { type_: 0, bandwidth: 0, cur: 0, end: 0 };
    // SAFETY: domain and name are alive for the call; the out pointer is to a local.
    match unsafe { sys::virDomainGetBlockJobInfo(domain.as_ptr(), target.as_ptr(), &mut info, 0) } {
        0 => Ok(None),
        n if n > 0 => Ok(Some(BlockJob { kind: info.type_.max(0).unsigned_abs(), done: info.cur, end: info.end })),
        _ => Err(Error::last_error()),
    }
}

/// Begins to mirror a disk to the place that `destination`, a disk's XML, describes (`virDomainBlockCopy`). `bandwidth` in
/// bytes a second.
pub(in crate::provider::libvirt) fn block_copy(
    domain: &Domain,
    target: &str,
    destination: &str,
    bandwidth: Option<u64>,
    flags: sys::virDomainBlockCopyFlags,
) -> Result<(), Error> {
    let (target, destination) = (CString::new(target)?, CString::new(destination)?);
    let mut parameters = MigrationParameters::new();
    if let Some(bytes) = bandwidth {
        parameters.ullong(sys::VIR_DOMAIN_BLOCK_COPY_BANDWIDTH, bytes)?;
    }
    // SAFETY: domain, texts and parameters are alive for the call; libvirt neither keeps nor changes them.
    let result = unsafe {
        sys::virDomainBlockCopy(
            domain.as_ptr(),
            target.as_ptr(),
            destination.as_ptr(),
            parameters.params,
            parameters.count,
            flags,
        )
    };
    if result < 0 { Err(Error::last_error()) } else { Ok(()) }
}

/// Sets the limit of the job on a disk (`virDomainBlockJobSetSpeed`), in bytes a second; 0 takes it away.
pub(in crate::provider::libvirt) fn set_block_job_speed(
    domain: &Domain,
    target: &str,
    bytes: u64,
) -> Result<(), Error> {
    let target = CString::new(target)?;
    // The type is C's `unsigned long`.
    let bytes = c_ulong::try_from(bytes).unwrap_or(c_ulong::MAX);
    let flags = sys::VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES;
    // SAFETY: domain and name are alive for the call.
    let result = unsafe { sys::virDomainBlockJobSetSpeed(domain.as_ptr(), target.as_ptr(), bytes, flags) };
    if result < 0 { Err(Error::last_error()) } else { Ok(()) }
}

/// Ends the job on a disk: without flags the disk stays where it is, with `PIVOT` it goes over to the copy
/// (`virDomainBlockJobAbort`). Waits until that is so.
pub(in crate::provider::libvirt) fn end_block_job(
    domain: &Domain,
    target: &str,
    flags: sys::virDomainBlockJobAbortFlags,
) -> Result<(), Error> {
    let target = CString::new(target)?;
    // SAFETY: domain and name are alive for the call.
    let result = unsafe { sys::virDomainBlockJobAbort(domain.as_ptr(), target.as_ptr(), flags) };
    if result < 0 { Err(Error::last_error()) } else { Ok(()) }
}
