//! How fast a guest writes to its memory, and how much of it is in use.

use super::{field, number};
use std::collections::BTreeMap;
use std::ffi::c_int;
use std::ptr;
use std::time::Duration;
use virt::domain::Domain;
use virt::error::Error;
use virt_sys as sys;

/// Begins to measure a guest's dirty rate (`virDomainStartDirtyRateCalc`) over a period of 1 to 60 s. `mode` is libvirt's
/// flag. It takes the domain's state lock for a moment, so it fails while a migration runs.
pub(in super::super) fn start(domain: &Domain, period: Duration, mode: u32) -> Result<(), Error> {
    let seconds = c_int::try_from(period.as_secs()).unwrap_or(c_int::MAX);
    // SAFETY: the domain is alive for the call.
    if unsafe { sys::virDomainStartDirtyRateCalc(domain.as_ptr(), seconds, mode) } < 0 {
        Err(Error::last_error())
    } else {
        Ok(())
    }
}

/// Numbers of a domain by the names that libvirt-domain.h gives them (`dirtyrate.megabytes_per_second`, `balloon.rss`), from
/// `virDomainListGetStats`. Does not wait for a lock that somebody else holds: such numbers are not there then.
pub(in super::super) fn stats(domain: &Domain, which: u32) -> Result<BTreeMap<String, u64>, Error> {
    // SAFETY: the pointer is used only below, while the domain is borrowed.
    let mut domains = [unsafe { domain.as_ptr() }, ptr::null_mut()];
    let mut records: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
    // SAFETY: the list ends with null and its one domain is alive for the call; the out pointer is to a local.
    let count = unsafe {
        sys::virDomainListGetStats(
            domains.as_mut_ptr(),
            which,
            &mut records,
            sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT,
        )
    };
    if count < 0 {
        return Err(Error::last_error());
    }
    let mut numbers = BTreeMap::new();
    if !records.is_null() {
        for i in 0..usize::try_from(count).unwrap_or(0) {
            // SAFETY: libvirt says how many records the array has; each is not null until the list's end.
            let record = unsafe { *records.add(i) };
            if record.is_null() {
                break;
            }
            // SAFETY: a record that libvirt made and that is freed below, after its last use.
            let (params, length) = unsafe { ((*record).params, (*record).nparams) };
            if params.is_null() {
                continue;
            }
            // SAFETY: not null, and the record says how many there are.
            for param in unsafe { std::slice::from_raw_parts(params, usize::try_from(length).unwrap_or(0)) } {
                if let Some(value) = number(param) {
                    numbers.insert(field(param), value);
                }
            }
        }
        // SAFETY: allocated by libvirt in the call above, freed once, not used afterwards.
        unsafe { sys::virDomainStatsRecordListFree(records) };
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use virt::connect::Connect;

    #[test]
    fn a_driver_without_dirty_rates_says_so_and_its_other_numbers_are_read() {
        super::super::initialise();
        let connect = Connect::open(Some("test:///default")).unwrap();
        let domain = connect.lookup_domain_by_name("test").unwrap();
        let refused = start(&domain, Duration::from_secs(1), 0).unwrap_err();
        assert_eq!(refused.code().to_raw(), sys::VIR_ERR_NO_SUPPORT);
        let state = stats(&domain, sys::VIR_DOMAIN_STATS_STATE);
        assert!(state.is_err() || state.is_ok_and(|s| s.get("state.state") == Some(&1)));
    }
}
