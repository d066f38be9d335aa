//! Pods as the API server tells of them, in its order: who held how many GPUs when, and how our own ended.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use tidegate_api::labels;
use tokio::sync::watch as signal;

use super::super::figures::GPUS;
use super::now_ms;

const GPU: &str = "nvidia.com/gpu";
/// By this label a pod says which of our parts it is.
const PART: &str = "app";

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// By uid.
    pub pods: BTreeMap<String, Record>,
    /// The most GPUs that pods held together at any moment.
    pub most_held: u32,
    /// Moments at which they held more than there are, in words.
    pub too_many: Vec<String>,
}

/// One pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub name: String,
    /// Which of our parts it is.
    pub part: Option<String>,
    /// Of a training job.
    pub job: Option<String>,
    pub attempt: u32,
    pub gpus: u32,
    /// Milliseconds since the Unix epoch.
    pub from_ms: u64,
    /// When it had ended, or was gone.
    pub to_ms: Option<u64>,
    /// Of its container.
    pub exit_code: Option<i32>,
}

impl Seen {
    /// The worst exit code of pods of these parts; none while one of them, or all of a part, has none.
    pub fn worst_exit_code(&self, parts: &[&str]) -> Option<i32> {
        let code = |part: &&str| {
            let codes: Option<Vec<i32>> =
                self.pods.values().filter(|pod| pod.part.as_deref() == Some(part)).map(|pod| pod.exit_code).collect();
            codes?.into_iter().max_by_key(|code| code.abs())
        };
        let codes: Option<Vec<i32>> = parts.iter().map(code).collect();
        codes?.into_iter().max_by_key(|code| code.abs())
    }

    fn is(&mut self, pod: &Pod, at_ms: u64) {
        let record = self.pods.entry(pod.uid().unwrap_or_default()).or_insert_with(|| Record::of(pod, at_ms));
        let status = pod.status.as_ref();
        let ended = status.and_then(|status| status.container_statuses.as_ref()?.first()?.state.as_ref()?.terminated.as_ref());
        record.exit_code = ended.map(|ended| ended.exit_code).or(record.exit_code);
        let phase = status.and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            record.to_ms.get_or_insert(at_ms);
        }
        let held: u32 = self.pods.values().filter(|pod| pod.to_ms.is_none()).map(|pod| pod.gpus).sum();
        self.most_held = self.most_held.max(held);
        if held > GPUS {
            let holders = self.pods.values().filter(|pod| pod.to_ms.is_none() && pod.gpus > 0).map(|pod| pod.name.as_str());
            self.too_many.push(format!("{held} GPUs are held by {}", holders.collect::<Vec<_>>().join(", ")));
        }
    }

    fn is_gone(&mut self, uid: &str, at_ms: u64) {
        if let Some(record) = self.pods.get_mut(uid) {
            record.to_ms.get_or_insert(at_ms);
        }
    }
}

impl Record {
    /// Pods of ours are made with their node, so they hold their GPUs from the beginning.
    fn of(pod: &Pod, at_ms: u64) -> Self {
        let spec = pod.spec.as_ref();
        let limits = spec.and_then(|spec| spec.containers.first()?.resources.as_ref()?.limits.as_ref()?.get(GPU));
        let owner = pod.metadata.owner_references.iter().flatten().find(|owner| owner.kind == "TrainingJob");
        Self {
            name: pod.name_any(),
            part: pod.labels().get(PART).cloned(),
            job: owner.map(|owner| owner.name.clone()),
            attempt: pod.annotations().get(labels::ATTEMPT).and_then(|number| number.parse().ok()).unwrap_or(0),
            gpus: limits.and_then(|amount| amount.0.parse().ok()).unwrap_or(0),
            from_ms: at_ms,
            ..Self::default()
        }
    }
}

/// Looks until it is told to stop.
pub async fn watch(pods: Api<Pod>, mut stop: signal::Receiver<bool>) -> Seen {
    let mut seen = Seen::default();
    let mut events = std::pin::pin!(watcher(pods, Config::default()).default_backoff());
    let mut listed = BTreeSet::new();
    loop {
        let event = tokio::select! {
            _ = stop.changed() => return seen,
            event = events.next() => event,
        };
        let at_ms = now_ms();
        match event {
            None => return seen,
            // It begins again by itself.
            Some(Err(_)) => {}
            Some(Ok(Event::Init)) => listed.clear(),
            Some(Ok(Event::InitApply(pod))) => {
                listed.extend(pod.uid());
                seen.is(&pod, at_ms);
            }
            Some(Ok(Event::InitDone)) => {
                let gone: Vec<String> = seen.pods.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
                for uid in gone {
                    seen.is_gone(&uid, at_ms);
                }
            }
            Some(Ok(Event::Apply(pod))) => seen.is(&pod, at_ms),
            Some(Ok(Event::Delete(pod))) => {
                seen.is(&pod, at_ms);
                seen.is_gone(&pod.uid().unwrap_or_default(), at_ms);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, gpus: u32, status: &serde_json::Value) -> Pod {
        let container = json!({"name": "main", "resources": {"limits": {GPU: gpus.to_string()}}});
        let owner = json!({"apiVersion": "v1", "kind": "TrainingJob", "name": "spirals", "uid": "j"});
        let metadata = json!({
            "name": name, "uid": name, "labels": {PART: name}, "annotations": {labels::ATTEMPT: "2"}, "ownerReferences": [owner],
        });
        serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": [container]}, "status": status})).unwrap()
    }

    #[test]
    fn what_has_ended_holds_nothing_and_more_than_there_are_is_told() {
        let mut seen = Seen::default();
        seen.is(&pod("a", 3, &json!({})), 1);
        seen.is(&pod("b", 1, &json!({})), 2);
        assert_eq!((seen.most_held, seen.too_many.len()), (4, 0));
        seen.is(&pod("b", 1, &json!({"phase": "Succeeded"})), 3);
        seen.is(&pod("c", 1, &json!({})), 4);
        seen.is_gone("a", 5);
        assert_eq!((seen.most_held, seen.too_many.len()), (4, 0));
        assert_eq!((seen.pods["a"].attempt, seen.pods["a"].to_ms, seen.pods["b"].to_ms), (2, Some(5), Some(3)));
        seen.is(&pod("d", 4, &json!({})), 6);
        assert_eq!(seen.too_many, ["5 GPUs are held by c, d"]);
    }

    #[test]
    fn the_worst_exit_code_is_told_once_all_have_one() {
        let ended = |code: i32| json!({"containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code}}}]});
        let mut seen = Seen::default();
        seen.is(&pod("a", 0, &ended(0)), 1);
        seen.is(&pod("b", 0, &json!({})), 1);
        assert_eq!(seen.worst_exit_code(&["a", "b"]), None);
        seen.is(&pod("b", 0, &ended(137)), 1);
        assert_eq!(seen.worst_exit_code(&["a", "b"]), Some(137));
    }
}
