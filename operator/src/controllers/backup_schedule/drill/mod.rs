//! The drills of a schedule: what is declared, their CronJob, which always names the newest backup that counts, the results of its
//! Jobs, and what is reported. Pure.

pub(super) mod cron_job;
pub(super) mod declared;
pub(super) mod report;
pub(super) mod result;
