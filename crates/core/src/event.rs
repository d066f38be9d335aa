//! Facts that a world tells the engine. No event decides anything.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ask::Ask;
use crate::demand::Demand;
use crate::labels::Labels;
use crate::names::{DeviceId, JobName, ModelName, Namespace, NodeName, QueueName, ReplicaId};
use crate::node::{Device, NodeSpec};
use crate::plan::{ActionId, Placed};
use crate::policy::Policy;
use crate::state::{JobSpec, ModelSpec, Overcommit, Queue};
use crate::time::At;

/// One fact.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The pool's policy is this.
    PolicySet(Policy),
    /// The node exists, with these labels and this much CPU and memory.
    NodeSet {
        name: NodeName,
        spec: Arc<NodeSpec>,
    },
    /// The node does not answer: what ran on it is over as soon as its end is observed.
    NodeLost(NodeName),
    /// More is asked of the node than it has, as somebody else has placed work there in the same moment: what these hold there
    /// must go. Who they are the world says, which alone knows all that is asked.
    NodeOvercommitted {
        name: NodeName,
        over: Overcommit,
    },
    /// The device exists on its node, with this class and memory. Its health is kept if it was known.
    DeviceSeen(Device),
    /// The device is gone or broken: what ran on it is over as soon as its end is observed.
    DeviceLost(DeviceId),
    /// A person takes the device out of use, or back into it.
    DeviceDrained {
        id: DeviceId,
        drained: bool,
    },
    QueueSet {
        name: QueueName,
        queue: Queue,
    },
    QueueRemoved(QueueName),
    /// The namespace exists with these labels, by which queues choose who may submit. Beyond the engine's bounds (see
    /// [`crate::state::MOST_NAMESPACES`]) it stays unknown.
    NamespaceSeen {
        name: Namespace,
        labels: Labels,
    },
    NamespaceGone(Namespace),
    /// The job exists with this specification.
    JobSet {
        name: JobName,
        spec: Arc<JobSpec>,
    },
    /// A person's wishes for the job.
    JobPaused {
        name: JobName,
        paused: bool,
    },
    JobCancelled(JobName),
    /// The job's object is gone: it is stopped and forgotten.
    JobRemoved(JobName),
    /// What the world's objects say of the job, whoever ordered it. For worlds whose objects are the truth (a cluster): after a
    /// restart, and when some workers of an attempt have ended alone.
    JobObserved {
        name: JobName,
        observed: Observed,
    },
    /// All workers of this attempt run.
    JobStarted {
        name: JobName,
        attempt: u32,
    },
    /// Steps done, and the step of the last complete checkpoint.
    JobProgress {
        name: JobName,
        attempt: u32,
        step: u64,
        checkpoint: Option<u64>,
        /// How far it is, in millionths of all its work, if it knows its end.
        done_ppm: Option<u32>,
    },
    /// The last worker of this attempt has ended and its devices are free.
    JobExited {
        name: JobName,
        attempt: u32,
        exit: JobExit,
    },
    ModelSet {
        name: ModelName,
        spec: ModelSpec,
    },
    ModelPaused {
        name: ModelName,
        paused: bool,
    },
    ModelRemoved(ModelName),
    Demand {
        model: ModelName,
        demand: Demand,
    },
    /// The replica answers; it took `load_ms` from its start.
    ReplicaReady {
        id: ReplicaId,
        load_ms: u64,
    },
    /// What the world's objects say of a replica that the engine does not know: after a restart of a world whose objects are the
    /// truth.
    ReplicaObserved {
        id: ReplicaId,
        observed: ObservedReplica,
    },
    /// The replica has ended and its device is free.
    ReplicaExited {
        id: ReplicaId,
        failed: bool,
    },
    /// What became of an action.
    Outcome {
        id: ActionId,
        outcome: Outcome,
    },
}

/// A job as the world's objects tell of it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub submitted: At,
    /// Attempts so far, the one that runs included.
    pub attempts: u32,
    /// Failures in a row.
    pub failures: u32,
    /// What runs of the last attempt. Absent: nothing does, or nothing is known beyond what the engine ordered.
    pub run: Option<ObservedRun>,
}

/// An attempt that runs.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ObservedRun {
    pub since: At,
    /// Where its workers are. Devices that have no names are left out: then they are some of the node's that nobody holds.
    pub workers: Vec<Placed>,
    /// All of them were seen running.
    pub started: bool,
}

/// A replica as the world's objects tell of it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ObservedReplica {
    pub model: ModelName,
    /// What it holds: the model may ask for something else by now.
    pub ask: Ask,
    /// Where it is. A device that has no name is left out, as of workers.
    pub place: Placed,
    /// Of the model, when it was started.
    pub generation: u64,
    pub since: At,
    pub ready: bool,
}

/// How an attempt ended.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobExit {
    /// Every worker ended by itself with code 0: the job is done.
    Succeeded,
    /// Stopped because it was asked to.
    Stopped,
    /// A worker failed or was killed.
    Failed,
    /// A worker was not taken in where it was sent, as its place had gone to others: nobody's failure. The next attempt waits.
    Refused,
}

/// What became of an action.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Carried out.
    Done,
    /// Tried and failed; the text is for people.
    Failed(String),
    /// Its precondition did not hold any more.
    Dropped,
}
