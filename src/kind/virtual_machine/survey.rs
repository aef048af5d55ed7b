//! Where every machine is, by what was observed, and on which host it should be. Computed once for a plan.
//!
//! ```text
//!  nothing found, every host read ............. Absent
//!  nothing found, a host could not be read .... Unknown         nothing is done
//!  one copy that is active, or the only one ... At              other copies that are off are stale definitions
//!  both halves of a migration ................. Moving          followed to its end
//!  a post-copy that broke ..................... Broken          a person decides
//!  active on two hosts ........................ Twice           a person decides
//!  off, defined on several hosts .............. DefinedTwice    a person decides
//!  only a domain that is not Drover's ......... Foreign         refused, or adopted
//! ```
//! The identity of a machine is its UUID; names and marks only lead to it. A host counts as read only when its reading is
//! complete; one that `fenced: true` vouches for counts as empty while it cannot be read.

use super::identity;
use super::place::{self, Places};
use super::writers::Writers;
use super::{PowerState, VirtualMachineSpec, footprint};
use crate::kind::Resources;
use crate::kind::virtual_machine_migration::Moves;
use crate::model::Manifest;
use crate::observed::{DomainState, JobOperation, Observed, Reading, RunState};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::OnceLock;
use uuid::Uuid;

/// Where a machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Located {
    /// It may be on a host that could not be read.
    Unknown {
        /// Those hosts.
        hosts: Vec<String>,
    },
    /// It is nowhere.
    Absent,
    /// It is here.
    At {
        /// Where.
        copy: Copy,
        /// Definitions that are off and that it left behind.
        stale: Vec<Copy>,
    },
    /// It is on its way.
    Moving {
        /// The host it leaves, where that could be read.
        from: Option<Copy>,
        /// The host it goes to, where that could be read.
        to: Option<Copy>,
    },
    /// A post-copy migration broke: half of its memory is on each side.
    Broken {
        /// The hosts.
        hosts: Vec<String>,
    },
    /// It runs in several places.
    Twice {
        /// The hosts.
        hosts: Vec<String>,
    },
    /// It is off, and defined in several places.
    DefinedTwice {
        /// The hosts.
        hosts: Vec<String>,
    },
    /// Its name or UUID belongs to a domain that Drover does not own.
    Foreign {
        /// Which.
        copy: Copy,
    },
}

/// A domain in an observation: host and index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Copy {
    /// The host.
    pub host: String,
    /// Index into its domains.
    pub index: usize,
}

impl Copy {
    /// The domain itself.
    pub fn domain<'o>(&self, observed: &'o Observed) -> Option<&'o DomainState> {
        observed.host(&self.host)?.domains.get(self.index)
    }
}

/// On which host a machine should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// On this one.
    Host(String),
    /// No host fits.
    Nowhere {
        /// Why not.
        why: String,
    },
}

/// Where every machine is, and should be.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    located: BTreeMap<String, Located>,
    places: Places,
    unknown: BTreeMap<String, String>,
    claimed: BTreeSet<Copy>,
    copies: BTreeMap<Uuid, Vec<Copy>>,
    machines: BTreeMap<Uuid, String>,
    moves: Moves,
    /// For [`Survey::staying_vcpus`].
    staying: OnceLock<BTreeMap<String, u64>>,
    /// For [`Survey::writers`].
    writers: OnceLock<Writers>,
}

impl Survey {
    /// Virtual CPUs of the guests that run on a host and neither leave it nor are shut down; counted once for all hosts.
    pub fn staying_vcpus(&self, host: &str, resources: &Resources, observed: &Observed) -> u64 {
        let staying = self.staying.get_or_init(|| {
            let mut machines = HashMap::new();
            for machine in resources.virtual_machines.values() {
                if let Located::At { copy, .. } = self.located(machine.name()) {
                    machines.insert((copy.host.as_str(), copy.index), machine);
                }
            }
            let mut sums = BTreeMap::new();
            for (name, reading) in &observed.hosts {
                let Reading::Present(state) = reading else { continue };
                let stays = |machine: &&Manifest<VirtualMachineSpec>| {
                    machine.spec.power_state != PowerState::Stopped
                        && !matches!(self.target(machine.name()), Some(Target::Host(to)) if to != name)
                };
                let running = state.domains.iter().enumerate().filter(|(_, d)| d.is_active());
                let used = running.filter_map(|(index, domain)| {
                    let machine = machines.get(&(name.as_str(), index)).copied();
                    machine.is_none_or(|m| stays(&m)).then(|| u64::from(footprint(machine, Some(domain)).cpus))
                });
                sums.insert(name.clone(), used.sum());
            }
            sums
        });
        staying.get(host).copied().unwrap_or_default()
    }

    /// Who writes to which storage; looked up once, and only where something is to be started.
    pub(super) fn writers(&self, observed: &Observed) -> &Writers {
        self.writers.get_or_init(|| Writers::new(observed))
    }

    /// Looks for every machine on every host, and chooses hosts for those with `placement`. `rebalance`: machines that
    /// may stay may move for balance, whatever Settings say.
    pub fn new(resources: &Resources, observed: &Observed, rebalance: bool) -> Self {
        let mut survey = Self { unknown: unknown_hosts(resources, observed), ..Self::default() };
        let index = Index::new(observed);
        for machine in resources.virtual_machines.values() {
            let copies = index.copies(machine, resources.fleet());
            let marked = copies.iter().filter_map(|c| c.domain(observed)).find(|d| !d.moves.is_empty());
            if let Some(domain) = marked {
                survey.machines.insert(domain.uuid, machine.name().to_owned());
            }
            survey.claimed.extend(copies.iter().cloned());
            let located = judge(machine, &copies, observed, resources, &survey.unknown);
            survey.located.insert(machine.name().to_owned(), located);
        }
        survey.copies = index.marked();
        survey.moves = Moves::new(resources, observed, &survey.located, &survey.claimed, &survey.unknown);
        survey.places = place::choose(resources, observed, &survey, rebalance);
        survey
    }

    /// Where a machine is.
    pub fn located(&self, machine: &str) -> &Located {
        self.located.get(machine).unwrap_or(&Located::Absent)
    }

    /// Where a machine should be.
    pub fn target(&self, machine: &str) -> Option<&Target> {
        self.places.targets.get(machine)
    }

    /// Why a machine with `placement` should be where it is not, in words.
    pub fn reason(&self, machine: &str) -> Option<&str> {
        self.places.reasons.get(machine).map(String::as_str)
    }

    /// Hosts that could not be read and that nobody vouches for, with the reason.
    pub fn unknown(&self) -> &BTreeMap<String, String> {
        &self.unknown
    }

    /// Every copy of a domain that carries a mark of a move.
    pub fn copies(&self, uuid: Uuid) -> Vec<Copy> {
        self.copies.get(&uuid).cloned().unwrap_or_default()
    }

    /// The machine with a manifest whose domain this is, if it carries a mark of a move.
    pub fn machine_of(&self, uuid: Uuid) -> Option<&str> {
        self.machines.get(&uuid).map(String::as_str)
    }

    /// What VirtualMachineMigrations do.
    pub fn moves(&self) -> &Moves {
        &self.moves
    }

    /// Whether a domain belongs to a machine that has a manifest.
    pub fn is_claimed(&self, copy: &Copy) -> bool {
        self.claimed.contains(copy)
    }
}

/// Declared hosts without a complete reading, except those that are fenced.
fn unknown_hosts(resources: &Resources, observed: &Observed) -> BTreeMap<String, String> {
    resources
        .hosts
        .iter()
        .filter(|(_, host)| !host.spec.fenced)
        .filter_map(|(name, _)| match observed.hosts.get(name) {
            Some(Reading::Present(_)) => None,
            Some(Reading::Unknown { why }) => Some((name.clone(), why.clone())),
            None => Some((name.clone(), "it is not in the observation".into())),
        })
        .collect()
}

/// Domains by mark, UUID and name.
struct Index<'o> {
    observed: &'o Observed,
    by_mark: HashMap<(&'o str, &'o str), Vec<Copy>>,
    by_uuid: HashMap<Uuid, Vec<Copy>>,
    by_name: HashMap<&'o str, Vec<Copy>>,
}

impl<'o> Index<'o> {
    fn new(observed: &'o Observed) -> Self {
        let mut index = Self { observed, by_mark: HashMap::new(), by_uuid: HashMap::new(), by_name: HashMap::new() };
        for (host, reading) in &observed.hosts {
            let Reading::Present(state) = reading else { continue };
            for (i, domain) in state.domains.iter().enumerate() {
                let copy = Copy { host: host.clone(), index: i };
                if let Some(mark) = &domain.owner {
                    index.by_mark.entry((&mark.fleet, &mark.name)).or_default().push(copy.clone());
                }
                index.by_uuid.entry(domain.uuid).or_default().push(copy.clone());
                index.by_name.entry(&domain.name).or_default().push(copy);
            }
        }
        index
    }

    /// Every copy of the domains of which one carries a mark of a move.
    fn marked(&self) -> BTreeMap<Uuid, Vec<Copy>> {
        let is_marked =
            |copies: &&Vec<Copy>| copies.iter().any(|c| c.domain(self.observed).is_some_and(|d| !d.moves.is_empty()));
        self.by_uuid.iter().filter(|(_, copies)| is_marked(copies)).map(|(u, copies)| (*u, copies.clone())).collect()
    }

    /// Every copy of a machine: all domains with its UUID. The UUID is the manifest's own; else that of the domain that
    /// carries its mark (so a machine that was adopted, or renamed, keeps its UUID); else that of a domain of its name.
    fn copies(&self, machine: &Manifest<VirtualMachineSpec>, fleet: &str) -> Vec<Copy> {
        let own = identity::uuid(machine);
        if let Some(copies) = self.by_uuid.get(&own) {
            return copies.clone();
        }
        let names = std::iter::once(machine.name()).chain(machine.spec.former_names.iter().map(String::as_str));
        let marked = names.filter_map(|n| self.by_mark.get(&(fleet, n))).flatten().next();
        let found = marked.or_else(|| {
            // A name is unique on a host only: another host's domain of the same name says nothing about this machine.
            let named = self.by_name.get(identity::domain_name(machine))?;
            named.iter().find(|c| machine.spec.host.as_ref().is_none_or(|h| *h == c.host))
        });
        found.and_then(|c| c.domain(self.observed)).and_then(|d| self.by_uuid.get(&d.uuid)).cloned().unwrap_or_default()
    }
}

/// Judges where a machine is from all its copies.
fn judge(
    machine: &Manifest<VirtualMachineSpec>,
    copies: &[Copy],
    observed: &Observed,
    resources: &Resources,
    unknown: &BTreeMap<String, String>,
) -> Located {
    let with: Vec<(&Copy, &DomainState)> = copies.iter().filter_map(|c| c.domain(observed).map(|d| (c, d))).collect();
    if with.is_empty() {
        return if unknown.is_empty() {
            Located::Absent
        } else {
            Located::Unknown { hosts: unknown.keys().cloned().collect() }
        };
    }
    let is_ours = |d: &DomainState| {
        d.owner.as_ref().is_some_and(|o| {
            o.fleet == resources.fleet() && (o.name == machine.name() || machine.spec.former_names.contains(&o.name))
        })
    };
    if let Some(located) = in_motion(&with) {
        return located;
    }
    if let Some((copy, _)) = with.iter().find(|(_, d)| !is_ours(d))
        && !with.iter().any(|(_, d)| is_ours(d))
    {
        return Located::Foreign { copy: (*copy).clone() };
    }
    match settled(&with, unknown) {
        // It runs, or is defined last, under a mark that is not ours: whoever did that has the say.
        Located::At { copy, .. } if !copy.domain(observed).is_some_and(is_ours) => Located::Foreign { copy },
        found => found,
    }
}

/// Where a machine is of which these are all copies, whoever owns it.
pub(in crate::kind) fn locate(copies: &[Copy], observed: &Observed, unknown: &BTreeMap<String, String>) -> Located {
    let with: Vec<(&Copy, &DomainState)> = copies.iter().filter_map(|c| c.domain(observed).map(|d| (c, d))).collect();
    if with.is_empty() {
        return Located::Absent;
    }
    in_motion(&with).unwrap_or_else(|| settled(&with, unknown))
}

fn hosts_of(with: &[(&Copy, &DomainState)]) -> Vec<String> {
    with.iter().map(|(c, _)| c.host.clone()).collect()
}

/// A machine on its way, or one that got stuck on it.
fn in_motion(with: &[(&Copy, &DomainState)]) -> Option<Located> {
    if with.iter().any(|(_, d)| d.reason == "postcopy-failed") {
        return Some(Located::Broken { hosts: hosts_of(with) });
    }
    if with.iter().any(|(_, d)| d.is_in_migration()) {
        let runs = |d: &DomainState| d.is_active() && !d.is_in_migration();
        let has_arrived = with.iter().any(|(_, d)| runs(d));
        let leaves = |d: &DomainState| {
            d.job.as_ref().is_some_and(|j| j.operation == JobOperation::MigrationOut)
                || d.reason == "postcopy" && d.state == RunState::Paused
                // It runs at the destination already, and the source has not let go of its half yet.
                || has_arrived && d.reason == "migrating" && d.state == RunState::Paused && d.job.is_none()
        };
        let arrives = |d: &DomainState| !leaves(d) && (d.is_in_migration() || runs(d));
        return Some(Located::Moving {
            from: with.iter().find(|(_, d)| leaves(d)).map(|(c, _)| (*c).clone()),
            to: with.iter().find(|(_, d)| arrives(d)).map(|(c, _)| (*c).clone()),
        });
    }
    None
}

/// A machine that is not on its way.
fn settled(with: &[(&Copy, &DomainState)], unknown: &BTreeMap<String, String>) -> Located {
    let active: Vec<_> = with.iter().filter(|(_, d)| d.is_active()).copied().collect();
    if active.len() > 1 {
        return Located::Twice { hosts: hosts_of(&active) };
    }
    let here = match active.first() {
        Some(one) => one,
        None => {
            let stayed: Vec<_> = with.iter().filter(|(_, d)| !d.moved_away()).collect();
            match stayed.as_slice() {
                [one] => *one,
                [] if with.len() == 1 && unknown.is_empty() => &with[0],
                [] if !unknown.is_empty() => return Located::Unknown { hosts: unknown.keys().cloned().collect() },
                _ => return Located::DefinedTwice { hosts: hosts_of(with) },
            }
        }
    };
    let stale = with.iter().filter(|(c, _)| *c != here.0).map(|(c, _)| (*c).clone()).collect();
    Located::At { copy: here.0.clone(), stale }
}
