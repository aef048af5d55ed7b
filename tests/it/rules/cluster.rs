//! Rules of a Cluster.

use drover::finding::{Code, Finding, Severity};
use drover::load::{Limits, MemoryTree, load};
use drover::model::Revision;

const REACHED: &str = "kubeconfig: {secretRef: {file: /etc/drover/x}}";

fn find(clusters: &[&str]) -> Vec<Finding> {
    let mut text = String::new();
    for (i, spec) in clusters.iter().enumerate() {
        text += &format!(
            "--- {{apiVersion: drover/v1alpha1, kind: Cluster, metadata: {{name: c{i}}}, spec: {{{spec}}}}}\n"
        );
    }
    let mut tree = MemoryTree::new().with("a.yaml", text.as_str());
    for file in ["mtc/operator.yml", "mtc/controller.yml"].into_iter().filter(|f| text.contains(f)) {
        tree = tree.with(file, "apiVersion: v1\nkind: Namespace\nmetadata: {name: openshift-migration}\n");
    }
    load(&tree, Revision::default(), &Limits::default()).findings
}

/// The finding about the last cluster.
#[track_caller]
fn expect(specs: &[&str], code: Code, path: &str, message: &str) -> Finding {
    let found = find(specs);
    let is_it = |f: &&Finding| f.code == code && f.path.as_deref() == Some(path) && f.message.contains(message);
    found.iter().find(is_it).cloned().unwrap_or_else(|| panic!("{specs:?}: {found:#?}"))
}

fn control(more: &str) -> String {
    format!("{REACHED}, role: Control, {more}")
}

#[test]
fn clusters_of_every_sort_are_fine() {
    let account = "serviceAccount: {server: 'https://api.ocp4.example.com:6443', token: {secretRef: {env: TOKEN}}, \
                   ca: {secretRef: {file: /ca.pem}}}";
    for good in [
        REACHED.to_owned(),
        "inCluster: true, proxy: {url: 'socks5://jump:1080'}, platform: kubernetes-1.29".to_owned(),
        format!("{account}, limits: {{requestsPerSecond: 5, burst: 10, timeout: 10s}}"),
        control(
            "platform: openshift-4.10, migrationToolkit: {install: OLM, channel: release-v1.7, rsyncNetworkPolicies: true, \
             controller: {stunnelTcpProxy: {secretRef: {env: STUNNEL}}, httpProxy: 'http://proxy:3128', \
             noProxy: [.example.com], rsyncEndpointType: Route}}",
        ),
        format!(
            "{REACHED}, platform: openshift-4.2, migrationToolkit: {{install: Manifests, rsyncNetworkPolicies: Keep, \
             manifests: {{operator: {{file: mtc/operator.yml}}, controller: {{file: mtc/controller.yml}}}}, \
             registration: {{exposedRegistry: 'registry.apps.ocp3.example.com:443'}}}}"
        ),
        control("migrationToolkit: {install: None, prune: true}"),
    ] {
        assert_eq!(find(&[&good]), [], "{good}");
    }
}

#[test]
fn one_thing_says_how_a_cluster_is_reached() {
    expect(&["role: Remote"], Code::MissingField, "spec", "how `c0` is reached");
    expect(&[&format!("{REACHED}, inCluster: true")], Code::Contradiction, "spec.inCluster", "`kubeconfig`");
    expect(
        &["kubeconfig: {secretRef: {kubernetes: {cluster: c0, namespace: x, name: y, key: z}}}"],
        Code::Contradiction,
        "spec.kubeconfig.secretRef.kubernetes.cluster",
        "cannot stand in it",
    );
    expect(
        &["kubeconfig: {secretRef: {kubernetes: {cluster: hub, namespace: x, name: y, key: z}}}"],
        Code::MissingReference,
        "spec.kubeconfig.secretRef.kubernetes.cluster",
        "the Cluster `hub`",
    );
    for file in ["ocp4.kubeconfig", "/etc/drover/../shadow"] {
        let spec = format!("kubeconfig: {{secretRef: {{file: {file}}}}}");
        expect(&[&spec], Code::WrongValue, "spec.kubeconfig.secretRef.file", "absolute");
    }
    let account = |server: &str| format!("serviceAccount: {{server: '{server}', token: {{secretRef: {{env: T}}}}}}");
    let path = "spec.serviceAccount.server";
    expect(&[&account("api.example.com")], Code::WrongValue, path, "not the address");
    expect(&[&account("https://me:secret@api.example.com")], Code::WrongValue, path, "not the address");
    let insecure = expect(&[&account("http://api.example.com")], Code::InsecureConnection, path, "plain HTTP");
    assert_eq!(insecure.severity, Severity::Warning);
}

#[test]
fn no_password_stands_in_a_manifest() {
    for (spec, path) in [
        (format!("{REACHED}, proxy: {{url: 'http://me:hunter2@proxy:3128'}}"), "spec.proxy.url"),
        (
            control("migrationToolkit: {install: None, controller: {httpProxy: 'http://me:hunter2@proxy'}}"),
            "spec.migrationToolkit.controller.httpProxy",
        ),
    ] {
        let finding = expect(&[&spec], Code::WrongValue, path, "do not stand in a manifest");
        assert!(!format!("{finding:?}").contains("hunter2"), "{finding:?}");
    }
    // The variable by its own name would be a way round.
    let spec = control("migrationToolkit: {install: None, controller: {variables: {stunnel_tcp_proxy: x}}}");
    let path = "spec.migrationToolkit.controller.variables.stunnel_tcp_proxy";
    expect(&[&spec], Code::Contradiction, path, "password");
    // The operator takes camel case for the same.
    let spec = control("migrationToolkit: {install: None, controller: {variables: {stunnelTcpProxy: x}}}");
    expect(&[&spec], Code::Contradiction, "spec.migrationToolkit.controller.variables.stunnelTcpProxy", "password");
}

#[test]
fn a_remote_cluster_needs_an_address_that_others_reach() {
    let toolkit = "inCluster: true, migrationToolkit: {install: OLM, channel: release-v1.7";
    let path = "spec.migrationToolkit.registration";
    expect(&[&format!("{toolkit}}}")], Code::Contradiction, path, "leads nowhere from the control cluster");
    let named = format!("{toolkit}, registration: {{url: 'https://api.example.com:6443'}}}}");
    assert_eq!(find(&[&named]), []);
}

/// Table 3.1 of the migration guide, and the vendor's release notes.
#[test]
fn what_goes_on_which_platform() {
    let legacy = "migrationToolkit: {install: Manifests, manifests: {operator: {file: mtc/operator.yml}}}";
    let modern = |channel: &str| format!("migrationToolkit: {{install: OLM, channel: {channel}}}");
    for (platform, toolkit, fits) in [
        ("openshift-4.5", legacy.to_owned(), true),
        ("openshift-3.11", legacy.to_owned(), true),
        ("openshift-4.6", legacy.to_owned(), false),
        ("openshift-4.5", modern("release-v1.7"), false),
        ("openshift-4.6", modern("release-v1.7"), true),
        ("openshift-4.9", modern("release-v1.8"), false),
        ("openshift-4.10", modern("release-v1.8"), true),
        ("kubernetes-1.29", modern("release-v1.8"), false),
        ("kubernetes-1.29", legacy.to_owned(), false),
    ] {
        let found = find(&[&format!("{REACHED}, platform: {platform}, {toolkit}")]);
        assert_eq!(found.is_empty(), fits, "{platform}, {toolkit}: {found:#?}");
        assert!(found.iter().all(|f| f.code == Code::Unsupported && f.severity == Severity::Error), "{found:#?}");
    }
    let spec = control(&format!("platform: openshift-3.11, {legacy}"));
    let finding = expect(&[&spec], Code::Unsupported, "spec.role", "cannot be the control cluster");
    assert!(finding.hint.unwrap().contains("crane tunnel-api"));
}

#[test]
fn clusters_migrate_with_each_other() {
    let with = |channel: &str| format!("{REACHED}, migrationToolkit: {{install: OLM, channel: {channel}}}");
    let found = expect(
        &[&with("release-v1.7"), &with("release-v1.8")],
        Code::Unsupported,
        "spec.migrationToolkit.channel",
        "MTC 1.8 and MTC 1.7 of `c0`",
    );
    assert_eq!(found.related.len(), 1);
    let one = control("migrationToolkit: {install: None}");
    expect(&[&one, &one], Code::Conflict, "spec.role", "`c0` is the control cluster already");
}

#[test]
fn installing_says_all_that_it_needs() {
    let toolkit = |what: &str| format!("{REACHED}, migrationToolkit: {{{what}}}");
    for (what, code, field, message) in [
        ("install: OLM", Code::MissingField, "channel", "needs a channel"),
        ("install: Manifests", Code::MissingField, "manifests", "the operator's files"),
        ("install: OLM, channel: c, prune: true", Code::Contradiction, "prune", "removed as well"),
        (
            "install: OLM, channel: c, approve: mtc-operator.v1.7.4",
            Code::Contradiction,
            "approve",
            "nothing to approve",
        ),
        ("install: OLM, channel: c, approval: Manual", Code::Contradiction, "approval", "before a person approves"),
        ("install: OLM, channel: c, startingCSV: v1.7.4", Code::WrongValue, "startingCSV", "no version of the package"),
        (
            "registration: {exposedRegistry: 'https://r'}",
            Code::WrongValue,
            "registration.exposedRegistry",
            "a host and a port",
        ),
        ("egress: {cidrs: [10.0.0.0], rules: Keep}", Code::WrongValue, "egress.cidrs[0]", "no range"),
        ("controller: {noProxy: [.a.com]}", Code::Contradiction, "controller.noProxy", "is ignored"),
        (
            "controller: {sourceRsyncCpuLimit: 2 CPUs}",
            Code::WrongValue,
            "controller.sourceRsyncCpuLimit",
            "no quantity",
        ),
        ("controller: {podLimit: 5}", Code::Contradiction, "controller.podLimit", "no effect on a remote cluster"),
        (
            "controller: {variables: {rsync_endpoint_type: X}}",
            Code::Contradiction,
            "controller.variables.rsync_endpoint_type",
            "a field of its own",
        ),
        (
            "controller: {variables: {migration_velero: false}}",
            Code::Contradiction,
            "controller.variables.migration_velero",
            "not set by hand",
        ),
    ] {
        expect(&[&toolkit(what)], code, &format!("spec.migrationToolkit.{field}"), message);
    }
    // Names are checked, unlike by the server.
    let found = find(&[&toolkit("controller: {rsyncEndpointTyp: Route}")]);
    assert!(found.iter().any(|f| f.hint.as_ref().is_some_and(|h| h.contains("rsyncEndpointType"))), "{found:#?}");
}
