//! What may be installed on a cluster (migration guide, 3.1 to 3.3; mtc-operator's own rules).

use super::Say;
use super::access;
use crate::finding::Code;
use crate::kind::cluster::compatibility::unfit;
use crate::kind::cluster::{Approval, Install, MigrationToolkit, Platform, Role, documents};

pub(super) fn check(say: &mut Say<'_>) {
    let spec = say.spec();
    let platform = spec.platform.as_deref().and_then(|p| p.parse::<Platform>().ok());
    for what in platform.into_iter().flat_map(|p| unfit(p, spec.role, spec.migration_toolkit.as_ref())) {
        say.at(Code::Unsupported, what.path, what.message, what.hint);
    }
    let Some(toolkit) = &spec.migration_toolkit else {
        if spec.role == Role::Control {
            say.warn(
                Code::Contradiction,
                "spec.role",
                "nothing is said of MTC on the control cluster",
                "add `migrationToolkit`; with `install: None` it is taken as it is",
            );
        }
        return;
    };
    match toolkit.install {
        Install::OLM => olm(say, toolkit),
        Install::Manifests if toolkit.manifests.is_none() => say.at(
            Code::MissingField,
            "spec.migrationToolkit.manifests",
            "`install: Manifests` needs the operator's files",
            "take operator.yml and controller.yml out of the operator's image (migration guide, 3.2), put them into the \
             repository, and name them: `manifests: {operator: {file: mtc/operator.yml}, controller: {file: mtc/controller.yml}}`",
        ),
        Install::Manifests => files(say, toolkit),
        Install::None => {}
    }
    let leaves = toolkit.install == Install::None && toolkit.prune;
    if spec.role == Role::Remote && !leaves {
        if spec.in_cluster && toolkit.registration.url.is_none() {
            say.at(
                Code::Contradiction,
                "spec.migrationToolkit.registration",
                "the address that a pod of the cluster has leads nowhere from the control cluster, or to another server",
                "name the one that the control cluster reaches it by: `registration: {url: 'https://api.…:6443'}`",
            );
        }
        if say.manifest.name() == "host" {
            say.at(
                Code::Conflict,
                "metadata.name",
                "`host` is what MTC calls the control cluster itself",
                "give this cluster another name",
            );
        }
    }
    if toolkit.manifests.is_some() && toolkit.install != Install::Manifests {
        say.at(
            Code::Contradiction,
            "spec.migrationToolkit.manifests",
            "files are only used with `install: Manifests`",
            "take them out, or change `install`",
        );
    }
    if toolkit.prune && toolkit.install != Install::None {
        say.at(
            Code::Contradiction,
            "spec.migrationToolkit.prune",
            "what is to be installed cannot be removed as well",
            "with `install: None` it is removed; without `prune` it stays",
        );
    }
    let registration = &toolkit.registration;
    if let Some(url) = &registration.url {
        access::address(say, "spec.migrationToolkit.registration.url", url);
    }
    if registration.insecure && registration.ca.is_some() {
        say.at(
            Code::Contradiction,
            "spec.migrationToolkit.registration.insecure",
            "the certificate is either checked against a CA, or not checked",
            "keep one of them",
        );
    }
    if let Some(registry) = registration.exposed_registry.as_ref().filter(|r| r.contains("://") || r.contains('/')) {
        say.at(
            Code::WrongValue,
            "spec.migrationToolkit.registration.exposedRegistry",
            format!("`{}` is more than a host and a port", registry.escape_debug()),
            "write it like `default-route-openshift-image-registry.apps.ocp3.example.com`",
        );
    }
    for (i, cidr) in toolkit.egress.iter().flat_map(|e| &e.cidrs).enumerate() {
        if !is_cidr(cidr) {
            say.at(
                Code::WrongValue,
                &format!("spec.migrationToolkit.egress.cidrs[{i}]"),
                format!("`{}` is no range of addresses", cidr.escape_debug()),
                "write it like `203.0.113.0/24`",
            );
        }
    }
}

/// The legacy operator's files.
fn files(say: &mut Say<'_>, toolkit: &MigrationToolkit) {
    let Some(manifests) = &toolkit.manifests else { return };
    let path = |file: &str| format!("spec.migrationToolkit.manifests.{file}");
    let mut controllers = 0;
    for (name, text) in [("operator", Some(&manifests.operator)), ("controller", manifests.controller.as_ref())] {
        let Some(text) = text else { continue };
        match documents(text, &format!("{name}.yml")) {
            Ok(found) => controllers += found.iter().filter(|d| d.is_controller()).count(),
            Err(e) => say.at(Code::WrongValue, &path(name), e.what, e.hint),
        }
    }
    if controllers > 1 {
        let what = "there is more than one MigrationController in the files";
        say.at(Code::Contradiction, &path("controller"), what, "a cluster has one: take the others out");
    }
}

fn olm(say: &mut Say<'_>, toolkit: &MigrationToolkit) {
    if toolkit.channel.is_none() {
        say.at(
            Code::MissingField,
            "spec.migrationToolkit.channel",
            "`install: OLM` needs a channel",
            "`release-v1.7`, which also goes with legacy clusters, or `release-v1.8`",
        );
    }
    if toolkit.approve.is_some() && toolkit.approval == Approval::Automatic {
        say.at(
            Code::Contradiction,
            "spec.migrationToolkit.approve",
            "there is nothing to approve with `approval: Automatic`",
            "add `approval: Manual`",
        );
    }
    if toolkit.approval == Approval::Manual && toolkit.approve.is_none() {
        say.warn(
            Code::Contradiction,
            "spec.migrationToolkit.approval",
            "nothing is installed before a person approves the InstallPlan on the cluster",
            "name the version that Drover approves: `approve: mtc-operator.v1.7.4`",
        );
    }
    for (field, csv) in [("startingCSV", &toolkit.starting_csv), ("approve", &toolkit.approve)] {
        if let Some(csv) = csv
            && !csv.starts_with(&format!("{}.v", toolkit.package))
        {
            say.at(
                Code::WrongValue,
                &format!("spec.migrationToolkit.{field}"),
                format!("`{}` is no version of the package `{}`", csv.escape_debug(), toolkit.package.escape_debug()),
                format!("write it like `{}.v1.7.4`", toolkit.package),
            );
        }
    }
}

/// Whether a text is a range of IPv4 or IPv6 addresses.
pub(super) fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let Ok(address) = address.parse::<std::net::IpAddr>() else { return false };
    length.parse::<u8>().is_ok_and(|n| n <= if address.is_ipv4() { 32 } else { 128 })
}
