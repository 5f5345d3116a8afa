//! Annotations that turn something on.

use kube::ResourceExt;

/// Whether the object has the annotation with the value `"true"`.
pub(crate) fn is_true(object: &impl ResourceExt, annotation: &str) -> bool {
    object.annotations().get(annotation).is_some_and(|value| value == "true")
}
