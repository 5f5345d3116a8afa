//! What the operator is seen to do from outside: in Kubernetes, on the servers, and on this machine.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::ResourceExt;
use kube::runtime::{WatchStreamExt, watcher};
use pgrail_crds::TableGuard;
use pgrail_e2e::{Operator, TestNamespace, holds};
use pgrail_testing::Client;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Result;
use crate::measure::memory_field;

/// A phase that takes longer failed.
const BOUND: Duration = Duration::from_mins(15);
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// Ticks of the kernel's processor times in a second.
const TICKS: f64 = 100.0;

/// The guards that are enforced, as their status reports.
pub(super) struct Enforced {
    names: watch::Receiver<HashSet<String>>,
    task: JoinHandle<()>,
}

impl Enforced {
    pub(super) fn watch(namespace: &TestNamespace) -> Self {
        let (sender, names) = watch::channel(HashSet::new());
        let guards = watcher(namespace.api::<TableGuard>(), watcher::Config::default());
        let task = tokio::spawn(async move {
            let mut changes = Box::pin(guards.default_backoff().applied_objects());
            while let Some(change) = changes.next().await {
                if let Ok(guard) = change
                    && holds(&guard, "Enforced", "True", "Verified")
                {
                    sender.send_modify(|names| {
                        names.insert(guard.name_any());
                    });
                }
            }
        });
        Self { names, task }
    }

    /// Waits until so many are.
    pub(super) async fn reach(&mut self, count: usize) -> Result<()> {
        let all = self.names.wait_for(|names| names.len() >= count);
        let reached = tokio::time::timeout(BOUND, all).await.is_ok_and(|all| all.is_ok());
        if reached { Ok(()) } else { Err(format!("{} of {count} guards are enforced", self.count()).into()) }
    }

    pub(super) fn count(&self) -> usize {
        self.names.borrow().len()
    }
}

impl Drop for Enforced {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The most connections that the operator had to one server at the same time.
pub(super) struct Connections {
    most: Arc<AtomicI64>,
    task: JoinHandle<()>,
}

impl Connections {
    /// Counts until dropped, on connections of its own.
    pub(super) fn count(admins: Vec<Client>) -> Self {
        let most = Arc::new(AtomicI64::new(0));
        let seen = Arc::clone(&most);
        let task = tokio::spawn(async move {
            let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgrail' AND backend_type = 'client backend'";
            loop {
                for admin in &admins {
                    if let Ok(row) = admin.query_one(count, &[]).await {
                        seen.fetch_max(row.get(0), Ordering::Relaxed);
                    }
                }
                tokio::time::sleep(SAMPLE_EVERY).await;
            }
        });
        Self { most, task }
    }

    /// Since the last call.
    pub(super) fn most(&self) -> i64 {
        self.most.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Requests to the apiserver that concern the operator, since it started: those for pgrail's kinds, Secrets, Events and
/// Leases, but watches. Those of the benchmark itself are among them.
pub(super) async fn requests(namespace: &TestNamespace) -> Result<f64> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    let text = namespace.cluster.client.request_text(request).await?;
    let concerns = |line: &&str| {
        line.starts_with("apiserver_request_total{")
            && !line.contains("verb=\"WATCH\"")
            && ["group=\"pgrail.dev\"", "resource=\"secrets\"", "resource=\"events\"", "resource=\"leases\""]
                .iter()
                .any(|label| line.contains(label))
    };
    Ok(text.lines().filter(concerns).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// Memory of the operator, in MiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// The most that was resident since the peak was forgotten, code included.
    pub(super) peak: f64,
    /// Of what is resident now, what is not code or another file.
    pub(super) anonymous: f64,
}

pub(super) fn memory(operator: &Operator) -> Result<Memory> {
    let field = |name| memory_field(operator.id(), name);
    Ok(Memory { peak: field("VmHWM:")?, anonymous: field("RssAnon:")? })
}

pub(super) fn forget_peak(operator: &Operator) -> Result<()> {
    Ok(fs::write(format!("/proc/{}/clear_refs", operator.id()), "5")?)
}

/// Seconds of processor time that the operator used.
pub(super) fn processor(operator: &Operator) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", operator.id()))?;
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("a strange stat")?.1.split_whitespace().collect();
    let ticks = |at: usize| -> Result<f64> { Ok(fields.get(at).ok_or("a short stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}

/// The operator over some time in which nobody changes anything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    pub(super) memory: Memory,
    pub(super) connections: i64,
    /// Per second.
    pub(super) requests: f64,
    /// Percent of a core.
    pub(super) processor: f64,
}

pub(super) async fn rest(
    operator: &Operator,
    namespace: &TestNamespace,
    connections: &Connections,
    time: Duration,
) -> Result<Rest> {
    let (requests_before, processor_before) = (requests(namespace).await?, processor(operator)?);
    connections.most();
    forget_peak(operator)?;
    let started = Instant::now();
    tokio::time::sleep(time).await;
    let seconds = started.elapsed().as_secs_f64();
    let used = processor(operator)? - processor_before;
    Ok(Rest {
        memory: memory(operator)?,
        connections: connections.most(),
        requests: (requests(namespace).await? - requests_before) / seconds,
        processor: used / seconds * 100.0,
    })
}
