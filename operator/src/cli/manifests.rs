//! Manifests from files and folders: guards are read strictly, other kinds are skipped and named.

use kube::Resource;
use pgrail_crds::TableGuard;
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

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
    #[error("{}: not YAML", .0.display())]
    Yaml(PathBuf, #[source] serde_norway::Error),
    #[error("{place}: {field} {message}")]
    Field { place: String, field: String, message: String },
    #[error("no TableGuard in what was given")]
    NoGuard,
}

/// Reads every `TableGuard`.
pub(super) fn guards(args: &ManifestArgs) -> Result<Vec<TableGuard>, ManifestError> {
    let mut guards = Vec::new();
    for path in files(&args.filenames)? {
        for document in documents(&path)? {
            match document["kind"].as_str() {
                Some("TableGuard") => guards.push(guard(&path, document)?),
                Some(kind) => eprintln!(
                    "pgrail: {}: {kind} {:?} is skipped: without a cluster only TableGuards are reconciled",
                    path.display(),
                    document["metadata"]["name"].as_str().unwrap_or_default()
                ),
                None if document.is_null() => {}
                None => {
                    let (field, message) = ("kind".to_owned(), "is missing".to_owned());
                    return Err(ManifestError::Field { place: path.display().to_string(), field, message });
                }
            }
        }
    }
    if guards.is_empty() { Err(ManifestError::NoGuard) } else { Ok(guards) }
}

/// One guard. A field that the kind does not have is refused: a limit with a typing error must not become a default.
fn guard(path: &Path, mut document: Value) -> Result<TableGuard, ManifestError> {
    let name = document["metadata"]["name"].as_str().unwrap_or("without a name").to_owned();
    let place = format!("{}: TableGuard {name:?}", path.display());
    let refused = |field: String, message: String| ManifestError::Field { place: place.clone(), field, message };
    let version = TableGuard::api_version(&());
    if document["apiVersion"].as_str() != Some(&version) {
        return Err(refused("apiVersion".to_owned(), format!("must be {version}")));
    }
    // The type itself has no field for these two.
    if let Some(fields) = document.as_object_mut() {
        fields.retain(|field, _| !["apiVersion", "kind"].contains(&field.as_str()));
    }
    let mut unknown = Vec::new();
    let read: Result<TableGuard, _> = serde_ignored::deserialize(document, |field| unknown.push(field.to_string()));
    let mut guard = read.map_err(|error| refused("cannot be read:".to_owned(), error.to_string()))?;
    if let Some(field) =
        unknown.into_iter().find(|field| !field.starts_with("metadata.") && !field.starts_with("status"))
    {
        return Err(refused(field, "is not a field of a TableGuard".to_owned()));
    }
    if guard.metadata.name.is_none() {
        return Err(refused("metadata.name".to_owned(), "is missing".to_owned()));
    }
    if guard.spec.tables.is_empty() {
        return Err(refused("spec.tables".to_owned(), "must name at least one table".to_owned()));
    }
    guard.metadata.namespace.get_or_insert_with(|| "default".to_owned());
    guard.status = None;
    Ok(guard)
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

fn documents(path: &Path) -> Result<Vec<Value>, ManifestError> {
    let failed = |error| ManifestError::Read(path.to_owned(), error);
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin()).map_err(failed)?
    } else {
        std::fs::read_to_string(path).map_err(failed)?
    };
    serde_norway::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).map_err(|error| ManifestError::Yaml(path.to_owned(), error)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(spec: Value) -> Result<TableGuard, ManifestError> {
        guard(
            Path::new("a.yaml"),
            json!({"apiVersion": "pgrail.dev/v1alpha1", "kind": "TableGuard", "metadata": {"name": "core"}, "spec": spec}),
        )
    }

    #[test]
    fn a_typing_error_is_named_and_never_becomes_a_default() {
        let error = read(json!({"databaseRef": {"name": "shop"}, "tables": [{"schema": "public", "name": "users"}],
            "limits": {"maxRow": 5}}))
        .unwrap_err();
        assert_eq!(error.to_string(), "a.yaml: TableGuard \"core\": spec.limits.maxRow is not a field of a TableGuard");
    }

    #[test]
    fn a_guard_without_a_namespace_is_in_default() {
        let guard = read(json!({"databaseRef": {"name": "shop"}, "tables": [{"schema": "public", "name": "users"}]}));
        assert_eq!(guard.unwrap().metadata.namespace.as_deref(), Some("default"));
    }
}
