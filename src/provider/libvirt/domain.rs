//! Definitions of domains: made, changed, marked, renamed, removed; and changes to a running domain.

use super::error::{During, Fault};
use super::{observe, xml};
use crate::action::{DomainXmlEdit, LiveChange};
use crate::domain_xml::{self, Element, digest};
use crate::observed::{DomainState, OWNER_NAMESPACE, OWNER_PREFIX, OwnerMark};
use crate::provider::Look;
use std::time::{Duration, Instant};
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt_sys as sys;

/// The domain of a UUID, if there is one.
pub(super) fn find(connect: &Connect, uuid: Uuid) -> Result<Option<Domain>, Fault> {
    match connect.lookup_domain_by_uuid_string(&uuid.to_string()).during(format!("look domain {uuid} up")) {
        Ok(domain) => Ok(Some(domain)),
        Err(fault) if fault.is_absent() => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// The domain of a UUID with its state, if there is one.
pub(super) fn find_with_state(connect: &Connect, uuid: Uuid) -> Result<Option<(Domain, DomainState)>, Fault> {
    let Some(domain) = find(connect, uuid)? else { return Ok(None) };
    match observe::read_domain(&domain) {
        Ok(state) => Ok(Some((domain, state))),
        Err(fault) if fault.is_absent() => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// The domain of a UUID with its state, or a refusal.
pub(super) fn get(connect: &Connect, uuid: Uuid) -> Result<(Domain, DomainState), Fault> {
    find_with_state(connect, uuid)?.ok_or_else(|| gone(uuid))
}

fn gone(uuid: Uuid) -> Fault {
    Fault::refused(format!("there is no domain {uuid}"), "it was removed or moved since the plan was made; plan again")
}

/// What a look finds on a domain: `decide` is asked where the domain is there and is not half of a migration.
pub(super) fn look(
    connect: &Connect,
    uuid: Uuid,
    decide: impl FnOnce(&Domain, &DomainState) -> Result<Look, Fault>,
) -> Result<Look, Fault> {
    let Some((domain, state)) = find_with_state(connect, uuid)? else {
        return Ok(Look::Refused { reason: format!("there is no domain {uuid}") });
    };
    if state.is_in_migration() {
        return Ok(Look::Refused { reason: format!("`{}` is being migrated ({})", state.name, word(&state)) });
    }
    decide(&domain, &state)
}

/// State and reason as an operator reads them: `running (booted)`.
pub(super) fn word(state: &DomainState) -> String {
    let run = match state.state {
        crate::observed::RunState::Running => "running",
        crate::observed::RunState::Paused => "paused",
        crate::observed::RunState::ShuttingDown => "shutting down",
        crate::observed::RunState::Off => "off",
        crate::observed::RunState::Crashed => "crashed",
        crate::observed::RunState::Suspended => "suspended by its guest",
    };
    format!("{run} ({})", state.reason)
}

pub(super) fn look_define(connect: &Connect, name: &str, uuid: Uuid, definition: &str) -> Result<Look, Fault> {
    if let Some((_, there)) = find_with_state(connect, uuid)? {
        if there.is_in_migration() {
            return Ok(Look::Refused { reason: format!("`{}` is being migrated ({})", there.name, word(&there)) });
        }
        let wanted = domain_xml::owner_of(&xml::parse(definition, "read the definition")?);
        // Defined by an earlier run that ended before it could say so: the same machine, by name, UUID and mark.
        if there.name == name && there.persistent && wanted.is_some() && there.owner == wanted {
            return Ok(Look::AlreadyDone);
        }
        return Ok(Look::Refused { reason: format!("the UUID {uuid} is taken by domain `{}`", there.name) });
    }
    match connect.lookup_domain_by_name(name).during(format!("look domain `{name}` up")) {
        Ok(other) => {
            let uuid = observe::uuid(&other)?;
            Ok(Look::Refused { reason: format!("the name `{name}` is taken by another domain, of UUID {uuid}") })
        }
        Err(fault) if fault.is_absent() => Ok(Look::Ready),
        Err(fault) => Err(fault),
    }
}

/// Defines a domain, checked against libvirt's schema.
pub(super) fn define(connect: &Connect, name: &str, definition: &str) -> Result<(), Fault> {
    let what = format!("define `{name}`");
    match connect.define_domain_xml_flags(definition, sys::VIR_DOMAIN_DEFINE_VALIDATE).during(&what) {
        // A host without libvirt's schema files cannot validate; it still parses.
        Err(fault) if fault.says("rng") && (fault.says("unable to parse") || fault.says("unable to find")) => {
            connect.define_domain_xml_flags(definition, 0).during(what).map(drop)
        }
        other => other.map(drop),
    }
}

/// Whether a definition is the one that a plan was made from. A transient domain has none, and the plan says so with an
/// empty digest.
fn is_expected(state: &DomainState, expect: &str) -> bool {
    state.persistent_xml.as_deref().map(digest).unwrap_or_default() == expect
}

pub(super) fn look_update(
    connect: &Connect,
    uuid: Uuid,
    changes: &[DomainXmlEdit],
    expect: &str,
) -> Result<Look, Fault> {
    look(connect, uuid, |_, state| {
        Ok(match &state.persistent_xml {
            _ if is_expected(state, expect) => Look::Ready,
            // Changed by an earlier run that ended before it could say so: the edits have nothing left to do.
            Some(definition) if changes_nothing(definition, changes) => Look::AlreadyDone,
            _ => Look::Refused { reason: changed_since(state) },
        })
    })
}

fn changed_since(state: &DomainState) -> String {
    format!("the definition of `{}` has changed since the plan was made", state.name)
}

pub(super) fn update(connect: &Connect, uuid: Uuid, changes: &[DomainXmlEdit], expect: &str) -> Result<(), Fault> {
    let (domain, state) = get(connect, uuid)?;
    if !is_expected(&state, expect) {
        return Err(Fault::refused(changed_since(&state), "the next plan takes the change into account"));
    }
    let what = format!("read the definition of `{}`", state.name);
    // With its secrets (display passwords): they must survive the change. This text goes back to libvirt and nowhere else.
    let whole = domain.xml_desc(sys::VIR_DOMAIN_XML_SECURE | sys::VIR_DOMAIN_XML_INACTIVE).during(what)?;
    let edited = domain_xml::apply(&whole, changes).map_err(|e| {
        Fault::refused(
            format!("the changes do not fit the definition of `{}`: {e}", state.name),
            "correct `xmlPatches`",
        )
    })?;
    define(connect, &state.name, &edited)
}

/// Whether an update has taken place: the definition is another than the one the plan was made from, or the edits have
/// nothing left to do on it. libvirt rewrites what it is given, so there is no text to compare with.
pub(super) fn is_updated(
    connect: &Connect,
    uuid: Uuid,
    changes: &[DomainXmlEdit],
    expect: &str,
) -> Result<bool, Fault> {
    let (_, state) = get(connect, uuid)?;
    Ok(state
        .persistent_xml
        .as_deref()
        .is_some_and(|definition| !is_expected(&state, expect) || changes_nothing(definition, changes)))
}

/// Whether edits have nothing left to do on a definition.
fn changes_nothing(definition: &str, changes: &[DomainXmlEdit]) -> bool {
    let edited = domain_xml::apply(definition, changes).ok().and_then(|e| domain_xml::parse(&e).ok());
    edited.is_some() && edited == domain_xml::parse(definition).ok()
}

pub(super) fn look_owner(connect: &Connect, uuid: Uuid, mark: Option<&OwnerMark>) -> Result<Look, Fault> {
    look(connect, uuid, |_, state| Ok(if is_marked(state, mark)? { Look::AlreadyDone } else { Look::Ready }))
}

/// Whether every definition of the domain, live and persistent, has this mark, or none.
fn is_marked(state: &DomainState, mark: Option<&OwnerMark>) -> Result<bool, Fault> {
    for text in state.live_xml.iter().chain(&state.persistent_xml) {
        let definition = xml::parse(text, &format!("read the definition of `{}`", state.name))?;
        if domain_xml::owner_of(&definition).as_ref() != mark {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes the mark into every definition of the domain, or takes it out.
pub(super) fn set_owner(connect: &Connect, uuid: Uuid, mark: Option<&OwnerMark>) -> Result<(), Fault> {
    let (domain, state) = get(connect, uuid)?;
    let kind = i32::try_from(sys::VIR_DOMAIN_METADATA_ELEMENT).unwrap_or(2);
    let element = mark.map(owner_metadata);
    domain
        .set_metadata(
            kind,
            element.as_deref(),
            Some(OWNER_PREFIX),
            Some(OWNER_NAMESPACE),
            affected(state.is_active(), state.persistent),
        )
        .during(format!("write the owner into `{}`", state.name))
        .map(drop)
}

/// The mark as `virDomainSetMetadata` takes it: without prefix and declaration, which libvirt itself adds to the element
/// and everything in it; it refuses an element that has the declaration already.
fn owner_metadata(mark: &OwnerMark) -> String {
    fn bare(element: &mut Element) {
        if let Some((_, local)) = element.name.split_once(':') {
            element.name = local.to_owned();
        }
        element.attributes.retain(|(name, _)| !name.starts_with("xmlns"));
        element.elements_mut().for_each(bare);
    }
    let mut element = domain_xml::owner_element(mark);
    bare(&mut element);
    element.to_xml()
}

/// `VIR_DOMAIN_AFFECT_*`: both definitions, where there are both.
fn affected(active: bool, persistent: bool) -> u32 {
    let live = if active { sys::VIR_DOMAIN_AFFECT_LIVE } else { 0 };
    let config = if persistent { sys::VIR_DOMAIN_AFFECT_CONFIG } else { 0 };
    live | config
}

pub(super) fn look_rename(connect: &Connect, uuid: Uuid, name: &str) -> Result<Look, Fault> {
    look(connect, uuid, |_, state| {
        if state.name == name {
            return Ok(Look::AlreadyDone);
        }
        if state.is_active() {
            return Ok(Look::Refused {
                reason: format!("`{}` is {}; libvirt renames only what is off", state.name, word(state)),
            });
        }
        match connect.lookup_domain_by_name(name).during(format!("look domain `{name}` up")) {
            Ok(_) => Ok(Look::Refused { reason: format!("the name `{name}` is taken by another domain") }),
            Err(fault) if fault.is_absent() => Ok(Look::Ready),
            Err(fault) => Err(fault),
        }
    })
}

pub(super) fn rename(connect: &Connect, uuid: Uuid, name: &str) -> Result<(), Fault> {
    let (domain, state) = get(connect, uuid)?;
    domain.rename(name, 0).during(format!("rename `{}` to `{name}`", state.name)).map(drop)
}

pub(super) fn look_autostart(connect: &Connect, uuid: Uuid, autostart: bool) -> Result<Look, Fault> {
    look(connect, uuid, |_, state| {
        Ok(match () {
            () if state.autostart == autostart => Look::AlreadyDone,
            () if state.persistent => Look::Ready,
            () => Look::Refused { reason: format!("`{}` is transient: it cannot start with its host", state.name) },
        })
    })
}

pub(super) fn set_autostart(connect: &Connect, uuid: Uuid, autostart: bool) -> Result<(), Fault> {
    let (domain, state) = get(connect, uuid)?;
    domain.set_autostart(autostart).during(format!("set the autostart of `{}`", state.name)).map(drop)
}

pub(super) fn look_undefine(connect: &Connect, uuid: Uuid) -> Result<Look, Fault> {
    let Some((_, state)) = find_with_state(connect, uuid)? else { return Ok(Look::AlreadyDone) };
    Ok(match () {
        () if state.is_in_migration() => {
            Look::Refused { reason: format!("`{}` is being migrated ({})", state.name, word(&state)) }
        }
        () if state.is_active() => {
            Look::Refused { reason: format!("`{}` is {}; only what is off is undefined", state.name, word(&state)) }
        }
        () => Look::Ready,
    })
}

/// Undefines a domain that is off, with its saved memory and the records of its snapshots. Volumes stay.
pub(super) fn undefine(connect: &Connect, uuid: Uuid, nvram: bool) -> Result<(), Fault> {
    let Some((domain, state)) = find_with_state(connect, uuid)? else { return Ok(()) };
    if state.is_active() {
        let why = format!("`{}` is {}; only what is off is undefined", state.name, word(&state));
        return Err(Fault::refused(why, "shut it down first"));
    }
    // Each flag only where it is needed: older drivers know not all of them.
    let mut flags = 0;
    if state.managed_save {
        flags |= sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE;
    }
    if state.snapshots > 0 {
        flags |= sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA;
    }
    let definition = xml::parse(state.persistent_xml.as_deref().unwrap_or("<domain/>"), "read the definition")?;
    let has_nvram = definition.get("os/nvram").is_some() || definition.attribute_at("os", "firmware") == Some("efi");
    if has_nvram {
        flags |= if nvram { sys::VIR_DOMAIN_UNDEFINE_NVRAM } else { sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM };
    }
    let what = format!("undefine `{}`", state.name);
    match domain.undefine_flags(flags).during(&what) {
        Err(fault) if fault.is_absent() => Ok(()),
        other => other,
    }
}

pub(super) fn look_change(connect: &Connect, uuid: Uuid, change: &LiveChange) -> Result<Look, Fault> {
    look(connect, uuid, |domain, state| {
        if !state.is_active() {
            return Ok(Look::Refused { reason: format!("`{}` is {}", state.name, word(state)) });
        }
        match change {
            LiveChange::Attach { xml: device } => {
                let device = xml::parse(device, "read the device")?;
                Ok(match twin(state, &device)? {
                    Some(there) if same_device(&device, &there) => Look::AlreadyDone,
                    Some(_) => Look::Refused { reason: format!("`{}` has another device in that place", state.name) },
                    None => Look::Ready,
                })
            }
            // Nothing tells whether every detail of a device is as asked; updating it again does no harm.
            LiveChange::Update { .. } => Ok(Look::Ready),
            _ => Ok(if is_changed(domain, state, change)? { Look::AlreadyDone } else { Look::Ready }),
        }
    })
}

/// Whether a live change is in force.
pub(super) fn is_changed(domain: &Domain, state: &DomainState, change: &LiveChange) -> Result<bool, Fault> {
    Ok(match change {
        LiveChange::Vcpus { count } => {
            let what = format!("read the vCPUs of `{}`", state.name);
            domain.vcpus_flags(sys::VIR_DOMAIN_VCPU_LIVE).during(what)? == *count
        }
        LiveChange::Memory { kib } => {
            let live = xml::parse(state.live_xml.as_deref().unwrap_or("<domain/>"), "read the live definition")?;
            xml::text_at(&live, "currentMemory").and_then(|t| t.parse().ok()) == Some(*kib)
        }
        LiveChange::Attach { xml: device } => twin(state, &xml::parse(device, "read the device")?)?.is_some(),
        LiveChange::Detach { xml: device } => twin(state, &xml::parse(device, "read the device")?)?.is_none(),
        LiveChange::Update { .. } => true,
    })
}

/// The device of the live definition that stands in the same place as this one: a disk by its target, an interface by its
/// MAC, anything else by being equal in all that this one says.
fn twin(state: &DomainState, device: &Element) -> Result<Option<Element>, Fault> {
    let live = xml::parse(state.live_xml.as_deref().unwrap_or("<domain/>"), "read the live definition")?;
    let key = |e: &Element| match e.name.as_str() {
        "disk" => e.attribute_at("target", "dev").map(str::to_lowercase),
        "interface" => e.attribute_at("mac", "address").map(str::to_lowercase),
        _ => None,
    };
    let wanted = key(device);
    Ok(xml::below(&live, "devices", &device.name).find_map(|there| {
        let same_place = match &wanted {
            Some(wanted) => key(there).as_ref() == Some(wanted),
            None => is_within(device, there),
        };
        same_place.then(|| there.clone())
    }))
}

/// Whether the device that is there has the source that was asked for.
fn same_device(wanted: &Element, there: &Element) -> bool {
    match (wanted.get("source"), there.get("source")) {
        (Some(wanted), Some(there)) => is_within(wanted, there),
        (None, _) => true,
        (Some(_), None) => false,
    }
}

/// Whether everything that one element says stands in the other, too.
fn is_within(small: &Element, large: &Element) -> bool {
    small.name == large.name
        && small.attributes.iter().all(|(k, v)| large.attribute(k) == Some(v))
        && (small.text().is_empty() || small.text() == large.text())
        && small.elements().all(|c| large.all(&c.name).any(|d| is_within(c, d)))
}

/// Changes a running domain. Unplugging and ballooning end in the guest, some time after the call: they are waited for.
pub(super) fn change(
    connect: &Connect,
    uuid: Uuid,
    change: &LiveChange,
    deadline: Instant,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<(), Fault> {
    let (domain, state) = get(connect, uuid)?;
    let name = &state.name;
    let live = sys::VIR_DOMAIN_AFFECT_LIVE;
    match change {
        LiveChange::Vcpus { count } => {
            domain.set_vcpus_flags(*count, sys::VIR_DOMAIN_VCPU_LIVE).during(format!("give `{name}` {count} vCPUs"))?;
        }
        LiveChange::Memory { kib } => {
            let what = format!("give `{name}` {kib} KiB of memory");
            domain.set_memory_flags(*kib, sys::VIR_DOMAIN_MEM_LIVE).during(what)?;
        }
        LiveChange::Attach { xml } => {
            domain.attach_device_flags(xml, live).during(format!("plug a device into `{name}`"))?;
        }
        LiveChange::Detach { xml } => {
            let what = format!("unplug a device from `{name}`");
            match domain.detach_device_flags(xml, live).during(what) {
                Err(fault) if fault.code() == Some(sys::VIR_ERR_DEVICE_MISSING) => return Ok(()),
                other => other?,
            };
        }
        LiveChange::Update { xml } => {
            domain.update_device_flags(xml, live).during(format!("change a device of `{name}`"))?;
        }
    }
    let until = deadline.min(Instant::now() + GUEST_ANSWERS_WITHIN);
    loop {
        let (domain, state) = get(connect, uuid)?;
        if is_changed(&domain, &state, change)? {
            return Ok(());
        }
        if is_cancelled() {
            return Err(Fault::left(format!("stopped waiting for the guest of `{}` to follow a change", state.name)));
        }
        if Instant::now() >= until {
            let why = format!("the guest of `{}` has not followed the change yet", state.name);
            return Err(Fault::refused(
                why,
                "the guest must take part (ACPI hot-plug, balloon driver); restart it otherwise",
            ));
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// How long a guest may take to release a device or to balloon.
const GUEST_ANSWERS_WITHIN: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_its_place() {
        let mut state = DomainState {
            live_xml: Some(
                "<domain><devices><disk type='file' device='disk'><source file='/a' index='1'/><target dev='vdb' bus='virtio'/></disk>
                 <interface type='network'><mac address='52:54:00:AA:bb:cc'/><source network='default' portid='u'/></interface>
                 <rng model='virtio'><backend model='random'>/dev/urandom</backend><alias name='rng0'/></rng></devices></domain>"
                    .into(),
            ),
            ..DomainState::new("x".into(), Uuid::nil(), crate::observed::RunState::Running, "booted".into(), true)
        };
        let device = |t: &str| domain_xml::parse(t).unwrap();
        let disk = device("<disk type='file'><source file='/a'/><target dev='vdb'/></disk>");
        assert!(same_device(&disk, &twin(&state, &disk).unwrap().unwrap()));
        let other = device("<disk type='file'><source file='/b'/><target dev='vdb'/></disk>");
        assert!(!same_device(&other, &twin(&state, &other).unwrap().unwrap()));
        assert!(twin(&state, &device("<disk><target dev='vdc'/></disk>")).unwrap().is_none());
        assert!(twin(&state, &device("<interface><mac address='52:54:00:aa:bb:cc'/></interface>")).unwrap().is_some());
        assert!(twin(&state, &device("<rng><backend>/dev/urandom</backend></rng>")).unwrap().is_some());
        assert!(twin(&state, &device("<rng><backend>/dev/random</backend></rng>")).unwrap().is_none());
        state.live_xml = None;
        assert!(twin(&state, &disk).unwrap().is_none());
    }
}
