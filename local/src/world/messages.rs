//! What the world hears, and the handle by which others tell it.

use std::collections::BTreeMap;

use tidegate_api::contract::Progress;
use tidegate_api::control::{ReplicaReport, RouterReport};
use tidegate_api::kinds::GpuNodeStatus;
use tidegate_api::model_info::ModelInfo;
use tidegate_api::view;
use tidegate_runtime::control::Report;
use tokio::sync::{mpsc, oneshot};

use super::World;
use crate::manifests::Sourced;

/// Refused, with the status that says how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be done as things are.
    #[error("{0}")]
    Conflict(String),
    /// The world is shutting down.
    #[error("tidegate is shutting down; try again when it is up")]
    ShuttingDown,
}

/// Why progress was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgressRefusal {
    /// No such job.
    Unknown,
    /// The token is not this attempt's.
    Token,
    /// The attempt is over, or another one runs.
    Stale,
}

/// Everything that the world can be told.
pub enum Message {
    Router(RouterReport),
    Replica(Box<ReplicaReport>),
    /// How the GPUs are.
    Gpus(GpuNodeStatus),
    Progress {
        job: String,
        attempt: u32,
        token: String,
        lines: Vec<Progress>,
        reply: oneshot::Sender<Result<Option<u32>, ProgressRefusal>>,
    },
    Apply {
        objects: Vec<Sourced>,
        infos: BTreeMap<String, ModelInfo>,
        reply: oneshot::Sender<Result<Vec<view::Applied>, Refused>>,
    },
    /// A person's wish.
    Wish {
        wish: Wish,
        reply: oneshot::Sender<Result<view::Done, Refused>>,
    },
    /// Looks at the world, changes nothing.
    Read(Box<dyn FnOnce(&World) + Send>),
}

/// What a person may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    Delete { kind: &'static str, name: String },
    PauseJob { name: String, paused: bool },
    PauseModel { name: String, paused: bool },
    CancelJob(String),
    Drain { device: String, drained: bool },
}

impl From<Report> for Message {
    fn from(report: Report) -> Self {
        match report {
            Report::Router(report) => Self::Router(report),
            Report::Replica(report) => Self::Replica(report),
        }
    }
}

/// The way to the world.
#[derive(Clone)]
pub struct Handle(pub mpsc::Sender<Message>);

impl Handle {
    /// What `look` sees.
    pub async fn read<T: Send + 'static>(&self, look: impl FnOnce(&World) -> T + Send + 'static) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        let read = Message::Read(Box::new(move |world| drop(reply.send(look(world)))));
        self.0.send(read).await.map_err(|_| Refused::ShuttingDown)?;
        answer.await.map_err(|_| Refused::ShuttingDown)
    }

    /// Says how the GPUs are. A world that is shutting down does not hear it, which is fine.
    pub async fn gpus(&self, status: GpuNodeStatus) {
        drop(self.0.send(Message::Gpus(status)).await);
    }

    /// Asks for something to be done.
    pub async fn wish(&self, wish: Wish) -> Result<view::Done, Refused> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Message::Wish { wish, reply }).await.map_err(|_| Refused::ShuttingDown)?;
        answer.await.map_err(|_| Refused::ShuttingDown)?
    }

    /// Applies checked objects.
    pub async fn apply(&self, objects: Vec<Sourced>, infos: BTreeMap<String, ModelInfo>) -> Result<Vec<view::Applied>, Refused> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Message::Apply { objects, infos, reply }).await.map_err(|_| Refused::ShuttingDown)?;
        answer.await.map_err(|_| Refused::ShuttingDown)?
    }

    /// Reports a job's progress; the answer is the choice that is best for it now, if it offers any.
    pub async fn progress(
        &self,
        job: String,
        attempt: u32,
        token: String,
        lines: Vec<Progress>,
    ) -> Result<Result<Option<u32>, ProgressRefusal>, Refused> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Progress { job, attempt, token, lines, reply };
        self.0.send(message).await.map_err(|_| Refused::ShuttingDown)?;
        answer.await.map_err(|_| Refused::ShuttingDown)
    }
}

impl World {
    /// Takes in one message. What a caller is told was done is in the ledger first; a caller that has gone does not
    /// hear the answer, which is fine.
    pub(super) fn message(&mut self, message: Message) {
        match message {
            Message::Router(report) => self.router_report(&report),
            Message::Replica(report) => self.replica_report(&report),
            Message::Gpus(status) => self.gpus(&status),
            Message::Progress { job, attempt, token, lines, reply } => {
                let taken = self.progress(&job, attempt, &token, &lines);
                self.replies.push(Box::new(move || drop(reply.send(taken))));
            }
            Message::Apply { objects, infos, reply } => {
                let applied = self.apply(&objects, infos);
                self.replies.push(Box::new(move || drop(reply.send(applied))));
            }
            Message::Wish { wish, reply } => {
                let done = self.wish(wish);
                self.replies.push(Box::new(move || drop(reply.send(done))));
            }
            Message::Read(look) => look(self),
        }
    }
}
