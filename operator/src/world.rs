//! The owner of the engine: one task that hears what the watches see, decides, and has it written.
//!
//! The API's objects are the truth. Nothing of what runs is kept that they do not say: a leader that is gone in the middle of a
//! gang's bindings is followed by one that lists afresh and finds what was bound. What was learned is in the ledger ([`past`]).

mod ask;
mod past;
mod repair;
mod routers;
mod scene;
mod statuses;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tidegate_api::control::RouterConfig;
use tidegate_api::convert;
use tidegate_api::kinds::{PoolStatus, QueueStatus};
use tidegate_api::view::Span;
use tidegate_core::names::{Namespace, QueueName};
use tidegate_core::plan::{Action, ActionKind};
use tidegate_core::policy::Policy;
use tidegate_core::time::At;
use tidegate_core::{Engine, Event, Outcome};
use tidegate_runtime::control::Report;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::args::Mode;
use crate::clock::Clock;
use crate::facts::{Adoptions, PodKey};
use crate::index::{Change, Index, Listed};
use crate::metrics::Metrics;
use crate::watch::{Kind, Object, Seen, Told};
use crate::writer::{Writer, Written};
pub use ask::{Ask, Planned};
use past::Memory;
use routers::Routers;
pub use scene::Scene;
use statuses::Shown;

/// How often the world looks around without being told.
const TICK: Duration = Duration::from_secs(1);
/// Ticks between two looks at all that wait for news to tell them.
const ASK_AGAIN_TICKS: u32 = 15;
/// Ticks between two looks at what queues and pools have become.
const STATUS_TICKS: u32 = 3;
/// What is taken in before a decision: a burst is one decision, and nothing waits long.
const BURST: usize = 4_096;
/// Decisions in a row before what was seen meanwhile is taken in.
const ROUNDS: usize = 8;
/// Starts that are ordered and not carried out yet, at most, and writes that wait for room above which nothing more is decided: what
/// comes meanwhile and goes first is not kept behind a long list of orders.
const MOST_STARTS: u32 = 4_096;
const MOST_WRITES: usize = 512;
/// A decision on a copy costs the copy.
const OBSERVE_EVERY_MS: u64 = 1_000;
/// How long kinds are waited for when they are listed anew.
const LISTED_WITHIN_MS: u64 = 60_000;
/// Plans that are shown to people.
const SHOWN: usize = 500;

/// What routers and replicas are told.
#[derive(Debug, Default)]
pub struct Publisher {
    pub router: watch::Sender<RouterConfig>,
    /// Replicas that shall drain.
    pub draining: watch::Sender<BTreeSet<String>>,
}

/// What is said to the world.
pub struct Heard<'a> {
    pub seen: &'a mut mpsc::Receiver<Seen>,
    pub reports: &'a mut mpsc::Receiver<Report>,
    pub asks: &'a mut mpsc::Receiver<Ask>,
}

/// See the module.
pub struct World {
    mode: Mode,
    clock: Clock,
    engine: Engine,
    index: Index,
    writer: Writer,
    metrics: Metrics,
    /// Kinds that were not listed yet, or are listed anew, and what was seen until all are.
    missing: BTreeSet<Kind>,
    early: Vec<Seen>,
    /// Whether every kind was listed once; and until when those that are listed anew are waited for, once others are heard of.
    begun: bool,
    patient_until: Option<At>,
    pools: BTreeMap<String, Shown<PoolStatus>>,
    /// Of pools that make sense, by name; the first counts.
    policies: BTreeMap<String, Policy>,
    queues: BTreeMap<String, Shown<QueueStatus>>,
    namespaces: BTreeSet<String>,
    routers: Routers,
    publisher: Publisher,
    /// Actions whose `after` is not done yet.
    waiting: Vec<Action>,
    shown: VecDeque<Arc<Planned>>,
    /// Who held GPUs and does not any more.
    spans: VecDeque<Arc<Span>>,
    memory: Memory,
    since: At,
    ticks: u32,
    /// When it was last decided what is only observed.
    observed: At,
}

impl World {
    pub fn new(
        mode: Mode,
        clock: Clock,
        index: Index,
        adoptions: &'static Adoptions,
        writer: Writer,
        publisher: Publisher,
        metrics: Metrics,
    ) -> Self {
        Self {
            mode,
            clock,
            engine: Engine::default(),
            index,
            writer,
            metrics,
            missing: Kind::all(adoptions),
            early: Vec::new(),
            begun: false,
            patient_until: None,
            pools: BTreeMap::new(),
            policies: BTreeMap::new(),
            queues: BTreeMap::new(),
            namespaces: BTreeSet::new(),
            routers: Routers::default(),
            publisher,
            waiting: Vec::new(),
            shown: VecDeque::new(),
            spans: VecDeque::new(),
            memory: Memory::default(),
            since: clock.now(),
            ticks: 0,
            observed: At::default(),
        }
    }

    fn now(&self) -> At {
        self.clock.now()
    }

    /// Hears, decides and writes until `shutdown`; then no write is under way.
    pub async fn run(&mut self, heard: Heard<'_>, shutdown: &CancellationToken) {
        let Heard { seen, reports, asks } = heard;
        self.recall(shutdown).await;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wake = self.engine.state().wake_at.map_or(TICK, |at| Duration::from_millis(at.since(self.now()).max(1)));
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(news) = seen.recv() => self.hear(news),
                written = self.writer.next() => self.written(&written),
                Some(report) = reports.recv() => self.report(report),
                Some(ask) = asks.recv() => self.answer(ask),
                past = self.memory.comes() => self.remember(past),
                _ = tick.tick() => self.look_around(),
                () = sleep(wake.min(TICK)) => {}
            }
            for _ in 0..BURST {
                let Ok(news) = seen.try_recv() else { break };
                self.hear(news);
            }
            self.turn();
        }
        self.write_last_past();
        self.writer.finish().await;
    }

    fn tell(&mut self, events: Vec<Event>) {
        let at = self.now();
        for event in events {
            self.note_end(&event, at);
            self.engine.apply(at, event);
        }
    }

    /// Takes in news; until every kind was listed they only collect.
    fn hear(&mut self, mut news: Seen) {
        if let Seen::Is(Object::Pod(facts)) = &mut news {
            self.index.share(facts);
        }
        if self.missing.is_empty() || matches!(news, Seen::Broken(_)) {
            return self.take_in(news);
        }
        if let Seen::Listed(kind, _) = &news {
            self.missing.remove(kind);
        }
        self.early.push(news);
        if self.missing.is_empty() {
            self.take_in_early();
        } else if self.begun {
            let until = self.now().plus(LISTED_WITHIN_MS);
            self.patient_until.get_or_insert(until);
        }
    }

    /// Nothing is decided until it is listed anew: what else is known is younger.
    fn broken(&mut self, kind: Kind) {
        self.missing.insert(kind);
        self.metrics.synced.set(0);
    }

    fn take_in_early(&mut self) {
        let mut early = std::mem::take(&mut self.early);
        self.patient_until = None;
        early.sort_by_key(kind_of);
        for news in early {
            self.take_in(news);
        }
        let how = if self.begun { "what was broken off was listed anew" } else { "every kind was listed" };
        if !std::mem::replace(&mut self.begun, true) {
            let events = [self.policy(), self.index.begin()].concat();
            self.tell(events);
            self.write_all();
        }
        self.metrics.synced.set(1);
        tracing::info!(counts = ?self.index.counts(), nodes = self.engine.state().nodes.len(), "{how}");
    }

    /// Goes on when a kind is not listed anew: it is not served any more, or may not be read.
    fn be_impatient(&mut self) {
        if self.patient_until.is_some_and(|until| self.now() >= until) {
            let missing: BTreeSet<_> = std::mem::take(&mut self.missing).into_iter().map(Kind::word).collect();
            tracing::warn!(?missing, "not listed anew in time: what was known of these counts until they are");
            self.take_in_early();
        }
    }

    fn take_in(&mut self, news: Seen) {
        match news {
            Seen::Is(object) => self.object(object),
            Seen::Checked(pods) => self.compare(&pods),
            Seen::Broken(kind) => self.broken(kind),
            Seen::Gone(kind, key) => self.gone(kind, &key),
            Seen::Listed(kind, all) => {
                for key in self.known(kind).into_iter().filter(|key| !all.contains(key)) {
                    self.gone(kind, &key);
                }
            }
        }
        self.write_all();
    }

    /// Compares what is believed with a fresh list.
    fn compare(&mut self, pods: &[Listed]) {
        let drift = self.index.drift(&self.engine, pods);
        for what in &drift {
            tracing::error!(what, "what is believed is not what the objects say; restart the operator, and report this");
        }
        self.metrics.checks.inc();
        self.metrics.drift.set(i64::try_from(drift.len()).unwrap_or(i64::MAX));
    }

    fn object(&mut self, object: Object) {
        let events = match object {
            Object::Pool(told) => {
                let Told { name, uid, generation, spec, status } = *told;
                // What it said before counts while it cannot be read; its condition says so.
                let problem = spec.as_ref().err().cloned();
                self.pools.insert(name.clone(), Shown { uid, generation, problem, status });
                if let Ok(spec) = spec {
                    self.policies.insert(name, convert::policy(&spec));
                }
                self.policy()
            }
            Object::Queue(told) => {
                let Told { name, uid, generation, spec, status } = *told;
                let problem = spec.as_ref().err().cloned();
                self.queues.insert(name.clone(), Shown { uid, generation, problem, status });
                let set = |spec| Event::QueueSet { name: QueueName::from(name), queue: convert::queue(&spec) };
                spec.map(set).into_iter().collect()
            }
            Object::Namespace(name, labels) => {
                self.namespaces.insert(name.clone());
                vec![Event::NamespaceSeen { name: Namespace::from(name), labels }]
            }
            Object::Node(facts) => self.index.node(Change::Is(facts), &self.engine),
            Object::Beside(object) => self.index.beside(object),
            Object::Device(object) => self.index.device(object),
            Object::Adopted(facts) => self.index.adopted(Change::Is(*facts)),
            Object::Training(facts) => self.index.training(Change::Is(*facts)),
            Object::Model(facts) => self.index.model(Change::Is(*facts)),
            Object::Pod(facts) => self.index.pod(Change::Is(*facts)),
        };
        self.tell(events);
    }

    fn gone(&mut self, kind: Kind, key: &str) {
        let events = match kind {
            Kind::Pool => {
                self.pools.remove(key);
                self.policies.remove(key);
                self.policy()
            }
            Kind::Queue => {
                self.queues.remove(key);
                vec![Event::QueueRemoved(QueueName::from(key))]
            }
            Kind::Namespace => {
                self.namespaces.remove(key);
                vec![Event::NamespaceGone(Namespace::from(key))]
            }
            Kind::Node => self.index.node(Change::Gone(key.to_owned()), &self.engine),
            Kind::Beside(kind) => self.index.beside_gone(kind, key),
            Kind::Device(kind) => self.index.device_gone(kind, key),
            Kind::Adopted(name) => self.index.adopted(Change::Gone(format!("{name}/{key}").into())),
            Kind::TrainingJob => self.index.training(Change::Gone(PodKey(key.into()))),
            Kind::Model => self.index.model(Change::Gone(PodKey(key.into()))),
            Kind::Pod => self.index.pod(Change::Gone(PodKey(key.into()))),
        };
        self.tell(events);
    }

    /// What is known of a kind.
    fn known(&self, kind: Kind) -> Vec<String> {
        match kind {
            Kind::Pool => self.pools.keys().cloned().collect(),
            Kind::Queue => self.queues.keys().cloned().collect(),
            Kind::Namespace => self.namespaces.iter().cloned().collect(),
            Kind::Node => self.index.node_names().map(str::to_owned).collect(),
            Kind::Beside(kind) => self.index.beside_keys(kind),
            Kind::Device(kind) => self.index.device_keys(kind),
            Kind::Adopted(name) => self.index.adopted_keys(name).map(ToString::to_string).collect(),
            Kind::TrainingJob => self.index.training_keys().map(ToString::to_string).collect(),
            Kind::Model => self.index.model_keys().map(ToString::to_string).collect(),
            Kind::Pod => self.index.pod_keys().map(ToString::to_string).collect(),
        }
    }

    fn policy(&self) -> Vec<Event> {
        let told = self.policies.values().next().cloned().unwrap_or_default();
        let policy = Policy { max_starts: MOST_STARTS, ..told };
        if self.engine.state().policy == policy { Vec::new() } else { vec![Event::PolicySet(policy)] }
    }

    fn written(&mut self, (write, result): &Written) {
        let events = self.index.written(write, result.clone());
        self.tell(events);
        self.write_all();
    }

    fn write_all(&mut self) {
        for write in self.index.take_writes() {
            self.write(write);
        }
    }

    fn write(&mut self, write: crate::index::Write) {
        if self.mode == Mode::Act {
            self.writer.push(write);
        }
    }

    /// Decides and carries out, while that changes something.
    fn turn(&mut self) {
        if !self.missing.is_empty() {
            return;
        }
        if self.mode == Mode::Observe {
            return self.observe();
        }
        for _ in 0..ROUNDS {
            if self.writer.waiting() > MOST_WRITES {
                break;
            }
            let lost = self.index.lose_free_devices(&self.engine);
            self.tell(lost);
            let plan = self.engine.decide(self.now());
            let any = !plan.actions.is_empty();
            for action in plan.actions {
                self.note(&action);
                self.waiting.push(action);
            }
            if !self.carry_out() && !any {
                break;
            }
        }
        self.publish();
        let told = Timestamp::now().to_string();
        let mut statuses = self.index.statuses(&self.engine, &told);
        statuses.extend(self.index.model_statuses(&self.engine, self.now(), &told));
        for write in statuses {
            self.write(write);
        }
    }

    /// A router or a replica says how it fares.
    fn report(&mut self, report: Report) {
        let events = match report {
            Report::Router(report) => self.routers.report(self.now(), &report),
            Report::Replica(report) => self.index.replica_report(&report),
        };
        self.tell(events);
        self.end_drained();
    }

    /// Tells routers of models and endpoints, if they have changed.
    fn publish(&mut self) {
        if let Some(models) = self.index.take_routes() {
            let version = self.publisher.router.send_if_modified(|config| {
                let news = config.version == 0 || config.models != models;
                if news {
                    // It rises over restarts of the world, as time does.
                    *config = RouterConfig { version: self.now().0.max(config.version + 1), models };
                }
                news
            });
            tracing::debug!(version, "routers are told of a change");
            let version = self.publisher.router.borrow().version;
            self.index.routes_published(version);
        }
        let draining = self.index.draining();
        self.publisher.draining.send_if_modified(|told| {
            let news = *told != draining;
            *told = draining;
            news
        });
    }

    fn end_drained(&mut self) {
        self.index.end_drained(self.now(), |version| self.routers.have(version));
        self.write_all();
    }

    /// What would be done now, on a copy: the engine itself hears of what happens alone.
    fn observe(&mut self) {
        let at = self.now();
        if !self.engine.is_due(at) || at.since(self.observed) < OBSERVE_EVERY_MS {
            return;
        }
        self.observed = at;
        let lost = self.index.lose_free_devices(&self.engine);
        self.tell(lost);
        let mut trial = self.engine.clone();
        let plan = trial.decide(self.now());
        let fresh: Vec<Action> = plan.actions.into_iter().filter(|action| !self.is_shown(action)).collect();
        for action in &fresh {
            self.note(action);
        }
    }

    fn carry_out(&mut self) -> bool {
        let mut any = false;
        while let Some(action) = self.take_ready() {
            any = true;
            if self.never_began(&action) {
                continue;
            }
            let events = self.index.perform(&action, self.now());
            self.tell(events);
            self.write_all();
        }
        any
    }

    /// Whether it stops what still waits for its place, which then never starts.
    fn never_began(&mut self, stop: &Action) -> bool {
        let of_it = |start: &Action| match (&start.kind, &stop.kind) {
            (ActionKind::StartJob { job, attempt, .. }, ActionKind::StopJob { job: of, attempt: at, .. }) => {
                job == of && attempt == at
            }
            (ActionKind::StartReplica { replica, .. }, ActionKind::StopReplica { replica: of, .. }) => replica == of,
            _ => false,
        };
        let Some(at) = self.waiting.iter().position(of_it) else { return false };
        let start = self.waiting.remove(at);
        let close = |id, outcome| Event::Outcome { id, outcome };
        self.tell(vec![close(start.id, Outcome::Dropped), close(stop.id, Outcome::Done)]);
        true
    }

    fn take_ready(&mut self) -> Option<Action> {
        let open = &self.engine.state().actions;
        let at = self.waiting.iter().position(|action| action.after.iter().all(|id| !open.contains_key(id)))?;
        Some(self.waiting.remove(at))
    }

    fn note(&mut self, action: &Action) {
        tracing::info!(action = action.kind.word(), subject = action.kind.subject(), reason = %action.reason, "decided");
        self.metrics.decided(action);
        self.show(Planned::of(action, self.now()));
    }

    /// What nobody tells: reasons for those that wait, gauges.
    fn look_around(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        self.be_impatient();
        if self.ticks.is_multiple_of(ASK_AGAIN_TICKS) {
            self.index.ask_again();
        }
        let mut events = self.index.look(self.now());
        events.extend(self.routers.look(self.now()));
        self.tell(events);
        self.end_drained();
        if self.missing.is_empty() && self.mode == Mode::Act {
            self.repair_overcommits();
            // While orders wait to be carried out, who waits may be ordered next.
            if self.writer.waiting() == 0 {
                for write in self.index.tell_waiting(&self.engine) {
                    self.write(write);
                }
            }
            if self.ticks.is_multiple_of(STATUS_TICKS) {
                for write in self.our_statuses(&Timestamp::now().to_string()) {
                    self.write(write);
                }
            }
        }
        self.write_past(self.now());
        self.metrics.routers.set(i64::try_from(self.routers.count()).unwrap_or(i64::MAX));
        self.metrics.observe(self.index.counts(), self.writer.open());
    }
}

fn kind_of(news: &Seen) -> Kind {
    match news {
        Seen::Is(Object::Pool(..)) => Kind::Pool,
        Seen::Is(Object::Queue(..)) => Kind::Queue,
        Seen::Is(Object::Namespace(..)) => Kind::Namespace,
        Seen::Is(Object::Node(_)) => Kind::Node,
        Seen::Is(Object::Beside(object)) => Kind::Beside(object.kind()),
        Seen::Is(Object::Device(object)) => Kind::Device(object.kind()),
        Seen::Is(Object::Adopted(facts)) => Kind::Adopted(&facts.adoption.name),
        Seen::Is(Object::Training(_)) => Kind::TrainingJob,
        Seen::Is(Object::Model(_)) => Kind::Model,
        // A list to compare with comes after all that it is compared with.
        Seen::Is(Object::Pod(_)) | Seen::Checked(_) => Kind::Pod,
        Seen::Gone(kind, _) | Seen::Listed(kind, _) | Seen::Broken(kind) => *kind,
    }
}
