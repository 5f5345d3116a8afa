//! Who asks, and what he may see: TokenReview and SubjectAccessReview of the apiserver, cached for a short time. A token is kept
//! as its hash only.

use super::bounded::Bounded;
use crate::mutex::locked;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Group of the kinds of pgrail.
pub(super) const GROUP: &str = "pgrail.dev";
/// How long a TokenReview holds.
const TOKEN_HOLDS: Duration = Duration::from_secs(30);
/// For how long a token that was valid is reviewed again without counting as a new one.
const TOKEN_KNOWN: Duration = Duration::from_mins(30);
const TOKENS: usize = 1024;
/// How long a SubjectAccessReview holds.
const RIGHT_HOLDS: Duration = Duration::from_secs(30);
const RIGHTS: usize = 32_768;
/// Tokens that are not valid, of one address within [`FAILURES_COUNT_FOR`]. More are not reviewed.
const FAILURES_OF_ONE: u32 = 20;
/// Of all addresses together.
const FAILURES_OF_ALL: u32 = 200;
const FAILURES_COUNT_FOR: Duration = Duration::from_mins(1);
const ADDRESSES: usize = 1024;
/// The longest token. Those of Kubernetes have about 1 KiB.
const LONGEST_TOKEN: usize = 16 * 1024;
/// Reviews of all users at the same time.
const REVIEWS_AT_ONCE: usize = 16;
/// The longest that one review may take, with waiting.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// No token, or not in the form of a header `Authorization: Bearer`.
    NoToken,
    /// The apiserver does not accept the token.
    InvalidToken,
    /// Too many tokens that were not valid.
    TooManyFailures,
    /// The apiserver does not answer.
    Unavailable,
}

/// The user of a token.
pub(super) struct User {
    info: UserInfo,
    /// Hash of `info`.
    key: Key,
}

impl User {
    pub(super) fn name(&self) -> &str {
        self.info.username.as_deref().unwrap_or_default()
    }
}

type Key = [u8; 32];

/// Something that a user may do, or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Right {
    pub(super) verb: &'static str,
    pub(super) group: String,
    pub(super) resource: String,
    /// Empty: in all namespaces.
    pub(super) namespace: String,
    /// Empty: whatever the name.
    pub(super) name: String,
}

impl Right {
    /// On all objects of a kind of pgrail in a namespace; in all namespaces where it is empty.
    pub(super) fn on(verb: &'static str, resource: &str, namespace: &str) -> Self {
        Self {
            verb,
            group: GROUP.to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: String::new(),
        }
    }

    /// The same right in all namespaces.
    fn everywhere(&self) -> Self {
        Self { namespace: String::new(), ..self.clone() }
    }
}

/// Asks the apiserver.
pub(super) struct Access {
    client: Client,
    audiences: Vec<String>,
    tokens: Mutex<Bounded<Key, (Instant, Arc<User>)>>,
    rights: Mutex<Bounded<(Key, Right), bool>>,
    failures: Mutex<Failures>,
    reviews: Semaphore,
}

/// Tokens that were not valid.
struct Failures {
    of_address: Bounded<IpAddr, u32>,
    of_all: Bounded<(), u32>,
}

impl Failures {
    fn new() -> Self {
        Self { of_address: Bounded::new(FAILURES_COUNT_FOR, ADDRESSES), of_all: Bounded::new(FAILURES_COUNT_FOR, 1) }
    }

    fn too_many(&self, address: IpAddr, now: Instant) -> bool {
        let of_address = self.of_address.get(&address, now).map_or(0, |(_, count)| *count);
        let of_all = self.of_all.get(&(), now).map_or(0, |(_, count)| *count);
        of_address >= FAILURES_OF_ONE || of_all >= FAILURES_OF_ALL
    }

    fn count(&mut self, address: IpAddr, now: Instant) {
        match self.of_address.get_mut(&address, now) {
            Some(count) => *count += 1,
            None => self.of_address.insert(address, 1, now),
        }
        match self.of_all.get_mut(&(), now) {
            Some(count) => *count += 1,
            None => self.of_all.insert((), 1, now),
        }
    }
}

impl Access {
    /// `audiences` that a token must have one of; none: those of the apiserver.
    pub(super) fn new(client: Client, audiences: Vec<String>) -> Self {
        Self {
            client,
            audiences,
            tokens: Mutex::new(Bounded::new(TOKEN_KNOWN, TOKENS)),
            rights: Mutex::new(Bounded::new(RIGHT_HOLDS, RIGHTS)),
            failures: Mutex::new(Failures::new()),
            reviews: Semaphore::new(REVIEWS_AT_ONCE),
        }
    }

    /// The audiences that a token must have one of.
    pub(super) fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// The user of a request with this header `Authorization`.
    pub(super) async fn user(&self, address: IpAddr, header: Option<&str>) -> Result<Arc<User>, Refused> {
        let token = header.and_then(bearer).ok_or(Refused::NoToken)?;
        let key: Key = Sha256::digest(token.as_bytes()).into();
        let now = Instant::now();
        let known = locked(&self.tokens).get(&key, now).map(|(_, (reviewed, user))| (*reviewed, Arc::clone(user)));
        if let Some((reviewed, user)) = &known
            && now.saturating_duration_since(*reviewed) < TOKEN_HOLDS
        {
            return Ok(Arc::clone(user));
        }
        // Someone who tries tokens must not end the sessions of others behind the same proxy.
        if known.is_none() && locked(&self.failures).too_many(address, now) {
            return Err(Refused::TooManyFailures);
        }
        match self.review(token).await {
            Ok(user) => {
                let user = Arc::new(user);
                locked(&self.tokens).insert(key, (now, Arc::clone(&user)), now);
                Ok(user)
            }
            Err(Refused::InvalidToken) => {
                locked(&self.tokens).remove(&key);
                locked(&self.failures).count(address, now);
                tracing::info!(%address, "a token for the page is not valid");
                Err(Refused::InvalidToken)
            }
            Err(refused) => Err(refused),
        }
    }

    async fn review(&self, token: &str) -> Result<User, Refused> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(self.audiences.clone()).filter(|audiences| !audiences.is_empty()),
                token: Some(token.to_owned()),
            },
            ..TokenReview::default()
        };
        let created = self.ask(Api::<TokenReview>::all(self.client.clone()), &review).await?;
        let status = created.status.unwrap_or_default();
        // An apiserver, or a webhook of it, that knows no audiences answers for any.
        let answered = status.audiences.unwrap_or_default();
        let is_for_us = self.audiences.is_empty() || self.audiences.iter().any(|it| answered.contains(it));
        let info = status.user.filter(|user| user.username.as_deref().is_some_and(|name| !name.is_empty()));
        match info {
            Some(info) if status.authenticated == Some(true) && is_for_us => {
                let text = serde_json::to_vec(&info).map_err(|_| Refused::Unavailable)?;
                Ok(User { info, key: Sha256::digest(text).into() })
            }
            _ => Err(Refused::InvalidToken),
        }
    }

    /// Whether a user has a right.
    pub(super) async fn may(&self, user: &User, right: &Right) -> Result<bool, Refused> {
        let key = (user.key, right.clone());
        let known = locked(&self.rights).get(&key, Instant::now()).map(|(_, allowed)| *allowed);
        if let Some(allowed) = known {
            return Ok(allowed);
        }
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let UserInfo { username, groups, uid, extra } = user.info.clone();
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: username,
                groups,
                uid,
                extra,
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(right.verb.to_owned()),
                    group: Some(right.group.clone()),
                    resource: Some(right.resource.clone()),
                    namespace: given(&right.namespace),
                    name: given(&right.name),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let asked = Instant::now();
        let created = self.ask(Api::<SubjectAccessReview>::all(self.client.clone()), &review).await?;
        let allowed = created.status.is_some_and(|status| status.allowed && status.denied != Some(true));
        locked(&self.rights).insert(key, allowed, asked);
        Ok(allowed)
    }

    /// Those of some rights, in namespaces, that a user has. One question where he has them everywhere.
    pub(super) async fn held(&self, user: &User, rights: BTreeSet<Right>) -> Result<BTreeSet<Right>, Refused> {
        let everywhere: BTreeSet<Right> = rights.iter().map(Right::everywhere).collect();
        let everywhere = self.held_of(user, everywhere).await?;
        let (mut held, rest): (BTreeSet<Right>, BTreeSet<Right>) =
            rights.into_iter().partition(|right| everywhere.contains(&right.everywhere()));
        held.extend(self.held_of(user, rest).await?);
        Ok(held)
    }

    async fn held_of(&self, user: &User, rights: BTreeSet<Right>) -> Result<BTreeSet<Right>, Refused> {
        let answers = futures::stream::iter(rights).map(async |right| {
            let allowed = self.may(user, &right).await?;
            Ok::<_, Refused>(allowed.then_some(right))
        });
        answers.buffer_unordered(REVIEWS_AT_ONCE).try_filter_map(async |right| Ok(right)).try_collect().await
    }

    async fn ask<K>(&self, api: Api<K>, review: &K) -> Result<K, Refused>
    where
        K: serde::Serialize + serde::de::DeserializeOwned + Clone + std::fmt::Debug,
    {
        let asked = async {
            let _turn = self.reviews.acquire().await.map_err(|_| Refused::Unavailable)?;
            api.create(&PostParams::default(), review).await.map_err(|error| {
                // The error has the answer of the apiserver, and nothing of the token.
                tracing::warn!(%error, "the apiserver does not answer a review for the page");
                Refused::Unavailable
            })
        };
        tokio::time::timeout(REVIEW_TIMEOUT, asked).await.unwrap_or(Err(Refused::Unavailable))
    }
}

/// The token of a header `Authorization`.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    let is_token =
        !token.is_empty() && token.len() <= LONGEST_TOKEN && token.bytes().all(|byte| byte.is_ascii_graphic());
    (scheme.eq_ignore_ascii_case("bearer") && is_token).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_after_bearer() {
        assert_eq!(bearer("Bearer abc.def"), Some("abc.def"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        for header in ["", "Bearer", "Bearer ", "Basic abc", "Bearer a b", "Bearer a\u{e9}", "Bearer\tabc"] {
            assert_eq!(bearer(header), None, "{header:?}");
        }
        assert_eq!(bearer(&format!("Bearer {}", "a".repeat(LONGEST_TOKEN + 1))), None);
    }

    #[test]
    fn failures_are_counted_by_address_and_in_total_for_a_minute() {
        let start = Instant::now();
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        let mut failures = Failures::new();
        for _ in 0..FAILURES_OF_ONE {
            assert!(!failures.too_many(address(1), start));
            failures.count(address(1), start);
        }
        assert!(failures.too_many(address(1), start));
        assert!(!failures.too_many(address(2), start), "another address");
        assert!(!failures.too_many(address(1), start + FAILURES_COUNT_FOR));
        for number in 0..FAILURES_OF_ALL {
            failures.count(address(u8::try_from(number % 250).unwrap()), start);
        }
        assert!(failures.too_many(address(255), start), "any address, while there are that many");
    }
}
