//! Living beside kube-scheduler: it and our operator bind pods to the same nodes, whose CPU and memory are nearly all used, for some
//! minutes. After every change of a pod it is checked, from the objects alone, whether a node is asked for more than it has.
//!
//! A real API server and a real kube-scheduler; kubelets are KWOK's, which refuse nothing: a real one would end the pod that comes
//! too late itself, so that what is measured is the repair alone.

pub mod figures;
mod load;
mod seen;

use std::cell::RefCell;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use futures_util::StreamExt;
use kube::ResourceExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use serde_json::json;
use tokio::time::{interval, sleep};

use crate::control_plane::{ControlPlane, POD_GROUPS};
use crate::scenario::stalls;
use figures::Figures;
use load::Load;
use seen::{Amounts, Seen};

/// What a node has.
const GPUS: u32 = 8;
const CPU_MILLI: u64 = 16_000;
const MEMORY_MIB: u64 = 64 * 1_024;
/// Pods of a gang.
const GANG: u32 = 4;
/// Between two waves.
const WAVE: Duration = Duration::from_secs(4);
/// Between two looks for pods that are to be made again.
const LOOK: Duration = Duration::from_millis(200);
/// After the last wave, for what is under way.
const SETTLE: Duration = Duration::from_secs(10);
const PORT: u16 = 9_001;

/// What to play.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub nodes: u32,
    pub lasts: Duration,
    pub seed: u64,
    /// Pods that are bound in each wave to nodes without room.
    pub blind: u32,
    /// The other scheduler places pods with GPUs too.
    pub rival_gpus: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { nodes: 40, lasts: Duration::from_mins(10), seed: 7, blind: 1, rival_gpus: false }
    }
}

/// Plays it. Errors are those of the machinery; what did not hold is in the figures.
pub async fn run(settings: &Settings) -> Result<Figures> {
    let mut plane = ControlPlane::start_with(&POD_GROUPS).await?;
    plane.kwok("")?;
    let amounts = json!({
        "cpu": format!("{CPU_MILLI}m"), "memory": format!("{MEMORY_MIB}Mi"), "pods": "110", "nvidia.com/gpu": GPUS.to_string(),
    });
    plane.kwok_nodes(settings.nodes, &amounts, |_| Vec::new()).await?;
    plane.queue("a", settings.nodes * GPUS).await?;
    plane.kube_scheduler("kube-scheduler")?;
    // It has half of two cores: what is looked at is who binds, not who leads.
    plane.operator("tidegate", PORT, &["--lease-seconds=60"])?;
    let machine = stalls::Watch::start();
    let seen = RefCell::new(Seen::new(Amounts([u64::from(GPUS), CPU_MILLI, MEMORY_MIB])));
    let mut load = Load::new(plane.pods(), settings.nodes, settings.seed, settings.rival_gpus);
    let played = async {
        tokio::select! {
            watched = watch(&plane, &seen) => watched.and_then(|()| Err(anyhow!("the watch ended"))),
            played = play(&mut load, &seen, settings) => played,
        }
    };
    played.await.with_context(|| plane.said())?;
    let stalls = machine.end()?;
    let drifts = plane.check_belief(PORT).await.is_err();
    let (_, metrics) = plane.ask(PORT, "/metrics", None).await.with_context(|| plane.said())?;
    let seen = seen.into_inner();
    Ok(Figures { drifts, ..Figures::of(settings, &seen, &load, &metrics) }.in_machine(stalls))
}

/// Every change of a pod, as soon as it is told.
async fn watch(plane: &ControlPlane, seen: &RefCell<Seen>) -> Result<()> {
    let mut pods = pin!(watcher(plane.pods(), Config::default()).default_backoff());
    while let Some(event) = pods.next().await.transpose()? {
        let at = Instant::now();
        match event {
            Event::Apply(pod) | Event::InitApply(pod) => seen.borrow_mut().is(&pod, at),
            Event::Delete(pod) => seen.borrow_mut().gone(&pod.name_any(), at),
            Event::Init | Event::InitDone => {}
        }
    }
    Ok(())
}

/// Waves until it is over, and in between whatever went is made again; then all of it comes to rest.
async fn play(load: &mut Load, seen: &RefCell<Seen>, settings: &Settings) -> Result<()> {
    let ends = Instant::now() + settings.lasts;
    let mut wave = Instant::now();
    let mut look = interval(LOOK);
    while Instant::now() < ends {
        look.tick().await;
        let gone = seen.borrow_mut().take_gone();
        load.replace(gone).await?;
        if Instant::now() >= wave {
            load.wave(seen, settings.blind).await?;
            wave = Instant::now() + WAVE;
        }
    }
    sleep(SETTLE).await;
    Ok(())
}
