//! The command line as typed. What it means is decided by each command.

use crate::model::Span;
use clap::builder::ValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use std::path::PathBuf;
use std::time::Duration;

const AFTER_HELP: &str = "\
Exit codes:
  0   done, or nothing to do
  1   failed
  2   there are changes (only with --detailed-exitcode)
  3   invalid manifests
  4   refused by a guard rail or policy
  5   incomplete: a target could not be read
  64  wrong usage";

/// Reconciles virtual machines on libvirt hosts with what a Git repository says: a machine moves because its `host:` line
/// changed.
#[derive(Debug, Parser)]
#[command(name = "drover", version, after_help = AFTER_HELP, arg_required_else_help = true)]
#[command(propagate_version = true, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// When to use colour and progress bars; NO_COLOR in the environment turns `auto` off.
    #[arg(help_heading = "Global options", long, global = true, value_enum, default_value_t = When::Auto, value_name = "WHEN", env = "DROVER_COLOR")]
    pub color: When,
    /// How the log on standard error is written.
    #[arg(help_heading = "Global options", long, global = true, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Log more: -v for decisions, -vv for what is said to other systems.
    #[arg(help_heading = "Global options", short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// The operator's configuration file (TOML). Its settings can also be given as DROVER_… in the environment.
    #[arg(help_heading = "Global options", long, global = true, value_name = "FILE", env = "DROVER_CONFIG", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

/// When colour is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people; the default.
    Human,
    /// One JSON object a line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check manifests: schema, references, rules.
    Validate(ValidateArgs),
    /// Show what would be done (a dry run).
    Plan(PlanArgs),
    /// Plan, ask, and carry the plan out; PATH may also be a plan that was saved with `drover plan --out`.
    Apply(ApplyArgs),
    /// Follow a Git repository and keep the world as it says.
    Daemon(Box<DaemonArgs>),
    /// Show what is there now.
    Observe(ObserveArgs),
    /// Show what a daemon is doing and how the last pass went.
    Status(StatusArgs),
    /// Write a manifest that moves a machine to another host, or move it now.
    Migrate(MigrateArgs),
    /// Write manifests for what is there already.
    Import(ImportArgs),
    /// Show the CPU that guests can have on all of several hosts, so that they can move between them.
    CpuBaseline(CpuBaselineArgs),
    /// Print the roles that Drover needs on a cluster, for an administrator to apply.
    Rbac(RbacArgs),
    /// Show the last passes with their steps.
    History(HistoryArgs),
    /// Print the JSON Schema of a kind.
    Schema(SchemaArgs),
    /// Explain a kind or one of its fields.
    Explain(ExplainArgs),
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
}

/// Where manifests are read from.
#[derive(Clone, Debug, Args)]
pub struct SourceArgs {
    /// A folder, `-` for standard input, or a Git repository or URL with --rev.
    #[arg(value_name = "PATH", default_value = ".", value_hint = ValueHint::AnyPath)]
    pub path: String,
    /// Read this commit, branch or tag from the repository instead of the files in the folder.
    #[arg(long, value_name = "REV")]
    pub rev: Option<String>,
    /// The folder within the repository, where PATH is a Git URL.
    #[arg(long, value_name = "FOLDER", requires = "rev")]
    pub subdir: Option<String>,
}

/// `drover validate`
#[derive(Debug, Args)]
pub struct ValidateArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// How findings are written.
    #[arg(short, long, value_enum, default_value_t = FindingsFormat::Text, value_name = "FORMAT")]
    pub output: FindingsFormat,
}

/// A form of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FindingsFormat {
    /// For people.
    Text,
    /// A JSON array.
    Json,
    /// Workflow commands that become annotations on GitHub.
    Github,
    /// SARIF 2.1.0.
    Sarif,
}

/// `drover plan`
#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// How the plan is written.
    #[arg(short, long, value_enum, default_value_t = PlanFormat::Text, value_name = "FORMAT")]
    pub output: PlanFormat,
    /// Plan only what changed since this commit.
    #[arg(long, value_name = "REV", conflicts_with = "rev")]
    pub base: Option<String>,
    /// The commit to plan for, with --base; `HEAD` where not given.
    #[arg(long, value_name = "REV", requires = "base", conflicts_with = "rev")]
    pub head: Option<String>,
    /// Plan from a saved `drover observe -o json`; opens no connection.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub observed: Option<PathBuf>,
    /// Also save the plan as JSON here, for `drover apply FILE`.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
    /// Exit with 2 when there are changes.
    #[arg(long)]
    pub detailed_exitcode: bool,
    /// Show every line of long values, and every precheck of a move.
    #[arg(long)]
    pub full: bool,
    #[command(flatten)]
    pub adopt: AdoptArgs,
}

/// What the operator says beyond the manifests.
#[derive(Clone, Debug, Default, Args)]
pub struct AdoptArgs {
    /// Take over the existing domain of this VirtualMachine, which Drover does not own yet. May be given several times.
    #[arg(long, value_name = "NAME")]
    pub adopt: Vec<String>,
    /// Move machines with `placement` that could stay, so that hosts are filled evenly. Once; `placement.rebalance: Always`
    /// in Settings does it in every pass.
    #[arg(long)]
    pub rebalance: bool,
}

/// `drover migrate`
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// The machine: the name of a VirtualMachine, or the libvirt name of a domain that has no manifest.
    #[arg(value_name = "VM")]
    pub machine: String,
    #[command(flatten)]
    pub source: SourceArgs,
    /// The host it goes to: `NAME` of a Host in PATH, or `NAME=URI` (`kvm-b=qemu+ssh://root@kvm-b/system`).
    #[arg(long, value_name = "NAME[=URI]")]
    pub to: String,
    /// The host it leaves, for a domain without manifest; looked for on the hosts of PATH where not given.
    #[arg(long, value_name = "NAME[=URI]")]
    pub from: Option<String>,
    /// Only for a while: its definition stays at home, and it is its home's again when it shuts down.
    #[arg(long)]
    pub temporary: bool,
    /// How it moves: the name of a MigrationPolicy.
    #[arg(long, value_name = "NAME")]
    pub policy: Option<String>,
    /// The manifest's name; made of the machine's and the host's where not given.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Write the manifest into this folder, which is made; never over one that is there. Standard output where not given.
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
    /// Plan it, show it, ask, and carry it out.
    #[arg(long)]
    pub now: bool,
    /// Do not ask.
    #[arg(long, requires = "now")]
    pub auto_approve: bool,
    /// Show every line of long values.
    #[arg(long, requires = "now")]
    pub full: bool,
    /// Where the journal is kept, so that a run that was cut off is found again.
    #[arg(long, visible_alias = "state-dir", value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,
}

/// `drover import`
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// What to import.
    #[command(subcommand)]
    pub what: Importable,
}

/// What can be imported.
#[derive(Debug, Subcommand)]
pub enum Importable {
    /// Hosts: their storage pools and their machines. Nothing on the hosts is changed, and the plan afterwards is empty.
    Host(ImportHostArgs),
    /// A cluster on which the Migration Toolkit for Containers was installed by other hands: the manifest that says what is
    /// there. Nothing on the cluster is changed, and the plan afterwards is empty.
    Cluster(ImportClusterArgs),
}

/// `drover import cluster`
#[derive(Debug, Args)]
pub struct ImportClusterArgs {
    /// The Cluster's name in the manifests, which say how it is reached.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where the manifests are.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `drover rbac`
#[derive(Debug, Args)]
pub struct RbacArgs {
    /// For what.
    #[command(subcommand)]
    pub what: RbacOf,
}

/// What roles can be printed for.
#[derive(Debug, Subcommand)]
pub enum RbacOf {
    /// A service account, its token and its roles: as much as the manifests make necessary on this cluster, and no more.
    Cluster {
        /// The Cluster's name in the manifests.
        #[arg(value_name = "NAME")]
        name: String,
        /// Where the manifests are.
        #[command(flatten)]
        source: SourceArgs,
    },
}

/// `drover import host`
#[derive(Debug, Args)]
pub struct ImportHostArgs {
    /// Hosts: `NAME` of a Host manifest, or `NAME=URI` of one that is to be written (`kvm-a=qemu+ssh://root@kvm-a/system`).
    #[arg(value_name = "NAME[=URI]", required = true)]
    pub hosts: Vec<String>,
    /// The manifests that are there already: what they declare is not imported again. The folder of --out where not given.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::DirPath)]
    pub path: Option<PathBuf>,
    /// Only the domain of this name. May be given several times.
    #[arg(long = "vm", value_name = "NAME", conflicts_with = "all")]
    pub vms: Vec<String>,
    /// Every domain, which is also what happens without --vm.
    #[arg(long)]
    pub all: bool,
    /// Write files into this folder, which is made; never over one that is there. Standard output where not given.
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
}

/// A form of plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    /// For people.
    Text,
    /// For a comment on a pull request, at most 60,000 characters.
    Markdown,
    /// For programs; see schemas/plan.schema.json.
    Json,
}

/// `drover apply`
#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// Do not ask.
    #[arg(long)]
    pub auto_approve: bool,
    /// Show every line of long values, and every precheck of a move.
    #[arg(long)]
    pub full: bool,
    #[command(flatten)]
    pub adopt: AdoptArgs,
    /// Where the journal is kept, so that a run that was cut off is found again.
    #[arg(long, visible_alias = "state-dir", value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,
}

/// `drover daemon`
#[derive(Clone, Debug, Args)]
pub struct DaemonArgs {
    /// The repository: a path, or a file://, ssh:// or https:// URL.
    #[arg(long, value_name = "URL")]
    pub repo: Option<String>,
    /// The branch to follow; the repository's own default where not given.
    #[arg(long, value_name = "NAME", conflicts_with = "tag")]
    pub branch: Option<String>,
    /// The tag to follow.
    #[arg(long, value_name = "NAME")]
    pub tag: Option<String>,
    /// The folder within the repository that has the manifests.
    #[arg(long, value_name = "FOLDER")]
    pub path: Option<String>,
    /// Where the mirror and the journal are kept.
    #[arg(long, visible_alias = "state-dir", value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,
    /// Address for health, metrics, API and webhook, such as 127.0.0.1:9470, or `off`.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// How often the repository is asked for news, such as 30s.
    #[arg(long, value_name = "TIME")]
    pub poll_interval: Option<Span>,
    /// How often everything is observed and compared without a new commit, such as 5m.
    #[arg(long, value_name = "TIME")]
    pub drift_interval: Option<Span>,
    /// How long running steps may go on after SIGTERM, such as 30s.
    #[arg(long, value_name = "TIME")]
    pub grace_time: Option<Span>,
}

/// `drover observe`
#[derive(Debug, Args)]
pub struct ObserveArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// How the observation is written.
    #[arg(short, long, value_enum, default_value_t = ObservedFormat::Table, value_name = "FORMAT")]
    pub output: ObservedFormat,
}

/// `drover cpu-baseline`
#[derive(Debug, Args)]
pub struct CpuBaselineArgs {
    /// Hosts: `NAME` of a Host manifest in PATH, or `NAME=URI` of one that has none. Separated by commas, or given several
    /// times.
    #[arg(long, value_name = "NAME[=URI],...", required = true, value_delimiter = ',')]
    pub hosts: Vec<String>,
    #[command(flatten)]
    pub source: SourceArgs,
    /// For this machine type; q35 where all hosts have it.
    #[arg(long, value_name = "TYPE")]
    pub machine: Option<String>,
    /// For this domain type, `kvm` or `qemu`; the best that all hosts have where not given.
    #[arg(long = "type", value_name = "TYPE")]
    pub virt_type: Option<String>,
    /// For this guest architecture; the hosts' own where not given.
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<String>,
    /// How the CPU is written.
    #[arg(short, long, value_enum, default_value_t = CpuFormat::Text, value_name = "FORMAT")]
    pub output: CpuFormat,
}

/// A form of CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CpuFormat {
    /// For people: model, features, and which host restricts it.
    Text,
    /// libvirt's `<cpu>` element.
    Xml,
    /// `spec.cpu` of a VirtualMachine.
    Yaml,
    /// For programs.
    Json,
}

/// A form of observations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ObservedFormat {
    /// For people.
    Table,
    /// For programs, and for `drover plan --observed`.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Where a daemon is asked.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// The daemon's address.
    #[arg(
        long,
        value_name = "URL",
        env = "DROVER_SERVER",
        default_value = "http://127.0.0.1:9470",
        conflicts_with = "state"
    )]
    pub server: String,
    /// Read a daemon's state folder instead of asking the daemon.
    #[arg(long, visible_alias = "state-dir", value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,
    /// How long to wait for the daemon's answer.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds())]
    pub timeout: Duration,
}

/// `drover status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// How the status is written.
    #[arg(short, long, value_enum, default_value_t = RecordFormat::Text, value_name = "FORMAT")]
    pub output: RecordFormat,
}

/// `drover history`
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The state folder of a daemon, which may be running, or of `drover apply`.
    #[arg(long, visible_alias = "state-dir", value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,
    /// How many passes, newest first.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 10)]
    pub limit: usize,
    /// How the history is written.
    #[arg(short, long, value_enum, default_value_t = RecordFormat::Text, value_name = "FORMAT")]
    pub output: RecordFormat,
}

/// A form of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RecordFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `drover schema`
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// The kind; the list of kinds where not given.
    #[arg(value_name = "KIND", conflicts_with = "write")]
    pub kind: Option<String>,
    /// Write every schema into this folder.
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub write: Option<PathBuf>,
}

/// `drover explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// A kind, or a field: `VirtualMachine`, `VirtualMachine.spec.disks.size`; `spec.` may be left out.
    #[arg(value_name = "KIND[.FIELD]")]
    pub what: String,
}

/// `drover completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

fn seconds() -> ValueParser {
    ValueParser::from(|text: &str| match text.parse::<f64>() {
        Ok(n) if n > 0.0 && n <= 3600.0 => Ok(Duration::from_secs_f64(n)),
        _ => Err("give seconds, more than 0 and at most 3600"),
    })
}
