//! Tables for the terminal: what was observed, and what was done.

use super::Paint;
use super::escape::line as terminal;
use super::view::{bytes, seconds, time};
use crate::observed::{ClusterState, DomainState, HostState, JobOperation, Observed, Reading, RunState};
use std::io::{self, Write};

/// Rows under headings, aligned.
pub struct Table {
    headings: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(headings: &'static [&'static str]) -> Self {
        Self { headings, rows: Vec::new() }
    }

    /// Adds a row; its text is escaped here.
    pub fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(|c| terminal(c.as_ref()).into_owned()).collect());
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes it, each column as wide as its widest cell, the last one as it is.
    pub fn write(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        let mut widths: Vec<usize> = self.headings.iter().map(|h| h.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |cells: &[&str]| {
            let mut text = String::new();
            for (i, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                text.push_str(cell);
                if i + 1 < cells.len() {
                    text.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
                }
            }
            text.truncate(text.trim_end().len());
            text
        };
        writeln!(out, "{}", paint.bold(&line(self.headings)))?;
        for row in &self.rows {
            writeln!(out, "{}", line(&row.iter().map(String::as_str).collect::<Vec<_>>()))?;
        }
        Ok(())
    }
}

/// Writes an observation: its hosts, the pools and domains on them, and its clusters.
pub fn observed(out: &mut dyn Write, observed: &Observed, paint: Paint) -> io::Result<()> {
    writeln!(out, "Observed at {}.\n", time(observed.taken_at))?;
    let mut hosts = Table::new(&["HOST", "STATE", "HYPERVISOR", "CPUS", "MEMORY", "FREE", "DOMAINS", "RUNNING"]);
    let mut pools = Table::new(&["HOST", "POOL", "STATE", "CAPACITY", "FREE", "VOLUMES"]);
    let mut domains = Table::new(&["HOST", "DOMAIN", "STATE", "DEFINITION", "AUTOSTART", "OWNER", "JOB", "UUID"]);
    let mut unknown = Vec::new();
    for (name, reading) in &observed.hosts {
        match reading {
            Reading::Unknown { why } => {
                hosts.row([name.as_str(), "unknown", "-", "-", "-", "-", "-", "-"]);
                unknown.push((name, why));
            }
            Reading::Present(host) => {
                let running = host.domains.iter().filter(|d| d.is_active()).count();
                hosts.row([
                    name.clone(),
                    "read".into(),
                    hypervisor(host),
                    host.cpus.to_string(),
                    bytes(host.memory),
                    bytes(host.free_memory),
                    host.domains.len().to_string(),
                    running.to_string(),
                ]);
                for (pool, state) in &host.pools {
                    let active = if state.active { "active" } else { "inactive" };
                    let amount = |n: u64| if state.active { bytes(n) } else { "-".into() };
                    let volumes = if state.active { state.volumes.len().to_string() } else { "-".into() };
                    pools.row([
                        name.as_str(),
                        pool,
                        active,
                        &amount(state.capacity),
                        &amount(state.available),
                        &volumes,
                    ]);
                }
                for domain in &host.domains {
                    domains.row(domain_row(name, domain));
                }
            }
        }
    }
    let mut clusters = Table::new(&["CLUSTER", "STATE", "PLATFORM", "VERSION", "MTC", "NAMESPACES", "DENIED"]);
    for (name, reading) in &observed.clusters {
        match reading {
            Reading::Unknown { why } => {
                clusters.row([name.as_str(), "unknown", "-", "-", "-", "-", "-"]);
                unknown.push((name, why));
            }
            Reading::Present(cluster) => clusters.row(cluster_row(name, cluster)),
        }
    }
    for (i, table) in [hosts, pools, domains, clusters].iter().filter(|t| !t.is_empty()).enumerate() {
        if i > 0 {
            writeln!(out)?;
        }
        table.write(out, paint)?;
    }
    if !unknown.is_empty() {
        writeln!(out)?;
    }
    for (host, why) in unknown {
        writeln!(out, "{} {} could not be read: {}", paint.yellow("unknown:"), terminal(host), terminal(why))?;
    }
    Ok(())
}

fn cluster_row(name: &str, cluster: &ClusterState) -> [String; 7] {
    let or_none = |text: Option<&str>| text.filter(|t| !t.is_empty()).unwrap_or("-").to_owned();
    // The operator notes its version where its controller finds it.
    let mut maps = cluster.objects.iter().filter(|o| o.id.kind == "ConfigMap");
    let toolkit = maps.find_map(|o| o.value.pointer("/data/OPERATOR_VERSION")?.as_str());
    [
        name.to_owned(),
        "read".into(),
        cluster.platform.clone(),
        or_none(cluster.openshift_version.as_deref().or(Some(&cluster.version))),
        or_none(toolkit),
        cluster.namespaces.len().to_string(),
        if cluster.denied.is_empty() { "-".into() } else { format!("{} rights", cluster.denied.len()) },
    ]
}

fn hypervisor(host: &HostState) -> String {
    match (host.driver.as_str(), host.hypervisor_version.as_str()) {
        ("", _) => "-".into(),
        (driver, "") => driver.to_owned(),
        (driver, version) => format!("{driver} {version}"),
    }
}

fn domain_row(host: &str, domain: &DomainState) -> [String; 8] {
    let state = match (run_state(domain.state), domain.reason.as_str()) {
        (state, "" | "unknown") => state.to_owned(),
        (state, reason) => format!("{state} ({reason})"),
    };
    let job = match &domain.job {
        None => "-".to_owned(),
        Some(job) => {
            let what = match job.operation {
                JobOperation::MigrationIn => "migrating in",
                JobOperation::MigrationOut => "migrating out",
                JobOperation::Other => "other",
            };
            format!("{what}, {}", seconds(job.progress.elapsed_millis as f64 / 1000.0))
        }
    };
    [
        host.to_owned(),
        domain.name.clone(),
        state,
        if domain.persistent { "persistent" } else { "transient" }.to_owned(),
        if domain.autostart { "yes" } else { "no" }.to_owned(),
        domain.owner.as_ref().map_or_else(|| "-".to_owned(), |o| format!("{}/{}", o.fleet, o.name)),
        job,
        domain.uuid.to_string(),
    ]
}

fn run_state(state: RunState) -> &'static str {
    match state {
        RunState::Running => "running",
        RunState::Paused => "paused",
        RunState::ShuttingDown => "shutting down",
        RunState::Off => "off",
        RunState::Crashed => "crashed",
        RunState::Suspended => "suspended",
    }
}
