//! The program itself: `drover observe` with an operator's configuration.

use super::Site;
use crate::controlplane::{Role, Server};
use std::process::Command;

fn drover(config: &str, folder: &std::path::Path, output: &str) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
    command.args(["--config", config, "observe", "-o", output]).arg(folder).env_clear();
    command.output().unwrap()
}

#[test]
fn clusters_are_observed_and_one_that_cannot_be_reached_makes_it_incomplete() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let site = Site::new();
    let manifests = tempfile::tempdir().unwrap();
    let cluster = |name: &str, fields: &str| {
        let fields: String = fields.lines().map(|l| format!("  {l}\n")).collect();
        format!("apiVersion: drover/v1alpha1\nkind: Cluster\nmetadata: {{name: {name}}}\nspec:\n{fields}")
    };
    let fields = site.by_token("good", server, &server.url(), &server.admin_token());
    std::fs::write(manifests.path().join("good.yaml"), cluster("good", &fields)).unwrap();
    let config = site.secret("drover.toml", &format!("[secrets]\nfolders = ['{}']\n", site.folder.path().display()));
    let out = drover(&config, manifests.path(), "table");
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(0), "{text}");
    assert!(text.contains("CLUSTER") && text.contains("good") && text.contains("kubernetes-1."), "{text}");

    let fields = site.by_token("bad", server, "https://127.0.0.1:1", "canary-token");
    std::fs::write(manifests.path().join("bad.yaml"), cluster("bad", &fields)).unwrap();
    let out = drover(&config, manifests.path(), "json");
    assert_eq!(out.status.code(), Some(5));
    let observed: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let why = observed["clusters"]["bad"]["unknown"]["why"].as_str().unwrap();
    assert!(why.contains("nothing listens there"), "{why}");
    assert!(observed["clusters"]["good"]["present"]["uid"].is_string());
    let all = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(!all.contains("canary") && !all.contains(server.admin_token().trim()), "{all}");
    assert!(!all.contains("ERROR"), "a library speaks beside Drover: {all}");
    // Without leave for the folder.
    let config = site.secret("none.toml", "");
    let out = drover(&config, manifests.path(), "table");
    assert_eq!(out.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&out.stdout).contains("outside of the folders"), "{out:?}");
}
