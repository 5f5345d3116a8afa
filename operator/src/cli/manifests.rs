//! Manifests from files and folders: guards and exemptions are read strictly, other kinds are skipped and named.

mod strict;

use super::OWNER;
use crate::controllers::table_guard::validate::validate;
use pgrail_crds::{GuardExemption, TableGuard};
use pgrail_guard::GuardSpec;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use strict::strictly;

/// Where manifests are read from.
#[derive(Debug, clap::Args)]
pub(super) struct ManifestArgs {
    /// Manifests: a file, a folder (its *.yaml, *.yml and *.json files), or - for standard input
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
    pub(super) filenames: Vec<PathBuf>,
}

/// Why manifests cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ManifestError {
    #[error("{}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    #[error("{place}: neither YAML nor JSON")]
    Yaml { place: String, source: serde_norway::Error },
    #[error("{place}: neither JSON nor JSON lines")]
    Json { place: String, source: serde_json::Error },
    #[error("{place}: {field} {message}")]
    Field { place: String, field: String, message: String },
    #[error("{place}: {kind} {name:?} is declared already in {first}: delete one of the two, or give it another name")]
    Twice { place: String, kind: String, name: String, first: String },
    #[error("{place}: {message}")]
    Rejected { place: String, message: String },
    #[error("no TableGuard and no GuardExemption in what was given")]
    Nothing,
}

/// What there is to reconcile.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    pub(super) guards: Vec<DeclaredGuard>,
    pub(super) exemptions: Vec<GuardExemption>,
}

/// A guard, and what the engine makes of it.
#[derive(Debug)]
pub(super) struct DeclaredGuard {
    pub(super) object: TableGuard,
    pub(super) spec: GuardSpec,
}

/// Reads every `TableGuard` and every `GuardExemption`.
pub(super) fn read(args: &ManifestArgs) -> Result<Manifests, ManifestError> {
    let mut manifests = Manifests::default();
    let mut seen = HashMap::new();
    for path in files(&args.filenames)? {
        for (place, document) in documents(&path)? {
            let metadata = |field: &str| document["metadata"][field].as_str().unwrap_or_default().to_owned();
            match document["kind"].as_str() {
                Some(kind @ ("TableGuard" | "GuardExemption")) => {
                    let name = metadata("name");
                    let key = (kind.to_owned(), metadata("namespace"), name.clone());
                    if let Some(first) = seen.insert(key, place.clone()) {
                        return Err(ManifestError::Twice { place, kind: kind.to_owned(), name, first });
                    }
                    if kind == "TableGuard" {
                        manifests.guards.push(guard(&place, document)?);
                    } else {
                        manifests.exemptions.push(exemption(&place, document)?);
                    }
                }
                Some(kind) => eprintln!(
                    "pgrail: {place}: {kind} {:?} is skipped: without a cluster only TableGuards and GuardExemptions are reconciled",
                    metadata("name")
                ),
                None => {
                    let (field, message) = ("kind".to_owned(), "is missing".to_owned());
                    return Err(ManifestError::Field { place, field, message });
                }
            }
        }
    }
    let nothing = manifests.guards.is_empty() && manifests.exemptions.is_empty();
    if nothing { Err(ManifestError::Nothing) } else { Ok(manifests) }
}

fn guard(place: &str, document: Value) -> Result<DeclaredGuard, ManifestError> {
    let mut object: TableGuard = strictly(place, document)?;
    object.status = None;
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let spec = validate(&object, OWNER).map_err(|rejection| ManifestError::Rejected {
        place: format!("{place}: TableGuard {name:?}"),
        message: rejection.message,
    })?;
    Ok(DeclaredGuard { object, spec })
}

fn exemption(place: &str, document: Value) -> Result<GuardExemption, ManifestError> {
    let mut exemption: GuardExemption = strictly(place, document)?;
    // What the apiserver's rules demand besides the schema.
    let spec = &exemption.spec;
    let problem = if spec.unlimited == spec.limits.is_some() {
        Some(("spec.limits", "or spec.unlimited: true must be set, and not both"))
    } else if spec.not_before.as_ref().is_some_and(|from| from.0 >= spec.not_after.0) {
        Some(("spec.notBefore", "must be earlier than spec.notAfter"))
    } else {
        None
    };
    if let Some((field, message)) = problem {
        let place = format!("{place}: GuardExemption {:?}", exemption.metadata.name.as_deref().unwrap_or_default());
        return Err(ManifestError::Field { place, field: field.to_owned(), message: message.to_owned() });
    }
    exemption.status = None;
    Ok(exemption)
}

fn files(given: &[PathBuf]) -> Result<Vec<PathBuf>, ManifestError> {
    let mut files = Vec::new();
    for path in given {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let failed = |error| ManifestError::Read(path.clone(), error);
        let entries = std::fs::read_dir(path).map_err(failed)?;
        let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
        let mut found = paths.map_err(failed)?;
        found.retain(|path| {
            let extension = path.extension().and_then(|it| it.to_str()).unwrap_or_default();
            path.is_file() && ["yaml", "yml", "json"].contains(&extension)
        });
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

/// The objects of a file, each with its place. Lists are taken apart.
fn documents(path: &Path) -> Result<Vec<(String, Value)>, ManifestError> {
    let failed = |error| ManifestError::Read(path.to_owned(), error);
    let (place, text) = if path == Path::new("-") {
        ("standard input".to_owned(), std::io::read_to_string(std::io::stdin()).map_err(failed)?)
    } else {
        (path.display().to_string(), std::fs::read_to_string(path).map_err(failed)?)
    };
    let documents = parsed(&place, &text)?;
    let several = documents.len() > 1;
    let mut objects = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        let place = if several { format!("{place} (document {})", index + 1) } else { place.clone() };
        flatten(place, document, &mut objects);
    }
    Ok(objects)
}

/// YAML documents, one JSON value, or JSON values one after the other.
fn parsed(place: &str, text: &str) -> Result<Vec<Value>, ManifestError> {
    let documents: Vec<Value> = if text.trim_start().starts_with(['{', '[']) {
        let values = serde_json::Deserializer::from_str(text).into_iter();
        values.collect::<Result<_, _>>().map_err(|source| ManifestError::Json { place: place.to_owned(), source })?
    } else {
        let documents = serde_norway::Deserializer::from_str(text).map(Value::deserialize);
        documents.collect::<Result<_, _>>().map_err(|source| ManifestError::Yaml { place: place.to_owned(), source })?
    };
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// The objects of a `List`, or of what `-o json` printed.
fn flatten(place: String, document: Value, objects: &mut Vec<(String, Value)>) {
    let is_list = document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    let items = match document {
        Value::Array(items) => items,
        Value::Object(mut list) if is_list && list.contains_key("items") => match list.remove("items") {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        },
        document => return objects.push((place, document)),
    };
    for (index, item) in items.into_iter().enumerate() {
        flatten(format!("{place} (item {})", index + 1), item, objects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_guard(spec: Value) -> Result<DeclaredGuard, ManifestError> {
        guard(
            "a.yaml",
            json!({"apiVersion": "pgrail.dev/v1alpha1", "kind": "TableGuard", "metadata": {"name": "core"}, "spec": spec}),
        )
    }

    #[test]
    fn a_typing_error_is_named_and_never_becomes_a_default() {
        let error =
            read_guard(json!({"databaseRef": {"name": "shop"}, "tables": [{"schema": "public", "name": "users"}],
            "limits": {"maxRow": 5}}))
            .unwrap_err();
        assert_eq!(error.to_string(), "a.yaml: TableGuard \"core\": spec.limits.maxRow is not a field of a TableGuard");
    }

    #[test]
    fn an_exemption_is_read_as_strictly() {
        let read = |spec: Value| {
            let document = json!({"apiVersion": "pgrail.dev/v1alpha1", "kind": "GuardExemption",
                "metadata": {"name": "purge"}, "spec": spec});
            exemption("a.yaml", document)
        };
        let spec = |patch: Value| {
            let mut spec = json!({"guardRefs": [{"name": "core"}], "role": "admin", "reason": "r",
                "notAfter": "2030-01-01T00:00:00Z", "limits": {"maxRows": 5}});
            spec.as_object_mut().unwrap().extend(patch.as_object().unwrap().clone());
            spec
        };
        assert!(read(spec(json!({}))).is_ok());
        for (patch, words) in [
            (json!({"unlimited": true}), "spec.unlimited: true"),
            (json!({"guardRefs": []}), "spec.guardRefs is invalid: [] has less than 1 item"),
            (json!({"notBefore": "2031-01-01T00:00:00Z"}), "spec.notBefore must be earlier"),
            (json!({"limits": {"maxRow": 1}}), "spec.limits.maxRow is not a field of a GuardExemption"),
            (json!({"notAfter": "tomorrow"}), "spec.notAfter is invalid: \"tomorrow\" is not a \"date-time\""),
        ] {
            let error = read(spec(patch)).unwrap_err().to_string();
            assert!(error.starts_with("a.yaml: GuardExemption \"purge\": ") && error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_guard_without_a_namespace_is_in_default() {
        let guard =
            read_guard(json!({"databaseRef": {"name": "shop"}, "tables": [{"schema": "public", "name": "users"}]}));
        assert_eq!(guard.unwrap().object.metadata.namespace.as_deref(), Some("default"));
    }

    /// The places and names of what a text holds.
    fn objects(text: &str) -> Vec<(String, String)> {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("all");
        std::fs::write(&path, text).unwrap();
        let prefix = format!("{}", path.display());
        let read = documents(&path).unwrap().into_iter();
        let named =
            |(place, it): (String, Value)| (place.replace(&prefix, "all"), it["name"].as_str().unwrap().to_owned());
        read.map(named).collect()
    }

    #[test]
    fn every_form_of_a_list_is_taken_apart() {
        let pair = |(place, name): (&str, &str)| (place.to_owned(), name.to_owned());
        assert_eq!(objects("name: a\n"), [("all", "a")].map(pair));
        let documents = [("all (document 1)", "a"), ("all (document 2)", "b")].map(pair);
        assert_eq!(objects("name: a\n---\n---\nname: b\n"), documents);
        assert_eq!(objects("{\"name\": \"a\"}\n{\"name\": \"b\"}\n"), documents, "JSON lines");
        let items = [("all (item 1)", "a"), ("all (item 2)", "b")].map(pair);
        assert_eq!(objects("[{\"name\": \"a\"}, {\"name\": \"b\"}]"), items, "what -o json prints");
        assert_eq!(objects("kind: List\nitems: [{name: a}, {name: b}]"), items);
    }
}
