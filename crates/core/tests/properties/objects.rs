//! The engine that a world builds from objects alone, without a snapshot: what a cluster does after a restart.

use std::collections::BTreeMap;

use tidegate_core::claims;
use tidegate_core::engine::Past;
use tidegate_core::event::{Observed, ObservedReplica, ObservedRun};
use tidegate_core::holdings::{Holder, Holdings};
use tidegate_core::names::{DeviceId, JobName, ReplicaId};
use tidegate_core::node::Health;
use tidegate_core::plan::Placed;
use tidegate_core::state::{Replica, ReplicaPhase, Run, Seat, State};
use tidegate_core::{Engine, Event};

use super::world::World;

/// An engine that was told what is there and what runs; with `named`, also on which devices.
pub fn from_objects(world: &World, named: bool) -> Engine {
    let mut engine = Engine::default();
    tell_objects(&mut engine, world, named);
    engine
}

/// The same of one that goes on with what the world's engine had learned.
pub fn remembering(world: &World) -> Engine {
    let past = Past::from_json(&world.engine.past().to_json().unwrap()).unwrap();
    let mut engine = Engine::default();
    engine.remember(world.now, past);
    let state = engine.state();
    assert!(state.nodes.is_empty() && state.jobs.is_empty() && state.models.is_empty() && state.replicas.is_empty());
    assert!(state.queues.is_empty() && state.actions.is_empty() && state.reservations.is_empty());
    tell_objects(&mut engine, world, true);
    engine
}

fn tell_objects(engine: &mut Engine, world: &World, named: bool) {
    let state = world.state();
    let mut tell = |event| engine.apply(world.now, event);
    tell(Event::PolicySet(state.policy.clone()));
    for (name, node) in state.nodes.iter() {
        tell(Event::NodeSet { name: name.clone(), spec: node.spec.clone() });
        for device in &node.devices {
            tell(Event::DeviceSeen(device.clone()));
            match device.health {
                Health::Ok => {}
                Health::Draining => tell(Event::DeviceDrained { id: device.id.clone(), drained: true }),
                Health::Lost => tell(Event::DeviceLost(device.id.clone())),
            }
        }
        if node.gone {
            tell(Event::NodeLost(name.clone()));
        }
    }
    for (name, queue) in &state.queues {
        tell(Event::QueueSet { name: name.clone(), queue: queue.clone() });
    }
    for (name, labels) in &state.namespaces {
        tell(Event::NamespaceSeen { name: name.clone(), labels: labels.clone() });
    }
    for (name, run) in running(world) {
        let Some(job) = state.jobs.get(&name) else { continue };
        tell(Event::JobSet { name: name.clone(), spec: job.spec.clone() });
        let workers = run.seats.iter().map(|seat| placed(state, seat, named));
        let run = ObservedRun { since: run.since, workers: workers.collect(), started: true };
        let observed = Observed { submitted: job.submitted, attempts: job.attempts, failures: job.failures, run: Some(run) };
        tell(Event::JobObserved { name, observed });
    }
    for (name, model) in &state.models {
        tell(Event::ModelSet { name: name.clone(), spec: model.spec.clone() });
    }
    for (id, replica) in serving(world) {
        let observed = ObservedReplica {
            model: replica.model.clone(),
            ask: replica.ask.clone(),
            place: placed(state, &replica.seat, named),
            generation: replica.generation,
            since: replica.since,
            ready: replica.phase == ReplicaPhase::Ready,
        };
        tell(Event::ReplicaObserved { id, observed });
    }
}

fn placed(state: &State, seat: &Seat, named: bool) -> Placed {
    Placed {
        group: seat.group,
        node: state.nodes.name(seat.node).unwrap().clone(),
        devices: if named { state.devices_of(seat).map(|device| device.id.clone()).collect() } else { Vec::new() },
        slices: seat.slices,
    }
}

/// Replicas that really run and that the engine knows.
fn serving(world: &World) -> Vec<(ReplicaId, Replica)> {
    let known = |id: &ReplicaId| Some((id.clone(), world.state().replicas.get(id)?.clone()));
    world.real.replicas.keys().filter_map(known).collect()
}

/// Attempts that really run and that the engine knows.
fn running(world: &World) -> Vec<(JobName, Run)> {
    let run = |(name, attempt): (&JobName, &super::real::Attempt)| {
        let run = world.state().jobs.get(name)?.run().filter(|run| run.attempt == attempt.number)?;
        Some((name.clone(), run.clone()))
    };
    world.real.jobs.iter().filter_map(run).collect()
}

/// Who holds how much of a device, and which of its slices.
type Held = BTreeMap<DeviceId, Vec<(Holder, u64, u8)>>;

/// What the jobs and replicas that really run hold; what is kept for a job's next attempt is not.
pub fn held_really(world: &World) -> Held {
    let state = world.state();
    let mut held = Held::new();
    for (name, run) in running(world) {
        let Some(job) = state.jobs.get(&name) else { continue };
        for seat in &run.seats {
            let ask = &job.spec.groups[usize::from(seat.group)].ask;
            for device in state.devices_of(seat) {
                let claim = (Holder::Job(name.clone()), u64::from(ask.milli_on(device)), seat.slices);
                held.entry(device.id.clone()).or_default().push(claim);
            }
        }
    }
    for (id, replica) in serving(world) {
        for device in state.devices_of(&replica.seat) {
            let holder = Holder::Replica(replica.model.clone(), id.clone());
            let claim = (holder, u64::from(replica.ask.milli_on(device)), replica.seat.slices);
            held.entry(device.id.clone()).or_default().push(claim);
        }
    }
    for claims in held.values_mut() {
        claims.sort();
    }
    held
}

/// What an engine counts.
pub fn held(state: &State) -> Held {
    let of = |claims: Vec<tidegate_core::holdings::Claim>| {
        let mut held: Vec<_> = claims.into_iter().map(|claim| (claim.holder, claim.milli, claim.slices)).collect();
        held.sort();
        held
    };
    let held = Holdings::of(state).devices.into_iter().map(|(device, claims)| (device, of(claims)));
    held.filter(|(_, held)| !held.is_empty()).collect()
}

/// No device is given twice. Without names a whole device may be asked for that shares were counted on: then the worker has none.
pub fn check(state: &State) {
    let mut held: BTreeMap<DeviceId, u64> = BTreeMap::new();
    claims::each(state, |claim| {
        for device in state.devices_of(claim.seat).filter(|_| claim.releasing.is_none()) {
            *held.entry(device.id.clone()).or_default() += u64::from(claim.ask.milli_on(device));
        }
    });
    for (device, milli) in held {
        assert!(milli <= 1000, "{device} gives {milli} thousandths");
    }
}
