//! The owner of the engine: one task that hears everything, decides, writes down, and carries out.
//!
//! One turn: messages become events; the engine decides; snapshot and decisions go to the ledger; only then the actions
//! are carried out. A world killed in between finds the actions outstanding in the snapshot and carries them out again;
//! every one of them is idempotent, as units have names.

mod attempts;
mod carry;
mod environment;
mod etas;
mod figures;
mod gpus;
mod messages;
mod namespaces;
mod people;
mod replicas;
mod router;
mod shutdown;
mod start;
mod timeline;
mod views;

pub use messages::{Handle, Message, ProgressRefusal, Refused, Wish};
pub use start::Setup;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_api::control::RouterConfig;
use tidegate_api::model_info::ModelInfo;
use tidegate_api::view;
use tidegate_core::names::{JobName, ModelName, ReplicaId};
use tidegate_core::node::NodeSpec;
use tidegate_core::plan::Action;
use tidegate_core::time::At;
use tidegate_core::{Engine, Event};
use tidegate_runtime::exit::Error;
use tidegate_runtime::ledger::{Commit, DecisionRow, Ledger};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::devices::Device;
use crate::metrics::Metrics;
use crate::objects::Objects;
use crate::units::Units;
use attempts::Attempt;
use etas::Etas;
use figures::Figures;
use gpus::Ailments;
use replicas::Server;
use router::Traffic;
use timeline::Timeline;

/// How often the world looks around without being told: drains, gauges, the published state.
const TICK: Duration = Duration::from_millis(250);
/// How often the snapshot is kept when nothing but demand changed.
const COMMIT_EVERY_MS: u64 = 1_000;
/// Messages taken in before a decision: a burst is one decision, and no sender waits long.
const BURST: usize = 256;
/// Decisions that are shown.
const SHOWN_DECISIONS: usize = 500;

/// An answer that waits.
type Reply = Box<dyn FnOnce() + Send>;

/// Where things are on this box.
#[derive(Clone, Debug)]
pub struct Places {
    /// The `tidegate` executable.
    pub exe: PathBuf,
    pub data: PathBuf,
    /// `http://127.0.0.1:PORT` of the world: control, API, progress.
    pub url: String,
    /// Where clients connect.
    pub listen: SocketAddr,
}

/// What the world tells everybody.
pub struct Publisher {
    pub router: watch::Sender<RouterConfig>,
    pub draining: watch::Sender<std::collections::BTreeSet<String>>,
    pub state: watch::Sender<Arc<view::State>>,
    pub decisions: broadcast::Sender<view::Decision>,
}

/// The world.
pub struct World {
    engine: Engine,
    objects: Objects,
    infos: BTreeMap<String, ModelInfo>,
    devices: BTreeMap<String, Device>,
    /// Devices that take no work because the node agent calls them sick or lost.
    ailments: Ailments,
    /// Where the node agent answers; without real GPUs there is none.
    agent: Option<SocketAddr>,
    /// What the box has beside its devices, without the labels of the pool's topology.
    node: NodeSpec,
    units: Units,
    ledger: Ledger,
    places: Places,
    attempts: BTreeMap<JobName, Attempt>,
    /// Last metrics that each job posted.
    job_metrics: BTreeMap<JobName, BTreeMap<String, f64>>,
    servers: BTreeMap<ReplicaId, Server>,
    traffic: BTreeMap<ModelName, Traffic>,
    /// Actions whose `after` is not done yet.
    waiting: Vec<Action>,
    figures: Figures,
    timeline: Timeline,
    etas: Etas,
    decisions: VecDeque<view::Decision>,
    publisher: Publisher,
    metrics: Metrics,
    pending: Commit,
    /// Answers to what must outlive the world: given once it is in the ledger.
    replies: Vec<Reply>,
    committed_at: At,
    started_ms: u64,
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl World {
    /// Hears, decides and carries out until `shutdown`, then drains everything that runs.
    pub async fn run(
        mut self,
        mut messages: mpsc::Receiver<Message>,
        mut unit_events: mpsc::UnboundedReceiver<crate::units::UnitEvent>,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let wake = self.engine.state().wake_at.map_or(TICK.as_millis(), |at| u128::from(at.since(At(now_ms())).max(1)));
            let wake = Duration::from_millis(u64::try_from(wake).unwrap_or(u64::MAX)).min(TICK);
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(event) = unit_events.recv() => self.unit(event),
                Some(message) = messages.recv() => self.message(message),
                _ = tick.tick() => self.look_around(),
                () = tokio::time::sleep(wake) => {}
            }
            for _ in 0..BURST {
                if let Ok(event) = unit_events.try_recv() {
                    self.unit(event);
                } else if let Ok(message) = messages.try_recv() {
                    self.message(message);
                } else {
                    break;
                }
            }
            self.turn().await?;
        }
        self.drain(messages, unit_events).await
    }

    /// Tells the engine one fact.
    fn tell(&mut self, event: Event) {
        self.engine.apply(At(now_ms()), event);
    }

    /// Decides, writes down, carries out; again while carrying out changes something.
    async fn turn(&mut self) -> Result<(), Error> {
        for _ in 0..8 {
            let plan = self.engine.decide(At(now_ms()));
            for action in &plan.actions {
                self.note(action);
            }
            self.waiting.extend(plan.actions.iter().cloned());
            self.timeline.update(&self.engine, &self.waiting, now_ms(), &mut self.pending);
            self.commit(!plan.actions.is_empty() || !self.replies.is_empty()).await?;
            self.replies.drain(..).for_each(|reply| reply());
            let carried_out = self.carry_out();
            if plan.actions.is_empty() && !carried_out {
                break;
            }
        }
        self.publish_router_config();
        self.publish_state();
        Ok(())
    }

    /// Keeps a decision for people.
    fn note(&mut self, action: &Action) {
        let decision = carry::decision(action, now_ms());
        tracing::info!(
            action = decision.action,
            subject = decision.subject,
            detail = decision.detail,
            reason = decision.reason,
            "decided"
        );
        self.metrics.decided(action);
        self.figures.decided(action, self.engine.state());
        if let Ok(json) = serde_json::to_string(&decision) {
            let (at_ms, subject) = (decision.at_ms, decision.subject.clone());
            self.pending.decisions.push(DecisionRow { at_ms, subject, decision: json });
        }
        // Nobody listening is fine.
        drop(self.publisher.decisions.send(decision.clone()));
        self.decisions.push_back(decision);
        if self.decisions.len() > SHOWN_DECISIONS {
            self.decisions.pop_front();
        }
    }

    /// Writes what changed to the ledger: at once when something depends on it, else about once a second.
    async fn commit(&mut self, now: bool) -> Result<(), Error> {
        let at = At(now_ms());
        let urgent = now || self.pending != Commit::default();
        if !urgent && at.since(self.committed_at) < COMMIT_EVERY_MS {
            return Ok(());
        }
        self.pending.engine = Some(self.engine.snapshot().map_err(|e| Error::failed("write the snapshot", e))?);
        self.pending.values.push(("figures".to_owned(), self.figures.to_json()));
        let commit = std::mem::take(&mut self.pending);
        self.ledger.commit(&commit).await?;
        self.committed_at = at;
        Ok(())
    }

    /// What nobody tells: drains that waited long enough, expected starts, gauges.
    fn look_around(&mut self) {
        self.stop_drained();
        self.etas.refresh(&self.engine, At(now_ms()));
        self.metrics.observe(self.engine.state());
    }
}
