//! Jobs and CronJobs that make, verify and remove backups: for schedules and for backups made by hand.

pub(crate) mod dereference;
pub(crate) mod destination;
pub(crate) mod error;
#[cfg(test)]
pub(crate) mod examples;
pub(crate) mod job_spec;
pub(crate) mod jobs;
pub(crate) mod names;
pub(crate) mod outcome;
pub(crate) mod pod;
pub(crate) mod record;
pub(crate) mod shrink;
