//! Leader election by Lease: one operator works, the others wait. A process that loses the Lease exits, so that none of its
//! reconciles continues; changes of a database are fenced by an advisory lock besides.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Resource};
use std::time::{Duration, Instant};

/// The Lease of operators that look after databases.
pub(super) const OPERATOR_LEASE: &str = "pgrail-operator";
/// The Lease of operators that check policies only: one can run in the same namespace.
pub(super) const POLICIES_LEASE: &str = "pgrail-policies";
/// A Lease that was not renewed for so many seconds has expired.
const LEASE_SECONDS: i32 = 15;
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// A leader that could not renew for so long exits, before another process can acquire the Lease.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);
const TRY_EVERY: Duration = Duration::from_secs(2);
/// The longest that one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The Lease that this process competes for.
pub(super) struct Election {
    api: Api<Lease>,
    name: &'static str,
    identity: String,
    clock: fn() -> Timestamp,
    /// Terms are measured from here: the clock can be set.
    began: Instant,
    /// The last renewal by another process.
    observed: Option<Renewal>,
}

/// A renewal of the Lease by another process.
struct Renewal {
    /// By the clock of that process.
    time: Option<MicroTime>,
    /// When this process first read it, by its own measure.
    observed: Duration,
}

/// Why this process is no longer the leader.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("another operator holds the Lease")]
    Taken,
    #[error("the Lease could not be renewed for {} s", GIVE_UP_AFTER.as_secs())]
    NotRenewed,
}

impl Election {
    pub(super) fn new(
        client: Client,
        namespace: &str,
        name: &'static str,
        identity: String,
        clock: fn() -> Timestamp,
    ) -> Self {
        Self { api: Api::namespaced(client, namespace), name, identity, clock, began: Instant::now(), observed: None }
    }

    /// Waits until this process is the leader.
    pub(super) async fn acquire(&mut self) {
        let mut logged = false;
        loop {
            match self.try_take().await {
                Ok(true) => return,
                Ok(false) if !logged => {
                    tracing::info!("another operator is the leader; waiting");
                    logged = true;
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "could not take the Lease"),
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    /// Renews the Lease until that fails.
    pub(super) async fn hold(&mut self) -> Lost {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            match self.try_take().await {
                Ok(true) => renewed = Instant::now(),
                Ok(false) => return Lost::Taken,
                Err(error) => tracing::warn!(%error, "could not renew the Lease"),
            }
            if renewed.elapsed() > GIVE_UP_AFTER {
                return Lost::NotRenewed;
            }
        }
    }

    /// Releases the Lease, so that the next operator need not wait for it to expire.
    pub(super) async fn release(&self) {
        let released = async {
            let mut lease = self.api.get(self.name).await?;
            let ours = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) == Some(&self.identity);
            if ours && let Some(spec) = lease.spec.as_mut() {
                spec.holder_identity = None;
                self.api.replace(self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout(REQUEST_TIMEOUT, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "could not release the Lease"),
            Err(_) => tracing::warn!("could not release the Lease in time"),
        }
    }

    async fn try_take(&mut self) -> Result<bool, kube::Error> {
        match tokio::time::timeout(REQUEST_TIMEOUT, self.take_if_free()).await {
            Ok(result) => result,
            Err(_) => Err(kube::Error::Service("timed out".into())),
        }
    }

    async fn take_if_free(&mut self) -> Result<bool, kube::Error> {
        let now = (self.clock)();
        let Some(mut lease) = self.api.get_opt(self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.to_owned()), ..ObjectMeta::default() },
                spec: Some(claim(&self.identity, &LeaseSpec::default(), now)),
            };
            return taken(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        match decide(&spec, &self.identity, self.observed.as_ref(), self.began.elapsed()) {
            Decision::Wait => return Ok(false),
            Decision::Observe => {
                self.observed = Some(Renewal { time: spec.renew_time, observed: self.began.elapsed() });
                return Ok(false);
            }
            Decision::Claim => {}
        }
        lease.spec = Some(claim(&self.identity, &spec, now));
        lease.meta_mut().managed_fields = None;
        // `replace` carries the resourceVersion: of two who try, one gets a conflict.
        taken(self.api.replace(self.name, &PostParams::default(), &lease).await)
    }
}

/// What to do with a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// It is free, ours, or expired.
    Claim,
    /// Another process has renewed it since it was last read: its term starts now.
    Observe,
    /// Another process holds it.
    Wait,
}

/// A Lease of another process expires when its renewal time was not seen to change for the Lease's duration, by the
/// measure of this process: the holder's clock can be wrong, and its own can be set.
fn decide(lease: &LeaseSpec, identity: &str, observed: Option<&Renewal>, now: Duration) -> Decision {
    let holder = lease.holder_identity.as_deref().unwrap_or_default();
    if holder.is_empty() || holder == identity {
        return Decision::Claim;
    }
    let Some(renewal) = observed.filter(|renewal| renewal.time == lease.renew_time) else { return Decision::Observe };
    let seconds = lease.lease_duration_seconds.unwrap_or(LEASE_SECONDS);
    let term = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let expired = now.saturating_sub(renewal.observed) >= term;
    if expired { Decision::Claim } else { Decision::Wait }
}

/// The Lease as this process holds it: acquired now, or renewed.
fn claim(identity: &str, before: &LeaseSpec, now: Timestamp) -> LeaseSpec {
    let renewed = before.holder_identity.as_deref() == Some(identity);
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        acquire_time: before.acquire_time.clone().filter(|_| renewed).or(Some(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(match before.lease_transitions {
            Some(transitions) => transitions.saturating_add(i32::from(!renewed)),
            None => 0,
        }),
        ..LeaseSpec::default()
    }
}

fn taken(result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn held(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec { renew_time: Some(MicroTime(at(renewed))), ..claim(holder, &LeaseSpec::default(), at(renewed)) }
    }

    fn after(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn seen(renewed: i64, observed: u64) -> Renewal {
        Renewal { time: Some(MicroTime(at(renewed))), observed: after(observed) }
    }

    #[test]
    fn a_lease_that_is_free_or_held_by_this_process_is_claimed() {
        assert_eq!(decide(&LeaseSpec::default(), "a", None, after(100)), Decision::Claim);
        let released = LeaseSpec { holder_identity: Some(String::new()), ..held("b", 100) };
        assert_eq!(decide(&released, "a", None, after(100)), Decision::Claim);
        assert_eq!(decide(&held("a", 100), "a", None, after(105)), Decision::Claim);
    }

    #[test]
    fn a_lease_of_another_process_expires_by_the_clock_of_this_one() {
        // The holder's clock is an hour behind: what counts is when a renewal was first seen here.
        let lease = held("b", 100);
        assert_eq!(decide(&lease, "a", None, after(3700)), Decision::Observe);
        assert_eq!(decide(&lease, "a", Some(&seen(100, 3700)), after(3714)), Decision::Wait);
        assert_eq!(decide(&lease, "a", Some(&seen(100, 3700)), after(3715)), Decision::Claim);
    }

    #[test]
    fn every_renewal_starts_the_term_anew() {
        let lease = held("b", 110);
        assert_eq!(decide(&lease, "a", Some(&seen(100, 3700)), after(3715)), Decision::Observe);
        assert_eq!(decide(&lease, "a", Some(&seen(110, 3715)), after(3729)), Decision::Wait);
    }

    #[test]
    fn the_duration_that_the_holder_declares_counts() {
        let lease = LeaseSpec { lease_duration_seconds: Some(60), ..held("b", 100) };
        assert_eq!(decide(&lease, "a", Some(&seen(100, 200)), after(259)), Decision::Wait);
        assert_eq!(decide(&lease, "a", Some(&seen(100, 200)), after(260)), Decision::Claim);
    }

    #[test]
    fn a_renewal_keeps_the_time_of_acquisition_and_a_change_of_holder_is_a_transition() {
        let first = claim("a", &LeaseSpec::default(), at(100));
        assert_eq!(first.lease_transitions, Some(0));
        let renewed = claim("a", &first, at(105));
        assert_eq!((renewed.acquire_time.clone(), renewed.lease_transitions), (Some(MicroTime(at(100))), Some(0)));
        let other = claim("b", &renewed, at(130));
        assert_eq!((other.acquire_time, other.lease_transitions), (Some(MicroTime(at(130))), Some(1)));
        let after_release = claim("b", &LeaseSpec { holder_identity: None, ..renewed }, at(110));
        assert_eq!((after_release.acquire_time, after_release.lease_transitions), (Some(MicroTime(at(110))), Some(1)));
    }
}
