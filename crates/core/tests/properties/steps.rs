//! What may happen in the world, one step at a time.

use tidegate_core::demand::{Demand, ServiceTime};
use tidegate_core::event::{Event, JobExit, Outcome};
use tidegate_core::names::{DeviceId, JobName, NodeName, ReplicaId};
use tidegate_core::plan::{Action, ActionKind};
use tidegate_core::state::{Overcommit, Scarce};

use super::checks::promised;
use super::genes::{JobGene, NodeGene, Op};
use super::real::{Attempt, Real, by_node};
use super::setup;
use super::world::{World, pick};

impl World {
    /// One thing happens, and the engine is asked.
    pub fn step(&mut self, op: &Op) {
        match op {
            Op::Advance(ms) => self.now = self.now.plus(*ms),
            Op::Demand { model, rate, held, burst_milli, late_ppm } if *model < self.models => {
                let service = Some(ServiceTime { base_us: 20_000, per_row_us: 5_000 });
                let demand = Demand {
                    milli_rows_per_s: rate * 1_000,
                    queued: *held,
                    held: *held,
                    service,
                    burst_milli: *burst_milli,
                    late_ppm: *late_ppm,
                    ..Demand::default()
                };
                self.tell(Event::Demand { model: setup::model_name(*model), demand });
            }
            Op::PauseModel { model, paused } if *model < self.models => {
                self.tell(Event::ModelPaused { name: setup::model_name(*model), paused: *paused });
            }
            Op::Upgrade(model) if *model < self.models => {
                let name = setup::model_name(*model);
                let generation = self.state().models[&name].spec.generation + 1;
                self.tell(Event::ModelSet { name, spec: setup::model(*model, generation, self.queues) });
            }
            Op::Demand { .. } | Op::PauseModel { .. } | Op::Upgrade(_) => {}
            Op::SetQueue { queue, gene } => {
                let index = queue % self.queues;
                self.tell(Event::QueueSet { name: setup::queue_name(index), queue: setup::queue(index, gene) });
            }
            Op::SetNamespace { namespace, labels } => self.tell(setup::namespace(*namespace, *labels)),
            Op::RemoveQueue(queue) => self.tell(Event::QueueRemoved(setup::queue_name(queue % self.queues))),
            Op::SetPolicy(gene) => {
                self.everybody_is_misplaced();
                self.tell(Event::PolicySet(setup::policy(gene)));
            }
            Op::CarryOut(index) => drop(self.carry_out(*index)),
            Op::CarryOutAll => {
                for _ in 0..self.ready().len() {
                    self.carry_out(0);
                }
            }
            Op::FailStart(index) => self.fail_start(*index),
            Op::Crash { silent } => self.crash(*silent),
            other => self.step_jobs(other),
        }
        self.decide();
    }

    fn step_jobs(&mut self, op: &Op) {
        match op {
            Op::Submit(gene) => self.submit(gene),
            Op::Respecify { job, gene } => {
                let queues = self.queues;
                self.respecify(*job, |_| setup::job(gene, queues));
            }
            Op::Resize { job, min, extra } => self.respecify(*job, |spec| {
                let mut spec = spec.clone();
                spec.groups.iter_mut().for_each(|group| (group.min, group.max) = (*min, min + extra));
                spec
            }),
            Op::Progress(index) => {
                if let Some((name, run)) = self.running(*index) {
                    let step = self.now.0 / 1_000;
                    self.tell(Event::JobProgress { name, attempt: run.number, step, checkpoint: Some(step), done_ppm: None });
                }
            }
            Op::ProgressAll => {
                for (name, run) in self.real.jobs.clone() {
                    let step = self.now.0 / 1_000;
                    self.tell(Event::JobProgress { name, attempt: run.number, step, checkpoint: Some(step), done_ppm: None });
                }
            }
            Op::Exit { job, succeeded } => {
                if let Some((name, run)) = self.running(*job) {
                    let exit = if *succeeded { JobExit::Succeeded } else { JobExit::Failed };
                    self.exit(&name, run.number, exit);
                }
            }
            Op::Refuse(index) => {
                if let Some((name, run)) = self.running(*index) {
                    self.exit(&name, run.number, JobExit::Refused);
                }
            }
            Op::Overcommit(index) => {
                let place = self.running(*index).and_then(|(name, run)| Some((name, run.workers.first()?.node.clone())));
                if let Some((job, name)) = place {
                    let over = Overcommit { scarce: Scarce::Cpu, jobs: vec![job], replicas: Vec::new() };
                    self.tell(Event::NodeOvercommitted { name, over });
                }
            }
            Op::Pause { job, paused } => self.wish(*job, |name| Event::JobPaused { name, paused: *paused }),
            Op::Cancel(job) => self.wish(*job, Event::JobCancelled),
            Op::Remove(job) => self.wish(*job, Event::JobRemoved),
            other => self.step_machines(other),
        }
    }

    fn step_machines(&mut self, op: &Op) {
        let ids: Vec<DeviceId> = self.state().devices().map(|device| device.id.clone()).collect();
        let nodes: Vec<NodeName> = self.state().nodes.keys().cloned().collect();
        match op {
            Op::Drain { device, drained } => {
                if let Some(id) = pick(&ids, *device) {
                    self.tell(Event::DeviceDrained { id, drained: *drained });
                }
            }
            Op::Lose(device) => {
                if let Some(id) = pick(&ids, *device) {
                    let device = self.state().device(&id).unwrap().clone();
                    self.tell(Event::DeviceLost(id));
                    self.decide();
                    self.tell(Event::DeviceSeen(device));
                }
            }
            Op::LoseNode { node, dies } => {
                let name = pick(&nodes, *node).unwrap();
                self.tell(Event::NodeLost(name.clone()));
                self.decide();
                if *dies {
                    self.node_dies(&name);
                }
            }
            Op::SetNode { node, gene } => self.set_node(&pick(&nodes, *node).unwrap(), gene),
            Op::ReplicaDies(index) => {
                let ids: Vec<ReplicaId> = self.real.replicas.keys().cloned().collect();
                if let Some(id) = pick(&ids, *index) {
                    self.real.replicas.remove(&id);
                    self.tell(Event::ReplicaExited { id, failed: true });
                }
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn submit(&mut self, gene: &JobGene) {
        self.jobs_made += 1;
        let spec = setup::job(gene, self.queues);
        self.tell(Event::JobSet { name: JobName::from(format!("j{}", self.jobs_made)), spec: spec.into() });
    }

    fn respecify(&mut self, index: usize, change: impl Fn(&tidegate_core::state::JobSpec) -> tidegate_core::state::JobSpec) {
        let names: Vec<JobName> = self.state().jobs.keys().cloned().collect();
        if let Some(name) = pick(&names, index) {
            let spec = change(&self.state().jobs[&name].spec);
            self.misplaced.insert(name.clone());
            self.tell(Event::JobSet { name, spec: spec.into() });
        }
    }

    fn running(&self, index: usize) -> Option<(JobName, Attempt)> {
        let all: Vec<(JobName, Attempt)> = self.real.jobs.iter().map(|(name, run)| (name.clone(), run.clone())).collect();
        pick(&all, index)
    }

    fn wish(&mut self, index: usize, event: impl Fn(JobName) -> Event) {
        let names: Vec<JobName> = self.state().jobs.keys().cloned().collect();
        if let Some(name) = pick(&names, index) {
            self.tell(event(name));
        }
    }

    fn fail_start(&mut self, index: usize) {
        let is_start = |action: &Action| matches!(action.kind, ActionKind::StartJob { .. } | ActionKind::StartReplica { .. });
        let starts: Vec<Action> = self.ready().into_iter().filter(is_start).collect();
        if let Some(action) = pick(&starts, index) {
            self.pending.retain(|other| other.id != action.id);
            // It may run already, if a former world died before it could say so.
            match &action.kind {
                ActionKind::StartJob { job, .. } => drop(self.real.jobs.remove(job)),
                ActionKind::StartReplica { replica, .. } => drop(self.real.replicas.remove(replica)),
                ActionKind::StopJob { .. } | ActionKind::StopReplica { .. } => {}
            }
            self.close(action.id, Outcome::Failed("no such program".to_owned()));
        }
    }

    fn node_dies(&mut self, node: &NodeName) {
        let dead = self.real.jobs.iter().filter(|(_, attempt)| Real::is_on(attempt, node));
        let dead: Vec<(JobName, u32)> = dead.map(|(name, attempt)| (name.clone(), attempt.number)).collect();
        for (name, attempt) in dead {
            self.exit(&name, attempt, JobExit::Failed);
        }
        let replicas: Vec<ReplicaId> =
            self.real.replicas.iter().filter(|(_, taken)| taken.node == *node).map(|(id, _)| id.clone()).collect();
        for id in replicas {
            self.real.replicas.remove(&id);
            self.tell(Event::ReplicaExited { id, failed: true });
        }
    }

    /// The node is described anew; what it gives already it may go on to give.
    fn set_node(&mut self, name: &NodeName, gene: &NodeGene) {
        let counted_on = by_node(&promised(self.state(), false)).get(name).copied().unwrap_or_default();
        self.real.forgive(name, counted_on);
        let firm = by_node(&promised(self.state(), true)).get(name).copied().unwrap_or_default();
        let known = self.excess.entry(name.clone()).or_default();
        *known = (known.0.max(firm.0), known.1.max(firm.1));
        self.everybody_is_misplaced();
        self.tell(Event::NodeSet { name: name.clone(), spec: setup::node_spec(gene).into() });
    }

    fn everybody_is_misplaced(&mut self) {
        let placed: Vec<JobName> = self.state().jobs.keys().cloned().collect();
        self.misplaced.extend(placed);
    }
}
