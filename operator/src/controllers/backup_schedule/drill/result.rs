//! The result of a drill's Job. Pure.

use crate::backup_jobs::jobs::config_of;
use crate::backup_jobs::outcome::{container, failure, message, terminated};
use crate::backup_jobs::pod::DRILL_CONTAINER;
use crate::kubernetes::conditions::whole_seconds;
use crate::kubernetes::rejection::Reason;
use crate::kubernetes::text::truncated;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use pgrail_crds::{DrillOutcome, DrillQueryReport, DrillReport, Time};
use pgrail_dump::{DrillOutcome as Found, DrillResult, Message};
use std::collections::BTreeMap;

/// The result of an ended Job. `pods` are its own.
pub(in crate::controllers::backup_schedule) fn result(job: &Job, ended: Timestamp, pods: &[Pod]) -> DrillReport {
    let backup = config_of(job).and_then(|config| Some(config.drill?.backup));
    let name = job.name_any();
    let ends = || pods.iter().filter_map(|pod| terminated(container(pod, DRILL_CONTAINER)?));
    let of_agent = ends().find_map(|ended| match message(ended) {
        Some(Message::Drill(result)) => Some(result),
        _ => None,
    });
    if let Some(result) = of_agent {
        return of_result(name, backup, &result, ended);
    }
    let failed = ends().find(|ended| ended.exit_code != 0).map(|ended| failure(DRILL_CONTAINER, ended));
    let (cause, detail) = match failed {
        Some(failed) => (failed.reason.as_str(), failed.message),
        None => (Reason::ResultLost.as_str(), "the Job ended, and its pods report no result".to_owned()),
    };
    DrillReport {
        job: name,
        outcome: DrillOutcome::NotRun,
        reason: Reason::NotRun.as_str().to_owned(),
        message: truncated(&format!("{cause}: {detail}"), 2048),
        backup,
        time: Time(whole_seconds(ended)),
        seconds: None,
        tables: None,
        rows: None,
        queries: Vec::new(),
        notes: Vec::new(),
        server: BTreeMap::new(),
    }
}

fn of_result(job: String, backup: Option<String>, found: &DrillResult, ended: Timestamp) -> DrillReport {
    let number = |value: u64| i64::try_from(value).ok();
    let (outcome, reason) = match found.outcome {
        Found::Restored => (DrillOutcome::Restored, Reason::AllRestored.as_str()),
        Found::NotRun => (DrillOutcome::NotRun, Reason::NotRun.as_str()),
        Found::Failed => {
            let reason = found.reason.and_then(|reason| Reason::named(reason.as_str()));
            (DrillOutcome::Failed, reason.unwrap_or(Reason::Failed).as_str())
        }
    };
    let restored = found.outcome == Found::Restored;
    DrillReport {
        job,
        outcome,
        reason: reason.to_owned(),
        message: truncated(&found.message, 2048),
        backup,
        // Not the time of the pod: it distinguishes the Job from others.
        time: Time(whole_seconds(ended)),
        seconds: number(found.seconds).filter(|_| restored),
        tables: number(found.tables).filter(|_| restored),
        rows: number(found.rows).filter(|_| restored),
        queries: found
            .queries
            .iter()
            .take(32)
            .map(|query| DrillQueryReport {
                name: truncated(&query.name, 253),
                passed: query.passed,
                found: truncated(&query.found, 1024),
            })
            .collect(),
        notes: found.notes.iter().take(16).map(|note| truncated(note, 1024)).collect(),
        server: found.server.clone(),
    }
}
