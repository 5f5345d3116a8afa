//! Manifests from files and folders: guards and exemptions are read strictly, other kinds are skipped and named.

use kube::Resource;
use kube::core::NamespaceResourceScope;
use pgrail_crds::{GuardExemption, TableGuard};
use serde::Deserialize;
use serde::de::DeserializeOwned;
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
    #[error("no TableGuard and no GuardExemption in what was given")]
    Nothing,
}

/// What there is to reconcile.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    pub(super) guards: Vec<TableGuard>,
    pub(super) exemptions: Vec<GuardExemption>,
}

/// Reads every `TableGuard` and every `GuardExemption`.
pub(super) fn read(args: &ManifestArgs) -> Result<Manifests, ManifestError> {
    let mut manifests = Manifests::default();
    for path in files(&args.filenames)? {
        for document in documents(&path)? {
            match document["kind"].as_str() {
                Some("TableGuard") => manifests.guards.push(guard(&path, document)?),
                Some("GuardExemption") => manifests.exemptions.push(exemption(&path, document)?),
                Some(kind) => eprintln!(
                    "pgrail: {}: {kind} {:?} is skipped: without a cluster only TableGuards and GuardExemptions are reconciled",
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
    let nothing = manifests.guards.is_empty() && manifests.exemptions.is_empty();
    if nothing { Err(ManifestError::Nothing) } else { Ok(manifests) }
}

fn guard(path: &Path, document: Value) -> Result<TableGuard, ManifestError> {
    let mut guard: TableGuard = strictly(path, document)?;
    if guard.spec.tables.is_empty() {
        return Err(refused::<TableGuard>(
            path,
            guard.metadata.name.as_deref(),
            "spec.tables",
            "must name at least one table",
        ));
    }
    guard.status = None;
    Ok(guard)
}

fn exemption(path: &Path, document: Value) -> Result<GuardExemption, ManifestError> {
    let mut exemption: GuardExemption = strictly(path, document)?;
    // What the schema demands, where an apiserver reads it first.
    let spec = &exemption.spec;
    let problem = if spec.guard_refs.is_empty() {
        Some(("spec.guardRefs", "must name at least one TableGuard"))
    } else if spec.unlimited == spec.limits.is_some() {
        Some(("spec.limits", "or spec.unlimited: true must be set, and not both"))
    } else if spec.not_before.as_ref().is_some_and(|from| from.0 >= spec.not_after.0) {
        Some(("spec.notBefore", "must be earlier than spec.notAfter"))
    } else {
        None
    };
    if let Some((field, message)) = problem {
        return Err(refused::<GuardExemption>(path, exemption.metadata.name.as_deref(), field, message));
    }
    exemption.status = None;
    Ok(exemption)
}

fn refused<K: Resource<DynamicType = ()>>(
    path: &Path,
    name: Option<&str>,
    field: &str,
    message: impl Into<String>,
) -> ManifestError {
    let place = format!("{}: {} {:?}", path.display(), K::kind(&()), name.unwrap_or("without a name"));
    ManifestError::Field { place, field: field.to_owned(), message: message.into() }
}

/// One object. A field that the kind does not have is refused: a limit with a typing error must not become a default.
fn strictly<K>(path: &Path, mut document: Value) -> Result<K, ManifestError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned,
{
    let name = document["metadata"]["name"].as_str().map(str::to_owned);
    let refused = |field: &str, message: String| refused::<K>(path, name.as_deref(), field, message);
    let version = K::api_version(&());
    if document["apiVersion"].as_str() != Some(&version) {
        return Err(refused("apiVersion", format!("must be {version}")));
    }
    // The type itself has no field for these two.
    if let Some(fields) = document.as_object_mut() {
        fields.retain(|field, _| !["apiVersion", "kind"].contains(&field.as_str()));
    }
    let mut unknown = Vec::new();
    let read: Result<K, _> =
        serde_ignored::deserialize(document, |field| unknown.push(field.to_string().replace(".?", "")));
    let mut object = read.map_err(|error| refused("cannot be read:", error.to_string()))?;
    if let Some(field) =
        unknown.into_iter().find(|field| !field.starts_with("metadata.") && !field.starts_with("status"))
    {
        return Err(refused(&field, format!("is not a field of a {}", K::kind(&()))));
    }
    if object.meta().name.is_none() {
        return Err(refused("metadata.name", "is missing".to_owned()));
    }
    object.meta_mut().namespace.get_or_insert_with(|| "default".to_owned());
    Ok(object)
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

    fn read_guard(spec: Value) -> Result<TableGuard, ManifestError> {
        guard(
            Path::new("a.yaml"),
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
            exemption(Path::new("a.yaml"), document)
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
            (json!({"guardRefs": []}), "spec.guardRefs must name"),
            (json!({"notBefore": "2031-01-01T00:00:00Z"}), "spec.notBefore must be earlier"),
            (json!({"limits": {"maxRow": 1}}), "spec.limits.maxRow is not a field of a GuardExemption"),
            (json!({"notAfter": "tomorrow"}), "cannot be read"),
        ] {
            let error = read(spec(patch)).unwrap_err().to_string();
            assert!(error.starts_with("a.yaml: GuardExemption \"purge\": ") && error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_guard_without_a_namespace_is_in_default() {
        let guard =
            read_guard(json!({"databaseRef": {"name": "shop"}, "tables": [{"schema": "public", "name": "users"}]}));
        assert_eq!(guard.unwrap().metadata.namespace.as_deref(), Some("default"));
    }
}
