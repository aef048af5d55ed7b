//! `drover import cluster`: the manifest of a cluster on which MTC is installed already.

use super::args::{Global, ImportClusterArgs};
use super::engine::Engine;
use super::exit::{CliError, Exit};
use super::output::Output;
use super::{manifests, settings, source};
use crate::finding::nearest;
use crate::kind::cluster::{ClusterSpec, MigrationToolkit, import};
use crate::kind::{API_VERSION, Desired, Resources};
use crate::model::Revision;
use crate::observed::Reading;
use crate::plan::PlanOptions;
use serde_json::{Value, json};
use std::io::{self, Write};

/// Runs the command. The manifest goes to standard output, in the place of the one that only says how the cluster is reached.
pub fn run(args: &ImportClusterArgs, global: &Global, out: &mut Output) -> Result<Exit, CliError> {
    let config = settings::load(global, None)?;
    settings::log(&config, true)?;
    let opened = source::open(&args.source, &config)?;
    let Some(desired) = manifests::load(&opened, out)? else { return Ok(Exit::Invalid) };
    let declared = Resources {
        settings: desired.resources.settings,
        clusters: desired.resources.clusters,
        ..Resources::default()
    };
    let Some(manifest) = declared.clusters.get(&args.name).cloned() else {
        let hint = match nearest(&args.name, declared.clusters.keys().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "declare a Cluster with `kubeconfig` or `serviceAccount`, and nothing else".to_owned(),
        };
        let message = format!("no Cluster is called `{}` in the manifests", args.name);
        return Err(CliError::usage(message).hint(hint));
    };
    let engine = Engine::new(&config)?;
    let revision = || Revision { commit: None, base: None, path: "import".into() };
    let observed = engine.observe(&Desired { revision: revision(), resources: declared.clone() });
    if let Some(Reading::Unknown { why }) = observed.clusters.get(&args.name) {
        out.warn(&format!("`{}` could not be read, and nothing was imported: {why}", args.name));
        return Ok(Exit::Incomplete);
    }
    let Some(made) = import(&manifest, &observed, &declared) else { return Ok(Exit::Incomplete) };
    let text = crate::render::findings::text(&made.findings, &|_| None, out.err_paint.0);
    let _ = io::stderr().write_all(text.as_bytes());
    let document = json!({
        "apiVersion": API_VERSION, "kind": "Cluster", "metadata": manifest.metadata, "spec": short(&made.spec),
    });
    let text = serde_yaml::to_string(&document)
        .map_err(|e| CliError::failed("the manifest cannot be written as YAML").caused_by(e))?;
    out.stdout.write_all(text.as_bytes())?;

    // Looked at with the new manifest: more of the cluster is read then.
    let mut resources = declared;
    if let Some(manifest) = resources.clusters.get_mut(&args.name) {
        manifest.spec = made.spec;
    }
    let mut findings = Vec::new();
    resources.check(&mut findings);
    let mut wrong: Vec<String> = findings
        .iter()
        .filter(|f| f.is_error() && f.resource.as_ref() == Some(&manifest.id()))
        .map(|f| format!("what was written is not valid: {}", f.message))
        .collect();
    let desired = Desired { revision: revision(), resources };
    let observed = engine.observe(&desired);
    let plan = engine.plan(&desired, &observed, PlanOptions::default());
    let due = plan.steps.iter().filter(|s| s.resource == manifest.id());
    wrong.extend(due.map(|s| format!("the next plan is not empty: {} ({})", s.summary, s.why)));
    for what in &wrong {
        out.warn(what);
    }
    Ok(if wrong.is_empty() { Exit::Done } else { Exit::Failed })
}

/// A spec without what it would say anyway.
fn short(spec: &ClusterSpec) -> Value {
    let json = |value: &dyn Fn() -> serde_json::Result<Value>| value().unwrap_or(Value::Null);
    let mut whole = json(&|| serde_json::to_value(spec));
    let plain = json(&|| serde_json::to_value(MigrationToolkit::default()));
    if let Some(toolkit) = whole.get_mut("migrationToolkit").and_then(Value::as_object_mut) {
        toolkit.retain(|key, value| key == "install" || plain.get(key) != Some(value));
    }
    whole
}
