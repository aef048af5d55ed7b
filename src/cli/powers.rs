//! From the operator's configuration to the powers of the engine.

use super::exit::CliError;
use crate::config::Config;
use crate::pass::Powers;
use crate::provider::secrets::SecretBounds;
use crate::provider::simulator::World;
use crate::provider::{kubernetes, libvirt};
use std::time::Duration;

/// How long one host may take to be read.
const OBSERVE_DEADLINE: Duration = Duration::from_secs(60);

/// The powers that a configuration gives.
pub fn powers(config: &Config) -> Result<Powers, CliError> {
    let world = match &config.sim_state {
        None => World::new(),
        Some(path) => World::keep_in(path).map_err(|e| {
            CliError::failed(format!("the simulated hosts' state `{}` cannot be used", path.display())).caused_by(e)
        })?,
    };
    let libvirt = libvirt::Options {
        keyfile: config.libvirt.ssh_key.clone(),
        known_hosts: config.libvirt.known_hosts.clone(),
        uri_parameters: config.libvirt.uri_parameters.clone(),
        ..libvirt::Options::default()
    };
    let kubernetes = kubernetes::KubernetesOptions {
        secrets: SecretBounds {
            env: config.secrets.env.clone(),
            folders: config.secrets.folders.clone(),
            clusters: config.secrets.clusters.iter().cloned().collect(),
        },
        allow_exec: config.kubernetes.allow_exec,
        allow_files: config.kubernetes.allow_files,
        allow_insecure: config.kubernetes.allow_insecure,
        ..kubernetes::KubernetesOptions::default()
    };
    Ok(Powers { libvirt, kubernetes, world, observe_deadline: OBSERVE_DEADLINE })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layer;

    #[test]
    fn what_the_operator_says_of_secrets_and_kubeconfigs_reaches_the_clusters() {
        let defaults = powers(&Config::resolve(Layer::default()).unwrap()).unwrap().kubernetes;
        assert_eq!(defaults.secrets, SecretBounds::default());
        assert!(!defaults.allow_exec && !defaults.allow_files && !defaults.allow_insecure);
        let env = [
            ("DROVER_SECRETS_FOLDERS", "/run/secrets"),
            ("DROVER_SECRETS_CLUSTERS", "ocp4"),
            ("DROVER_KUBERNETES_ALLOW_EXEC", "true"),
        ];
        let layer = Layer::from_env(env.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned()))).unwrap();
        let options = powers(&Config::resolve(layer).unwrap()).unwrap().kubernetes;
        assert_eq!(options.secrets.folders, [std::path::Path::new("/run/secrets")]);
        assert!(options.secrets.clusters.contains("ocp4") && options.allow_exec && !options.allow_files);
    }

    #[test]
    fn what_the_operator_says_of_libvirt_reaches_its_connections() {
        let env = [
            ("DROVER_LIBVIRT_URI_PARAMETERS", "mode=direct,pkipath=/etc/drover/pki"),
            ("DROVER_LIBVIRT_SSH_KEY", "/k"),
            ("DROVER_LIBVIRT_KNOWN_HOSTS", "/h"),
        ];
        let layer = Layer::from_env(env.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned()))).unwrap();
        let options = powers(&Config::resolve(layer).unwrap()).unwrap().libvirt;
        let parameters: Vec<_> = options.uri_parameters.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(parameters, [("mode", "direct"), ("pkipath", "/etc/drover/pki")]);
        assert_eq!(
            (options.keyfile.unwrap().to_str(), options.known_hosts.unwrap().to_str()),
            (Some("/k"), Some("/h"))
        );
    }
}
