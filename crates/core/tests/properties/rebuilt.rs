//! The engine that a world builds after a restart: the ledger's snapshot, and everything observed told again.

use tidegate_core::names::JobName;
use tidegate_core::state::Phase;
use tidegate_core::{Engine, Event, State};

use super::world::World;

pub fn rebuilt(world: &World) -> Engine {
    let mut engine = Engine::restore(&world.engine.snapshot().unwrap()).unwrap();
    let state: State = engine.state().clone();
    let now = world.now;
    for (name, node) in state.nodes.iter().filter(|(_, node)| !node.gone) {
        engine.apply(now, Event::NodeSet { name: name.clone(), spec: node.spec.clone() });
    }
    for device in state.devices() {
        engine.apply(now, Event::DeviceSeen(device.clone()));
    }
    for (name, queue) in &state.queues {
        engine.apply(now, Event::QueueSet { name: name.clone(), queue: queue.clone() });
    }
    for (name, job) in state.jobs.iter() {
        engine.apply(now, Event::JobSet { name: name.clone(), spec: job.spec.clone() });
    }
    for (name, model) in &state.models {
        if !model.removed {
            engine.apply(now, Event::ModelSet { name: name.clone(), spec: model.spec.clone() });
        }
    }
    observe(world, &mut engine);
    engine
}

/// The engine that never went down, when it has heard of all that runs.
pub fn undisturbed(world: &World) -> Engine {
    let mut engine = world.engine.clone();
    observe(world, &mut engine);
    engine
}

fn observe(world: &World, engine: &mut Engine) {
    let now = world.now;
    for (name, run) in &world.real.jobs {
        engine.apply(now, Event::JobStarted { name: name.clone(), attempt: run.number });
    }
    for id in world.real.replicas.keys() {
        engine.apply(now, Event::ReplicaReady { id: id.clone(), load_ms: 1_500 });
    }
}

pub fn is_running(state: &State, name: &JobName) -> bool {
    state.jobs.get(name).is_some_and(|job| matches!(job.phase, Phase::Running(_)))
}
