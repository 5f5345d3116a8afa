//! The CRDs as manifests.

use crate::{
    BackupSchedule, DatabaseBackup, DatabaseRestore, GuardExemption, GuardrailPolicy, ProtectedDatabase, TableGuard,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSON;
use kube::CustomResourceExt;
use serde_json::json;

/// The CRD of every kind, in the order of the reference.
pub fn custom_resource_definitions() -> Vec<CustomResourceDefinition> {
    let mut definitions = vec![
        ProtectedDatabase::crd(),
        TableGuard::crd(),
        GuardExemption::crd(),
        BackupSchedule::crd(),
        DatabaseBackup::crd(),
        DatabaseRestore::crd(),
        GuardrailPolicy::crd(),
    ];
    definitions.iter_mut().for_each(begin_unobserved);
    definitions
}

/// A new object has the status `observedGeneration: -1`. Flux, Helm and `kustomize` take an object without a status for
/// complete, and would not wait for the operator's first visit.
fn begin_unobserved(definition: &mut CustomResourceDefinition) {
    let schemas = definition.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut());
    for schema in schemas.filter_map(|validation| validation.open_api_v3_schema.as_mut()) {
        if let Some(status) = schema.properties.as_mut().and_then(|properties| properties.get_mut("status")) {
            status.default = Some(JSON(json!({"observedGeneration": -1})));
        }
    }
}

/// A CRD as YAML, as it is checked in.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, serde_norway::Error> {
    serde_norway::to_string(crd)
}
