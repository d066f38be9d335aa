//! The mixed load, and whoever makes it: it plays the controllers that make a pod again when one was evicted or has ended.
//!
//! In waves a part of everything ends, and as much is made anew at once: both schedulers then fill the same places at the same
//! moment. In each wave some pods are bound besides by a hand that does not look whether there is room, as a scheduler does that
//! has not seen yet what another one has just bound: the worst case, as often as wanted.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::seen::Seen;
use super::{CPU_MILLI, GANG};
use crate::control_plane::kwok::AT_ONCE;

/// Of each kind, how many of a hundred end in a wave.
const PERCENT: u32 = 12;
/// Of CPU, what a pod that is bound blindly asks for: see [`BLIND`].
const BLIND_MILLI: u64 = 2_000;

/// One kind of pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    name: &'static str,
    ours: bool,
    gang: bool,
    gpus: u32,
    cpu: &'static str,
    memory: &'static str,
    /// For each node, in tenths.
    tenths: u32,
}

const fn kind(name: &'static str, ours: bool, gpus: u32, cpu: &'static str, memory: &'static str, tenths: u32) -> Kind {
    Kind { name, ours, gang: false, gpus, cpu, memory, tenths }
}

/// Nine tenths of all cores and of all memory, and most GPUs; of a gang its pods count.
const KINDS: [Kind; 5] = [
    kind("single", true, 1, "1", "4Gi", 30),
    Kind { gang: true, ..kind("gang", true, 1, "2", "4Gi", 20) },
    kind("web", false, 0, "2", "6Gi", 35),
    kind("small", false, 0, "500m", "1Gi", 20),
    kind("cache", false, 0, "500m", "16Gi", 10),
];
/// GPU pods of the other scheduler, where that is wanted.
const RIVAL: Kind = kind("rival", false, 1, "1", "4Gi", 20);

/// What is bound blindly.
const BLIND: Kind = kind("blind", false, 0, "2", "1Gi", 0);

/// See the module.
pub struct Load {
    pods: Api<Pod>,
    random: StdRng,
    kinds: Vec<(Kind, u32)>,
    nodes: u32,
    /// Pods that are to be there.
    wanted: BTreeMap<String, Kind>,
    /// The number in the next name.
    next: u64,
    pub made: u64,
    /// Pods that went though nobody here has ended them.
    pub evicted: u64,
    /// Pods that were bound blindly.
    pub blind: u64,
}

impl Load {
    pub fn new(pods: Api<Pod>, nodes: u32, seed: u64, rival_gpus: bool) -> Self {
        let all = KINDS.into_iter().chain(rival_gpus.then_some(RIVAL));
        let kinds = all.map(|kind| (kind, (nodes * kind.tenths / 10).div_ceil(GANG) * GANG)).collect();
        let (wanted, random) = (BTreeMap::new(), StdRng::seed_from_u64(seed));
        Self { pods, random, kinds, nodes, wanted, next: 0, made: 0, evicted: 0, blind: 0 }
    }

    /// One wave: some of everything end, as many are made anew, some are bound blindly.
    pub async fn wave(&mut self, seen: &RefCell<Seen>, blind: u32) -> Result<()> {
        let ends = self.choose(&seen.borrow());
        self.end(&ends).await?;
        self.fill().await?;
        for _ in 0..blind {
            let blind = self.blind(&seen.borrow());
            self.make(blind.into_iter().collect()).await?;
        }
        Ok(())
    }

    /// Who is to end: some of the groups of which something is bound.
    fn choose(&mut self, seen: &Seen) -> Vec<String> {
        let is_bound = |name: &&String| seen.pods.get(*name).is_some_and(|pod| pod.node.is_some());
        let groups: BTreeSet<String> = self.wanted.keys().filter(is_bound).map(|name| group(name).to_owned()).collect();
        let random = &mut self.random;
        let end: BTreeSet<String> = groups.into_iter().filter(|_| random.random_range(0..100) < PERCENT).collect();
        let ends: Vec<String> = self.wanted.keys().filter(|name| end.contains(group(name))).cloned().collect();
        for name in &ends {
            self.wanted.remove(name);
        }
        ends
    }

    /// As a controller: what is gone and was to be there is made again, under another name.
    pub async fn replace(&mut self, gone: Vec<String>) -> Result<()> {
        let mut pods = Vec::new();
        for name in gone {
            let Some(kind) = self.wanted.remove(&name) else { continue };
            self.evicted += 1;
            self.next += 1;
            let again = format!("{}.{}", group(&name), self.next);
            pods.push(pod(&again, kind));
            self.wanted.insert(again, kind);
        }
        self.make(pods).await
    }

    /// Makes what is missing of each kind.
    async fn fill(&mut self) -> Result<()> {
        let mut pods = Vec::new();
        for (kind, count) in self.kinds.clone() {
            let have = self.wanted.values().filter(|known| **known == kind).count();
            let missing = (count as usize).saturating_sub(have);
            let (groups, members) = if kind.gang { (missing / GANG as usize, GANG) } else { (missing, 1) };
            for _ in 0..groups {
                self.next += 1;
                let group = format!("{}-{}", kind.name, self.next);
                for member in 0..members {
                    let name = format!("{group}.{member}");
                    pods.push(pod(&name, kind));
                    self.wanted.insert(name, kind);
                }
            }
        }
        self.make(pods).await
    }

    async fn make(&mut self, pods: Vec<Value>) -> Result<()> {
        self.made += pods.len() as u64;
        let make = |pod: Value| {
            let pods = self.pods.clone();
            async move {
                pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
                anyhow::Ok(())
            }
        };
        stream::iter(pods).map(make).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.map(drop)
    }

    /// Half of them are done by themselves first.
    async fn end(&mut self, names: &[String]) -> Result<()> {
        let end = |(number, name): (usize, String)| {
            let pods = self.pods.clone();
            async move {
                if number % 2 == 0 {
                    let done = json!({"status": {"phase": "Succeeded"}});
                    found(pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(done)).await)?;
                }
                found(pods.delete(&name, &DeleteParams::default()).await)
            }
        };
        let all = names.iter().cloned().enumerate();
        stream::iter(all).map(end).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.map(drop)
    }

    /// A pod that is bound to a node that has no room for it, and would have without ours.
    fn blind(&mut self, seen: &Seen) -> Option<Value> {
        let suits = |number: &u32| {
            let node = format!("node-{number}");
            let [_, all, _] = seen.asked(&node).0;
            let [_, ours, _] = seen.asked_by_ours(&node).0;
            let after = all + BLIND_MILLI;
            after > CPU_MILLI && all <= CPU_MILLI && after - CPU_MILLI <= ours
        };
        let nodes: Vec<u32> = (0..self.nodes).filter(suits).collect();
        let node = nodes.get(self.random.random_range(0..nodes.len().max(1)))?;
        self.next += 1;
        self.blind += 1;
        let name = format!("blind-{}.0", self.next);
        let mut made = pod(&name, BLIND);
        made["spec"]["nodeName"] = json!(format!("node-{node}"));
        self.wanted.insert(name, BLIND);
        Some(made)
    }
}

/// What ends together: a gang, or one pod.
fn group(name: &str) -> &str {
    name.split_once('.').map_or(name, |(group, _)| group)
}

/// Somebody else may have ended it first.
fn found<T>(answer: Result<T, kube::Error>) -> Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        answer => Ok(answer.map(drop)?),
    }
}

fn pod(name: &str, kind: Kind) -> Value {
    let Kind { ours, gang, gpus, cpu, memory, .. } = kind;
    let mut limits = json!({});
    if gpus > 0 {
        limits["nvidia.com/gpu"] = json!(gpus.to_string());
    }
    let mut pod = json!({
        "metadata": {"name": name, "labels": {"tidegate.dev/queue": "a"}, "annotations": {}},
        "spec": {
            "schedulerName": if ours { "tidegate" } else { "default-scheduler" }, "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "none", "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": limits}}],
        },
    });
    if gang {
        pod["metadata"]["labels"]["tidegate.dev/gang"] = json!(group(name));
        pod["metadata"]["annotations"]["tidegate.dev/gang-size"] = json!(GANG.to_string());
    }
    pod
}
