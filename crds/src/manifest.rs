//! The CRDs as manifests.

use crate::{
    BackupSchedule, DatabaseBackup, DatabaseRestore, GuardExemption, GuardrailPolicy, ProtectedDatabase, TableGuard,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The CRD of every kind, in the order of the reference.
pub fn custom_resource_definitions() -> Vec<CustomResourceDefinition> {
    vec![
        ProtectedDatabase::crd(),
        TableGuard::crd(),
        GuardExemption::crd(),
        BackupSchedule::crd(),
        DatabaseBackup::crd(),
        DatabaseRestore::crd(),
        GuardrailPolicy::crd(),
    ]
}

/// A CRD as YAML, as it is checked in.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, serde_norway::Error> {
    serde_norway::to_string(crd)
}
