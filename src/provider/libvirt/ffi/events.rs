//! Events: what libvirt tells of domains, storage pools and the connection, on the thread of its event loop.
//!
//! *Lifetimes*. What libvirt carries to a callback is no pointer but a number; the number is looked up in [`LISTENERS`].
//! So there is nothing to free, nothing that a late callback could find freed, and no difference between drivers that call
//! a free callback and those that never do (the test driver takes a close callback, keeps nothing of it, and frees nothing).
//!
//! *Guarantees of the callbacks*: they put a value into a channel that never waits, hold the lock of the table for no
//! longer than a look-up (nobody holds it across a libvirt call), and let no panic out into C.
//!
//! *Assumption*: the event loop was registered before the connection was opened ([`super::initialise`]).

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc;
use virt::connect::Connect;
use virt::error::Error;
use virt_sys as sys;

/// What was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Told {
    /// `domain` or `pool`.
    pub of: &'static str,
    /// Its name, as the host has it: not to be trusted.
    pub name: String,
    /// What happened to it: `started`.
    pub what: &'static str,
}

/// Who listens, by the number that libvirt carries.
static LISTENERS: Mutex<BTreeMap<usize, mpsc::Sender<Told>>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicUsize = AtomicUsize::new(1);

fn listeners() -> std::sync::MutexGuard<'static, BTreeMap<usize, mpsc::Sender<Told>>> {
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Callbacks that are registered on a connection. Dropping it deregisters them, which asks the host and may block: not to
/// be done on a thread that others wait for.
pub(in super::super) struct Listening {
    /// Keeps the connection open: libvirt's callbacks hold it anyway.
    connect: Connect,
    number: usize,
    domain_callbacks: Vec<c_int>,
    pool_callbacks: Vec<c_int>,
    close_callback: bool,
}

impl Listening {
    /// Registers for what matters to drift: the life of domains and pools, and devices that come and go. `events` never
    /// waits: what does not fit is dropped, because as many wait already. When the connection breaks, the channel ends.
    ///
    /// Not registered for: a pool's refresh (it says nothing of a change, and others refresh by the clock), the balloon, job
    /// progress.
    ///
    /// # Errors
    ///
    /// Where the life of domains or the end of the connection cannot be told of. Devices and pools are done without: a host
    /// may have no storage driver.
    pub(in super::super) fn begin(connect: &Connect, events: mpsc::Sender<Told>) -> Result<Self, Error> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut listening = Self {
            connect: connect.clone(),
            number,
            domain_callbacks: Vec::new(),
            pool_callbacks: Vec::new(),
            close_callback: false,
        };
        listeners().insert(number, events);
        // SAFETY: the connection is alive as long as the callback is registered; the opaque value is a number that is never
        // followed, so there is nothing to free.
        let result = unsafe {
            sys::virConnectRegisterCloseCallback(listening.connect.as_ptr(), Some(closed), opaque(number), None)
        };
        if result < 0 {
            return Err(Error::last_error());
        }
        listening.close_callback = true;
        listening.domain(sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle_callback())?;
        for (event, callback) in [
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, device_callback(device_added)),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, device_callback(device_removed)),
        ] {
            if let Err(e) = listening.domain(event, callback) {
                tracing::debug!(event, error = e.message(), "libvirt does not tell of this");
            }
        }
        if let Err(e) = listening.pool() {
            tracing::debug!(error = e.message(), "libvirt does not tell of storage pools");
        }
        Ok(listening)
    }

    fn domain(
        &mut self,
        event: sys::virDomainEventID,
        callback: sys::virConnectDomainEventGenericCallback,
    ) -> Result<(), Error> {
        // SAFETY: as for the close callback; a null domain means all; the callback has the signature that libvirt calls for
        // this event.
        let id = unsafe {
            sys::virConnectDomainEventRegisterAny(
                self.connect.as_ptr(),
                ptr::null_mut(),
                c_int::try_from(event).unwrap_or(c_int::MAX),
                callback,
                opaque(self.number),
                None,
            )
        };
        if id < 0 {
            return Err(Error::last_error());
        }
        self.domain_callbacks.push(id);
        Ok(())
    }

    fn pool(&mut self) -> Result<(), Error> {
        // SAFETY: as above; a null pool means all.
        let id = unsafe {
            sys::virConnectStoragePoolEventRegisterAny(
                self.connect.as_ptr(),
                ptr::null_mut(),
                c_int::try_from(sys::VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE).unwrap_or(c_int::MAX),
                pool_callback(),
                opaque(self.number),
                None,
            )
        };
        if id < 0 {
            return Err(Error::last_error());
        }
        self.pool_callbacks.push(id);
        Ok(())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // First: from here on nothing is told, whatever still comes.
        listeners().remove(&self.number);
        // Each registered callback holds the connection open. Failures leave nothing to do: libvirt takes a callback off
        // its own list before it tells the host, and a host that is gone has forgotten it.
        for id in self.domain_callbacks.drain(..) {
            // SAFETY: the connection is alive, and the id is of a callback that was registered on it and not yet taken off.
            unsafe { sys::virConnectDomainEventDeregisterAny(self.connect.as_ptr(), id) };
        }
        for id in self.pool_callbacks.drain(..) {
            // SAFETY: as above.
            unsafe { sys::virConnectStoragePoolEventDeregisterAny(self.connect.as_ptr(), id) };
        }
        if self.close_callback {
            // SAFETY: as above. Where it has been called already libvirt has taken it off, and says that it is not there.
            unsafe { sys::virConnectUnregisterCloseCallback(self.connect.as_ptr(), Some(closed)) };
        }
    }
}

/// A number in the place of a pointer. Nobody follows it.
fn opaque(number: usize) -> *mut c_void {
    ptr::without_provenance_mut(number)
}

/// Tells whoever has this number.
fn tell(opaque: *mut c_void, told: impl FnOnce() -> Told) {
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let Some(listener) = listeners().get(&opaque.addr()).cloned() else { return };
        // Full: as many wait already, and one is enough to look at the host.
        let _ = listener.try_send(told());
    }));
}

/// A name that libvirt lends for the length of a callback.
///
/// # Safety
///
/// `name` is null or NUL-terminated, and valid for the call.
unsafe fn lent(name: *const c_char) -> String {
    if name.is_null() {
        return String::new();
    }
    // SAFETY: by the contract of this function.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

/// # Safety
///
/// `domain` is valid for the call.
unsafe fn domain_told(domain: sys::virDomainPtr, what: &'static str) -> Told {
    // SAFETY: the name lives in the domain; reading it asks nobody.
    let name = unsafe { lent(sys::virDomainGetName(domain)) };
    Told { of: "domain", name, what }
}

type Lifecycle = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
type Device = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const c_char, *mut c_void);
type DomainGeneric = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
type PoolLifecycle = unsafe extern "C" fn(sys::virConnectPtr, sys::virStoragePoolPtr, c_int, c_int, *mut c_void);
type PoolGeneric = unsafe extern "C" fn(sys::virConnectPtr, sys::virStoragePoolPtr, *mut c_void);

fn lifecycle_callback() -> sys::virConnectDomainEventGenericCallback {
    // SAFETY: what libvirt's own VIR_DOMAIN_EVENT_CALLBACK does: libvirt casts it back to the type of the event before it
    // calls it, and that is the type it has here.
    Some(unsafe { std::mem::transmute::<Lifecycle, DomainGeneric>(lifecycle) })
}

fn device_callback(callback: Device) -> sys::virConnectDomainEventGenericCallback {
    // SAFETY: as above.
    Some(unsafe { std::mem::transmute::<Device, DomainGeneric>(callback) })
}

fn pool_callback() -> sys::virConnectStoragePoolEventGenericCallback {
    // SAFETY: as above, by VIR_STORAGE_POOL_EVENT_CALLBACK.
    Some(unsafe { std::mem::transmute::<PoolLifecycle, PoolGeneric>(pool_lifecycle) })
}

unsafe extern "C" fn lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    _: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: libvirt lends the domain for the call.
    tell(opaque, || unsafe { domain_told(domain, domain_word(event)) });
    0
}

unsafe extern "C" fn device_added(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: libvirt lends the domain for the call.
    tell(opaque, || unsafe { domain_told(domain, "device added") });
}

unsafe extern "C" fn device_removed(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: libvirt lends the domain for the call.
    tell(opaque, || unsafe { domain_told(domain, "device removed") });
}

unsafe extern "C" fn pool_lifecycle(
    _: sys::virConnectPtr,
    pool: sys::virStoragePoolPtr,
    event: c_int,
    _: c_int,
    opaque: *mut c_void,
) {
    tell(opaque, || {
        // SAFETY: libvirt lends the pool for the call; the name lives in it, and reading it asks nobody.
        let name = unsafe { lent(sys::virStoragePoolGetName(pool)) };
        Told { of: "pool", name, what: pool_word(event) }
    });
}

/// The connection broke: with its sender gone, the listener's channel ends.
unsafe extern "C" fn closed(_: sys::virConnectPtr, _: c_int, opaque: *mut c_void) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(listeners().remove(&opaque.addr()))));
}

/// `virDomainEventType` as a word.
fn domain_word(event: c_int) -> &'static str {
    match u32::try_from(event) {
        Ok(sys::VIR_DOMAIN_EVENT_DEFINED) => "defined",
        Ok(sys::VIR_DOMAIN_EVENT_UNDEFINED) => "undefined",
        Ok(sys::VIR_DOMAIN_EVENT_STARTED) => "started",
        Ok(sys::VIR_DOMAIN_EVENT_SUSPENDED) => "suspended",
        Ok(sys::VIR_DOMAIN_EVENT_RESUMED) => "resumed",
        Ok(sys::VIR_DOMAIN_EVENT_STOPPED) => "stopped",
        Ok(sys::VIR_DOMAIN_EVENT_SHUTDOWN) => "shut down",
        Ok(sys::VIR_DOMAIN_EVENT_PMSUSPENDED) => "suspended by the guest",
        Ok(sys::VIR_DOMAIN_EVENT_CRASHED) => "crashed",
        _ => "changed",
    }
}

/// `virStoragePoolEventLifecycleType` as a word.
fn pool_word(event: c_int) -> &'static str {
    match u32::try_from(event) {
        Ok(sys::VIR_STORAGE_POOL_EVENT_DEFINED) => "defined",
        Ok(sys::VIR_STORAGE_POOL_EVENT_UNDEFINED) => "undefined",
        Ok(sys::VIR_STORAGE_POOL_EVENT_STARTED) => "started",
        Ok(sys::VIR_STORAGE_POOL_EVENT_STOPPED) => "stopped",
        Ok(sys::VIR_STORAGE_POOL_EVENT_CREATED) => "created",
        Ok(sys::VIR_STORAGE_POOL_EVENT_DELETED) => "deleted",
        _ => "changed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};
    use virt::domain::Domain;

    fn connect() -> Connect {
        super::super::initialise();
        Connect::open(Some("test:///default")).unwrap()
    }

    fn define(connect: &Connect, name: &str) -> Domain {
        let xml =
            format!("<domain type='test'><name>{name}</name><memory>1024</memory><os><type>hvm</type></os></domain>");
        connect.define_domain_xml(&xml).unwrap()
    }

    /// What is told of one name until this word comes; the driver's state is shared by all tests of the process.
    fn until(events: &mut mpsc::Receiver<Told>, name: &str, last: &str) -> Vec<&'static str> {
        let begun = Instant::now();
        let mut words = Vec::new();
        while words.last() != Some(&last) {
            assert!(begun.elapsed() < Duration::from_secs(10), "{name}: {words:?}");
            match events.try_recv() {
                Ok(told) if told.name == name => words.push(told.what),
                Ok(_) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        words
    }

    #[test]
    fn the_life_of_a_domain_is_told_with_its_name() {
        let connect = connect();
        let (send, mut events) = mpsc::channel(1_000);
        let listening = Listening::begin(&connect, send).unwrap();
        let domain = define(&connect, "told-of");
        domain.create().unwrap();
        domain.suspend().unwrap();
        domain.resume().unwrap();
        domain.destroy().unwrap();
        domain.undefine().unwrap();
        let words = until(&mut events, "told-of", "undefined");
        assert_eq!(words, ["defined", "started", "suspended", "resumed", "stopped", "undefined"]);
        drop(listening);
        let begun = Instant::now();
        while events.try_recv() != Err(mpsc::error::TryRecvError::Disconnected) {
            assert!(begun.elapsed() < Duration::from_secs(5), "somebody tells still");
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_life_of_a_pool_is_told() {
        let connect = connect();
        let (send, mut events) = mpsc::channel(1_000);
        let _listening = Listening::begin(&connect, send).unwrap();
        let xml = "<pool type='dir'><name>told-pool</name><target><path>/told</path></target></pool>";
        let pool = connect.define_storage_pool_xml(xml, 0).unwrap();
        pool.undefine().unwrap();
        assert_eq!(until(&mut events, "told-pool", "undefined"), ["defined", "undefined"]);
    }

    #[test]
    fn a_connection_that_breaks_ends_the_channel_and_may_do_so_twice() {
        let connect = connect();
        let (send, mut events) = mpsc::channel(1);
        let listening = Listening::begin(&connect, send).unwrap();
        for _ in 0..2 {
            // SAFETY: called as libvirt calls it; it looks at the number only.
            unsafe { closed(connect.as_ptr(), 0, opaque(listening.number)) };
        }
        while events.blocking_recv().is_some() {}
        // A callback that comes late, for a number that nobody has any more.
        tell(opaque(listening.number), || panic!("there is nobody to tell"));
    }

    #[test]
    fn a_full_channel_keeps_no_callback_waiting_and_a_panic_stays_inside() {
        let (send, mut events) = mpsc::channel(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        listeners().insert(number, send);
        for _ in 0..3 {
            tell(opaque(number), || Told { of: "domain", name: "x".into(), what: "started" });
        }
        assert!(events.try_recv().is_ok() && events.try_recv().is_err());
        tell(opaque(number), || panic!("on purpose"));
        listeners().remove(&number);
    }

    #[test]
    fn registering_a_thousand_times_leaves_nothing() {
        let connect = connect();
        let round = || {
            let (send, _events) = mpsc::channel(1);
            let listening = Listening::begin(&connect, send).unwrap();
            let number = listening.number;
            drop(listening);
            number
        };
        let numbers: Vec<usize> = (0..1_000).map(|_| round()).collect();
        assert!(numbers.iter().all(|n| !listeners().contains_key(n)));
        // A callback that libvirt kept would hold the connection: its references would be a thousand more.
        // SAFETY: the connection is alive; one reference more is taken and given back.
        let left = unsafe {
            sys::virConnectRef(connect.as_ptr());
            sys::virConnectClose(connect.as_ptr())
        };
        assert_eq!(left, 1, "references besides this test's own");
    }
}
