//! The fields of a VirtualMachine. Drover owns only the fields that a manifest states: an optional field that is not
//! written is not compared and not changed.

use crate::domain_xml::Edit;
use crate::kind::settings::Drift;
use crate::model::{Bytes, LabelSelector, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A virtual machine: its hardware and where it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct VirtualMachineSpec {
    /// The host it runs on: changing this line moves it. Either this or `placement`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Lets Drover choose among hosts. Either this or `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// What it should be doing.
    pub power_state: PowerState,
    /// The name in libvirt, where it is not the manifest's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_name: Option<String>,
    /// Former names of this manifest: a rename is never a destroy and create.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub former_names: Vec<String>,
    /// Its UUID; made from its first name where not given, so it is the same on every run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<Uuid>,
    /// Virtual CPUs that are in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub cpus: Option<u32>,
    /// Virtual CPUs it may have without a restart; `cpus` where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub max_cpus: Option<u32>,
    /// Memory in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Memory it may have without a restart; `memory` where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<Bytes>,
    /// Domain type: `kvm` or `qemu` (software emulation); the host's best where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<DomainType>,
    /// Guest architecture; the host's where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Machine type: `q35`, `pc`, or a versioned name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Firmware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
    /// UEFI secure boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<bool>,
    /// The CPU that the guest sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Boots this kernel directly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Kernel>,
    /// Disks, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disks: Option<Vec<Disk>>,
    /// Network interfaces, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Vec<Interface>>,
    /// The text console.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console: Option<Console>,
    /// Serial ports, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serials: Option<Vec<Serial>>,
    /// The display.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graphics: Option<Graphics>,
    /// The video card: `virtio`, `qxl`, `vga`, `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<String>,
    /// A source of random numbers on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rng: Option<Rng>,
    /// A TPM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpm: Option<Tpm>,
    /// A channel for the QEMU guest agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_agent: Option<bool>,
    /// Title, a short text for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Description, a longer text for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether it starts with its host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autostart: Option<bool>,
    /// The whole domain XML, for people who have it: inline, or a file in the repository. The fields above are laid over
    /// it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xml: Option<DomainXml>,
    /// Edits to the definition, after everything else: no libvirt feature is out of reach.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub xml_patches: Vec<Edit>,
    /// How it moves: the name of a MigrationPolicy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration_policy: Option<String>,
    /// Whether changes that need a restart restart it.
    pub restart_policy: RestartPolicy,
    /// How long a guest may take to shut down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown_timeout: Option<Span>,
    /// Whether the power is cut when it takes longer.
    pub force_shutdown: bool,
    /// What happens to it when its manifest goes away.
    pub deletion_policy: DeletionPolicy,
    /// What happens to drift; as Settings say where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
}

/// Lets Drover choose the host (docs/placement.md). A machine stays where it may; it moves only where it may not stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Placement {
    /// Hosts that may have it.
    pub hosts: LabelSelector,
    /// Label keys: machines with the same value of one of them share a host, and move one after the other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub affinity: Vec<String>,
    /// Label keys: machines with the same value of one of them do not share a host, at no time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub anti_affinity: Vec<String>,
    /// Labels of hosts over which machines are spread as far as the rules above leave a choice.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spread: Vec<Spread>,
    /// How the machine moves: the name of a MigrationPolicy. The machine's own `migrationPolicy` comes before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration_policy: Option<String>,
    /// Machines of a higher priority are placed, and leave a host that is emptied, before those of a lower one.
    #[serde(skip_serializing_if = "is_zero")]
    pub priority: i32,
}

impl VirtualMachineSpec {
    /// The name of the MigrationPolicy that the manifest gives: the machine's own, or that of its placement.
    pub fn policy_name(&self) -> Option<&String> {
        self.migration_policy.as_ref().or_else(|| self.placement.as_ref()?.migration_policy.as_ref())
    }
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// Spreads machines over the values of a label of hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spread {
    /// The label of hosts: `rack`.
    pub over: String,
    /// A label of machines: those with the same value of it are spread. All that say the same `spread` where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub among: Option<String>,
}

/// What a machine should be doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PowerState {
    /// Running.
    #[default]
    Running,
    /// Off.
    Stopped,
    /// In memory, not running.
    Paused,
}

/// Whether changes that need a restart restart the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestartPolicy {
    /// They wait for the next restart that somebody else makes.
    #[default]
    Never,
    /// The machine is shut down and started.
    Allow,
}

/// What happens to a machine when its manifest goes away (with `prune`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It is left as it is, without Drover's mark.
    #[default]
    Orphan,
    /// It is shut down and undefined; volumes that Drover made for it are deleted.
    Delete,
}

/// Domain type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DomainType {
    /// Hardware virtualisation.
    Kvm,
    /// Software emulation.
    Qemu,
    /// libvirt's test driver.
    Test,
}

/// Firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// BIOS.
    Bios,
    /// UEFI; libvirt chooses the image (`<os firmware='efi'>`).
    Uefi,
}

/// The CPU that the guest sees (libvirt.org/formatdomain.html#cpu-model-and-topology).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cpu {
    /// How the model is chosen.
    pub mode: CpuMode,
    /// The model, for `custom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// For `Baseline`: the hosts whose common CPU it is. Where not given, those that `placement` allows; every host of the
    /// repository for a machine with `host`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Features and what is done about each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<CpuFeature>,
    /// Sockets, cores and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<Topology>,
}

/// How the CPU model is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CpuMode {
    /// A named model.
    Custom,
    /// The named model nearest to the host's.
    HostModel,
    /// The host's own; moves only between equal hosts.
    HostPassthrough,
    /// The best that the hypervisor offers.
    Maximum,
    /// The best that all hosts have on which the machine may run: a model and features that Drover has the newest libvirt
    /// among them compute (`virConnectBaselineHypervisorCPU`), so that the machine can move between them.
    #[serde(rename = "Baseline")]
    Baseline,
}

/// A CPU feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CpuFeature {
    /// Its name.
    pub name: String,
    /// What is done about it.
    #[serde(default)]
    pub policy: FeaturePolicy,
}

/// What is done about a CPU feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum FeaturePolicy {
    #[default]
    Require,
    Disable,
    Optional,
    Force,
    Forbid,
}

/// Sockets, cores and threads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Topology {
    /// Sockets.
    #[schemars(range(min = 1))]
    pub sockets: u32,
    /// Cores in each socket.
    #[schemars(range(min = 1))]
    pub cores: u32,
    /// Threads in each core.
    #[schemars(range(min = 1))]
    pub threads: u32,
}

/// Boots a kernel directly. Paths are on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kernel {
    /// The kernel.
    #[schemars(regex(pattern = r"^/"))]
    pub image: String,
    /// The initial RAM disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<String>,
    /// Its command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
}

/// A disk. Where it is: `pool` (with `volume`), `file` or `block`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Disk {
    /// Its name, unique in the machine; it follows the disk when the list is reordered.
    pub name: String,
    /// The StoragePool that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The volume in the pool; `<machine>-<disk>.<format>` where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// A file on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^/"))]
    pub file: Option<String>,
    /// A block device on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^/dev/"))]
    pub block: Option<String>,
    /// Size. A volume that is missing is made with it; one that is smaller is grown; never shrunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
    /// `qcow2` or `raw`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<DiskFormat>,
    /// A volume in the same pool that a missing volume is filled from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// A volume in the same pool that a missing volume is an overlay of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing_image: Option<String>,
    /// Disk or CD-ROM.
    pub device: DiskDevice,
    /// `virtio` where not given, `sata` for a CD-ROM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bus: Option<DiskBus>,
    /// Its name in the guest, `vda`; the first free one where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^(vd|sd|hd|fd)[a-z]{1,2}$"))]
    pub target: Option<String>,
    /// Cache mode. `none` and `directsync` are safe for migration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheMode>,
    /// Place in the boot order, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub boot_order: Option<u32>,
    /// Whether the guest may only read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// Whether several machines may have it at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shareable: Option<bool>,
    /// Serial number that the guest sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
}

/// Image format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum DiskFormat {
    #[default]
    Qcow2,
    Raw,
}

/// Disk or CD-ROM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum DiskDevice {
    #[default]
    Disk,
    Cdrom,
}

/// Disk bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum DiskBus {
    Virtio,
    Scsi,
    Sata,
    Ide,
    Usb,
}

/// Cache mode of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum CacheMode {
    None,
    Directsync,
    Writethrough,
    Writeback,
    Unsafe,
}

/// A network interface: on a `network`, a `bridge`, or `direct` on a host's interface (macvtap).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Interface {
    /// A libvirt network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// A bridge of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// An interface of the host, through macvtap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct: Option<Direct>,
    /// Its MAC address; made from the machine's identity where not given, so it survives every move.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$"))]
    pub mac: Option<String>,
    /// The card: `virtio` where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Place in the boot order, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub boot_order: Option<u32>,
    /// Largest packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 68, max = 65535))]
    pub mtu: Option<u32>,
}

/// macvtap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Direct {
    /// The host's interface.
    pub dev: String,
    /// Mode.
    #[serde(default)]
    pub mode: DirectMode,
}

/// macvtap mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum DirectMode {
    Vepa,
    #[default]
    Bridge,
    Private,
    Passthrough,
}

/// The text console.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Console {
    /// On the first serial port.
    Serial,
    /// A virtio console.
    Virtio,
}

/// A serial port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Serial {
    /// A pseudo-terminal on the host, for `virsh console`.
    Pty,
    /// A file on the host.
    File {
        /// Its path.
        path: String,
    },
    /// Datagrams to a collector.
    Udp {
        /// Its address.
        host: String,
        /// Its port.
        port: u16,
    },
}

/// The display. Passwords are not supported in manifests; put the display on loopback or behind TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Graphics {
    /// Protocol.
    pub r#type: GraphicsType,
    /// Address it listens on; 127.0.0.1 where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Port; chosen by libvirt where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// Display protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum GraphicsType {
    Vnc,
    Spice,
}

/// A source of random numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rng {
    /// The host's device: `/dev/urandom`.
    pub device: String,
}

/// A TPM, emulated on the host (swtpm).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tpm {
    /// `tpm-crb` or `tpm-tis`.
    pub model: String,
    /// `2.0` or `1.2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// The whole domain XML.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DomainXml {
    /// The XML itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<String>,
    /// A file in the repository, relative to the manifest; read at load, after which `inline` holds its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}
