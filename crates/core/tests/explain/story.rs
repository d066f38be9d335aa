//! A small cluster on which everything that is ordered happens at once.

use std::collections::BTreeMap;

use tidegate_core::names::{JobName, NodeName, QueueName};
use tidegate_core::plan::{Action, ActionKind};
use tidegate_core::state::{Ask, Device, JobSpec, NodeSpec, Queue};
use tidegate_core::{At, Engine, Event, JobExit, Outcome};

pub const HOUR: u64 = 3_600_000;

pub struct Story {
    pub engine: Engine,
    pub now: At,
}

impl Story {
    /// Midnight of some day.
    pub fn new() -> Self {
        Self { engine: Engine::default(), now: At(20_000 * 24 * HOUR) }
    }

    pub fn tell(&mut self, event: Event) -> &mut Self {
        self.engine.apply(self.now, event);
        self
    }

    pub fn node(&mut self, name: &str, class: &str, gpus: usize) -> &mut Self {
        self.node_in(name, class, gpus, &[])
    }

    pub fn node_in(&mut self, name: &str, class: &str, gpus: usize, labels: &[(&str, &str)]) -> &mut Self {
        let labels: BTreeMap<String, String> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.tell(Event::NodeSet { name: NodeName::from(name), spec: NodeSpec { labels, ..NodeSpec::default() }.into() });
        for index in 0..gpus {
            self.tell(Event::DeviceSeen(Device::new(format!("{name}-{index}"), name, class, 81_920)));
        }
        self
    }

    pub fn queue(&mut self, name: &str, queue: Queue) -> &mut Self {
        self.tell(Event::QueueSet { name: QueueName::from(name), queue })
    }

    pub fn job(&mut self, name: &str, spec: JobSpec) -> &mut Self {
        self.tell(Event::JobSet { name: JobName::from(name), spec: spec.into() })
    }

    /// Decides, and all that is ordered happens at once.
    pub fn settle(&mut self) -> &mut Self {
        while !self.engine.decide(self.now).actions.is_empty() {
            for action in self.engine.outstanding().cloned().collect::<Vec<Action>>() {
                match action.kind {
                    ActionKind::StopJob { job, attempt, .. } => {
                        self.tell(Event::JobExited { name: job, attempt, exit: JobExit::Stopped });
                    }
                    ActionKind::StartJob { job, attempt, .. } => {
                        self.tell(Event::Outcome { id: action.id, outcome: Outcome::Done });
                        self.tell(Event::JobStarted { name: job, attempt });
                    }
                    ActionKind::StopReplica { .. } | ActionKind::StartReplica { .. } => unreachable!("no models here"),
                }
            }
        }
        self
    }

    pub fn later(&mut self, ms: u64) -> &mut Self {
        self.now = self.now.plus(ms);
        self
    }
}

pub fn workers(queue: &str, min: u32, gpus: u32) -> JobSpec {
    JobSpec { expected_ms: Some(2 * HOUR), ..JobSpec::workers(queue, min, min, Ask::whole(gpus)) }
}
