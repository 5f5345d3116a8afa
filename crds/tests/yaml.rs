//! `crds/yaml/` is generated from the types. `PGRAIL_WRITE=1 cargo test -p pgrail-crds --test yaml` writes it anew.

use std::{fs, path::Path};

#[test]
fn checked_in_crds_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    let mut names = Vec::new();
    for crd in pgrail_crds::custom_resource_definitions() {
        let name = format!("{}.yaml", crd.metadata.name.clone().unwrap());
        let text = pgrail_crds::to_yaml(&crd).unwrap();
        let file = folder.join(&name);
        if std::env::var_os("PGRAIL_WRITE").is_some() {
            fs::write(&file, &text).unwrap();
        }
        let found = fs::read_to_string(&file).unwrap_or_default();
        assert!(found == text, "{} is not what the types say: run `make generate`", file.display());
        names.push(name);
    }
    let mut files: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    names.sort();
    assert_eq!(files, names, "files in crds/yaml that no kind accounts for");
}

#[test]
fn every_string_and_list_of_a_spec_is_bounded() {
    fn walk(path: &str, schema: &serde_json::Value, unbounded: &mut Vec<String>) {
        let kind = schema["type"].as_str();
        let bounded = match kind {
            Some("string") => ["maxLength", "enum", "format"].iter().any(|key| schema.get(key).is_some()),
            Some("array") => schema.get("maxItems").is_some(),
            _ => true,
        };
        if !bounded {
            unbounded.push(path.to_owned());
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), property, unbounded);
        }
        if schema["items"].is_object() {
            walk(&format!("{path}[]"), &schema["items"], unbounded);
        }
    }
    let mut unbounded = Vec::new();
    for crd in pgrail_crds::custom_resource_definitions() {
        let crd = serde_json::to_value(crd).unwrap();
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        walk(crd["spec"]["names"]["kind"].as_str().unwrap(), spec, &mut unbounded);
    }
    unbounded.retain(|path| !path.contains("namespaceSelector") && !path.contains("excludeDatabases"));
    assert_eq!(unbounded, Vec::<String>::new());
}
