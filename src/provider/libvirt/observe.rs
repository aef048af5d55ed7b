//! One complete reading of a host: what it is, its pools with their volumes, its networks, its domains. Reads only, on
//! whatever connection it is given; what vanishes between being listed and being read is simply not there, and anything
//! else that cannot be read makes the whole reading fail, because a partial one would pass for absence.

use super::connect::Host;
use super::error::{During, Fault};
use super::{ffi, hardware, xml};
use crate::domain_xml::{self, Element};
use crate::observed::{
    DomainState, HostCpu, HostState, JobOperation, JobState, MOVES_NAMESPACE, OWNER_NAMESPACE, PoolState, Progress,
    Reading, RunState, VolumeState, pool_marker,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::storage_pool::StoragePool;
use virt_sys as sys;

/// Reads a host, or says why it cannot be read. A connection that turns out to be dead is opened anew, once.
pub(super) async fn observe(host: &Host, deadline: Duration) -> Reading<HostState> {
    let reading = async {
        let result = host.call_within("read it", deadline, read).await;
        if result.as_ref().is_err_and(|f| f.broke_connection() && !matches!(f, Fault::Hung { .. })) {
            return host.call_within("read it", deadline, read).await;
        }
        result
    };
    let (result, probe) = tokio::join!(reading, hardware::probe(host));
    match result {
        Ok(state) => Reading::Present(HostState { probe, ..state }),
        Err(fault) => Reading::Unknown { why: fault.to_string() },
    }
}

fn read(connect: &Connect) -> Result<HostState, Fault> {
    let node = connect.node_info().during("read its CPUs and memory")?;
    let mut state = HostState {
        hostname: connect.hostname().during("read its name")?,
        driver: connect.driver_type().during("read its driver")?.to_uppercase(),
        libvirt_version: version(connect.lib_version().during("read libvirt's version")?),
        hypervisor_version: version(connect.hyp_version().during("read the hypervisor's version")?),
        cpus: node.cpus,
        memory: node.memory.saturating_mul(1024),
        // The test driver of some releases has no such call.
        free_memory: free_memory(connect)?,
        ..HostState::default()
    };
    capabilities(&mut state, &connect.capabilities().during("read its capabilities")?)?;
    hardware::free(connect, &mut state)?;
    state.interfaces = hardware::interfaces(connect)?;
    for network in connect.list_all_networks(0).during("list its networks")? {
        let name = network.name().during("read a network's name")?;
        if let Some(active) = present(network.is_active().during(format!("read network `{name}`")))? {
            if let Some(read) = hardware::network(&network)? {
                state.network_states.insert(name.clone(), read);
            }
            state.networks.insert(name, active);
        }
    }
    for pool in connect.list_all_storage_pools(0).during("list its storage pools")? {
        let name = pool.name().during("read a pool's name")?;
        if let Some(read) = present(read_pool(&pool, &name))? {
            state.pools.insert(name, read);
        }
    }
    state.domains = domains(connect)?;
    Ok(state)
}

/// Nothing for a thing that is not there any more.
fn present<T>(result: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(fault) if fault.is_absent() => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Nothing for what the driver cannot tell.
fn optional<T>(result: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(fault) if fault.is_unsupported() => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// libvirt's number for a version: 1,000,000 × major + 1,000 × minor + release.
fn version(number: u32) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000)
}

/// The memory that guests can have: what is free, and what the host's kernel gives back at once (buffers and page cache). A
/// host that has been up for a while has little that is free.
fn free_memory(connect: &Connect) -> Result<u64, Fault> {
    let free = optional(connect.free_memory().during("read its free memory"))?.unwrap_or_default();
    let reclaimable =
        optional(ffi::reclaimable_memory(connect).during("read its memory statistics"))?.unwrap_or_default();
    Ok(free.saturating_add(reclaimable))
}

/// What the capabilities say of the host and of the guests of its own architecture.
pub(super) fn capabilities(state: &mut HostState, text: &str) -> Result<(), Fault> {
    let root = xml::parse(text, "read its capabilities")?;
    state.uuid = xml::text_at(&root, "host/uuid").unwrap_or_default();
    state.arch = xml::text_at(&root, "host/cpu/arch").unwrap_or_default();
    state.security_models = root
        .get("host")
        .into_iter()
        .flat_map(|h| h.all("secmodel"))
        .filter_map(|m| xml::text_at(m, "model"))
        .filter(|m| m != "none")
        .collect();
    state.cpu = root.get("host/cpu").and_then(host_cpu);
    state.cells = hardware::cells(&root);
    let mut types = BTreeSet::new();
    let mut machines = BTreeSet::new();
    let mut emulators = BTreeSet::new();
    for arch in root.all("guest").filter_map(|g| g.get("arch")) {
        if arch.attribute("name").is_none_or(|n| n != state.arch) {
            continue;
        }
        let domains: Vec<&Element> = arch.all("domain").collect();
        emulators.extend(
            std::iter::once(arch).chain(domains.iter().copied()).flat_map(|e| e.all("emulator")).map(Element::text),
        );
        types.extend(domains.iter().filter_map(|d| d.attribute("type").map(str::to_owned)));
        for machine in domains.iter().flat_map(|d| d.all("machine")).chain(arch.all("machine")) {
            let name = machine.text();
            match machine.attribute("canonical") {
                Some(canonical) => {
                    machines.insert(canonical.to_owned());
                    state.machine_aliases.insert(name, canonical.to_owned());
                }
                None => {
                    machines.insert(name);
                }
            }
        }
    }
    state.machine_types = machines.into_iter().collect();
    state.emulators = emulators.into_iter().collect();
    // Hardware before emulation; BTreeSet has sorted the rest.
    state.domain_types = types.into_iter().collect();
    state.domain_types.sort_by_key(|t| (t != "kvm", t == "qemu"));
    Ok(())
}

/// The host's own CPU; libvirt's test driver names no model.
fn host_cpu(cpu: &Element) -> Option<HostCpu> {
    let number = |name: &str| cpu.attribute_at("signature", name).unwrap_or_default();
    Some(HostCpu {
        model: xml::text_at(cpu, "model")?,
        vendor: xml::text_at(cpu, "vendor").unwrap_or_default(),
        microcode: cpu.attribute_at("microcode", "version").unwrap_or_default().to_owned(),
        signature: match cpu.get("signature") {
            Some(_) => ["family", "model", "stepping"].map(number).join("/"),
            None => String::new(),
        },
        features: cpu.all("feature").filter_map(|f| f.attribute("name").map(str::to_owned)).collect(),
    })
}

fn read_pool(pool: &StoragePool, name: &str) -> Result<PoolState, Fault> {
    let what = || format!("read pool `{name}`");
    let info = pool.info().during(what())?;
    let mut active = pool.is_active().during(what())?;
    let text = pool.xml_desc(0).during(what())?;
    let root = xml::parse(&text, &what())?;
    let mut volumes = BTreeMap::new();
    let (mut markers, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let is_numbered = matches!(root.attribute("type"), Some("logical" | "scsi" | "iscsi"));
    if active {
        let listed = match pool.list_all_volumes(0).during(format!("list the volumes of pool `{name}`")) {
            // Stopped since it was asked: no reason not to know the whole host.
            Err(_) if !pool.is_active().during(what())? => {
                active = false;
                Vec::new()
            }
            listed => listed?,
        };
        for volume in listed {
            let volume_name = volume.name().during(format!("read a volume's name in pool `{name}`"))?;
            if let Some(id) = pool_marker(&volume_name) {
                markers.insert(id);
                continue;
            }
            let result = volume.xml_desc(0).during(format!("read volume `{volume_name}` of pool `{name}`"));
            match result {
                Ok(text) => {
                    numbers.extend(is_numbered.then(|| volume_number(&text)).flatten());
                    volumes.insert(volume_name, volume_state(&text)?);
                }
                // Deleted behind the pool's back: the pool lists it until it is refreshed.
                Err(fault) if fault.is_absent() || fault.says("no such file") => {}
                Err(fault) => return Err(fault),
            }
        }
    }
    Ok(PoolState {
        uuid: pool.uuid_string().during(what())?,
        active,
        persistent: pool.is_persistent().during(what())?,
        autostart: pool.autostart().during(what())?,
        target: xml::text_at(&root, "target/path"),
        capacity: info.capacity,
        available: info.available,
        xml: text,
        markers,
        numbers,
        volumes,
    })
}

/// The number that the storage gave a volume: its key, where that is more than its path or name. For a logical volume it
/// is LVM's UUID (libvirt reads it from `lvs`), for a SCSI unit its serial (`scsi_id`); where libvirt has none it puts the
/// path there.
fn volume_number(text: &str) -> Option<String> {
    let root = domain_xml::parse(text).ok()?;
    let key = xml::text_at(&root, "key").filter(|k| !k.is_empty() && !k.starts_with('/'))?;
    (xml::text_at(&root, "name").as_ref() != Some(&key)).then_some(key)
}

/// A volume from its description; libvirt prints sizes in bytes.
pub(super) fn volume_state(text: &str) -> Result<VolumeState, Fault> {
    let root = xml::parse(text, "read a volume")?;
    let bytes = |name: &str| xml::text_at(&root, name).and_then(|t| t.parse().ok()).unwrap_or(0);
    Ok(VolumeState {
        path: xml::text_at(&root, "target/path").unwrap_or_default(),
        format: root.attribute_at("target/format", "type").unwrap_or("raw").to_owned(),
        capacity: bytes("capacity"),
        allocation: bytes("allocation"),
        backing: xml::text_at(&root, "backingStore/path"),
    })
}

/// All domains. What libvirt can tell of all at once (persistent, autostart, managed save, snapshots,
/// checkpoints) is asked by list
/// filter, in five calls instead of five a domain.
fn domains(connect: &Connect) -> Result<Vec<DomainState>, Fault> {
    let filtered = |filter: sys::virConnectListAllDomainsFlags, what: &str| -> Result<BTreeSet<Uuid>, Fault> {
        let mut set = BTreeSet::new();
        for domain in connect.list_all_domains(filter).during(format!("list {what}"))? {
            set.insert(uuid(&domain)?);
        }
        Ok(set)
    };
    let lists = Lists {
        persistent: filtered(sys::VIR_CONNECT_LIST_DOMAINS_PERSISTENT, "its persistent domains")?,
        autostart: filtered(sys::VIR_CONNECT_LIST_DOMAINS_AUTOSTART, "the domains that start with it")?,
        managed_save: filtered(sys::VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE, "its saved domains")?,
        snapshots: filtered(sys::VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT, "its domains with snapshots")?,
        checkpoints: match filtered(sys::VIR_CONNECT_LIST_DOMAINS_HAS_CHECKPOINT, "its domains with checkpoints") {
            // A libvirt older than checkpoints (5.6) refuses the filter.
            Err(fault) if fault.code() == Some(sys::VIR_ERR_INVALID_ARG) => BTreeSet::new(),
            read => read?,
        },
    };
    let mut states = Vec::new();
    for domain in connect.list_all_domains(0).during("list its domains")? {
        if let Some(state) = present(lists.read(&domain))? {
            states.push(state);
        }
    }
    states.sort_by(|a, b| (&a.name, a.uuid).cmp(&(&b.name, b.uuid)));
    Ok(states)
}

/// Which domains the filtered lists named.
struct Lists {
    persistent: BTreeSet<Uuid>,
    autostart: BTreeSet<Uuid>,
    managed_save: BTreeSet<Uuid>,
    snapshots: BTreeSet<Uuid>,
    checkpoints: BTreeSet<Uuid>,
}

impl Lists {
    fn read(&self, domain: &Domain) -> Result<DomainState, Fault> {
        let uuid = uuid(domain)?;
        let mut state = read_domain_as(domain, self.persistent.contains(&uuid))?;
        state.autostart = self.autostart.contains(&uuid);
        state.managed_save = self.managed_save.contains(&uuid);
        if self.snapshots.contains(&uuid) {
            state.snapshots = snapshots(domain, &state.name)?;
        }
        if self.checkpoints.contains(&uuid) {
            state.checkpoints = checkpoints(domain, &state.name)?;
        }
        Ok(state)
    }
}

fn snapshots(domain: &Domain, name: &str) -> Result<u32, Fault> {
    let read = domain.num_snapshots(0).during(format!("count the snapshots of `{name}`"));
    Ok(optional(read)?.unwrap_or(0))
}

fn checkpoints(domain: &Domain, name: &str) -> Result<u32, Fault> {
    let read = ffi::checkpoints(domain).during(format!("count the checkpoints of `{name}`"));
    Ok(optional(read)?.unwrap_or(0))
}

/// A domain's UUID, in this crate's type.
pub(super) fn uuid(domain: &Domain) -> Result<Uuid, Fault> {
    let text = domain.uuid_string().during("read a domain's UUID")?;
    Uuid::parse_str(&text).map_err(|e| Fault::odd("read a domain's UUID", e.to_string()))
}

/// Reads one domain completely, as a step does before it acts.
pub(super) fn read_domain(domain: &Domain) -> Result<DomainState, Fault> {
    let name = domain.name().during("read a domain's name")?;
    let persistent = domain.is_persistent().during(format!("read `{name}`"))?;
    let mut state = read_domain_as(domain, persistent)?;
    state.autostart =
        optional(domain.autostart().during(format!("read whether `{name}` starts with its host")))?.unwrap_or_default();
    state.managed_save =
        optional(domain.has_managed_save(0).during(format!("read whether `{name}` is saved")))?.unwrap_or_default();
    state.snapshots = snapshots(domain, &name)?;
    state.checkpoints = checkpoints(domain, &name)?;
    Ok(state)
}

/// What each domain has to be asked for itself.
fn read_domain_as(domain: &Domain, persistent: bool) -> Result<DomainState, Fault> {
    let name = domain.name().during("read a domain's name")?;
    let (state, reason) = ffi::state(domain).during(format!("read the state of `{name}`"))?;
    let (run, reason) = (run_state(state), reason_word(state, reason));
    let active = !matches!(run, RunState::Off | RunState::Crashed);
    if is_arriving(run, &reason) {
        return arriving(domain, name, run, reason, persistent);
    }
    let live_xml = match active {
        true => Some(domain.xml_desc(0).during(format!("read the live definition of `{name}`"))?),
        false => None,
    };
    let persistent_xml = match persistent {
        true => Some(
            domain
                .xml_desc(sys::VIR_DOMAIN_XML_INACTIVE)
                .during(format!("read the persistent definition of `{name}`"))?,
        ),
        false => None,
    };
    let job = if active { job(domain, &name)? } else { None };
    let (owner, moves) = match live_xml.as_deref().or(persistent_xml.as_deref()) {
        // Parsing a definition costs more than reading it; most foreign ones cannot have a mark.
        Some(text) if text.contains(OWNER_NAMESPACE) || text.contains(MOVES_NAMESPACE) => {
            let definition = xml::parse(text, &format!("read the definition of `{name}`"))?;
            (domain_xml::owner_of(&definition), domain_xml::moves_of(&definition))
        }
        _ => (None, Vec::new()),
    };
    Ok(DomainState {
        live_xml,
        persistent_xml,
        owner,
        moves,
        job,
        ..DomainState::new(name, uuid(domain)?, run, reason, persistent)
    })
}

/// Whether a domain is the half of a migration that arrives (or one that just starts: libvirt tells them apart later).
pub(super) fn is_arriving(run: RunState, reason: &str) -> bool {
    matches!(
        (run, reason),
        (RunState::Paused, "migrating" | "starting-up") | (RunState::Running, "postcopy" | "postcopy-failed")
    )
}

/// The arriving half. libvirt gives none of its definitions (11.3: every reading waits 30 s for the migration's lock and
/// fails), but its metadata, so that its owner is known.
fn arriving(
    domain: &Domain,
    name: String,
    run: RunState,
    reason: String,
    persistent: bool,
) -> Result<DomainState, Fault> {
    let kind = i32::try_from(sys::VIR_DOMAIN_METADATA_ELEMENT).unwrap_or(2);
    let read = |namespace: &str, what: &str| match domain
        .metadata(kind, Some(namespace), 0)
        .during(format!("read {what} of `{name}`"))
    {
        Ok(text) => Ok(Some(text)),
        Err(fault) if fault.code() == Some(sys::VIR_ERR_NO_DOMAIN_METADATA) => Ok(None),
        Err(fault) => Err(fault),
    };
    let owner = read(OWNER_NAMESPACE, "the owner")?.and_then(|text| domain_xml::parse_owner(&text));
    let moves = read(MOVES_NAMESPACE, "the moves")?.map(|text| domain_xml::parse_moves(&text)).unwrap_or_default();
    let operation = JobOperation::MigrationIn;
    let job = (reason != "starting-up").then(|| JobState { operation, progress: Progress::default() });
    Ok(DomainState { owner, moves, job, ..DomainState::new(name, uuid(domain)?, run, reason, persistent) })
}

/// The job that runs on a domain.
pub(super) fn job(domain: &Domain, name: &str) -> Result<Option<JobState>, Fault> {
    match ffi::job_stats(domain, false).during(format!("read the job of `{name}`")) {
        Ok(stats) if stats.is_running() => Ok(Some(job_state(&stats))),
        Ok(_) => Ok(None),
        // The half of a migration that arrives: "migration statistics are available only on the source host".
        Err(fault) if fault.code() == Some(sys::VIR_ERR_OPERATION_UNSUPPORTED) && fault.says("migration") => {
            Ok(Some(JobState { operation: JobOperation::MigrationIn, progress: Progress::default() }))
        }
        Err(fault) if fault.is_unsupported() || fault.code() == Some(sys::VIR_ERR_OPERATION_UNSUPPORTED) => Ok(None),
        // It went off in between.
        Err(fault) if fault.code() == Some(sys::VIR_ERR_OPERATION_INVALID) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// A job from its statistics.
pub(super) fn job_state(stats: &ffi::JobStats) -> JobState {
    let operation = match u32::try_from(stats.number("operation")) {
        Ok(sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN) => JobOperation::MigrationIn,
        Ok(sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT) => JobOperation::MigrationOut,
        _ => JobOperation::Other,
    };
    JobState { operation, progress: progress(stats) }
}

/// Progress from a job's statistics: memory and disks together (`data_*` is libvirt's sum of both).
pub(super) fn progress(stats: &ffi::JobStats) -> Progress {
    let (disk_remaining, disk_total) = (stats.number("disk_remaining"), stats.number("disk_total"));
    let sum = |whole: &str, memory: &str, disk: &str| match stats.number(whole) {
        0 => stats.number(memory).saturating_add(stats.number(disk)),
        n => n,
    };
    let phase = if disk_total > 0 && disk_remaining > 0 && stats.number("memory_iteration") <= 1 {
        "copying disks"
    } else if stats.number("memory_total") > 0 {
        "copying memory"
    } else {
        "preparing"
    };
    Progress {
        phase: phase.to_owned(),
        processed: sum("data_processed", "memory_processed", "disk_processed"),
        remaining: sum("data_remaining", "memory_remaining", "disk_remaining"),
        total: sum("data_total", "memory_total", "disk_total"),
        rate: stats.number("memory_bps").max(stats.number("disk_bps")),
        iteration: stats.number("memory_iteration"),
        elapsed_millis: stats.number("time_elapsed"),
        downtime_millis: stats.number("downtime"),
        completed: false,
    }
}

/// `virDomainState`, as far as anybody tells them apart.
fn run_state(state: u32) -> RunState {
    match state {
        sys::VIR_DOMAIN_PAUSED => RunState::Paused,
        sys::VIR_DOMAIN_SHUTDOWN => RunState::ShuttingDown,
        sys::VIR_DOMAIN_SHUTOFF => RunState::Off,
        sys::VIR_DOMAIN_CRASHED => RunState::Crashed,
        sys::VIR_DOMAIN_PMSUSPENDED => RunState::Suspended,
        // Running, blocked, and the "no state" of drivers that do not know: held by a process, not known to be stopped.
        _ => RunState::Running,
    }
}

/// The reason in the words of `virsh domstate --reason`, joined by hyphens, with "post-copy" as one word.
pub(super) fn reason_word(state: u32, reason: i32) -> String {
    let words: &[&str] = match state {
        sys::VIR_DOMAIN_RUNNING => &[
            "unknown",
            "booted",
            "migrated",
            "restored",
            "from-snapshot",
            "unpaused",
            "migration-canceled",
            "save-canceled",
            "event-wakeup",
            "crashed",
            "postcopy",
            "postcopy-failed",
        ],
        sys::VIR_DOMAIN_PAUSED => &[
            "unknown",
            "user",
            "migrating",
            "saving",
            "dumping",
            "io-error",
            "watchdog",
            "from-snapshot",
            "shutting-down",
            "creating-snapshot",
            "crashed",
            "starting-up",
            "postcopy",
            "postcopy-failed",
            "api-error",
        ],
        sys::VIR_DOMAIN_SHUTDOWN => &["unknown", "user"],
        sys::VIR_DOMAIN_SHUTOFF => {
            &["unknown", "shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from-snapshot", "daemon"]
        }
        sys::VIR_DOMAIN_CRASHED => &["unknown", "panicked"],
        _ => &["unknown"],
    };
    usize::try_from(reason).ok().and_then(|r| words.get(r)).copied().unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_the_words_that_the_rest_of_drover_knows() {
        let state = |state, reason, number| {
            let d = DomainState::new("x".into(), Uuid::nil(), run_state(state), reason_word(state, number), true);
            assert_eq!(d.reason, reason);
            d
        };
        use sys::*;
        assert!(state(VIR_DOMAIN_PAUSED, "migrating", VIR_DOMAIN_PAUSED_MIGRATION as i32).is_in_migration());
        assert!(state(VIR_DOMAIN_PAUSED, "starting-up", VIR_DOMAIN_PAUSED_STARTING_UP as i32).is_in_migration());
        assert!(state(VIR_DOMAIN_PAUSED, "postcopy", VIR_DOMAIN_PAUSED_POSTCOPY as i32).is_in_migration());
        assert!(
            state(VIR_DOMAIN_PAUSED, "postcopy-failed", VIR_DOMAIN_PAUSED_POSTCOPY_FAILED as i32).is_in_migration()
        );
        assert!(state(VIR_DOMAIN_RUNNING, "postcopy", VIR_DOMAIN_RUNNING_POSTCOPY as i32).is_in_migration());
        assert!(!state(VIR_DOMAIN_RUNNING, "migrated", VIR_DOMAIN_RUNNING_MIGRATED as i32).is_in_migration());
        let left = state(VIR_DOMAIN_SHUTOFF, "migrated", VIR_DOMAIN_SHUTOFF_MIGRATED as i32);
        assert!(left.moved_away() && !left.is_in_migration());
        assert_eq!(reason_word(VIR_DOMAIN_SHUTOFF, 99), "unknown");
        assert_eq!(reason_word(VIR_DOMAIN_SHUTOFF, -1), "unknown");
    }

    #[test]
    fn capabilities_give_hardware_before_emulation_and_the_real_names_of_machine_types() {
        let mut state = HostState::default();
        capabilities(
            &mut state,
            "<capabilities><host><uuid>u-1</uuid><cpu><arch>x86_64</arch></cpu></host>
             <guest><os_type>hvm</os_type><arch name='i686'><machine>isapc</machine><domain type='qemu'/></arch></guest>
             <guest><os_type>hvm</os_type><arch name='x86_64'><wordsize>64</wordsize>
               <machine maxCpus='255'>pc-q35-7.2</machine><machine canonical='pc-q35-7.2' maxCpus='255'>q35</machine>
               <domain type='qemu'/><domain type='kvm'><machine>pc-i440fx-7.2</machine></domain></arch></guest>
             </capabilities>",
        )
        .unwrap();
        assert_eq!((state.uuid.as_str(), state.arch.as_str()), ("u-1", "x86_64"));
        assert_eq!(state.domain_types, ["kvm", "qemu"]);
        assert_eq!(state.machine_types, ["pc-i440fx-7.2", "pc-q35-7.2"]);
        assert_eq!(state.machine_aliases["q35"], "pc-q35-7.2");
    }

    #[test]
    fn progress_counts_disks_and_memory_together() {
        let stats = ffi::JobStats::of(
            2,
            &[
                ("operation", 5),
                ("memory_total", 100),
                ("memory_processed", 10),
                ("memory_remaining", 90),
                ("disk_total", 1000),
                ("disk_processed", 400),
                ("disk_remaining", 600),
            ],
        );
        let job = job_state(&stats);
        assert_eq!(job.operation, JobOperation::MigrationOut);
        assert_eq!((job.progress.processed, job.progress.remaining, job.progress.total), (410, 690, 1100));
        assert_eq!(job.progress.phase, "copying disks");
    }

    #[test]
    fn volumes_are_read_from_libvirt_s_words() {
        let v = volume_state(
            "<volume type='file'><name>a</name><capacity unit='bytes'>1073741824</capacity><allocation unit='bytes'>200704</allocation>
             <target><path>/p/a</path><format type='qcow2'/></target><backingStore><path>/p/base</path></backingStore></volume>",
        )
        .unwrap();
        assert_eq!((v.path.as_str(), v.format.as_str(), v.capacity, v.allocation), ("/p/a", "qcow2", 1 << 30, 200_704));
        assert_eq!(v.backing.as_deref(), Some("/p/base"));
    }
}
