//! What the engine wants done, each with its reason.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::{DeviceId, JobName, ModelName, NodeName, QueueName, ReplicaId};
use crate::state::Scarce;
use crate::time::At;

/// Identity of an action. The same state decides the same ids, so an action carried out twice is known as one.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(transparent)]
pub struct ActionId(pub u64);

/// Actions in an order in which they can be carried out, and when to ask again if nothing happens.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub wake_at: Option<At>,
}

/// One idempotent step.
///
/// Its precondition is what its ids say: the attempt or the replica that it names. A world that finds
/// another one drops the action and reports so.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Action {
    pub id: ActionId,
    /// Actions that must be done before this one starts.
    pub after: Vec<ActionId>,
    pub kind: ActionKind,
    pub reason: Reason,
}

/// What to do. A resize of a job is a `StopJob` (which says the new size) and, once it has ended, a `StartJob`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum ActionKind {
    /// Start all workers of a new attempt, worker i at `workers[i]`. A whole gang or nothing.
    StartJob {
        job: JobName,
        attempt: u32,
        workers: Vec<Placed>,
        /// Which of its own settings the job takes, if it offers a choice; see [`crate::state::JobSpec::choice`].
        #[serde(default)]
        choice: Option<u32>,
    },
    /// Ask every worker to checkpoint and end within the job's grace; it restarts with `resume_with` workers (0: it waits).
    StopJob {
        job: JobName,
        attempt: u32,
        resume_with: u32,
    },
    StartReplica {
        model: ModelName,
        replica: ReplicaId,
        place: Placed,
    },
    /// Finish what is in flight, then end.
    StopReplica {
        model: ModelName,
        replica: ReplicaId,
    },
}

/// Where one worker or replica runs.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The job's group.
    pub group: u16,
    pub node: NodeName,
    /// Whole devices, or the one of which it has a share; none for work on CPU alone.
    pub devices: Vec<DeviceId>,
    /// Slices of the one device, for a MIG instance.
    pub slices: u8,
}

impl ActionKind {
    /// Bounded word for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::StartJob { .. } => "start_job",
            Self::StopJob { .. } => "stop_job",
            Self::StartReplica { .. } => "start_replica",
            Self::StopReplica { .. } => "stop_replica",
        }
    }

    /// `job/NAME` or `model/NAME`.
    pub fn subject(&self) -> String {
        match self {
            Self::StartJob { job, .. } | Self::StopJob { job, .. } => format!("job/{job}"),
            Self::StartReplica { model, .. } | Self::StopReplica { model, .. } => format!("model/{model}"),
        }
    }
}

/// For whom a device is taken.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Claimant {
    Job(JobName),
    Model(ModelName),
}

impl fmt::Display for Claimant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(name) => write!(f, "job/{name}"),
            Self::Model(name) => write!(f, "model/{name}"),
        }
    }
}

/// Why an action is taken.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The model's traffic needs `wanted` devices and it has `have`.
    Demand {
        milli_rows_per_s: u64,
        wanted: u32,
        have: u32,
    },
    /// Requests are held for a sleeping model.
    Wake {
        held: u64,
    },
    /// Configured minimum.
    Minimum {
        min: u32,
    },
    /// The model has needed only `wanted` for as long as the policy asks.
    Surplus {
        wanted: u32,
        have: u32,
        for_ms: u64,
    },
    /// No request for as long as the model says.
    Asleep {
        after_ms: u64,
    },
    /// A replica that takes so much of a device, in thousandths, has taken its place.
    Reshaped {
        milli: u64,
    },
    /// A newer version of the model is ready, or needs the device.
    Replaced {
        generation: u64,
    },
    /// First in its queue's order, inside the queue's own quota.
    Turn {
        workers: u32,
    },
    /// The devices' owners do not need them now; they are lent and will be taken back on demand.
    Lent {
        workers: u32,
        owner: QueueName,
    },
    /// Devices were free for as long as the policy asks: the job restarts larger.
    Grow {
        from: u32,
        to: u32,
    },
    /// Its share of what its queue's elastic jobs hold has changed: jobs end soonest on average with these sizes.
    Share {
        from: u32,
        to: u32,
    },
    /// The job restarts on what it kept.
    Resume {
        workers: u32,
    },
    /// The claimant is owed the device by quota; this job loses least (`lost_ms`: device-milliseconds since its checkpoint, and its restart).
    Reclaim {
        by: Claimant,
        from: u32,
        to: u32,
        lost_ms: u64,
    },
    /// The claimant's queue has less than its fair share of what is nobody's own, and this job's has more.
    FairShare {
        by: Claimant,
        from: u32,
        to: u32,
        lost_ms: u64,
    },
    /// The claimant stands higher in the same queue.
    Preempt {
        by: Claimant,
        from: u32,
        to: u32,
        lost_ms: u64,
    },
    /// The job has more than its new maximum.
    TooLarge {
        from: u32,
        to: u32,
    },
    /// The device is being drained or is lost.
    DeviceOut {
        device: DeviceId,
    },
    /// More was placed on the node than it has, by others in the same moment.
    Overcommit {
        node: NodeName,
        scarce: Scarce,
    },
    /// A person asked.
    Paused,
    Cancelled,
    Removed,
    /// Moved to other devices, so that the claimant has room.
    Moved {
        by: Claimant,
        lost_ms: u64,
    },
    /// It was let in ahead of the claimant, whose reservation is due.
    Overstayed {
        by: Claimant,
        lost_ms: u64,
    },
    /// The claimant is expected to be done much sooner.
    Yield {
        by: Claimant,
        lost_ms: u64,
    },
    /// Let in ahead of the job that has a reservation: it is expected to be done before.
    Backfill {
        workers: u32,
        before: JobName,
    },
    /// Not all workers were seen running in time.
    GangTimeout {
        after_ms: u64,
    },
    /// The replica did not get ready in time.
    LoadTimeout {
        after_ms: u64,
    },
}

impl Reason {
    /// Bounded word for metrics and events.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Demand { .. } => "demand",
            Self::Wake { .. } => "wake",
            Self::Minimum { .. } => "minimum",
            Self::Surplus { .. } => "surplus",
            Self::Asleep { .. } => "asleep",
            Self::Reshaped { .. } => "reshaped",
            Self::Replaced { .. } => "replaced",
            Self::Turn { .. } => "turn",
            Self::Lent { .. } => "lend",
            Self::Grow { .. } => "grow",
            Self::Share { .. } => "share",
            Self::Resume { .. } => "resume",
            Self::Reclaim { .. } => "reclaim",
            Self::FairShare { .. } => "fair_share",
            Self::Preempt { .. } => "preempt",
            Self::TooLarge { .. } => "too_large",
            Self::DeviceOut { .. } => "device_out",
            Self::Overcommit { .. } => "overcommit",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
            Self::Removed => "removed",
            Self::Moved { .. } => "moved",
            Self::Overstayed { .. } => "overstayed",
            Self::Yield { .. } => "yield",
            Self::Backfill { .. } => "backfill",
            Self::GangTimeout { .. } => "gang_timeout",
            Self::LoadTimeout { .. } => "load_timeout",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |to: &u32| if *to == 0 { "none".to_owned() } else { to.to_string() };
        match self {
            Self::Demand { milli_rows_per_s, wanted, have } => {
                write!(
                    f,
                    "{}.{} rows/s need {wanted} device(s), it has {have}",
                    milli_rows_per_s / 1000,
                    milli_rows_per_s % 1000 / 100
                )
            }
            Self::Wake { held } => write!(f, "{held} request(s) are held for it"),
            Self::Minimum { min } => write!(f, "replicas.min is {min}"),
            Self::Surplus { wanted, have, for_ms } => {
                write!(f, "for {} s it needed {wanted} device(s), it has {have}", for_ms / 1000)
            }
            Self::Asleep { after_ms } => write!(f, "no request for {} s", after_ms / 1000),
            Self::Reshaped { milli } => write!(f, "replaced by one that takes {milli}/1000 of a device"),
            Self::Replaced { generation } => write!(f, "replaced by generation {generation}"),
            Self::Turn { workers } => write!(f, "its turn, inside its own quota, with {workers} worker(s)"),
            Self::Lent { workers, owner } => {
                write!(f, "queue {owner} does not need its devices now; lent to {workers} worker(s) until it does")
            }
            Self::Grow { from, to } => write!(f, "devices are idle: grows from {from} to {to} workers"),
            Self::Share { from, to } => {
                write!(f, "jobs of its queue end soonest on average if it goes from {from} workers to {}", size(to))
            }
            Self::Resume { workers } => write!(f, "continues from its checkpoint with {workers} worker(s)"),
            Self::Reclaim { by, from, to, lost_ms } => write!(
                f,
                "{by} is owed a device and this job loses least ({} device-seconds): from {from} workers to {}",
                lost_ms / 1000,
                size(to)
            ),
            Self::FairShare { by, from, to, lost_ms } => write!(
                f,
                "the queue of {by} has less than its fair share, that of this job more, and this job loses least ({} device-seconds): from {from} workers to {}",
                lost_ms / 1000,
                size(to)
            ),
            Self::Preempt { by, from, to, lost_ms } => write!(
                f,
                "{by} goes before it in the same queue and this loses least ({} device-seconds): from {from} to {}",
                lost_ms / 1000,
                size(to)
            ),
            Self::TooLarge { from, to } => write!(f, "its new limit is {to} workers, it has {from}"),
            Self::DeviceOut { device } => write!(f, "device {device} is drained or lost"),
            Self::Overcommit { node, scarce } => {
                write!(
                    f,
                    "pods on node {node} ask for more {scarce} than it has, as another scheduler bound some at the same moment: it goes elsewhere"
                )
            }
            Self::Paused => f.write_str("paused by a person"),
            Self::Cancelled => f.write_str("cancelled by a person"),
            Self::Removed => f.write_str("its object was deleted"),
            Self::Moved { by, lost_ms } => {
                write!(f, "moved to other devices to make room for {by} ({} device-seconds are done again)", lost_ms / 1000)
            }
            Self::Overstayed { by, lost_ms } => write!(
                f,
                "it was let in ahead of {by}, whose reservation is due now ({} device-seconds are done again)",
                lost_ms / 1000
            ),
            Self::Yield { by, lost_ms } => {
                write!(f, "{by} is expected to be done much sooner ({} device-seconds are done again)", lost_ms / 1000)
            }
            Self::Backfill { workers, before } => {
                write!(f, "{workers} worker(s) that are expected to be done before job/{before} starts on its reservation")
            }
            Self::GangTimeout { after_ms } => write!(f, "not all workers ran {} s after its start", after_ms / 1000),
            Self::LoadTimeout { after_ms } => write!(f, "not ready {} s after its start", after_ms / 1000),
        }
    }
}
