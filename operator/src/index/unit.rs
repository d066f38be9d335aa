//! Pods that are one job of the engine: a gang, one pod alone, or a pod of another scheduler that holds GPUs.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use litemap::LiteMap;
use tidegate_core::ask::{Ask, ClassWish};
use tidegate_core::names::{Class, JobName, Namespace, QueueName};
use tidegate_core::plan::{ActionId, Placed};
use tidegate_core::state::{Group, JobSpec};
use tidegate_core::time::At;

use super::volumes::Held;
use crate::facts::pod::Ours;
use crate::facts::{PodFacts, PodKey};

/// The queue of those that are not ours: there is none of this name, so that nobody's quota pays for them.
pub(super) const NOBODYS: &str = "(others)";

/// Which pods belong together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum UnitId {
    /// By the gang's name in its namespace.
    Gang(PodKey),
    /// Those of a gang that wait while others of it are bound.
    Rest(PodKey),
    Single(PodKey),
    /// Placed by another scheduler.
    Foreign(PodKey),
}

impl UnitId {
    /// Whose unit a pod is; `None` for workers of training jobs, replicas of models and pods that take seats, for others' pods without
    /// GPUs, and for those that nobody has placed yet.
    pub fn of(pod: &PodFacts) -> Option<Self> {
        let counts = pod.ours.is_some() || pod.requests.devices().0 > 0;
        Self::plain(pod).filter(|_| counts && !pod.is_of_another())
    }

    /// The same of a pod whatever it is of, and whatever it asks for.
    pub fn plain(pod: &PodFacts) -> Option<Self> {
        let Some(ours) = &pod.ours else {
            let placed = pod.holds() || (pod.nominated.is_some() && !pod.phase.is_over());
            return placed.then(|| Self::Foreign(pod.key.clone()));
        };
        Some(match &ours.gang {
            Some(gang) => Self::Gang(PodKey::new(pod.key.namespace(), &gang.name)),
            None => Self::Single(pod.key.clone()),
        })
    }
}

impl UnitId {
    /// The rest of a gang.
    pub fn rest(&self) -> Option<Self> {
        let Self::Gang(gang) = self else { return None };
        Some(Self::Rest(gang.clone()))
    }

    /// The gang of which it is the rest.
    pub fn whole(&self) -> Option<Self> {
        let Self::Rest(gang) = self else { return None };
        Some(Self::Gang(gang.clone()))
    }
}

impl fmt::Display for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gang(gang) => write!(f, "gang/{gang}"),
            Self::Rest(gang) => write!(f, "rest/{gang}"),
            Self::Single(pod) => write!(f, "pod/{pod}"),
            Self::Foreign(pod) => write!(f, "foreign/{pod}"),
        }
    }
}

/// Where a unit stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not all of its pods are there yet; the engine does not know it.
    Gathering,
    /// It waits for its turn.
    Waiting,
    Running(Box<Run>),
}

/// A start that was ordered, or was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    pub attempt: u32,
    pub since: At,
    pub placed: LiteMap<PodKey, Placed>,
    /// Bindings without an answer, and the action that they carry out.
    pub open: BTreeSet<PodKey>,
    pub action: Option<ActionId>,
    /// Pods that were not any more what we had seen when they were to be bound, and which version that was.
    pub stale: LiteMap<PodKey, String>,
    /// Pods that could not be bound, and why.
    pub failed: Vec<String>,
    /// Some pod of it has failed, or went away before it was done.
    pub broken: bool,
    pub started: bool,
    /// It was told to end.
    pub stopping: bool,
    /// Volumes that must be there before its pods are bound.
    pub held: Option<Held>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub members: LiteMap<PodKey, ()>,
    pub phase: Phase,
    pub spec: Option<Arc<JobSpec>>,
    /// Why it could not be started where the engine would have it.
    pub refused: Option<Box<str>>,
    /// Its name in the engine.
    job: JobName,
    /// Rises when the same pods are a job again: what has ended in the engine is never told to go on.
    life: u32,
}

impl Unit {
    pub fn new(id: &UnitId) -> Self {
        let job = JobName::from(id.to_string());
        Self { members: LiteMap::new(), phase: Phase::Gathering, spec: None, refused: None, job, life: 0 }
    }

    /// Its name in the engine.
    pub fn job(&self) -> JobName {
        self.job.clone()
    }

    /// It is another job from now on.
    pub fn begin_anew(&mut self, id: &UnitId) {
        self.life += 1;
        self.job = JobName::from(format!("{id}#{}", self.life));
        (self.phase, self.spec, self.refused) = (Phase::Gathering, None, None);
    }

    pub fn has(&self, pod: &PodKey) -> bool {
        self.members.contains_key(pod)
    }

    pub fn run(&self) -> Option<&Run> {
        match &self.phase {
            Phase::Running(run) => Some(run),
            Phase::Gathering | Phase::Waiting => None,
        }
    }

    pub fn run_mut(&mut self) -> Option<&mut Run> {
        match &mut self.phase {
            Phase::Running(run) => Some(run),
            Phase::Gathering | Phase::Waiting => None,
        }
    }
}

/// Numbers in names count: `w-2` before `w-10`.
pub(super) fn in_order<'a>(pods: impl Iterator<Item = &'a PodFacts>) -> Vec<&'a PodFacts> {
    let mut all: Vec<&PodFacts> = pods.collect();
    all.sort_by(|a, b| (a.key.name().len(), a.key.name()).cmp(&(b.key.name().len(), b.key.name())));
    all
}

/// What the pods ask for, all kinds of them; the group of a pod is the place of its ask.
pub(super) fn asks<'a>(pods: impl Iterator<Item = &'a PodFacts>) -> Vec<Arc<Ask>> {
    pods.map(ask).collect::<BTreeSet<_>>().into_iter().collect()
}

/// What a pod asks for; of others', what they hold.
pub(super) fn ask(pod: &PodFacts) -> Arc<Ask> {
    if let Some(ours) = &pod.ours {
        return ours.ask.clone();
    }
    let (devices, part) = pod.requests.devices();
    Arc::new(Ask {
        cpu_milli: pod.requests.cpu_milli,
        memory_mib: pod.requests.memory_mib,
        classes: part.map(|class| ClassWish::from(Class::from(class))).into_iter().collect(),
        ..Ask::whole(devices)
    })
}

/// How many of a unit must start together.
pub(super) fn size(id: &UnitId, pods: &[&PodFacts]) -> usize {
    if !matches!(id, UnitId::Gang(_)) {
        return 1;
    }
    let sizes = pods.iter().filter_map(|pod| pod.ours.as_ref()?.gang.as_ref()).map(|gang| gang.size as usize);
    sizes.max().unwrap_or(1)
}

/// The job of these pods. At least `size` of them start; pods of several kinds start all together.
pub(super) fn spec(pods: &[&PodFacts], size: usize) -> JobSpec {
    let asks = asks(pods.iter().copied());
    let count = |wanted: &Arc<Ask>| u32::try_from(pods.iter().filter(|pod| ask(pod) == *wanted).count()).unwrap_or(u32::MAX);
    let one_kind = asks.len() == 1;
    let ours: Vec<&Ours> = pods.iter().filter_map(|pod| pod.ours.as_deref()).collect();
    let first = ours.first();
    let groups = asks.iter().map(|ask| {
        let max = count(ask);
        let min = if one_kind { u32::try_from(size).unwrap_or(max).min(max) } else { max };
        let spread = first.and_then(|ours| ours.spread.clone()).filter(|_| one_kind);
        Group { name: String::new(), min, max, ask: Ask::clone(ask), spread }
    });
    let namespace = pods.first().map_or("", |pod| pod.key.namespace());
    JobSpec {
        queue: QueueName::from(first.map_or(NOBODYS, |ours| ours.queue.as_str())),
        namespace: Namespace::from(namespace),
        priority: ours.iter().map(|ours| ours.priority).max().unwrap_or(i32::MAX),
        owner: first.map(|ours| ours.owner.clone()).unwrap_or_default(),
        recipe: first.map(|ours| ours.recipe.clone()).unwrap_or_default(),
        groups: groups.collect(),
        spread: first.and_then(|ours| ours.spread.clone()).filter(|_| !one_kind),
        preemptible: !ours.is_empty() && ours.iter().all(|ours| ours.preemptible),
        expected_ms: ours.iter().filter_map(|ours| ours.expected_ms).max(),
        // A pod that failed is its maker's to replace.
        backoff_limit: u32::MAX,
        ..JobSpec::workers(NOBODYS, 1, 1, Ask::default())
    }
}

/// The same job when it has so many workers of each group and wants no more: what runs never restarts to grow.
pub(super) fn as_placed(spec: &JobSpec, placed: &LiteMap<PodKey, Placed>) -> JobSpec {
    let mut spec = spec.clone();
    for (number, group) in (0_u16..).zip(&mut spec.groups) {
        let count = placed.values().filter(|worker| worker.group == number).count();
        group.max = u32::try_from(count).unwrap_or(u32::MAX);
        group.min = group.min.min(group.max);
    }
    spec
}
