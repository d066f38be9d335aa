//! The tasks beside the threads: looking for calls that hang, and asking the kubelet.

use std::sync::Arc;
use std::time::Duration;

use tidegate_runtime::admin::Readiness;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::args::Pods;
use crate::collect::Shared;
use crate::pods::{kubelet, names};

/// How often calls that hang are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks for calls that hang. Ready is an agent that has looked for GPUs once and of which no call hangs.
pub async fn look(shared: Arc<Shared>, readiness: Readiness, shutdown: CancellationToken) {
    let every = LOOK_EVERY.min(shared.node.lock().times.interval);
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let at = shared.at();
        let mut node = shared.node.lock();
        node.look(at);
        let starting = node.closed.as_ref().is_some_and(|(category, _)| *category == "starting");
        readiness.set(!starting && node.hung(at) == 0);
    }
    readiness.set(false);
}

/// Asks the kubelet who holds which device. Says once when it fails, and once when it answers again.
pub async fn pods(shared: Arc<Shared>, pods: Pods, shutdown: CancellationToken) {
    let mut failing: Option<&'static str> = None;
    let mut pause = kubelet::FIRST_PAUSE.min(pods.interval);
    let mut logs = Logs::default();
    loop {
        let Some(answer) = shutdown.run_until_cancelled(kubelet::ask(&pods.socket)).await else { return };
        let wait = match answer {
            Ok(answer) => {
                if failing.take().is_some() {
                    tracing::info!(socket = %pods.socket.display(), "the kubelet answers again");
                }
                pause = kubelet::FIRST_PAUSE.min(pods.interval);
                learned(&shared, answer, logs.read(&pods));
                pods.interval
            }
            Err(error) => {
                let category = error.category();
                if failing.replace(category) != Some(category) {
                    tracing::warn!(%error, category, "which pod holds which GPU is not known; trying again");
                }
                failed(&shared, category);
                let wait = pause;
                pause = (pause * 2).min(kubelet::LAST_PAUSE);
                wait
            }
        };
        if shutdown.run_until_cancelled(sleep(wait)).await.is_none() {
            return;
        }
    }
}

/// Reads the log folders, and says once that it cannot.
#[derive(Default)]
struct Logs {
    said: bool,
}

impl Logs {
    fn read(&mut self, pods: &Pods) -> names::Names {
        let read = names::read(&pods.logs);
        if let Err(error) = &read
            && !std::mem::replace(&mut self.said, true)
        {
            let folder = pods.logs.display();
            tracing::warn!(%error, %folder, "names of pods cannot be read, so processes are not checked against the kubelet's word; mount it or set --pod-logs");
        }
        read.unwrap_or_default()
    }
}

fn learned(shared: &Shared, answer: kubelet::Answer, names: names::Names) {
    let at = shared.at();
    let mut node = shared.node.lock();
    node.own.kubelet_answers += 1;
    node.own.kubelet_answered = Some(at);
    (node.owners.grants, node.owners.allocatable) = (answer.grants, answer.allocatable);
    (node.owners.pods, node.owners.containers) = (names.pods, names.containers);
}

fn failed(shared: &Shared, category: &'static str) {
    let at = shared.at();
    let mut node = shared.node.lock();
    *node.own.kubelet_errors.entry(category).or_default() += 1;
    // The last good word stands for a while: a kubelet that restarts has not taken anybody's device.
    if node.own.kubelet_answered.is_none_or(|answered| at.saturating_sub(answered) > kubelet::STALE) {
        node.owners = crate::pods::Owners::default();
    }
}
