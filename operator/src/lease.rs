//! Who may act: the holder of a Lease. One acts, others stand by.
//!
//! **Promise.** No two processes write at one moment, whatever their clocks say, as long as time passes equally fast on both.
//! *The holder* counts from before it asked for a renewal, and starts no write that might end after its time ([`Fence`]).
//! *The next* counts from when it first saw the last renewal, so its count ends later.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::{sleep, timeout};

/// A request to the API server takes no longer, or is given up.
pub const REQUEST_WITHIN: Duration = Duration::from_secs(4);

/// Until when this process may act.
#[derive(Clone, Debug)]
pub struct Fence {
    began: Instant,
    /// Milliseconds since `began`.
    until: Arc<AtomicU64>,
}

impl Default for Fence {
    fn default() -> Self {
        Self { began: Instant::now(), until: Arc::default() }
    }
}

impl Fence {
    /// Whether a write that begins now ends within the time, if it takes no longer than any may.
    pub fn allows(&self) -> bool {
        self.left() > REQUEST_WITHIN
    }

    /// How long this process may still act.
    pub fn left(&self) -> Duration {
        let until = self.began + Duration::from_millis(self.until.load(Ordering::Acquire));
        until.saturating_duration_since(Instant::now())
    }

    /// One that holds for a minute.
    #[cfg(test)]
    pub fn for_a_minute() -> Self {
        let fence = Self::default();
        fence.extend(Instant::now() + Duration::from_mins(1));
        fence
    }

    fn extend(&self, to: Instant) {
        let millis = to.saturating_duration_since(self.began).as_millis();
        self.until.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Release);
    }
}

/// Which lease, and for whom.
#[derive(Clone, Debug)]
pub struct Settings {
    pub namespace: String,
    pub name: String,
    /// Unique for each process.
    pub identity: String,
    pub ttl: Duration,
}

/// Why the lease cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("another process has taken over: {0}")]
    Taken(String),
    #[error("it could not be renewed in time")]
    Expired,
}

/// A contender.
#[derive(Debug)]
pub struct Contender {
    api: Api<Lease>,
    settings: Settings,
    pub fence: Fence,
    /// The last renewal of another that was seen, and when it was seen first.
    other: Option<(String, Instant)>,
}

impl Contender {
    pub fn new(client: Client, settings: Settings) -> Self {
        Self { api: Api::namespaced(client, &settings.namespace), settings, fence: Fence::default(), other: None }
    }

    /// Returns when the lease is ours.
    pub async fn acquire(&mut self) {
        let mut failing = false;
        loop {
            match timeout(REQUEST_WITHIN, self.try_take()).await {
                Ok(Ok(true)) => {
                    tracing::info!(lease = self.settings.name, identity = self.settings.identity, "leads");
                    return;
                }
                Ok(Ok(false)) => failing = false,
                Ok(Err(error)) if !failing => {
                    tracing::warn!(%error, lease = self.settings.name, "the lease cannot be read or taken; trying on");
                    failing = true;
                }
                Ok(Err(_)) | Err(_) => {}
            }
            sleep(self.settings.ttl / 10).await;
        }
    }

    /// Renews until that fails.
    pub async fn keep(&self) -> Error {
        loop {
            sleep(self.settings.ttl / 5).await;
            match timeout(REQUEST_WITHIN, self.renew()).await {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(other))) => return Error::Taken(other),
                Ok(Err(error)) => tracing::warn!(%error, left_ms = self.left_ms(), "the lease was not renewed"),
                Err(_) => tracing::warn!(left_ms = self.left_ms(), "the lease was not renewed: no answer"),
            }
            if self.fence.left().is_zero() {
                return Error::Expired;
            }
        }
    }

    /// Gives it up, so that the next need not wait. Nothing may be written any more.
    pub async fn release(&self) {
        self.fence.extend(self.fence.began);
        let released = timeout(REQUEST_WITHIN, async {
            let Some(lease) = self.api.get_opt(&self.settings.name).await? else { return Ok(()) };
            if holder(&lease) != self.settings.identity {
                return Ok(());
            }
            let spec = LeaseSpec { holder_identity: Some(String::new()), ..lease.spec.clone().unwrap_or_default() };
            self.api.replace(&self.settings.name, &PostParams::default(), &Lease { spec: Some(spec), ..lease }).await.map(drop)
        });
        if let Ok(Err(error)) = released.await {
            let error: kube::Error = error;
            tracing::warn!(%error, "the lease was not given up; it ends by itself");
        }
    }

    fn left_ms(&self) -> u128 {
        self.fence.left().as_millis()
    }

    async fn try_take(&mut self) -> Result<bool, kube::Error> {
        let asked = Instant::now();
        let Some(lease) = self.api.get_opt(&self.settings.name).await? else {
            let fresh = Lease {
                metadata: ObjectMeta { name: Some(self.settings.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.spec(0)),
            };
            return self.put(asked, self.api.create(&PostParams::default(), &fresh).await);
        };
        if !self.is_over(&lease) {
            return Ok(false);
        }
        let spec = lease.spec.clone().unwrap_or_default();
        let spec = self.spec(spec.lease_transitions.unwrap_or(0).saturating_add(1));
        let taken = Lease { spec: Some(spec), ..lease };
        self.put(asked, self.api.replace(&self.settings.name, &PostParams::default(), &taken).await)
    }

    /// A conflict means that somebody else was faster.
    fn put(&self, asked: Instant, result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
        match result {
            Ok(_) => {
                self.fence.extend(asked + self.settings.ttl);
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether nobody holds it: it was given up, or its last renewal was seen for the first time longer ago than it lasts.
    fn is_over(&mut self, lease: &Lease) -> bool {
        let now = Instant::now();
        let spec = lease.spec.clone().unwrap_or_default();
        if holder(lease).is_empty() {
            return true;
        }
        let renewal = format!("{} {:?}", holder(lease), spec.renew_time.map(|time| time.0));
        let lasts = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        match &self.other {
            Some((seen, since)) if *seen == renewal => now.duration_since(*since) > lasts.unwrap_or(self.settings.ttl),
            _ => {
                self.other = Some((renewal, now));
                false
            }
        }
    }

    /// `Some`: who holds it instead.
    async fn renew(&self) -> Result<Option<String>, kube::Error> {
        let asked = Instant::now();
        let lease = self.api.get(&self.settings.name).await?;
        if holder(&lease) != self.settings.identity {
            return Ok(Some(holder(&lease).to_owned()));
        }
        let spec = lease.spec.clone().unwrap_or_default();
        let spec = LeaseSpec { acquire_time: spec.acquire_time, ..self.spec(spec.lease_transitions.unwrap_or(0)) };
        let renewed = Lease { spec: Some(spec), ..lease };
        self.put(asked, self.api.replace(&self.settings.name, &PostParams::default(), &renewed).await).map(|_| None)
    }

    fn spec(&self, transitions: i32) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.settings.identity.clone()),
            lease_duration_seconds: i32::try_from(self.settings.ttl.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_write_begins_that_might_end_after_the_time() {
        let fence = Fence::default();
        assert!(!fence.allows(), "nothing was granted yet");
        fence.extend(Instant::now() + REQUEST_WITHIN / 2);
        assert!(!fence.allows() && !fence.left().is_zero());
        fence.extend(Instant::now() + REQUEST_WITHIN * 2);
        assert!(fence.allows());
    }
}
