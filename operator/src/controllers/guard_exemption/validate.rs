//! What can be checked of an exemption without its database; and the engine's specification of it. Pure.

use crate::controllers::table_guard::validate::{operations, window};
use crate::kubernetes::rejection::{Reason, Rejection};
use jiff::Timestamp;
use kube::ResourceExt;
use pgrail_crds::{GuardExemption, GuardrailPolicy};
use pgrail_guard::{ClusterId, ExemptionSpec, GuardName, PartialLimits, SpecError};

/// Whether it ended before it was ever in force.
pub(crate) fn too_late(exemption: &GuardExemption, now: Timestamp) -> Option<Rejection> {
    let end = exemption.spec.not_after.0;
    (end <= now).then(|| Rejection::new(Reason::TooLate, format!(
            "spec.notAfter ({end}) had passed before it was ever in force: create another GuardExemption with a later one"
        )))
}

/// Whether a policy of its namespace forbids it.
pub(crate) fn exceeds_policy(exemption: &GuardExemption, policies: &[GuardrailPolicy]) -> Option<Rejection> {
    let exceeds = |message| Some(Rejection::new(Reason::ExceedsPolicy, message));
    let created = exemption.creation_timestamp().map(|time| time.0)?;
    let ahead = exemption.spec.not_after.0.duration_since(created);
    for policy in policies {
        let rules = &policy.spec.exemptions;
        let name = policy.name_any();
        let longest = std::time::Duration::from(rules.max_duration);
        if std::time::Duration::try_from(ahead).is_ok_and(|ahead| ahead > longest) {
            return exceeds(format!(
                "spec.notAfter is further ahead than the {} that the GuardrailPolicy {name:?} allows (exemptions.maxDuration): choose an earlier one",
                hours(longest)
            ));
        }
        if exemption.spec.unlimited && !rules.allow_unlimited {
            return exceeds(format!(
                "spec.unlimited is not allowed by the GuardrailPolicy {name:?} (exemptions.allowUnlimited): set spec.limits"
            ));
        }
    }
    None
}

fn hours(duration: std::time::Duration) -> String {
    let minutes = duration.as_secs() / 60;
    match (minutes / 60, minutes % 60) {
        (0, minutes) => format!("{minutes}m"),
        (hours, 0) => format!("{hours}h"),
        (hours, minutes) => format!("{hours}h{minutes}m"),
    }
}

/// The engine's specification. `cluster_id` is recorded as the owner of what is installed.
pub(crate) fn validate(exemption: &GuardExemption, cluster_id: &str) -> Result<ExemptionSpec, Rejection> {
    let at = |field: &str| {
        let field = field.to_owned();
        move |error: SpecError| Rejection::new(Reason::InvalidSpec, format!("{field}: {error}"))
    };
    let namespace = exemption.namespace().unwrap_or_default();
    let guards = exemption.spec.guard_refs.iter().enumerate().map(|(index, guard)| {
        GuardName::new(format!("{namespace}/{}", guard.name)).map_err(at(&format!("spec.guardRefs[{index}].name")))
    });
    let limits = exemption.spec.limits.clone().unwrap_or_default();
    let limits = PartialLimits {
        max_rows: limits.max_rows,
        max_cascade_rows: limits.max_cascade_rows,
        max_transaction_rows: limits.max_transaction_rows,
        max_updated_rows: limits.max_updated_rows,
        window: limits.window.as_ref().map(window),
    };
    limits.window.map_or(Ok(()), |it| it.validate()).map_err(at("spec.limits"))?;
    if let Some(total) = limits.max_transaction_rows {
        let largest = limits.max_rows.unwrap_or(0).max(limits.max_cascade_rows.unwrap_or(0));
        if total < largest {
            let message = format!(
                "spec.limits.maxTransactionRows ({total}) must be at least the larger of maxRows and maxCascadeRows ({largest})"
            );
            return Err(Rejection::new(Reason::InvalidSpec, message));
        }
    }
    Ok(ExemptionSpec {
        name: GuardName::new(format!("{namespace}/{}", exemption.name_any())).map_err(at("metadata.name"))?,
        object: exemption.uid().unwrap_or_default(),
        owner: ClusterId::new(cluster_id).map_err(at("the cluster's id"))?,
        guards: guards.collect::<Result<_, _>>()?,
        role: exemption.spec.role.clone(),
        tables: exemption.spec.tables.iter().map(|table| (table.schema.clone(), table.name.clone())).collect(),
        limits,
        unlimited: exemption.spec.unlimited,
        total_rows: exemption.spec.total_rows,
        operations: operations(&exemption.spec.operations),
        not_before: exemption.spec.not_before.as_ref().map(|time| time.0.as_second()),
        not_after: exemption.spec.not_after.0.as_second(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn exemption(spec: Value) -> GuardExemption {
        let mut whole = json!({"guardRefs": [{"name": "core"}], "role": "admin", "reason": "r", "notAfter": "2026-11-23T10:30:00Z"});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let metadata =
            json!({"name": "e", "namespace": "shop", "uid": "u", "creationTimestamp": "2026-11-23T06:00:00Z"});
        serde_json::from_value(json!({"metadata": metadata, "spec": whole})).unwrap()
    }

    fn policy(rules: Value) -> GuardrailPolicy {
        serde_json::from_value(json!({"metadata": {"name": "all"}, "spec": {"exemptions": rules}})).unwrap()
    }

    #[test]
    fn what_ended_before_it_began_is_rejected() {
        let at = |time: &str| too_late(&exemption(json!({"unlimited": true})), time.parse().unwrap());
        assert!(at("2026-11-23T10:29:59Z").is_none());
        assert_eq!(at("2026-11-23T10:30:00Z").unwrap().reason, Reason::TooLate);
    }

    #[test]
    fn a_policy_bounds_the_time_and_forbids_what_has_no_limits() {
        let limited = exemption(json!({"limits": {"maxRows": 5}}));
        let unlimited = exemption(json!({"unlimited": true}));
        assert!(exceeds_policy(&limited, &[]).is_none() && exceeds_policy(&unlimited, &[]).is_none());
        let rejection = exceeds_policy(&limited, &[policy(json!({}))]).unwrap();
        assert!(rejection.message.contains("4h") && rejection.message.contains("\"all\""), "{rejection:?}");
        let longer = policy(json!({"maxDuration": "5h"}));
        assert!(exceeds_policy(&limited, std::slice::from_ref(&longer)).is_none());
        assert!(exceeds_policy(&unlimited, &[longer]).unwrap().message.contains("allowUnlimited"));
        assert!(exceeds_policy(&unlimited, &[policy(json!({"maxDuration": "5h", "allowUnlimited": true}))]).is_none());
    }

    #[test]
    fn a_total_below_the_other_limits_is_named() {
        let rejection =
            validate(&exemption(json!({"limits": {"maxRows": 500, "maxTransactionRows": 100}})), "id").unwrap_err();
        assert!(rejection.message.contains("maxTransactionRows (100)"), "{rejection:?}");
        let spec = validate(&exemption(json!({"limits": {"maxRows": 500}})), "id").unwrap();
        assert_eq!((spec.name.as_str(), spec.guards[0].as_str(), spec.object.as_str()), ("shop/e", "shop/core", "u"));
        assert_eq!(spec.not_after, 1_795_429_800);
    }
}
