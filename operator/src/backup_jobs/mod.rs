//! Jobs and CronJobs that make, verify and remove backups: for schedules and for backups made by hand.

pub(crate) mod dereference;
#[cfg(test)]
pub(crate) mod examples;
pub(crate) mod jobs;
pub(crate) mod names;
pub(crate) mod order;
pub(crate) mod outcome;
pub(crate) mod pod;
