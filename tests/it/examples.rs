//! Tests of what `examples/` promises.

use serde_yaml::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

fn pipeline(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ci").join(name);
    serde_yaml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
}

/// The step of the GitHub workflow with this name: its script.
fn github_step(name: &str) -> String {
    let workflow = pipeline("github-actions.yaml");
    let steps = workflow["jobs"]["plan"]["steps"].as_sequence().unwrap();
    let step = steps.iter().find(|s| s["name"].as_str() == Some(name)).unwrap();
    step["run"].as_str().unwrap().to_owned()
}

/// The script of a job of the GitLab pipeline, without the installation of packages.
fn gitlab_job(name: &str) -> String {
    let lines = pipeline("gitlab-ci.yaml")[name]["script"].as_sequence().unwrap().clone();
    let lines: Vec<_> = lines.iter().map(|l| l.as_str().unwrap()).filter(|l| !l.starts_with("apk ")).collect();
    lines.join("\n")
}

/// Runs a pipeline's script with programs of ours before the machine's.
fn run(
    shell: &[&str],
    script: &str,
    programs: &[(&str, &str)],
    variables: &[(&str, &str)],
) -> (tempfile::TempDir, Output) {
    let folder = tempfile::tempdir().unwrap();
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    for (name, text) in programs {
        std::fs::write(bin.join(name), format!("#!/bin/bash\n{text}")).unwrap();
        std::fs::set_permissions(bin.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }
    std::fs::write(folder.path().join("comment.md"), "<!-- drover-plan -->\nnothing to do\n").unwrap();
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).arg(script).current_dir(folder.path()).envs(variables.iter().copied());
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    command
        .env("RUNNER_TEMP", folder.path())
        .env("HOME", folder.path())
        .env("GITHUB_OUTPUT", folder.path().join("output"));
    command.env("GITHUB_STEP_SUMMARY", folder.path().join("summary"));
    let out = command.output().unwrap();
    (folder, out)
}

const GITHUB: &[&str] = &["bash", "-e", "-c"];
const GITLAB: &[&str] = &["sh", "-e", "-c"];

#[test]
fn every_example_is_valid_without_a_warning() {
    let sections = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/clusters")).unwrap();
    let sections = sections.map(|e| format!("clusters/{}", e.unwrap().file_name().into_string().unwrap()));
    let others = ["quickstart", "simulator", "evacuation", "migrations", "shared-storage"].map(str::to_owned);
    for name in others.into_iter().chain(sections) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(&name);
        let tree = drover::source::folder::FolderTree::open(&folder).unwrap();
        let loaded = drover::load::load(&tree, drover::model::Revision::default(), &drover::load::Limits::default());
        assert!(loaded.desired.is_some() && loaded.findings.is_empty(), "{name}: {:#?}", loaded.findings);
    }
}

#[test]
fn github_keeps_one_comment() {
    // The forge filters comments by `--jq`: here it has none, then one.
    for (existing, method, path) in [("", "POST", "issues/7/comments"), ("42", "PATCH", "issues/comments/42")] {
        let gh = format!(
            r#"case "$*" in *--paginate*) echo "{existing}" | grep . || true ;; *) echo "$@" >> calls; f=${{!#}}; cat "${{f#body=@}}" >> calls ;; esac"#
        );
        let variables = [("GITHUB_REPOSITORY", "acme/fleet"), ("PULL_REQUEST", "7")];
        let (folder, out) = run(GITHUB, &github_step("Comment"), &[("gh", &gh)], &variables);
        assert!(out.status.success(), "{out:?}");
        let calls = std::fs::read_to_string(folder.path().join("calls")).unwrap();
        assert_eq!(calls.matches("--method").count(), 1, "{calls}");
        assert!(calls.contains(&format!("--method {method} repos/acme/fleet/{path} ")), "{calls}");
        assert!(calls.contains("nothing to do"), "{calls}");
    }
}

#[test]
fn github_plans_the_merge_and_tells_the_result() {
    let git = r#"case $1 in show) echo '{"observed": true}' ;; rev-parse) [ "$2" = HEAD ] && echo merged || echo target ;; esac"#;
    for (code, verdict) in [(0, true), (3, false), (4, false), (5, true), (1, false)] {
        let docker = format!(r#"echo "$@" > calls; echo "the plan"; exit {code}"#);
        let programs = [("git", git), ("docker", docker.as_str())];
        let (folder, out) = run(GITHUB, &github_step("Plan"), &programs, &[("DROVER_IMAGE", "drover:1")]);
        assert!(out.status.success(), "the comment must be made also for a plan that failed: {out:?}");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(
            read("calls").contains("drover:1 plan . --base target --head merged --observed /observed.json -o markdown")
        );
        assert_eq!(read("comment.md"), "<!-- drover-plan -->\nthe plan\n");
        assert_eq!(read("observed.json").trim(), r#"{"observed": true}"#);
        assert_eq!(read("summary"), read("comment.md"));
        assert_eq!(read("output"), format!("status={code}\n"));

        let (_folder, out) = run(GITHUB, &github_step("Result"), &[], &[("STATUS", &code.to_string())]);
        assert_eq!(out.status.success(), verdict, "exit code {code}: {out:?}");
    }
}

#[test]
fn gitlab_keeps_one_comment() {
    if Command::new("jq").arg("--version").output().is_err() {
        return; // the job installs it in its image
    }
    // Notes come in pages; ours is on the second one, or there is none.
    for (second_page, request) in
        [("[]", "--request POST"), (r#"[{"id": 42, "body": "<!-- drover-plan -->\nold"}]"#, "--request PUT")]
    {
        let curl = format!(
            r#"case "$*" in
*"&page=1") printf 'HTTP/2 200\r\nx-next-page: 2\r\n\r\n' > headers; echo '[{{"id": 1, "body": "looks good"}}]' ;;
*"&page=2") printf 'HTTP/2 200\r\nx-next-page: \r\n\r\n' > headers; echo '{second_page}' ;;
*) echo "$@" >> calls ;;
esac"#
        );
        let variables = [
            ("CI_API_V4_URL", "https://gitlab.example.com/api/v4"),
            ("CI_PROJECT_ID", "3"),
            ("CI_MERGE_REQUEST_IID", "7"),
            ("DROVER_COMMENT_TOKEN", "token"),
        ];
        let (folder, out) = run(GITLAB, &gitlab_job("comment"), &[("curl", &curl)], &variables);
        assert!(out.status.success(), "{out:?}");
        let calls = std::fs::read_to_string(folder.path().join("calls")).unwrap();
        assert_eq!(calls.lines().count(), 1, "{calls}");
        assert!(calls.contains(request) && calls.contains("merge_requests/7/notes"), "{calls}");
        assert_eq!(calls.trim_end().ends_with("/notes/42"), request.ends_with("PUT"), "{calls}");
    }
}

#[test]
fn gitlab_plans_and_hands_its_exit_code_on() {
    for code in [0, 3, 4, 5] {
        let drover = format!(
            r#"echo "$@" >> calls; case $1 in validate) exit 0 ;; plan) echo "the plan"; exit {code} ;; *) exit 64 ;; esac"#
        );
        let variables = [
            ("CI_PROJECT_DIR", "/builds/fleet"),
            ("CI_MERGE_REQUEST_DIFF_BASE_SHA", "target"),
            ("CI_COMMIT_SHA", "head"),
        ];
        let (folder, out) = run(GITLAB, &gitlab_job("plan"), &[("drover", &drover)], &variables);
        assert_eq!(out.status.code(), Some(code), "{out:?}");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("comment.md"), "<!-- drover-plan -->\nthe plan\n");
        assert!(read("calls").contains("plan . --base target --head head --observed observed.json -o markdown"));
    }
}

#[test]
fn the_container_image_has_what_the_program_needs() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/containerfile.sh");
    let out = Command::new(script).arg(env!("CARGO_BIN_EXE_drover")).output().unwrap();
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
}
