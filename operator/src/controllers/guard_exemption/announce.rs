//! Events and log lines of an exemption.

use super::apply::Outcome;
use crate::context::Context;
use crate::kubernetes::events::Severity;
use kube::ResourceExt;
use pgrail_crds::annotations::REQUESTED_BY;
use pgrail_crds::conditions::reasons::event;
use pgrail_crds::{ExemptionPhase, GuardExemption, GuardExemptionStatus};

/// Publishes what happened since the last status.
pub(super) async fn announce(
    exemption: &GuardExemption,
    outcome: &Outcome,
    next: &GuardExemptionStatus,
    context: &Context,
) {
    let (namespace, name) = (exemption.namespace().unwrap_or_default(), exemption.name_any());
    let now = context.now();
    let before = exemption.status.clone().unwrap_or_default();
    let (role, reason) = (&exemption.spec.role, &exemption.spec.reason);
    let entered = |phase| next.phase == Some(phase) && before.phase != Some(phase);
    let publish = |severity, action, what, note: String| {
        tracing::info!(namespace, name, role, note, "exemption: {what}");
        context.events.publish(exemption, severity, action, what, note, now)
    };
    if entered(ExemptionPhase::Active) {
        let requester = exemption.annotations().get(REQUESTED_BY);
        let requester = requester.map(|name| format!(", requested by {name}")).unwrap_or_default();
        let until = exemption.spec.not_after.0;
        let note = format!("{role:?} can exceed the limits until {until}{requester}: {reason}");
        publish(Severity::Warning, "Exempt", event::EXEMPTION_ACTIVE, note).await;
    }
    let rows = next.used_rows.unwrap_or(0);
    let statements = next.statements.unwrap_or(0);
    if statements > before.statements.unwrap_or(0) || rows > before.used_rows.unwrap_or(0) {
        let note = format!("{role:?} used it: {rows} rows in {statements} statements in all");
        publish(Severity::Warning, "Exempt", event::EXEMPTION_USED, note).await;
    }
    if entered(ExemptionPhase::Expired) {
        let note = format!("expired: {rows} rows were removed in {statements} statements");
        publish(Severity::Normal, "Expire", event::EXEMPTION_EXPIRED, note).await;
    }
    if let Outcome::Rejected(rejection) = outcome
        && entered(ExemptionPhase::Rejected)
    {
        publish(Severity::Warning, "Validate", event::EXEMPTION_REJECTED, rejection.message.clone()).await;
    }
}
