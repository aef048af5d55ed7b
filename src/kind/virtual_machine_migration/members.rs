//! Which machines a migration moves, where each is, and how far it is. Computed once for a plan, as a part of the survey.
//!
//! ```text
//!  marked as done by this revision ............ Moved        wherever it is by now
//!  at `to` ..................................... There        nothing to do; a mark that says "begun" is completed
//!  elsewhere than at `from`, where that is said  Elsewhere    left alone
//!  where it should leave ....................... Pending
//!  on its way .................................. Moving
//!  not found, every host read .................. Missing      not yet there, for one that has a manifest
//!  not found, a host could not be read ......... Unknown      nothing is done
//!  another migration moves it already .......... Taken
//!  another fleet's ............................. NotOurs
//!  broken, running twice, defined twice ........ Trouble      a person decides
//! ```

use super::rules::machines;
use super::{Order, OrderBy, VirtualMachineMigrationSpec};
use crate::domain_xml;
use crate::kind::Resources;
use crate::kind::virtual_machine::{Copy, Located, locate};
use crate::model::Manifest;
use crate::observed::{DomainState, MoveMark, Observed, Reading};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// A machine that a migration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The name of its manifest, or the libvirt name of a domain that has none.
    pub name: String,
    /// Whether it has a manifest.
    pub has_manifest: bool,
    /// Where it is.
    pub located: Located,
    /// How far it is.
    pub stage: Stage,
    /// Its turn, from 1.
    pub rank: u32,
}

/// How far a machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// This revision has moved it; that it is not where it went is the wish of whoever moved it since.
    Moved {
        /// Whether it still is where it went.
        is_there: bool,
    },
    /// It is where it should be.
    There {
        /// Its move was begun, and nobody noted the end.
        begun: bool,
    },
    /// It is not where it should leave.
    Elsewhere {
        /// Where it is.
        host: String,
    },
    /// It is to move.
    Pending {
        /// The host it leaves.
        from: String,
    },
    /// It is on its way.
    Moving,
    /// There is none.
    Missing,
    /// It cannot be told.
    Unknown {
        /// Why.
        why: String,
    },
    /// Another migration moves it.
    Taken {
        /// Which.
        by: String,
    },
    /// It belongs to another fleet.
    NotOurs {
        /// Whose it is.
        owner: String,
    },
    /// Nothing can be done before somebody has decided.
    Trouble {
        /// What is wrong.
        why: String,
    },
}

/// A machine that a migration has to move now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The migration's name.
    pub migration: String,
    /// The host it goes to.
    pub to: String,
    /// Whether for good.
    pub permanent: bool,
    /// The policy that the migration names.
    pub policy: Option<String>,
    /// What is written into the domain before it leaves.
    pub mark: MoveMark,
    /// Its turn, from 1.
    pub rank: u32,
}

/// A machine that is elsewhere for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Away {
    /// Its definition at home; `None` where the home cannot be read.
    pub home: Option<Copy>,
    /// Its home's name.
    pub home_host: String,
    /// The migration that moved it.
    pub migration: String,
    /// Whether that migration still wants it there.
    pub in_force: bool,
}

/// The machines of all migrations.
#[derive(Clone, Debug, Default)]
pub struct Moves {
    fleet: String,
    members: BTreeMap<String, Vec<Member>>,
    /// By machine with a manifest: its migration, and its place among the members.
    by_machine: BTreeMap<String, (String, usize)>,
    wishes: BTreeMap<String, Wish>,
    away: BTreeMap<String, Away>,
}

impl Moves {
    /// Finds the machines of every migration.
    pub fn new(
        resources: &Resources,
        observed: &Observed,
        located: &BTreeMap<String, Located>,
        claimed: &BTreeSet<Copy>,
        unknown: &BTreeMap<String, String>,
    ) -> Self {
        let mut moves = Self { fleet: resources.fleet().to_owned(), ..Self::default() };
        let mut finder =
            Finder { resources, observed, located, claimed, unknown, by_uuid: None, taken: BTreeMap::new() };
        // What is suspended moves nothing, and so keeps nothing from another one.
        let (held, live): (Vec<_>, Vec<_>) =
            resources.virtual_machine_migrations.values().partition(|m| m.spec.suspend);
        for m in live.into_iter().chain(held) {
            let members = finder.members(m);
            for (i, member) in members.iter().enumerate() {
                if member.has_manifest && !matches!(member.stage, Stage::Taken { .. }) {
                    moves.by_machine.entry(member.name.clone()).or_insert_with(|| (m.name().to_owned(), i));
                }
                if member.has_manifest
                    && !m.spec.suspend
                    && let Some(wish) = wish(m, member, resources)
                {
                    moves.wishes.insert(member.name.clone(), wish);
                }
            }
            moves.members.insert(m.name().to_owned(), members);
        }
        for (name, place) in located {
            if let Some(away) = moves.away_from(place, true, name, resources, observed, unknown) {
                moves.away.insert(name.clone(), away);
            }
        }
        moves
    }

    /// The machines of a migration, in the order of their turns.
    pub fn members(&self, migration: &str) -> &[Member] {
        self.members.get(migration).map(Vec::as_slice).unwrap_or_default()
    }

    /// The move that a machine with a manifest is to make now.
    pub fn wish(&self, machine: &str) -> Option<&Wish> {
        self.wishes.get(machine)
    }

    /// Whether, and from where, a machine with a manifest is elsewhere for a while.
    pub fn away(&self, machine: &str) -> Option<&Away> {
        self.away.get(machine)
    }

    /// Whether a migration names a machine, with or without a manifest.
    pub fn names(&self, migration: &str, has_manifest: bool, name: &str) -> bool {
        let is =
            |m: &&Member| m.has_manifest == has_manifest && m.name == name && !matches!(m.stage, Stage::Taken { .. });
        self.members(migration).iter().any(|m| is(&m))
    }

    /// The mark of a move that is under way on a domain, of this fleet's.
    pub fn begun<'d>(&self, domain: &'d DomainState) -> Option<&'d MoveMark> {
        domain.moves.iter().find(|m| m.fleet == self.fleet && !m.done)
    }

    /// Whether the machine at this place is elsewhere for a while: it runs without a definition where a mark says that it
    /// was moved to, and its home has its definition or cannot be read.
    pub fn away_from(
        &self,
        located: &Located,
        has_manifest: bool,
        name: &str,
        resources: &Resources,
        observed: &Observed,
        unknown: &BTreeMap<String, String>,
    ) -> Option<Away> {
        let Located::At { copy, stale } = located else { return None };
        let domain = copy.domain(observed)?;
        if domain.persistent || !domain.is_active() {
            return None;
        }
        let mark = domain.moves.iter().find(|m| m.fleet == self.fleet && m.temporary && m.to == copy.host)?;
        let home = stale.iter().find(|c| c.host == mark.from && c.domain(observed).is_some_and(|d| d.persistent));
        // A home that was read and has no definition is none.
        if home.is_none() && !unknown.contains_key(&mark.from) {
            return None;
        }
        let in_force = resources.virtual_machine_migrations.get(&mark.migration).is_some_and(|m| {
            m.spec.to == copy.host && !m.spec.is_permanent(resources) && self.names(&mark.migration, has_manifest, name)
        });
        Some(Away { home: home.cloned(), home_host: mark.from.clone(), migration: mark.migration.clone(), in_force })
    }
}

/// The move that a member is to make now.
pub(in crate::kind) fn wish(
    m: &Manifest<VirtualMachineMigrationSpec>,
    member: &Member,
    resources: &Resources,
) -> Option<Wish> {
    let Stage::Pending { from } = &member.stage else { return None };
    let permanent = m.spec.is_permanent(resources);
    Some(Wish {
        migration: m.name().to_owned(),
        to: m.spec.to.clone(),
        permanent,
        policy: m.spec.migration_policy.clone(),
        mark: MoveMark {
            fleet: resources.fleet().to_owned(),
            migration: m.name().to_owned(),
            revision: m.spec.revision(resources),
            from: from.clone(),
            to: m.spec.to.clone(),
            temporary: !permanent,
            done: false,
        },
        rank: member.rank,
    })
}

struct Finder<'a> {
    resources: &'a Resources,
    observed: &'a Observed,
    located: &'a BTreeMap<String, Located>,
    claimed: &'a BTreeSet<Copy>,
    unknown: &'a BTreeMap<String, String>,
    /// Every copy of each domain; made when the first migration of domains without a manifest is met.
    by_uuid: Option<BTreeMap<Uuid, Vec<Copy>>>,
    /// Machines by manifest (`Ok`) or domains by UUID (`Err`) that a migration has already.
    taken: BTreeMap<Result<String, Uuid>, String>,
}

impl Finder<'_> {
    fn members(&mut self, m: &Manifest<VirtualMachineMigrationSpec>) -> Vec<Member> {
        let mut members = Vec::new();
        let mut with_manifest = BTreeSet::new();
        for machine in machines(m, self.resources) {
            with_manifest.insert(crate::kind::virtual_machine::domain_name(machine));
            let located = self.located.get(machine.name()).cloned().unwrap_or(Located::Absent);
            let taken = self.take(Ok(machine.name().to_owned()), m);
            let stage = taken.unwrap_or_else(|| self.stage(m, &located));
            let size = machine.spec.max_memory.or(machine.spec.memory).map_or(0, |b| b.0);
            members.push((size, member(machine.name(), true, located, stage)));
        }
        let named = m.spec.machine.iter().filter(|n| !self.resources.virtual_machines.contains_key(*n));
        let names: Vec<&String> =
            named.chain(m.spec.domains.iter().filter(|n| !with_manifest.contains(n.as_str()))).collect();
        for name in names {
            members.push(self.without_manifest(m, name));
        }
        if m.spec.all {
            members.extend(self.everything(m));
        }
        order(m.spec.order.as_ref(), members)
    }

    /// A domain without a manifest by its name: the one that this migration has marked, else the one where it should leave,
    /// else the one where it should go.
    fn without_manifest(&mut self, m: &Manifest<VirtualMachineMigrationSpec>, name: &str) -> (u64, Member) {
        let mut ranked: BTreeMap<u8, BTreeSet<Uuid>> = BTreeMap::new();
        for (copy, domain) in self.free() {
            if domain.name != name {
                continue;
            }
            let rank = match () {
                () if self.is_marked(m, domain) => 0,
                () if m.spec.from.as_ref() == Some(&copy.host) => 1,
                () if m.spec.to == copy.host => 2,
                () if m.spec.from.is_none() => 1,
                () => continue,
            };
            ranked.entry(rank).or_default().insert(domain.uuid);
        }
        let Some((_, found)) = ranked.pop_first() else {
            let stage = match self.unreadable(m) {
                Some(why) => Stage::Unknown { why },
                None => Stage::Missing,
            };
            return (0, member(name, false, Located::Absent, stage));
        };
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some(uuid), None) => self.foreign(m, uuid, name),
            _ => {
                let why = format!("several hosts have a domain `{name}`; `from` tells which one is meant");
                (0, member(name, false, Located::Absent, Stage::Trouble { why }))
            }
        }
    }

    /// Every domain without a manifest on the host that they leave, and those that have left it already.
    fn everything(&mut self, m: &Manifest<VirtualMachineMigrationSpec>) -> Vec<(u64, Member)> {
        let here = |copy: &Copy| m.spec.from.as_ref() == Some(&copy.host);
        let found: BTreeMap<Uuid, String> = self
            .free()
            .filter(|(copy, domain)| here(copy) || self.is_marked(m, domain))
            .map(|(_, domain)| (domain.uuid, domain.name.clone()))
            .collect();
        let mut members: Vec<_> = found.into_iter().map(|(uuid, name)| self.foreign(m, uuid, &name)).collect();
        if let Some(from) = &m.spec.from
            && let Some(why) = self.unknown.get(from)
        {
            let why = format!("`{from}` could not be read: {why}");
            let name = format!("the domains of {from}");
            members.push((0, member(&name, false, Located::Absent, Stage::Unknown { why })));
        }
        members
    }

    fn foreign(&mut self, m: &Manifest<VirtualMachineMigrationSpec>, uuid: Uuid, name: &str) -> (u64, Member) {
        let copies = self.copies(uuid);
        let located = locate(&copies, self.observed, self.unknown);
        let domains = || copies.iter().filter_map(|c| c.domain(self.observed));
        let size = domains()
            .filter_map(|d| d.live_xml.as_deref().or(d.persistent_xml.as_deref()))
            .map(domain_xml::memory_bytes)
            .max()
            .unwrap_or(0);
        let other = domains().filter_map(|d| d.owner.as_ref()).find(|o| o.fleet != self.resources.fleet());
        let stage = match (self.take(Err(uuid), m), other) {
            (Some(taken), _) => taken,
            (None, Some(o)) => Stage::NotOurs { owner: format!("`{}` of the fleet `{}`", o.name, o.fleet) },
            (None, None) => self.stage(m, &located),
        };
        (size, member(name, false, located, stage))
    }

    /// Domains that belong to no manifest.
    fn free(&self) -> impl Iterator<Item = (Copy, &DomainState)> {
        self.observed
            .hosts
            .iter()
            .filter_map(|(host, reading)| match reading {
                Reading::Present(state) => Some((host, state)),
                Reading::Unknown { .. } => None,
            })
            .flat_map(|(host, state)| {
                state.domains.iter().enumerate().map(move |(index, d)| (Copy { host: host.clone(), index }, d))
            })
            .filter(|(copy, _)| !self.claimed.contains(copy))
    }

    fn copies(&mut self, uuid: Uuid) -> Vec<Copy> {
        if self.by_uuid.is_none() {
            let mut map: BTreeMap<Uuid, Vec<Copy>> = BTreeMap::new();
            for (copy, domain) in self.free() {
                map.entry(domain.uuid).or_default().push(copy);
            }
            self.by_uuid = Some(map);
        }
        self.by_uuid.as_ref().and_then(|map| map.get(&uuid)).cloned().unwrap_or_default()
    }

    fn is_marked(&self, m: &Manifest<VirtualMachineMigrationSpec>, domain: &DomainState) -> bool {
        domain.moves.iter().any(|mark| mark.fleet == self.resources.fleet() && mark.migration == m.name())
    }

    /// Why a domain that was not found may be there all the same.
    fn unreadable(&self, m: &Manifest<VirtualMachineMigrationSpec>) -> Option<String> {
        let hosts: Vec<&String> = match &m.spec.from {
            Some(from) => vec![from, &m.spec.to],
            None => self.unknown.keys().collect(),
        };
        hosts
            .into_iter()
            .find_map(|h| Some(format!("it was not found, and `{h}` could not be read: {}", self.unknown.get(h)?)))
    }

    fn take(&mut self, key: Result<String, Uuid>, m: &Manifest<VirtualMachineMigrationSpec>) -> Option<Stage> {
        match self.taken.get(&key) {
            Some(by) if by != m.name() => Some(Stage::Taken { by: by.clone() }),
            Some(_) => None,
            None => {
                if !m.spec.suspend {
                    self.taken.insert(key, m.name().to_owned());
                }
                None
            }
        }
    }

    fn stage(&self, m: &Manifest<VirtualMachineMigrationSpec>, located: &Located) -> Stage {
        let trouble = |why: String| Stage::Trouble { why };
        let copy = match located {
            Located::At { copy, .. } | Located::Foreign { copy } => copy,
            Located::Moving { .. } => return Stage::Moving,
            Located::Absent => return Stage::Missing,
            Located::Unknown { hosts } => {
                return Stage::Unknown { why: format!("it may be on {}, which could not be read", hosts.join(", ")) };
            }
            Located::Broken { .. } => return trouble("a post-copy migration of it broke".into()),
            Located::Twice { hosts } => return trouble(format!("it runs on {} at once", hosts.join(" and "))),
            Located::DefinedTwice { hosts } => {
                return trouble(format!("it is off, and defined on {}", hosts.join(" and ")));
            }
        };
        let Some(domain) = copy.domain(self.observed) else { return Stage::Missing };
        let revision = m.spec.revision(self.resources);
        let mark = domain.moves.iter().find(|mark| {
            mark.fleet == self.resources.fleet() && mark.migration == m.name() && mark.revision == revision
        });
        let is_there = copy.host == m.spec.to;
        match mark {
            Some(mark) if mark.done => Stage::Moved { is_there },
            mark if is_there => Stage::There { begun: mark.is_some() },
            _ if m.spec.from.as_ref().is_some_and(|from| *from != copy.host) => {
                Stage::Elsewhere { host: copy.host.clone() }
            }
            _ => Stage::Pending { from: copy.host.clone() },
        }
    }
}

fn member(name: &str, has_manifest: bool, located: Located, stage: Stage) -> Member {
    Member { name: name.to_owned(), has_manifest, located, stage, rank: 0 }
}

/// Puts members, each with its memory, into the order of their turns.
fn order(by: Option<&Order>, mut members: Vec<(u64, Member)>) -> Vec<Member> {
    let listed = |name: &str| match by {
        Some(Order::Names(names)) => names.iter().position(|n| n == name).unwrap_or(names.len()),
        _ => 0,
    };
    members.sort_by(|(a_size, a), (b_size, b)| {
        let sizes =
            if by == Some(&Order::By(OrderBy::BySize)) { a_size.cmp(b_size) } else { std::cmp::Ordering::Equal };
        listed(&a.name).cmp(&listed(&b.name)).then(sizes).then_with(|| a.name.cmp(&b.name))
    });
    let ranked = members.into_iter().zip(1..);
    ranked.map(|((_, member), rank)| Member { rank, ..member }).collect()
}
