//! What others take for the same manifests, where they are installed. Python and Node find their libraries as always
//! (a virtual environment in PATH, NODE_PATH).

use crate::fleet::machine;
use crate::measure::Job;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Reads each manifest of the machines and checks it against their schema, as `drover validate` does.
pub fn validators(folder: &Path) -> Vec<(&'static str, Job)> {
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/virtual-machine.schema.json");
    let node = "const fs = require('fs'), yaml = require('js-yaml'), Ajv = require('ajv/dist/2020');
const [schema, folder] = process.argv.slice(1);
const ajv = new Ajv({strict: false, validateFormats: false});
const check = ajv.compile(JSON.parse(fs.readFileSync(schema)));
let wrong = 0;
for (const rack of fs.readdirSync(folder).filter(n => n.startsWith('rack-')))
  for (const name of fs.readdirSync(`${folder}/${rack}`)) {
    const text = fs.readFileSync(`${folder}/${rack}/${name}`, 'utf8');
    yaml.loadAll(text, document => { if (!check(document)) wrong++; });
  }
process.exit(wrong ? 1 : 0);";
    let python = "import glob, json, sys, yaml, jsonschema_rs
schema, folder = sys.argv[1:]
check = jsonschema_rs.validator_for(json.load(open(schema)))
wrong = 0
for name in glob.iglob(folder + '/rack-*/*.yaml'):
    for document in yaml.load_all(open(name, encoding='utf-8'), yaml.CSafeLoader):
        wrong += not check.is_valid(document)
sys.exit(1 if wrong else 0)";
    let folder_text = folder.to_str().unwrap();
    let check_jsonschema = ["--no-cache", "--schemafile", schema].into_iter().map(str::to_owned);
    vec![
        ("js-yaml + ajv", Job::new("node", ["-e", node, schema, folder_text])),
        ("Python CSafeLoader + jsonschema-rs", Job::new("python3", ["-c", python, schema, folder_text])),
        ("check-jsonschema", Job::new("check-jsonschema", check_jsonschema.chain(machines(folder)))),
    ]
}

/// `kubectl kustomize` of a copy of the folder, with every file listed.
pub fn kustomize(folder: &Path, copy: &Path) -> Job {
    assert!(Command::new("cp").arg("-r").args([folder, copy]).status().unwrap().success());
    let mut list = String::from("resources:\n- base.yaml\n");
    for file in machines(folder) {
        let _ = writeln!(list, "- {}", Path::new(&file).strip_prefix(folder).unwrap().display());
    }
    fs::write(copy.join("kustomization.yaml"), list).unwrap();
    Job::new("kubectl", ["kustomize", copy.to_str().unwrap()])
}

/// Reads a folder and prints it.
pub fn kpt(folder: &Path) -> Job {
    Job::new("kpt", ["fn", "source", folder.to_str().unwrap()])
}

/// A Terraform folder with one resource for each machine, which has the machine's metadata and spec as its input; the
/// state is that of an earlier apply, or empty. `None` where Terraform is not installed.
pub fn terraform(folder: &Path, machines: usize, with_state: bool) -> Option<PathBuf> {
    fs::create_dir_all(folder).unwrap();
    let input = |i: usize, host: usize| {
        let manifest: Value = serde_yaml::from_str(&machine(i, host)).unwrap();
        json!({"metadata": manifest["metadata"], "spec": manifest["spec"]})
    };
    let wanted: Map<String, Value> =
        (0..machines).map(|i| (format!("vm-{i:06}"), json!({"input": input(i, i % 10)}))).collect();
    fs::write(folder.join("main.tf.json"), json!({"resource": {"terraform_data": wanted}}).to_string()).unwrap();
    if with_state {
        // One machine is elsewhere.
        let there = |i: usize| input(i, if i == 7 { 8 } else { i % 10 });
        let resources: Vec<Value> = (0..machines).map(|i| instance(i, &there(i))).collect();
        let state = json!({"version": 4, "terraform_version": "1.0.0", "serial": 1, "outputs": {}, "check_results": null,
            "lineage": "7c6a4ec3-de69-1b4e-fe99-f79d6b7bc45a", "resources": resources});
        fs::write(folder.join("terraform.tfstate"), state.to_string()).unwrap();
    }
    let init = Command::new("terraform").arg("init").current_dir(folder).stdout(Stdio::null()).status();
    init.is_ok_and(|s| s.success()).then(|| folder.to_owned())
}

/// `terraform plan` or `terraform apply` there.
pub fn terraform_job(folder: &Path, command: &str) -> Job {
    let args = match command {
        "apply" => vec!["apply", "-auto-approve", "-no-color"],
        other => vec![other, "-no-color", "-input=false"],
    };
    Job::new("terraform", args).in_folder(folder)
}

/// A resource in Terraform's state.
fn instance(i: usize, input: &Value) -> Value {
    let known = json!({"value": input, "type": type_of(input)});
    json!({"mode": "managed", "type": "terraform_data", "name": format!("vm-{i:06}"),
        "provider": "provider[\"terraform.io/builtin/terraform\"]",
        "instances": [{"schema_version": 0, "sensitive_attributes": [], "attributes": {
            "id": format!("00000000-0000-4000-8000-{i:012}"), "input": known, "output": known, "triggers_replace": null}}]})
}

/// A value's type in Terraform's words.
fn type_of(value: &Value) -> Value {
    match value {
        Value::Null => json!("dynamic"),
        Value::Bool(_) => json!("bool"),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("string"),
        Value::Array(items) => json!(["tuple", items.iter().map(type_of).collect::<Vec<_>>()]),
        Value::Object(map) => {
            json!(["object", map.iter().map(|(k, v)| (k.clone(), type_of(v))).collect::<Map<_, _>>()])
        }
    }
}

/// Every machine's file.
fn machines(folder: &Path) -> impl Iterator<Item = String> {
    let mut racks: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    racks.retain(|p| p.is_dir());
    racks.sort();
    racks.into_iter().flat_map(|rack| {
        let mut files: Vec<String> =
            fs::read_dir(rack).unwrap().map(|e| e.unwrap().path().to_str().unwrap().to_owned()).collect();
        files.sort();
        files
    })
}
