//! A machine that is nowhere: volumes, definition, autostart, start.

use super::super::PowerState;
use super::super::precheck::missing_pools;
use super::disk::DiskMoves;
use super::{Chain, Draft};
use crate::action::MachineAction;
use crate::finding::{Code, Finding};
use crate::kind::host::Maintenance;
use crate::kind::virtual_machine::{VirtualMachineSpec, identity, render};
use crate::observed::HostState;
use crate::plan::{Block, Disruption, Drafts, Effect, Health, Operation};
use serde_json::{Value, json};

impl<'a> Draft<'a> {
    /// Makes it on `host`.
    pub(super) fn create(&self, host: &'a str, out: &mut Drafts) {
        let unknown = self.ctx.survey.unknown();
        if !unknown.is_empty() {
            self.unknown(&unknown.keys().cloned().collect::<Vec<_>>(), out);
            return;
        }
        let Some(state) = self.ctx.observed.host(host) else {
            self.unknown(&[host.to_owned()], out);
            return;
        };
        let uuid = identity::uuid(self.m);
        let name = identity::domain_name(self.m);
        if let Some(other) = state.domains.iter().find(|d| d.name == name) {
            out.report(&self.id, None).health = Health::Degraded;
            out.finding(
                Finding::new(
                    Code::NotOwned,
                    format!("the name `{name}` on `{host}` belongs to the domain {}", other.uuid),
                )
                .of(self.m, "metadata.name")
                .hint("give the manifest another `domainName`, or remove the domain"),
            );
            return;
        }
        let report = out.report(&self.id, None);
        report.operation = Operation::Create;
        report.health = Health::Missing;
        self.change("spec.host", Value::Null, json!(host), Effect::None, out);
        for (path, value) in self.stated() {
            self.change(&path, Value::Null, value, Effect::None, out);
        }
        let mut chain = Chain::default();
        let blocks = self.nothing_new(host, state);
        let mark = out.mark();
        let (volumes, made) = self.volumes(host, state, None, &DiskMoves::default(), out);
        // No volume for a machine that may never come.
        out.hold_back(mark, &blocks);
        chain.join(volumes);
        let owner = self.owner(None, made);
        let xml = match render(self.m, state, self.ctx.resources, &owner) {
            Ok(xml) => xml,
            Err(finding) => {
                out.finding(finding);
                return;
            }
        };
        let mut define = self.step(
            MachineAction::DefineDomain { host: host.into(), name: name.into(), uuid, xml: xml.clone() },
            format!("define {} on {host}", self.m.name()),
            match self.ctx.survey.reason(self.m.name()) {
                Some(why) => format!("no host that could be read has it; {why}"),
                None => "no host that could be read has it".to_owned(),
            },
        );
        define.blocked_by = blocks;
        chain.push(define, out);
        if self.m.spec.autostart == Some(true) {
            chain.push(self.autostart(host, uuid, true), out);
        }
        if self.m.spec.power_state != PowerState::Stopped {
            let mut start = self.step(
                MachineAction::StartDomain {
                    host: host.into(),
                    uuid,
                    paused: self.m.spec.power_state == PowerState::Paused,
                },
                format!("start {} on {host}", self.m.name()),
                format!("`powerState` is {:?}", self.m.spec.power_state),
            );
            start.disruption = Disruption::None;
            start.load = self.load(host, None);
            start.blocked_by.extend(self.disk_in_use(host, uuid, &xml));
            chain.push(start, out);
        }
    }

    /// Why it is not made on a host, if so.
    fn nothing_new(&self, host: &str, state: &HostState) -> Vec<Block> {
        let mut blocks = self.cordoned(host);
        blocks.extend(missing_pools(self.m, self.ctx.resources, host, state).into_iter().map(|wish| Block {
            code: Code::Incompatible,
            reason: format!("`{host}` does not have the pool `{}` of disk `{}`", wish.libvirt_pool, wish.disk),
            way_out: format!("add `{host}` to the pool's `hosts`"),
        }));
        blocks
    }

    /// What the manifest says of a new machine, beyond where it is and what its volumes are: that is told with them.
    fn stated(&self) -> Vec<(String, Value)> {
        let json = |spec: &VirtualMachineSpec| serde_json::to_value(spec).unwrap_or_default();
        let (spec, plain) = (json(&self.m.spec), json(&VirtualMachineSpec::default()));
        let Value::Object(fields) = spec else { return Vec::new() };
        let mut stated = Vec::new();
        for (field, value) in fields {
            match (field.as_str(), value) {
                ("host" | "placement" | "xml" | "xmlPatches" | "migrationPolicy", _) => {}
                (_, value) if plain.get(&field) == Some(&value) => {}
                ("disks", Value::Array(disks)) => {
                    let elsewhere = disks.into_iter().enumerate().filter(|(_, d)| d.get("pool").is_none());
                    stated.extend(elsewhere.map(|(i, disk)| (format!("spec.disks[{i}]"), disk)));
                }
                (_, Value::Array(items)) => {
                    stated.extend(items.into_iter().enumerate().map(|(i, item)| (format!("spec.{field}[{i}]"), item)));
                }
                (_, value) => stated.push((format!("spec.{field}"), value)),
            }
        }
        stated
    }

    /// Why a host takes nothing new, if so.
    pub(super) fn cordoned(&self, host: &str) -> Vec<Block> {
        let Some(manifest) = self.ctx.resources.hosts.get(host) else { return Vec::new() };
        if manifest.spec.maintenance == Maintenance::None {
            return Vec::new();
        }
        vec![Block {
            code: Code::CannotMove,
            reason: format!("`{host}` is in maintenance ({:?}) and takes no machine", manifest.spec.maintenance),
            way_out: "set `maintenance: None` on the host, or choose another one".into(),
        }]
    }
}
