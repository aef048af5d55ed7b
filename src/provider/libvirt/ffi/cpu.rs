//! CPUs: the baseline of several, and whether a hypervisor can give one to a guest. The `virt` crate has only the old calls,
//! which ask about the host's CPU and not about what its hypervisor makes of it.

use std::ffi::{CStr, CString, c_char};
use std::ptr;
use virt::connect::Connect;
use virt::error::Error;
use virt_sys as sys;

/// Which hypervisor on a host is asked. What is not given, libvirt chooses; under software emulation it chooses `kvm` and
/// fails, so `virt_type` belongs there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Hypervisor {
    arch: Option<CString>,
    machine: Option<CString>,
    virt_type: Option<CString>,
}

impl Hypervisor {
    /// The hypervisor for this architecture, machine type and domain type.
    pub(in super::super) fn new(
        arch: Option<&str>,
        machine: Option<&str>,
        virt_type: Option<&str>,
    ) -> Result<Self, Error> {
        let c = |text: Option<&str>| text.map(CString::new).transpose().map_err(Error::from);
        Ok(Self { arch: c(arch)?, machine: c(machine)?, virt_type: c(virt_type)? })
    }
}

fn pointer(text: Option<&CString>) -> *const c_char {
    text.map_or(ptr::null(), |t| t.as_ptr())
}

/// Takes a text that libvirt allocated, and frees it as libvirt's documentation asks: with free(3).
fn take(text: *mut c_char) -> Result<String, Error> {
    if text.is_null() {
        return Err(Error::last_error());
    }
    // SAFETY: not null, and libvirt returns NUL-terminated texts; copied before it is freed.
    let owned = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    // SAFETY: allocated by libvirt with malloc(3) for this caller, freed once, not used afterwards.
    unsafe { libc::free(text.cast()) };
    Ok(owned)
}

/// The CPU that is common to all of `cpus` (`virConnectBaselineHypervisorCPU`), each a `<cpu>` element. Only features that a
/// migration carries over are kept.
/// `expand` lists the features of its model, too.
pub(in super::super) fn baseline(
    connect: &Connect,
    of: &Hypervisor,
    cpus: &[String],
    expand: bool,
) -> Result<String, Error> {
    let expand = if expand { sys::VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES } else { 0 };
    let texts = cpus.iter().map(|c| CString::new(c.as_str())).collect::<Result<Vec<_>, _>>()?;
    let mut pointers: Vec<*const c_char> = texts.iter().map(|t| t.as_ptr()).collect();
    let count = u32::try_from(pointers.len()).unwrap_or(u32::MAX);
    // SAFETY: connection, texts and array are alive for the whole call; `count` is the array's length; libvirt keeps none
    // of them. A null emulator lets libvirt choose its own.
    let text = unsafe {
        sys::virConnectBaselineHypervisorCPU(
            connect.as_ptr(),
            ptr::null(),
            pointer(of.arch.as_ref()),
            pointer(of.machine.as_ref()),
            pointer(of.virt_type.as_ref()),
            pointers.as_mut_ptr(),
            count,
            sys::VIR_CONNECT_BASELINE_CPU_MIGRATABLE | expand,
        )
    };
    take(text)
}

/// Whether the host's hypervisor can give this CPU to a guest (`virConnectCompareHypervisorCPU`): `Ok` for one that it can,
/// libvirt's error for one that it cannot (`VIR_ERR_CPU_INCOMPATIBLE`, whose message names the features).
pub(in super::super) fn compare(connect: &Connect, of: &Hypervisor, cpu: &str) -> Result<(), Error> {
    let cpu = CString::new(cpu)?;
    // SAFETY: connection and texts are alive for the whole call, and libvirt keeps none of them.
    let result = unsafe {
        sys::virConnectCompareHypervisorCPU(
            connect.as_ptr(),
            ptr::null(),
            pointer(of.arch.as_ref()),
            pointer(of.machine.as_ref()),
            pointer(of.virt_type.as_ref()),
            cpu.as_ptr(),
            sys::VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE,
        )
    };
    if result < 0 { Err(Error::last_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_without_these_calls_says_so() {
        super::super::initialise();
        let connect = Connect::open(Some("test:///default")).unwrap();
        let of = Hypervisor::new(Some("x86_64"), Some("q35"), Some("qemu")).unwrap();
        let cpu = "<cpu><model>EPYC</model></cpu>";
        let code = |e: Error| e.code().to_raw();
        assert_eq!(baseline(&connect, &of, &[cpu.into()], false).map_err(code), Err(sys::VIR_ERR_NO_SUPPORT));
        assert_eq!(compare(&connect, &of, cpu).map_err(code), Err(sys::VIR_ERR_NO_SUPPORT));
        assert!(Hypervisor::new(Some("a\0b"), None, None).is_err());
        assert!(baseline(&connect, &of, &["a\0b".into()], true).is_err());
    }
}
