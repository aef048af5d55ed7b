//! Ours beside the real ones: what ours say is true of the real ones.

use super::crds;
use serde_json::Value;
use std::io::Write as _;

#[test]
fn our_crds_have_the_shape_of_the_real_ones() {
    let real = match crds::real() {
        Ok(real) => real,
        Err(reason) => {
            let _ = std::io::stderr().write_all(format!("skipped: our CRDs are not compared: {reason}\n").as_bytes());
            return;
        }
    };
    let ours = crds::ours();
    let mut wrong = Vec::new();
    for (name, ours) in ours {
        if crds::WITHOUT_REAL_ONE.contains(&name.as_str()) {
            continue;
        }
        match real.get(name) {
            Some(real) => compare(name, ours, real, &mut wrong),
            None => wrong.push(format!("{name}: there is no such real CRD")),
        }
    }
    assert!(ours.len() > 30, "ours were not found: {:?}", ours.keys());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_wrong_field_of_ours_would_be_found() {
    let name = "migclusters.migration.openshift.io";
    let right = &crds::ours()[name];
    let found = |change: &dyn Fn(&mut Value)| {
        let mut changed = right.clone();
        change(&mut changed);
        let mut wrong = Vec::new();
        compare(name, &changed, right, &mut wrong);
        wrong.join("; ")
    };
    fn spec(crd: &mut Value) -> &mut Value {
        &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    }
    assert_eq!(found(&|_| {}), "");
    assert!(found(&|c| spec(c)["properties"]["urll"] = spec(c)["properties"]["url"].clone()).contains("spec.urll"));
    assert!(found(&|c| spec(c)["properties"]["url"]["type"] = "integer".into()).contains("spec.url: type"));
    assert!(found(&|c| spec(c)["required"] = Value::Null).contains("spec: required"));
    assert!(found(&|c| c["spec"]["scope"] = "Cluster".into()).contains("scope"));
    assert!(found(&|c| c["spec"]["names"]["kind"] = "Mig".into()).contains("names"));
    assert!(
        found(&|c| c["spec"]["versions"][0]["subresources"] = serde_json::json!({ "status": {} })).contains("status")
    );
}

fn compare(name: &str, ours: &Value, real: &Value, wrong: &mut Vec<String>) {
    let mut same = |what: &str, ours: &Value, real: &Value| {
        if ours != real {
            wrong.push(format!("{name}: {what} is {ours}, and really {real}"));
        }
    };
    same("group", &ours["spec"]["group"], &real["spec"]["group"]);
    same("scope", &ours["spec"]["scope"], &real["spec"]["scope"]);
    same("names", &ours["spec"]["names"], &real["spec"]["names"]);
    let versions = |crd: &Value| -> Vec<Value> {
        let all = crd["spec"]["versions"].as_array().cloned().unwrap_or_default();
        let mut facts: Vec<Value> = all
            .iter()
            .map(|v| serde_json::json!([v["name"], v["served"], v["storage"], !v["subresources"]["status"].is_null()]))
            .collect();
        facts.sort_by_key(Value::to_string);
        facts
    };
    same("versions (name, served, storage, status)", &versions(ours).into(), &versions(real).into());
    for version in ours["spec"]["versions"].as_array().into_iter().flatten() {
        let theirs = real["spec"]["versions"].as_array().into_iter().flatten().find(|v| v["name"] == version["name"]);
        let Some(theirs) = theirs else { continue };
        let schema = |v: &Value| v["schema"]["openAPIV3Schema"].clone();
        compare_schema(&format!("{name} {}", version["name"]), "", &schema(version), &schema(theirs), wrong);
    }
}

/// What a field is: everything that decides whether a value is taken and kept.
const FACTS: [&str; 4] = ["type", "format", "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"];

fn compare_schema(crd: &str, path: &str, ours: &Value, real: &Value, wrong: &mut Vec<String>) {
    if real.is_null() {
        wrong.push(format!("{crd}: {path} is not a field of the real one"));
        return;
    }
    for fact in FACTS {
        if ours[fact] != real[fact] {
            wrong.push(format!("{crd}: {path}: {fact} is {}, and really {}", ours[fact], real[fact]));
        }
    }
    let nullable = |s: &Value| s["nullable"].as_bool().unwrap_or(false);
    if nullable(ours) != nullable(real) {
        wrong.push(format!("{crd}: {path}: nullable is {}, and really {}", nullable(ours), nullable(real)));
    }
    let required = |schema: &Value| {
        let list = schema["required"].as_array().cloned().unwrap_or_default();
        let mut names: Vec<String> = list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
        names.sort();
        names
    };
    if required(ours) != required(real) {
        wrong.push(format!("{crd}: {path}: required are {:?}, and really {:?}", required(ours), required(real)));
    }
    for (field, schema) in ours["properties"].as_object().into_iter().flatten() {
        compare_schema(
            crd,
            format!("{path}.{field}").trim_start_matches('.'),
            schema,
            &real["properties"][field],
            wrong,
        );
    }
    for (part, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if !ours[part].is_null() {
            compare_schema(crd, &format!("{path}{mark}"), &ours[part], &real[part], wrong);
        }
    }
}
