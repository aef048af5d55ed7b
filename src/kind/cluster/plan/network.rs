//! Exemptions for the rsync pods of direct volume migration (migration guide, 3.4.2): policies of Drover's own beside those
//! of others, and rules of Drover's own in egress firewalls of others.

use super::Site;
use super::chain::Chain;
use super::want::{exempted, is_ours, policies};
use crate::finding::{Code, Finding};
use crate::kind::cluster::objects::{RANGES_ANNOTATION, with_allowed};
use crate::kind::cluster::{Exemption, MigrationToolkit};
use crate::model::ObjectRef;
use crate::observed::ObjectState;
use crate::plan::{Block, Change, Drafts, Effect, Operation};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(super) fn draft(site: &Site<'_>, blocks: &[Block], out: &mut Drafts) {
    // Where nothing is said of MTC any more nothing is exempted.
    let none = MigrationToolkit::default();
    let toolkit = site.m.spec.migration_toolkit.as_ref().unwrap_or(&none);
    let wanted = exempted(toolkit);
    for (i, namespace) in toolkit.exempted_namespaces.iter().enumerate() {
        if !site.state.namespaces.contains_key(namespace) {
            out.finding(
                Finding::new(
                    Code::NamespaceMissing,
                    format!("there is no namespace `{namespace}` on `{}`", site.name()),
                )
                .of(site.m, &format!("spec.migrationToolkit.exemptedNamespaces[{i}]"))
                .hint("its exemptions are made once it is there"),
            );
        }
    }
    let wants = policies(site.m, toolkit, &site.scene);
    let mut keep: BTreeSet<&ObjectRef> = BTreeSet::new();
    for want in &wants {
        let mut chain = Chain::new(site.m, site.scene);
        chain.apply(want, site.state, out);
        chain.finish(&[], blocks, out);
        keep.insert(&want.id);
    }
    let lasting = toolkit.rsync_network_policies.lasting();
    for policy in site.state.of_kind("networking.k8s.io", "NetworkPolicy") {
        let of_ours = is_ours(&policy.value, site.fleet(), site.name());
        if of_ours && !policy.deleting && !keep.contains(&policy.id) && lasting != Exemption::Keep {
            take_back(site, policy, blocks, out);
        }
    }
    firewalls(site, &wanted.into_keys().collect(), blocks, out);
}

fn take_back(site: &Site<'_>, policy: &ObjectState, blocks: &[Block], out: &mut Drafts) {
    let mut chain = Chain::new(site.m, site.scene);
    let action = crate::action::ClusterAction::DeleteObject {
        cluster: site.name().into(),
        id: policy.id.clone(),
        uid: policy.uid.clone(),
    };
    changed(site, super::compare::name(&policy.id), json!("there"), Value::Null, out);
    let why = "no migration has its namespace, and it is not to stay".to_owned();
    chain.act(action, format!("delete {} on {}", policy.id, site.name()), why);
    chain.finish(&[], blocks, out);
}

fn changed(site: &Site<'_>, path: String, before: Value, after: Value, out: &mut Drafts) {
    let id = site.m.id();
    out.change(&id, None, Change { path, before, after, effect: Effect::Live, definition: None, note: None });
    let report = out.report(&id, None);
    report.operation = report.operation.max(Operation::Update);
}

/// Ranges in egress firewalls. Only what denies something is changed, and none is made.
fn firewalls(site: &Site<'_>, namespaces: &BTreeSet<String>, blocks: &[Block], out: &mut Drafts) {
    let egress = site.m.spec.migration_toolkit.as_ref().and_then(|t| t.egress.as_ref());
    let lasting = egress.map_or(Exemption::None, |e| e.rules);
    let others = site.scene.resources.clusters.values().filter(|c| c.name() != site.name());
    let ranges: Vec<String> = others
        .filter_map(|c| c.spec.migration_toolkit.as_ref()?.egress.as_ref())
        .flat_map(|e| e.cidrs.iter().cloned())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let kinds = [("network.openshift.io", "EgressNetworkPolicy"), ("k8s.ovn.org", "EgressFirewall")];
    for firewall in kinds.iter().flat_map(|(group, kind)| site.state.of_kind(group, kind)) {
        let is_exempted = firewall.id.namespace.as_ref().is_some_and(|n| namespaces.contains(n));
        let wanted: &[String] = match lasting {
            Exemption::None => &[],
            _ if is_exempted => &ranges,
            Exemption::Keep => continue,
            Exemption::Migration => &[],
        };
        if firewall.deleting {
            continue;
        }
        if let Some((rules, patch)) = patch(&firewall.value, wanted) {
            let before = firewall.value.pointer("/spec/egress").cloned().unwrap_or(Value::Null);
            changed(site, format!("{}.spec.egress", super::compare::name(&firewall.id)), before, rules.into(), out);
            let (what, why) = match wanted {
                [] => ("take Drover's rules out of", "no migration has its namespace, and they are not to stay"),
                _ => ("allow the other clusters' addresses in", "rsync pods have to reach the other clusters"),
            };
            let mut chain = Chain::new(site.m, site.scene);
            let summary = format!("{what} {} on {}", firewall.id, site.name());
            chain.patch(site.name(), &firewall.id, patch, summary, why.into());
            chain.finish(&[], blocks, out);
        }
    }
}

/// The rules that a firewall should have, and the patch that makes them so; none where they are so.
fn patch(firewall: &Value, wanted: &[String]) -> Option<(Vec<Value>, Vec<Value>)> {
    let empty = Vec::new();
    let rules = firewall.pointer("/spec/egress").and_then(Value::as_array).unwrap_or(&empty);
    let annotations = firewall.pointer("/metadata/annotations");
    let noted = annotations.and_then(|a| a.get(RANGES_ANNOTATION)).and_then(Value::as_str);
    let allow = |cidr: &str| json!({"type": "Allow", "to": {"cidrSelector": cidr}});
    // Ours are those that we noted, each once; one that somebody else has as well stays theirs.
    let mut base = rules.clone();
    for cidr in noted.into_iter().flat_map(|n| n.split(',')).filter(|c| !c.is_empty()) {
        if let Some(i) = base.iter().position(|r| *r == allow(cidr)) {
            base.remove(i);
        }
    }
    let desired = with_allowed(&base, wanted).unwrap_or_else(|| base.clone());
    let added: Vec<&str> =
        desired[..desired.len() - base.len()].iter().filter_map(|r| r["to"]["cidrSelector"].as_str()).collect();
    let note = added.join(",");
    if desired == *rules && noted.unwrap_or_default() == note {
        return None;
    }
    let pointer = format!("/metadata/annotations/{}", RANGES_ANNOTATION.replace('/', "~1"));
    let mut patch = vec![
        json!({"op": "test", "path": "/spec/egress", "value": rules}),
        json!({"op": "replace", "path": "/spec/egress", "value": desired}),
    ];
    match (annotations.is_some_and(Value::is_object), noted) {
        (_, Some(old)) => {
            patch.push(json!({"op": "test", "path": pointer, "value": old}));
            patch.push(match note.is_empty() {
                true => json!({"op": "remove", "path": pointer}),
                false => json!({"op": "replace", "path": pointer, "value": note}),
            });
        }
        (true, None) => patch.push(json!({"op": "add", "path": pointer, "value": note})),
        (false, None) => {
            patch.push(json!({"op": "add", "path": "/metadata/annotations", "value": {RANGES_ANNOTATION: note}}));
        }
    }
    Some((desired, patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firewall(rules: Value, noted: Option<&str>) -> Value {
        let mut value = json!({"metadata": {"name": "default"}, "spec": {"egress": rules}});
        if let Some(noted) = noted {
            value["metadata"]["annotations"] = json!({RANGES_ANNOTATION: noted, "other": "x"});
        }
        value
    }

    #[test]
    fn only_our_own_rules_come_and_go() {
        let allow = |c: &str| json!({"type": "Allow", "to": {"cidrSelector": c}});
        let theirs = json!({"type": "Allow", "to": {"dnsName": "example.com"}});
        let deny = json!({"type": "Deny", "to": {"cidrSelector": "0.0.0.0/0"}});
        let (a, b) = ("203.0.113.0/24".to_owned(), "198.51.100.0/24".to_owned());
        let rules = |firewall: Value, wanted: &[String]| patch(&firewall, wanted).map(|(r, _)| r);

        let plain = firewall(json!([theirs, deny]), None);
        let both = [a.clone(), b.clone()];
        let with_both = vec![allow(&a), allow(&b), theirs.clone(), deny.clone()];
        assert_eq!(rules(plain.clone(), &both), Some(with_both.clone()));
        assert_eq!(rules(plain, &[]), None);

        let noted = firewall(json!(with_both), Some("203.0.113.0/24,198.51.100.0/24"));
        assert_eq!(rules(noted.clone(), &both), None);
        assert_eq!(rules(noted.clone(), std::slice::from_ref(&b)), Some(vec![allow(&b), theirs.clone(), deny.clone()]));
        assert_eq!(rules(noted, &[]), Some(vec![theirs.clone(), deny.clone()]));

        // A range that was allowed before Drover came is not noted, and stays.
        let before = firewall(json!([allow(&a), deny]), None);
        assert_eq!(rules(before, &[a]), None);
        // Where nothing is denied there is nothing to allow.
        assert_eq!(rules(firewall(json!([theirs]), None), &both), None);
    }

    #[test]
    fn a_patch_tests_what_was_seen() {
        let deny = json!({"type": "Deny", "to": {"cidrSelector": "0.0.0.0/0"}});
        let (_, made) = patch(&firewall(json!([deny]), None), &["203.0.113.0/24".into()]).unwrap();
        assert_eq!(made[0], json!({"op": "test", "path": "/spec/egress", "value": [deny]}));
        assert_eq!(made[2]["path"], "/metadata/annotations");
        let (_, made) = patch(&firewall(json!([deny]), Some("192.0.2.0/24")), &[]).unwrap();
        let path = "/metadata/annotations/drover.dev~1allowed-ranges";
        assert_eq!(made[3], json!({"op": "remove", "path": path}));
    }
}
