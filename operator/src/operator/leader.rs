//! Leader election by Lease: one operator works, the others wait. Losing the Lease ends the process, which is the only
//! way to be sure that nothing of it goes on; databases are fenced by advisory locks besides.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Resource};
use std::time::Duration;

const LEASE: &str = "pgrail-operator";
/// A Lease that was not renewed for so many seconds is free.
const LEASE_SECONDS: i32 = 15;
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// A leader that could not renew for so long gives up before another may begin.
const GIVE_UP_AFTER: SignedDuration = SignedDuration::from_secs(10);
const TRY_EVERY: Duration = Duration::from_secs(2);
/// The longest that one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The Lease that this process competes for.
pub(super) struct Election {
    api: Api<Lease>,
    identity: String,
    clock: fn() -> Timestamp,
    /// The last holder's renewal as it was seen, and when: the holder's clock is not trusted.
    observed: Option<(Option<MicroTime>, Timestamp)>,
}

/// Why this process is the leader no longer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("another operator holds the Lease {LEASE}")]
    Taken,
    #[error("the Lease {LEASE} could not be renewed for {} s", GIVE_UP_AFTER.as_secs())]
    NotRenewed,
}

impl Election {
    pub(super) fn new(client: Client, namespace: &str, identity: String, clock: fn() -> Timestamp) -> Self {
        Self { api: Api::namespaced(client, namespace), identity, clock, observed: None }
    }

    /// Waits until this process is the leader.
    pub(super) async fn acquire(&mut self) {
        let mut told = false;
        loop {
            match self.try_take().await {
                Ok(true) => return,
                Ok(false) if !told => {
                    tracing::info!("another operator is the leader; waiting");
                    told = true;
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "could not take the Lease"),
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    /// Renews for as long as that works.
    pub(super) async fn hold(&mut self) -> Lost {
        let mut renewed = (self.clock)();
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            match self.try_take().await {
                Ok(true) => renewed = (self.clock)(),
                Ok(false) => return Lost::Taken,
                Err(error) => tracing::warn!(%error, "could not renew the Lease"),
            }
            if (self.clock)().duration_since(renewed) > GIVE_UP_AFTER {
                return Lost::NotRenewed;
            }
        }
    }

    /// Gives the Lease back, so that the next operator need not wait for it to run out.
    pub(super) async fn release(&self) {
        let released = async {
            let mut lease = self.api.get(LEASE).await?;
            let ours = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) == Some(&self.identity);
            if ours && let Some(spec) = lease.spec.as_mut() {
                spec.holder_identity = None;
                self.api.replace(LEASE, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout(REQUEST_TIMEOUT, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "could not give the Lease back"),
            Err(_) => tracing::warn!("could not give the Lease back in time"),
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
        let Some(mut lease) = self.api.get_opt(LEASE).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() },
                spec: Some(self.claim(now, 0)),
            };
            return taken(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder != self.identity && !holder.is_empty() {
            if self.observed.as_ref().is_none_or(|(renewal, _)| *renewal != spec.renew_time) {
                self.observed = Some((spec.renew_time.clone(), now));
                return Ok(false);
            }
            let seconds = i64::from(spec.lease_duration_seconds.unwrap_or(LEASE_SECONDS));
            let since = self.observed.as_ref().map_or(now, |(_, seen)| *seen);
            if now.duration_since(since) < SignedDuration::from_secs(seconds) {
                return Ok(false);
            }
        }
        let transitions = spec.lease_transitions.unwrap_or_default() + i32::from(holder != self.identity);
        let acquired = if holder == self.identity { spec.acquire_time.clone() } else { None };
        let mut claim = self.claim(now, transitions);
        if acquired.is_some() {
            claim.acquire_time = acquired;
        }
        lease.spec = Some(claim);
        lease.meta_mut().managed_fields = None;
        // `replace` carries the resourceVersion: of two who try, one gets a conflict.
        taken(self.api.replace(LEASE, &PostParams::default(), &lease).await)
    }

    fn claim(&self, now: Timestamp, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

fn taken(result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}
