//! One object, read as strictly as an apiserver reads it: by the schema of its CRD, and without unknown fields.

use super::ManifestError;
use kube::core::NamespaceResourceScope;
use kube::{CustomResourceExt, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads an object. A field that the kind does not have is refused: a limit with a typing error must not become a default.
pub(super) fn strictly<K>(place: &str, mut document: Value) -> Result<K, ManifestError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + CustomResourceExt + DeserializeOwned,
{
    let kind = K::kind(&());
    let name = document["metadata"]["name"].as_str().unwrap_or("without a name").to_owned();
    let refused = |field: &str, message: String| ManifestError::Field {
        place: format!("{place}: {kind} {name:?}"),
        field: field.to_owned(),
        message,
    };
    let version = K::api_version(&());
    if document["apiVersion"].as_str() != Some(&version) {
        return Err(refused("apiVersion", format!("must be {version}")));
    }
    if document["metadata"]["name"].as_str().is_none() {
        return Err(refused("metadata.name", "is missing".to_owned()));
    }
    if let Some(fields) = document.as_object_mut() {
        // What `-o json` printed is read, without what was found then.
        fields.remove("status");
    }
    without_nulls(&mut document);
    by_schema::<K>(&document).map_err(|(field, message)| refused(&field, message))?;
    // The type itself has no field for these two.
    if let Some(fields) = document.as_object_mut() {
        fields.retain(|field, _| !["apiVersion", "kind"].contains(&field.as_str()));
    }
    let mut unknown = Vec::new();
    let read: Result<K, _> =
        serde_ignored::deserialize(document, |field| unknown.push(field.to_string().replace(".?", "")));
    let mut object = read.map_err(|error| refused("cannot be read:", error.to_string()))?;
    if let Some(field) = unknown.into_iter().find(|field| !field.starts_with("metadata.")) {
        return Err(refused(&path(&format!("/{}", field.replace('.', "/"))), format!("is not a field of a {kind}")));
    }
    object.meta_mut().namespace.get_or_insert_with(|| "default".to_owned());
    Ok(object)
}

/// A null means that the field is not set, as it does for an apiserver.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// Validates an object by the schema of its CRD. The first problem, as field and message.
fn by_schema<K: CustomResourceExt>(document: &Value) -> Result<(), (String, String)> {
    let crd = K::crd();
    let schema = crd.spec.versions.first().and_then(|version| version.schema.as_ref());
    let schema = schema.and_then(|it| serde_json::to_value(&it.open_api_v3_schema).ok()).unwrap_or_default();
    let validator = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft4)
        .should_validate_formats(true)
        .build(&schema)
        .map_err(|error| ("the schema".to_owned(), error.to_string()))?;
    let problem = validator.iter_errors(document).next();
    problem.map_or(Ok(()), |error| Err((path(error.instance_path().as_str()), format!("is invalid: {error}"))))
}

/// `spec.tables[0].name` from `/spec/tables/0/name`.
fn path(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if part.parse::<usize>().is_ok() {
            path.extend(["[", &part, "]"]);
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&part);
        }
    }
    path
}
