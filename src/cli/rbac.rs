//! `drover rbac`: what an administrator applies so that Drover may do on a cluster what its manifests say, and no more.

use super::args::{Global, RbacArgs, RbacOf};
use super::exit::{CliError, Exit};
use super::output::Output;
use super::{manifests, settings, source};
use crate::finding::nearest;
use crate::kind::cluster::{in_force, rbac};

/// Runs the command. What it prints goes to `kubectl apply -f -` as it is.
pub fn run(args: &RbacArgs, global: &Global, out: &mut Output) -> Result<Exit, CliError> {
    let RbacOf::Cluster { name, source: from } = &args.what;
    let config = settings::load(global, None)?;
    settings::log(&config, true)?;
    let opened = source::open(from, &config)?;
    let Some(desired) = manifests::load(&opened, out)? else { return Ok(Exit::Invalid) };
    let clusters = &desired.resources.clusters;
    if !clusters.contains_key(name) {
        let hint = match nearest(name, clusters.keys().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "the rights follow from its manifest: name a Cluster of the repository".to_owned(),
        };
        return Err(CliError::usage(format!("no Cluster is called `{name}` in the manifests")).hint(hint));
    }
    writeln!(
        out.stdout,
        "# What Drover needs on `{name}` for what its manifests say, under a service account of its own. An administrator of\n\
         # the cluster applies it:\n\
         #\n\
         #   drover rbac cluster {name} | kubectl apply -f -\n\
         #   kubectl -n drover get secret drover-token -o jsonpath='{{.data.token}}' | base64 -d > {name}.token"
    )?;
    for document in rbac(name, &in_force(&desired.resources)) {
        let text = serde_yaml::to_string(&document)
            .map_err(|e| CliError::failed("a role cannot be written as YAML").caused_by(e))?;
        writeln!(out.stdout, "---")?;
        out.stdout.write_all(text.as_bytes())?;
    }
    Ok(Exit::Done)
}
