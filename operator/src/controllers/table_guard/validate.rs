//! From the object to the engine's specification: the only thing that later steps read. Pure.

use crate::kubernetes::annotation::is_true;
use crate::kubernetes::rejection::{Reason, Rejection};
use kube::ResourceExt;
use pgrail_crds::annotations::{RELEASE, TAKE_OVER};
use pgrail_crds::{GuardMode, LimitOverrides, Operation, Protection, TableGuard};
use pgrail_guard::{
    Allowance, Capture, ClusterId, GuardName, GuardSpec, Mode, PartialLimits, Protect, SpecError, TableLimits,
    TableSelector, Window,
};

/// The engine's specification of a guard. `cluster_id` is recorded as the owner of what is installed.
pub(crate) fn validate(guard: &TableGuard, cluster_id: &str) -> Result<GuardSpec, Rejection> {
    let at = |field: &str| {
        let field = field.to_owned();
        move |error: SpecError| Rejection::new(Reason::InvalidSpec, format!("{field}: {error}"))
    };
    let name = GuardName::new(format!("{}/{}", guard.namespace().unwrap_or_default(), guard.name_any()))
        .map_err(at("metadata.name"))?;
    let owner = ClusterId::new(cluster_id).map_err(at("the cluster's id"))?;
    let mut selectors = Vec::with_capacity(guard.spec.tables.len());
    for (index, table) in guard.spec.tables.iter().enumerate() {
        let limits = table.limits.as_ref().map(overrides).unwrap_or_default();
        let selector = TableSelector::new(&table.schema, &table.name, table.exclude.clone(), limits)
            .map_err(at(&format!("spec.tables[{index}]")))?;
        selectors.push(selector);
    }
    let mut spec = GuardSpec::new(name, owner, selectors);
    spec.mode = match guard.spec.mode {
        GuardMode::Enforce => Mode::Enforce,
        GuardMode::Warn => Mode::Warn,
    };
    spec.limits = TableLimits {
        max_rows: guard.spec.limits.max_rows,
        max_cascade_rows: guard.spec.limits.max_cascade_rows,
        max_transaction_rows: guard.spec.limits.max_transaction_rows,
        max_updated_rows: guard.spec.limits.max_updated_rows,
        window: guard.spec.limits.window.as_ref().map(window),
    };
    spec.limits.validate().map_err(at("spec.limits"))?;
    for (index, selector) in spec.selectors.iter().enumerate() {
        let limits = spec.limits.overridden(&selector.limits);
        limits.validate().map_err(at(&format!("spec.tables[{index}].limits")))?;
    }
    let protects = |what| guard.spec.protect.contains(&what);
    spec.protect = Protect {
        delete: protects(Protection::Delete),
        truncate: protects(Protection::Truncate),
        drop: protects(Protection::Drop),
        drop_partition: protects(Protection::DropPartition),
        drop_column: protects(Protection::DropColumn),
    };
    for (index, declared) in guard.spec.allowances.iter().enumerate() {
        let window = declared.limits.window.as_ref().map(window);
        window.map_or(Ok(()), |it| it.validate()).map_err(at(&format!("spec.allowances[{index}].limits")))?;
    }
    spec.allowances = guard.spec.allowances.iter().map(allowance).collect();
    spec.capture = guard.spec.capture.as_ref().map(capture);
    spec.capture.map_or(Ok(()), |capture| capture.validate()).map_err(at("spec.capture"))?;
    spec.take_over = is_true(guard, TAKE_OVER);
    spec.released = released(guard);
    Ok(spec)
}

/// The tables of the annotation: one, or several separated by commas.
fn released(guard: &TableGuard) -> Vec<String> {
    let tables = guard.annotations().get(RELEASE).map(String::as_str).unwrap_or_default();
    tables.split(',').map(str::trim).filter(|table| !table.is_empty()).map(str::to_owned).collect()
}

fn overrides(limits: &LimitOverrides) -> PartialLimits {
    PartialLimits {
        max_rows: limits.max_rows,
        max_cascade_rows: limits.max_cascade_rows,
        max_transaction_rows: limits.max_transaction_rows,
        max_updated_rows: limits.max_updated_rows,
        window: limits.window.as_ref().map(window),
    }
}

/// A window, as the engine has it.
pub(crate) fn window(declared: &pgrail_crds::Window) -> Window {
    let duration = std::time::Duration::from(declared.duration);
    Window {
        duration: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        max_rows: declared.max_rows,
        max_cascade_rows: declared.max_cascade_rows,
    }
}

fn capture(declared: &pgrail_crds::Capture) -> Capture {
    let retention = std::time::Duration::from(declared.retention);
    Capture { retention: i64::try_from(retention.as_secs()).unwrap_or(i64::MAX), max_rows: declared.max_rows }
}

fn allowance(declared: &pgrail_crds::Allowance) -> Allowance {
    Allowance {
        role: declared.role.clone(),
        limits: overrides(&declared.limits),
        operations: operations(&declared.operations),
    }
}

/// The operations of an allowance or an exemption, as the engine has them.
pub(crate) fn operations(declared: &[Operation]) -> Vec<pgrail_guard::Operation> {
    let operations = declared.iter().map(|operation| match operation {
        Operation::Delete => pgrail_guard::Operation::Delete,
        Operation::Truncate => pgrail_guard::Operation::Truncate,
        Operation::Drop => pgrail_guard::Operation::Drop,
        Operation::Update => pgrail_guard::Operation::Update,
    });
    operations.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn guard(spec: serde_json::Value) -> TableGuard {
        serde_json::from_value(json!({"apiVersion": "pgrail.dev/v1alpha1", "kind": "TableGuard",
            "metadata": {"name": "core", "namespace": "shop"}, "spec": spec}))
        .unwrap()
    }

    #[test]
    fn defaults_are_those_of_the_reference() {
        let spec = validate(
            &guard(json!({"databaseRef": {"name": "shop"}, "tables": [{"schema": "public", "name": "users"}]})),
            "id",
        )
        .unwrap();
        assert_eq!(spec.name.as_str(), "shop/core");
        assert_eq!((spec.limits.max_rows, spec.limits.max_cascade_rows), (100, 1000));
        assert!(
            spec.protect.delete
                && spec.protect.truncate
                && spec.protect.drop
                && !spec.protect.drop_partition
                && !spec.protect.drop_column
        );
        assert!(!spec.take_over);
    }

    #[test]
    fn deleted_rows_are_kept_only_where_that_is_declared() {
        let spec = |capture: serde_json::Value| {
            let mut spec = json!({"databaseRef": {"name": "shop"}, "tables": [{"schema": "public", "name": "users"}]});
            if !capture.is_null() {
                spec["capture"] = capture;
            }
            validate(&guard(spec), "id")
        };
        assert_eq!(spec(json!(null)).unwrap().capture, None);
        assert_eq!(spec(json!({})).unwrap().capture, Some(Capture { retention: 2_592_000, max_rows: 10_000 }));
        let some = spec(json!({"retention": "90m", "maxRows": 7})).unwrap().capture;
        assert_eq!(some, Some(Capture { retention: 5400, max_rows: 7 }));
        for (wrong, word) in [(json!({"retention": "59s"}), "retention"), (json!({"maxRows": 0}), "maxRows")] {
            let error = spec(wrong).unwrap_err();
            assert!(error.message.starts_with("spec.capture: ") && error.message.contains(word), "{error}");
        }
    }

    #[test]
    fn an_override_below_the_total_is_refused_by_its_field() {
        let error = validate(
            &guard(json!({"databaseRef": {"name": "shop"}, "limits": {"maxTransactionRows": 2000},
                "tables": [{"schema": "public", "name": "users", "limits": {"maxRows": 5000}}]})),
            "id",
        )
        .unwrap_err();
        assert!(error.message.starts_with("spec.tables[0].limits: "), "{error}");
        assert!(error.message.contains("maxTransactionRows"), "{error}");
    }
}
