//! Jobs that are said to be impossible, tried on the same cluster without anybody else.

use tidegate_core::engine::Block;
use tidegate_core::event::Event;
use tidegate_core::names::JobName;
use tidegate_core::plan::ActionKind;
use tidegate_core::state::{Amount, Discipline, Job, JobSpec, Phase, Queue};
use tidegate_core::{Engine, State};

use super::world::World;

/// Every waiting job that was refused: whether it would start alone on the empty cluster is as was said.
pub fn check(world: &World) {
    let state = world.state();
    // Who waits for its own moment was not looked at.
    let tried = |job: &Job| match &job.phase {
        Phase::Waiting { not_before, keep, .. } => {
            keep.is_empty() && !job.is_unwanted() && not_before.is_none_or(|at| at <= state.now)
        }
        Phase::Running(_) | Phase::Finished(_) => false,
    };
    for (name, job) in state.jobs.iter().filter(|(_, job)| tried(job)) {
        let block = world.engine.blocked(name);
        let starts = starts_alone(state, name, job);
        match block {
            Some(Block::Impossible(why)) => {
                assert!(!starts, "{name} is said to be impossible ({why}) and starts: {:?}", job.spec);
            }
            // A share in MiB counts as less before its device is known: quota may never allow what it seems to.
            Some(Block::Capacity { .. } | Block::Spread { .. } | Block::Quota { .. }) if is_exact(&job.spec) => {
                assert!(starts, "{name} is said to wait ({block:?}) and does not start on an empty cluster: {:?}", job.spec);
            }
            _ => {}
        }
    }
}

fn is_exact(spec: &JobSpec) -> bool {
    spec.groups.len() == 1 && spec.groups.iter().all(|group| !matches!(group.ask.amount, Amount::MemoryMib(_)))
}

/// A new engine is told of the nodes, their devices back in use, the queues and this job alone.
fn starts_alone(state: &State, name: &JobName, job: &Job) -> bool {
    let mut engine = Engine::default();
    let now = state.now;
    engine.apply(now, Event::PolicySet(state.policy.clone()));
    for (node, known) in state.nodes.iter() {
        engine.apply(now, Event::NodeSet { name: node.clone(), spec: known.spec.clone() });
        for device in &known.devices {
            engine.apply(now, Event::DeviceSeen(device.clone()));
            engine.apply(now, Event::DeviceDrained { id: device.id.clone(), drained: false });
        }
        if known.gone {
            engine.apply(now, Event::NodeLost(node.clone()));
        }
    }
    for (queue, known) in &state.queues {
        let queue_of = Queue { discipline: Discipline::BestEffort, budget_ms: None, ..known.clone() };
        engine.apply(now, Event::QueueSet { name: queue.clone(), queue: queue_of });
    }
    for (namespace, labels) in &state.namespaces {
        engine.apply(now, Event::NamespaceSeen { name: namespace.clone(), labels: labels.clone() });
    }
    engine.apply(now, Event::JobSet { name: name.clone(), spec: job.spec.clone() });
    let plan = engine.decide(now);
    plan.actions.iter().any(|action| matches!(&action.kind, ActionKind::StartJob { job, .. } if job == name))
}
