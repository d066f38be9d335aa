//! What must hold of a decision: where work starts, whose turn it is, and from whom may be taken.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::Engine;
use tidegate_core::claims::given_up;
use tidegate_core::engine::Block;
use tidegate_core::names::{Class, JobName, QueueName};
use tidegate_core::plan::{Action, ActionKind, Claimant, Placed, Plan, Reason};
use tidegate_core::quota::{NodeIx, Tree};
use tidegate_core::state::{Discipline, Group, HOUR_MS, Job, Phase, Seat, Spread, State};
use tidegate_core::time::At;

/// Checks a whole plan. `misplaced` are jobs that may go on where they would not be put today.
pub fn check(before: &Engine, after: &Engine, plan: &Plan, misplaced: &BTreeSet<JobName>) {
    for action in &plan.actions {
        assert!(!action.reason.to_string().is_empty());
        match &action.kind {
            ActionKind::StartJob { job, workers, .. } => {
                start(after, action, job, workers, misplaced.contains(job));
            }
            ActionKind::StopJob { job, .. } if is_for_others(&action.reason) => {
                victim(before.state(), after.state().now, action, job);
            }
            ActionKind::StartReplica { model, .. } => {
                let spec = &after.state().models[model].spec;
                assert_eq!(
                    after.refuses_namespace(&spec.queue, &spec.namespace),
                    None,
                    "a namespace that may submit: {action:?}"
                );
                within_quota(after, &spec.queue, action);
            }
            ActionKind::StopJob { .. } | ActionKind::StopReplica { .. } => {}
        }
    }
    nobody_unstoppable_loses(before.state(), after.state(), plan);
    strict_queues_keep_their_order(after, plan);
    guarantees_hold(before, after, plan);
}

/// Whether the engine stops it so that somebody else has room.
fn is_for_others(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::Reclaim { .. }
            | Reason::FairShare { .. }
            | Reason::Preempt { .. }
            | Reason::Yield { .. }
            | Reason::Overstayed { .. }
            | Reason::Moved { .. }
    ) || matches!(reason, Reason::Share { from, to } if to < from)
}

fn start(engine: &Engine, action: &Action, name: &JobName, workers: &[Placed], misplaced: bool) {
    let state = engine.state();
    let job = &state.jobs[name];
    for (number, group) in job.spec.groups.iter().enumerate() {
        let of: Vec<&Placed> = workers.iter().filter(|worker| usize::from(worker.group) == number).collect();
        let whole = (group.min as usize..=group.max as usize).contains(&of.len());
        assert!(whole, "a gang is never partial: {action:?} of {group:?}");
        if !misplaced {
            group_suits(state, group, &of, action);
            let spread = group.spread.as_ref().or(job.spec.spread.as_ref().filter(|_| job.spec.groups.len() == 1));
            together(state, spread, &of, action);
        }
    }
    if !misplaced && job.spec.groups.len() > 1 {
        together(state, job.spec.spread.as_ref(), &workers.iter().collect::<Vec<_>>(), action);
    }
    if !matches!(action.reason, Reason::Resume { .. }) {
        let refused = engine.refuses_namespace(&job.spec.queue, &job.spec.namespace);
        assert_eq!(refused, None, "of a namespace that may submit: {action:?}");
        within_quota(engine, &job.spec.queue, action);
        if !job.spec.preemptible {
            within_own(engine, job, action);
        }
    }
}

fn group_suits(state: &State, group: &Group, workers: &[&Placed], action: &Action) {
    let mut classes: BTreeSet<&Class> = BTreeSet::new();
    for worker in workers {
        let node = &state.nodes[&worker.node];
        assert!(group.ask.suits_node(&node.spec), "on a node that suits: {action:?} {:?} {:?}", group.ask, node.spec);
        for id in &worker.devices {
            let device = state.device(id).unwrap();
            assert!(group.ask.suits(device), "on a device that suits: {action:?} {device:?}");
            classes.insert(&device.class);
        }
    }
    assert!(workers.len() < 2 || classes.len() < 2, "a group runs on one class: {action:?}");
}

/// A required spread is kept.
fn together(state: &State, spread: Option<&Spread>, workers: &[&Placed], action: &Action) {
    let Some(spread) = spread.filter(|spread| spread.required) else { return };
    let levels = &state.policy.levels;
    match spread.level.as_str() {
        "island" => {
            for worker in workers {
                let islands: BTreeSet<u8> = worker.devices.iter().map(|id| state.device(id).unwrap().island).collect();
                assert!(islands.len() < 2, "on one island: {action:?}");
            }
        }
        "node" => {
            let nodes: BTreeSet<_> = workers.iter().map(|worker| &worker.node).collect();
            assert!(nodes.len() < 2, "on one node: {action:?}");
        }
        key => {
            let depth = levels.iter().position(|level| level == key);
            let Some(depth) = depth else { panic!("a level that is required exists: {action:?} {spread:?}") };
            let place = |worker: &&Placed| -> Vec<Option<String>> {
                let labels = &state.nodes[&worker.node].spec.labels;
                levels.iter().take(depth + 1).map(|level| labels.get(level).cloned()).collect()
            };
            let places: BTreeSet<Vec<Option<String>>> = workers.iter().map(place).collect();
            assert!(places.len() < 2, "in one {key}: {action:?} {places:?}");
            let inside = places.iter().all(|place| place.last().is_some_and(Option::is_some));
            assert!(inside, "in a {key}: {action:?} {places:?}");
        }
    }
}

/// After a start nobody on its path is beyond quota and borrowing (a cut may have put others there).
fn within_quota(engine: &Engine, queue: &QueueName, action: &Action) {
    let tree = &engine.books().tree;
    let node = tree.node(queue).unwrap();
    for resource in used(engine, action) {
        for level in tree.levels(node, resource) {
            assert!(level.available >= 0, "within quota: {action:?} but {level:?} of {resource} at {queue}");
        }
    }
}

/// Resources that the started work uses.
fn used(engine: &Engine, action: &Action) -> Vec<u16> {
    let state = engine.state();
    let (asks, places): (Vec<_>, Vec<&Placed>) = match &action.kind {
        ActionKind::StartJob { job, workers, .. } => {
            let groups = &state.jobs[job].spec.groups;
            (workers.iter().map(|worker| &groups[usize::from(worker.group)].ask).collect(), workers.iter().collect())
        }
        ActionKind::StartReplica { replica, place, .. } => (vec![&state.replicas[replica].ask], vec![place]),
        ActionKind::StopJob { .. } | ActionKind::StopReplica { .. } => (Vec::new(), Vec::new()),
    };
    let mut used = BTreeSet::new();
    for (ask, place) in asks.into_iter().zip(places) {
        let node = state.nodes.ix(&place.node).unwrap();
        let devices = &state.nodes.at(node).unwrap().devices;
        let mask =
            devices.iter().enumerate().filter(|(_, device)| place.devices.contains(&device.id)).map(|(at, _)| 1 << at).sum();
        used.extend(engine.books().amounts(ask, node, mask).as_slice().iter().map(|(resource, _)| *resource));
    }
    used.into_iter().collect()
}

/// All work of the queue that may not be stopped is within what is guaranteed to it, of what anybody has a quota of.
fn within_own(engine: &Engine, started: &Job, action: &Action) {
    let (state, books) = (engine.state(), engine.books());
    let node = books.tree.node(&started.spec.queue).unwrap();
    let mut sums: BTreeMap<u16, i64> = BTreeMap::new();
    for job in state.jobs.values().filter(|job| job.spec.queue == started.spec.queue && !job.spec.preemptible) {
        for seat in firm(job) {
            let ask = &job.spec.groups[usize::from(seat.group)].ask;
            for (resource, amount) in books.amounts(ask, seat.node, seat.mask).as_slice() {
                *sums.entry(*resource).or_default() += amount;
            }
        }
    }
    let given = |resource: u16| {
        let tree = &books.tree;
        tree.bottom_up().iter().any(|node| *node != tree.root() && tree.quota(*node, resource).nominal > 0)
    };
    for resource in used(engine, action).into_iter().filter(|resource| given(*resource)) {
        let (sum, own) = (sums.get(&resource).copied().unwrap_or(0), books.tree.guaranteed(node, resource));
        assert!(sum <= own, "what may not be stopped stays within its own: {action:?}: {sum} of {own} of {resource}");
    }
}

pub fn firm(job: &Job) -> &[Seat] {
    match &job.phase {
        Phase::Running(run) => run.kept(),
        Phase::Waiting { keep, .. } => keep,
        Phase::Finished(_) => &[],
    }
}

/// Who is stopped for others may be, and has run long enough, and was not stopped too often.
fn victim(before: &State, now: At, action: &Action, name: &JobName) {
    let job = &before.jobs[name];
    assert!(job.spec.preemptible, "may not be stopped: {action:?}");
    // Let in and displaced in one decision: it has not run.
    let Some(run) = job.run() else { return };
    let overstays = matches!(action.reason, Reason::Overstayed { .. });
    let recent = job.disruptions.iter().filter(|at| now.since(**at) < HOUR_MS).count();
    if !overstays {
        assert!(run.since.plus(job.spec.min_runtime_ms) <= now, "stopped before its least run time: {action:?}");
        assert!(recent < job.spec.max_disruptions_per_hour as usize, "stopped too often: {action:?} {:?}", job.disruptions);
    }
}

/// Work that may not be stopped keeps its seats, unless people, broken devices or a node that was given too much take them.
fn nobody_unstoppable_loses(before: &State, after: &State, plan: &Plan) {
    for (name, job) in before.jobs.iter().filter(|(_, job)| !job.spec.preemptible && !job.is_unwanted()) {
        let Some(now) = after.jobs.get(name) else { continue };
        let holds: &[Seat] = match &now.phase {
            Phase::Running(run) => run.kept(),
            Phase::Waiting { keep, .. } => keep,
            Phase::Finished(_) => &[],
        };
        let lost = given_up(firm(job), holds).count();
        let excused = plan.actions.iter().any(|action| {
            matches!(&action.kind, ActionKind::StopJob { job, .. } if job == name) && !is_for_others(&action.reason)
        });
        // Of a stop that was ordered before for something else, what is kept changes without a word.
        let told = before.overcommitted.values().any(|over| over.jobs.contains(name));
        let waited = matches!(job.phase, Phase::Waiting { .. });
        let ending = job.run().is_some_and(|run| run.stop.is_some());
        let broken = firm(job).iter().any(|seat| {
            let node = before.nodes.at(seat.node).unwrap();
            node.gone || before.devices_of(seat).any(|device| device.health != tidegate_core::node::Health::Ok)
        });
        // Of some group, whatever it has of the others.
        let larger = job.spec.within_limits(firm(job)).len() < firm(job).len();
        assert!(
            lost == 0 || excused || told || waited || (ending && (broken || larger)),
            "{name} may not be stopped and lost {lost} seats: {:?}",
            plan.actions
        );
    }
}

/// Nobody of a strict queue starts while an older or higher one of it waits, unless that waits for people.
fn strict_queues_keep_their_order(engine: &Engine, plan: &Plan) {
    let after = engine.state();
    for action in &plan.actions {
        let ActionKind::StartJob { job: name, .. } = &action.kind else { continue };
        let job = &after.jobs[name];
        let strict = after.queues.get(&job.spec.queue).is_some_and(|queue| queue.discipline == Discipline::StrictFifo);
        if !strict || matches!(action.reason, Reason::Resume { .. }) {
            continue;
        }
        for (other, waiting) in after.jobs.iter().filter(|(_, other)| other.spec.queue == job.spec.queue) {
            let Phase::Waiting { not_before, keep, .. } = &waiting.phase else { continue };
            let barred = engine.blocked(other).is_some_and(Block::is_barred);
            let ready = !barred && keep.is_empty() && !waiting.is_unwanted() && not_before.is_none_or(|at| at <= after.now);
            let first = (-waiting.spec.priority, waiting.submitted) < (-job.spec.priority, job.submitted);
            assert!(!ready || !first, "{other} was first in its strict queue: {action:?}");
        }
    }
}

/// Whose work was taken by reclaim still has what is guaranteed to its side of the tree.
fn guarantees_hold(before: &Engine, after: &Engine, plan: &Plan) {
    let (was, is) = (before.state(), after.state());
    let tree = &after.books().tree;
    for action in &plan.actions {
        let (Reason::Reclaim { by, .. } | Reason::FairShare { by, .. }) = &action.reason else { continue };
        let claimant = match by {
            Claimant::Job(name) => is.jobs.get(name).map(|job| &job.spec.queue),
            Claimant::Model(name) => is.models.get(name).map(|model| &model.spec.queue),
        };
        let (victim, resources) = match &action.kind {
            ActionKind::StopJob { job, .. } => (&was.jobs[job].spec.queue, given_by_job(before, after, job)),
            ActionKind::StopReplica { model, replica } => {
                let replica = &was.replicas.get(replica);
                let Some(replica) = replica else { continue };
                (&was.models[model].spec.queue, resources(before, &replica.ask, &replica.seat))
            }
            ActionKind::StartJob { .. } | ActionKind::StartReplica { .. } => continue,
        };
        let nodes = claimant.and_then(|claimant| tree.node(claimant)).zip(tree.node(victim));
        let Some(side) = nodes.and_then(|(claimant, victim)| side(tree, claimant, victim)) else { continue };
        if loses_otherwise(was, is, plan, tree, side) {
            continue;
        }
        for resource in resources {
            let shared = tree
                .parent(side)
                .is_some_and(|parent| tree.children(parent).iter().any(|sibling| tree.guaranteed(*sibling, resource) > 0));
            let (usage, own) = (tree.usage(side, resource), tree.guaranteed(side, resource));
            assert!(!shared || usage >= own, "reclaim takes only what is not theirs: {action:?}: {usage} of {own} of {resource}");
        }
    }
}

fn resources(engine: &Engine, ask: &tidegate_core::state::Ask, seat: &Seat) -> BTreeSet<u16> {
    engine.books().amounts(ask, seat.node, seat.mask).as_slice().iter().map(|(resource, _)| *resource).collect()
}

fn given_by_job(before: &Engine, after: &Engine, name: &JobName) -> BTreeSet<u16> {
    let job = &before.state().jobs[name];
    let kept = after.state().jobs.get(name).map_or(&[][..], firm);
    let lost = given_up(firm(job), kept);
    lost.flat_map(|seat| resources(before, &job.spec.groups[usize::from(seat.group)].ask, seat)).collect()
}

/// The victim's side: its ancestor, or itself, right below the lowest common one.
fn side(tree: &Tree, claimant: NodeIx, victim: NodeIx) -> Option<NodeIx> {
    let above: Vec<NodeIx> = tree.path(claimant).collect();
    tree.path(victim).take_while(|node| !above.contains(node)).last()
}

fn is_across(reason: &Reason) -> bool {
    matches!(reason, Reason::Reclaim { .. } | Reason::FairShare { .. })
}

/// Whether anything of that side of the tree loses seats in the plan, or may, for another reason than reclaim.
fn loses_otherwise(was: &State, is: &State, plan: &Plan, tree: &Tree, side: NodeIx) -> bool {
    let inside = |queue: &QueueName| tree.node(queue).is_some_and(|node| tree.path(node).any(|above| above == side));
    let reason = |name: &JobName| {
        plan.actions.iter().find(|action| matches!(&action.kind, ActionKind::StopJob { job, .. } if job == name))
    };
    let jobs = was.jobs.iter().filter(|(_, job)| inside(&job.spec.queue)).any(|(name, job)| {
        let kept = is.jobs.get(name).map_or(&[][..], firm);
        let lost = given_up(firm(job), kept).next().is_some();
        lost && reason(name).is_none_or(|action| !is_across(&action.reason))
    });
    // Those that began in this very plan, too. Who starts there may have it from its own side, of what was ending already.
    let others = plan.actions.iter().any(|action| {
        let (queue, starts) = match &action.kind {
            ActionKind::StopReplica { model, .. } => (was.models.get(model).map(|model| &model.spec.queue), false),
            ActionKind::StartReplica { model, .. } => (is.models.get(model).map(|model| &model.spec.queue), true),
            ActionKind::StopJob { job, .. } => (is.jobs.get(job).map(|job| &job.spec.queue), false),
            ActionKind::StartJob { job, .. } => (is.jobs.get(job).map(|job| &job.spec.queue), true),
        };
        queue.is_some_and(inside) && (starts || !is_across(&action.reason))
    });
    jobs || others
}
