//! Exemptions for the rsync pods of direct volume migration (migration guide, 3.4.2, whose two policies have one name, so that
//! the second replaces the first, and whose egress rule says `Deny` where it means `Allow`).

use super::{Object, Owner};
use crate::model::ObjectRef;
use serde_json::{Value, json};

/// The policy that lets rsync pods of a namespace out (at the source) or in (at the destination). Policies add up: none of
/// the others has to change. The label alone, because the pods for block volumes (MTC 1.8) have another `app`.
pub fn allow_rsync(namespace: &str, out: bool, owner: Owner<'_>) -> Object {
    let (name, rule, kind) = match out {
        true => ("drover-rsync-egress", "egress", "Egress"),
        false => ("drover-rsync-ingress", "ingress", "Ingress"),
    };
    let id = ObjectRef::new("networking.k8s.io/v1", "NetworkPolicy", namespace, name);
    let selector = json!({"matchLabels": {"owner": "directvolumemigration"}});
    Object::new(id, owner, json!({"spec": {"podSelector": selector, rule: [{}], "policyTypes": [kind]}}))
}

/// The rules of an egress firewall (`spec.egress` of an EgressNetworkPolicy or an EgressFirewall, of which the first that
/// matches counts) with ranges allowed: in front of all others, which stay as they are. None where nothing is to change.
pub fn with_allowed(rules: &[Value], cidrs: &[String]) -> Option<Vec<Value>> {
    let allows = |rule: &Value, cidr: &str| rule["type"] == "Allow" && rule["to"]["cidrSelector"] == cidr;
    let first_deny = rules.iter().position(|r| r["type"] == "Deny").unwrap_or(rules.len());
    let is_missing = |cidr: &&String| !rules[..first_deny].iter().any(|r| allows(r, cidr));
    let missing: Vec<Value> =
        cidrs.iter().filter(is_missing).map(|cidr| json!({"type": "Allow", "to": {"cidrSelector": cidr}})).collect();
    // Without a rule that denies, everything is let through already.
    let denies = first_deny < rules.len();
    (denies && !missing.is_empty()).then(|| missing.into_iter().chain(rules.iter().cloned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_policies_stand_beside_each_other() {
        let owner = Owner { fleet: "f", resource: "Cluster.x" };
        let (out, into) = (allow_rsync("shop", true, owner), allow_rsync("shop", false, owner));
        assert_ne!(out.id, into.id);
        assert_eq!(
            out.value["spec"],
            json!({
                "podSelector": {"matchLabels": {"owner": "directvolumemigration"}}, "egress": [{}],
                "policyTypes": ["Egress"],
            })
        );
        assert_eq!(
            (&into.value["spec"]["ingress"], &into.value["spec"]["policyTypes"]),
            (&json!([{}]), &json!(["Ingress"]))
        );
    }

    #[test]
    fn ranges_are_allowed_before_the_first_rule_that_denies() {
        let allow = |cidr: &str| json!({"type": "Allow", "to": {"cidrSelector": cidr}});
        let deny = |cidr: &str| json!({"type": "Deny", "to": {"cidrSelector": cidr}});
        let named = json!({"type": "Allow", "to": {"dnsName": "example.com"}});
        let wanted = ["203.0.113.0/24".to_owned()];
        let all = deny("0.0.0.0/0");
        assert_eq!(
            with_allowed(&[named.clone(), all.clone()], &wanted),
            Some(vec![allow("203.0.113.0/24"), named.clone(), all.clone()])
        );
        assert_eq!(with_allowed(&[allow("203.0.113.0/24"), all.clone()], &wanted), None);
        // Behind the rule that denies it has no effect.
        let late = [all.clone(), allow("203.0.113.0/24")];
        assert_eq!(with_allowed(&late, &wanted).map(|r| r.len()), Some(3));
        assert_eq!(with_allowed(&[named], &wanted), None, "nothing is denied");
        assert_eq!(with_allowed(&[], &wanted), None);
    }
}
