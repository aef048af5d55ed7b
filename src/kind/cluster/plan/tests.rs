//! Each section of the guide, from nothing to installed to changed to removed, on API servers in memory: plans before, and
//! empty plans after.

mod fake;
mod properties;
mod sections;
mod troubles;

use crate::action::Action;
use crate::kind::Desired;
use crate::kind::Resources;
use crate::kind::cluster::questions;
use crate::kind::cluster::testing::{clusters, value};
use crate::model::{KindName, Manifest, Metadata, Origin, Revision};
use crate::observed::{Observed, Reading};
use crate::plan::{Plan, PlanInput, PlanOptions, plan};
use fake::{Fake, Server};
use jiff::Timestamp;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// Manifests and the clusters that they are about.
struct World {
    resources: Resources,
    fake: Fake,
}

impl World {
    /// Clusters by name: platform, and what the manifest says.
    fn new(specs: &[(&str, &str, &str)]) -> Self {
        let servers = specs.iter().map(|(name, platform, _)| ((*name).to_owned(), Server::new(platform, name)));
        let fake = Fake { servers: servers.collect() };
        let mut world = Self { resources: Resources::default(), fake };
        world.says(&specs.iter().map(|(name, _, spec)| (*name, *spec)).collect::<Vec<_>>());
        world
    }

    /// Other manifests.
    fn says(&mut self, specs: &[(&str, &str)]) {
        self.resources = clusters(specs);
    }

    fn settings(&mut self, spec: &str) {
        let metadata = Metadata { name: "default".into(), ..Metadata::default() };
        let spec = serde_json::from_value(value(spec)).unwrap();
        let manifest = Manifest { kind: KindName::new("Settings"), metadata, spec, origin: Origin::default() };
        self.resources.settings.insert("default".into(), manifest);
    }

    fn look(&self) -> Observed {
        let mut observed = Observed::empty(now());
        for (name, server) in &self.fake.servers {
            observed.clusters.insert(name.clone(), Reading::Present(server.state()));
        }
        observed
    }

    fn asked(&self) -> Observed {
        let mut observed = self.look();
        for _ in 0..3 {
            for (cluster, question) in questions(&self.resources, &observed) {
                let answer = self.fake.servers[&cluster].ask(&question);
                let Some(Reading::Present(state)) = observed.clusters.get_mut(&cluster) else { continue };
                state.answer(question, Reading::Present(answer));
            }
        }
        assert_eq!(questions(&self.resources, &observed), [], "what was answered is not asked again");
        observed
    }

    fn plan_from(&self, observed: &Observed) -> Plan {
        self.plan_with(observed, PlanOptions::default())
    }

    fn plan_with(&self, observed: &Observed, options: PlanOptions) -> Plan {
        let desired = Desired { revision: Revision::default(), resources: self.resources.clone() };
        plan(&PlanInput { desired: &desired, observed, now: now(), options })
    }

    fn plan(&self) -> Plan {
        self.plan_from(&self.asked())
    }

    /// Carries out what is not held back.
    fn carry_out(&mut self, plan: &Plan) {
        for step in plan.runnable() {
            self.fake.act(&step.action);
        }
    }

    /// Carries everything out. The plan after it is empty, asked and not asked.
    #[track_caller]
    fn converge(&mut self) -> Plan {
        let plan = self.plan();
        let held: Vec<_> = plan.steps.iter().filter(|s| s.is_blocked()).map(|s| (&s.summary, &s.blocked_by)).collect();
        assert!(held.is_empty(), "{held:#?}");
        self.carry_out(&plan);
        let after = self.plan();
        assert_eq!(steps(&after), Vec::<String>::new(), "{:#?}", after.resources);
        assert_eq!(steps(&self.plan_from(&self.look())), Vec::<String>::new(), "without answers");
        let changes: Vec<_> = after.resources.iter().flat_map(|r| &r.changes).collect();
        assert!(changes.is_empty(), "{changes:#?}");
        plan
    }
}

fn steps(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|s| s.summary.clone()).collect()
}

/// Fields that differ, as `path: after`.
fn changes(plan: &Plan) -> Vec<String> {
    let all = plan.resources.iter().flat_map(|r| &r.changes);
    all.map(|c| format!("{}: {}", c.path, c.after.as_str().map_or_else(|| c.after.to_string(), str::to_owned)))
        .collect()
}

fn of_cluster(action: &Action) -> &str {
    action.targets()[0]
}

const OLM: &str = "migrationToolkit: {install: OLM, channel: release-v1.7}";
