//! Events of a policy.

use crate::context::Context;
use crate::kubernetes::events::Severity;
use crate::kubernetes::text::listed;
use pgrail_crds::conditions::{COMPLIANT, reasons::event};
use pgrail_crds::{GuardrailPolicy, GuardrailPolicyStatus};

/// Publishes what changed with the last status.
pub(super) async fn announce(policy: &GuardrailPolicy, next: &GuardrailPolicyStatus, context: &Context) {
    let now = context.now();
    let before = policy.status.as_ref();
    let was = before.and_then(compliant).map(|(status, _)| status);
    let Some((is, message)) = compliant(next) else { return };
    if is == "False" && was != Some("False") {
        let reason = event::NOT_COMPLIANT;
        context.events.publish(policy, Severity::Warning, "Assess", reason, message, now).await;
    } else if is == "True" && was == Some("False") {
        context.events.publish(policy, Severity::Normal, "Assess", event::COMPLIANT, message, now).await;
    }
    let known: Vec<&String> = before.iter().flat_map(|status| &status.excluded).collect();
    let new: Vec<String> = next.excluded.iter().filter(|it| !known.contains(it)).cloned().collect();
    if !new.is_empty() {
        let note = format!("excluded by spec.excludeDatabases: {}", listed(&new));
        context.events.publish(policy, Severity::Warning, "Select", event::DATABASE_EXCLUDED, note, now).await;
    }
}

fn compliant(status: &GuardrailPolicyStatus) -> Option<(&str, &str)> {
    let condition = status.conditions.iter().find(|condition| condition.type_ == COMPLIANT)?;
    Some((&condition.status, &condition.message))
}
