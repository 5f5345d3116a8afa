//! What to do for a backup: create its Job, or report the one it has. Pure.

use super::observe::Observed;
use crate::agent::config::AgentConfig;
use crate::backup_jobs::jobs::config_of;
use crate::backup_jobs::outcome::{Progress, progress};
use crate::kubernetes::rejection::{Reason, Rejection};
use jiff::Timestamp;
use kube::ResourceExt;
use pgrail_crds::annotations::JOB;
use pgrail_crds::{BackupPhase, DatabaseBackup};

#[derive(Clone, Debug)]
pub(super) enum Step {
    CreateJob,
    Report(Outcome),
}

/// The state of a backup.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// It cannot start.
    Rejected(Rejection),
    Progress {
        progress: Progress,
        /// The configuration of the Job's agent.
        config: Option<Box<AgentConfig>>,
    },
}

impl Outcome {
    /// The reason of a failure.
    pub(super) fn reason(&self) -> Option<Reason> {
        match self {
            Self::Rejected(rejection) | Self::Progress { progress: Progress::Failed(rejection), .. } => {
                Some(rejection.reason)
            }
            Self::Progress { .. } => None,
        }
    }
}

impl From<Progress> for Outcome {
    fn from(progress: Progress) -> Self {
        Self::Progress { progress, config: None }
    }
}

pub(super) fn plan(backup: &DatabaseBackup, observed: &Observed, now: Timestamp) -> Step {
    let Observed { job_name, job, is_ours, pods } = observed;
    let of_cron_job = backup.annotations().contains_key(JOB);
    Step::Report(match job {
        Some(_) if !is_ours => Outcome::Rejected(Rejection::new(
            Reason::NameTaken,
            format!("a Job {job_name:?} of another owner exists: delete it, or give the backup another name"),
        )),
        Some(job) => Outcome::Progress { progress: progress(job, pods, now), config: config_of(job).map(Box::new) },
        None if of_cron_job => lost(format!("the Job {job_name:?} was deleted before its result was read")),
        None if has_run(backup) => lost(format!("the Job {job_name:?} was deleted while it ran")),
        None => return Step::CreateJob,
    })
}

fn lost(message: String) -> Outcome {
    Progress::Failed(Rejection::new(Reason::ResultLost, message)).into()
}

fn has_run(backup: &DatabaseBackup) -> bool {
    let phase = backup.status.as_ref().and_then(|status| status.phase);
    matches!(phase, Some(BackupPhase::Running | BackupPhase::Verifying))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_jobs::examples::backup;
    use k8s_openapi::api::batch::v1::Job;
    use serde_json::json;

    #[test]
    fn a_job_of_another_owner_is_never_believed() {
        let mut by_hand = backup("b", "2026-11-23T02:15:00Z", json!({}));
        by_hand.annotations_mut().remove(JOB);
        let of_cron_job = backup("b", "2026-11-23T02:15:00Z", json!({}));
        for backup in [by_hand, of_cron_job] {
            let observed =
                Observed { job_name: "b-dump".into(), job: Some(Job::default()), is_ours: false, pods: Vec::new() };
            let Step::Report(Outcome::Rejected(rejection)) = plan(&backup, &observed, Timestamp::UNIX_EPOCH) else {
                panic!()
            };
            assert_eq!(rejection.reason, Reason::NameTaken);
        }
    }
}
