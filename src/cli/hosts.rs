//! Hosts as they are named on the command line: by the name of a manifest, or `NAME=URI` for one that has none.

use super::exit::CliError;
use crate::kind::Resources;
use crate::kind::host::{HostSpec, parse_uri};
use crate::model::check_name;
use std::collections::BTreeMap;

/// A host that was named, with what is said of it.
pub fn named(argument: &str, declared: &Resources) -> Result<(String, HostSpec), CliError> {
    let Some((name, uri)) = argument.split_once('=') else {
        let manifest = declared.hosts.get(argument).ok_or_else(|| {
            CliError::usage(format!("no Host `{argument}` is declared")).hint(format!(
                "say where it is, `{argument}=qemu+ssh://root@{argument}/system`; or give the folder that has its manifest"
            ))
        })?;
        return Ok((argument.to_owned(), manifest.spec.clone()));
    };
    check_name(name).map_err(|e| CliError::usage(format!("`{name}` cannot be the name of a Host")).caused_by(e))?;
    parse_uri(uri).map_err(|e| CliError::usage(format!("`{uri}` is not a libvirt URI: {e}")))?;
    let spec = match declared.hosts.get(name) {
        Some(manifest) if manifest.spec.uri != uri => {
            return Err(CliError::usage(format!("the Host `{name}` is declared with another URI"))
                .hint("give its name alone, or another name"));
        }
        Some(manifest) => manifest.spec.clone(),
        None => serde_json::from_value(serde_json::json!({"uri": uri}))
            .map_err(|e| CliError::failed(format!("a Host with the URI `{uri}` cannot be described")).caused_by(e))?,
    };
    Ok((name.to_owned(), spec))
}

/// These hosts alone, as a repository with nothing else would have them.
pub fn alone(hosts: &BTreeMap<String, HostSpec>, declared: &Resources) -> Result<Resources, CliError> {
    let mut alone = Resources::default();
    for (name, spec) in hosts {
        if let Some(manifest) = declared.hosts.get(name) {
            alone.hosts.insert(name.clone(), manifest.clone());
            continue;
        }
        let undescribed = || CliError::failed(format!("the host `{name}` cannot be described"));
        let value = serde_json::to_value(spec).map_err(|e| undescribed().caused_by(e))?;
        let metadata = crate::model::Metadata { name: name.clone(), ..Default::default() };
        alone
            .insert("Host", metadata, value, Default::default())
            .map_err(|e| undescribed().caused_by(e.into_inner()))?;
    }
    Ok(alone)
}
