//! What the engine promises, on random systems and event sequences carried out late, in any order and across crashes.
//! `PROPTEST_CASES` sets how many systems there are in all (1,000), `PROPTEST_SEED` from where they come: another seed, other
//! systems. A failure is shrunk and printed with its seed.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "properties/checks.rs"]
mod checks;
#[path = "properties/closed.rs"]
mod closed;
#[path = "properties/empty.rs"]
mod empty;
#[path = "properties/genes.rs"]
mod genes;
#[path = "properties/objects.rs"]
mod objects;
#[path = "properties/plans.rs"]
mod plans;
#[path = "properties/real.rs"]
mod real;
#[path = "properties/rebuilt.rs"]
mod rebuilt;
#[path = "properties/setup.rs"]
mod setup;
#[path = "properties/steps.rs"]
mod steps;
#[path = "properties/world.rs"]
mod world;

use genes::{Op, op, sharing_op, sharing_system, system};
use proptest::prelude::*;
use rebuilt::{is_running, rebuilt, undisturbed};
use tidegate_core::plan::{ActionKind, Reason};
use world::World;

/// `share` percent of all systems; `stream` tells the tests' systems apart.
fn cases(share: u32, stream: u64) -> ProptestConfig {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u32>().ok());
    let seed = number("PROPTEST_SEED").unwrap_or(20_261_124);
    // Shown when the test fails.
    eprintln!("PROPTEST_SEED={seed}");
    ProptestConfig {
        cases: (number("PROPTEST_CASES").unwrap_or(1_000) / 100 * share).max(1),
        rng_seed: proptest::test_runner::RngSeed::Fixed(u64::from(seed) << 8 | stream),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(45, 0))]

    /// Checked after every step, in `World::check` and `World::decide`.
    #[test]
    fn every_invariant_holds_after_every_step(system in system(), ops in prop::collection::vec(op(), 1..60)) {
        let mut world = World::new(&system);
        for op in &ops {
            world.step(op);
        }
    }
}

proptest! {
    #![proptest_config(cases(15, 1))]

    /// Design section 8, property 3.
    #[test]
    fn an_engine_rebuilt_from_observation_and_ledger_disturbs_no_running_job(system in system(), ops in prop::collection::vec(op(), 1..40)) {
        let mut world = World::new(&system);
        for op in &ops {
            world.step(op);
        }
        let plan = rebuilt(&world).decide(world.now);
        // A start of which nobody had heard may be followed by what was due all along: the job grows, say.
        let due = undisturbed(&world).decide(world.now);
        for action in &plan.actions {
            if let ActionKind::StopJob { job, .. } = &action.kind {
                let is_due = due.actions.iter().any(|other| (&other.kind, &other.reason) == (&action.kind, &action.reason));
                prop_assert!(is_due || !is_running(world.state(), job), "the rebuilt engine stops {job}: {action:?}");
            }
            // Whom a newer version, or one of another size, was about to replace when the engine went down may be replaced now.
            let stops_replica = matches!(&action.kind, ActionKind::StopReplica { .. });
            let stops_replica = stops_replica && !matches!(action.reason, Reason::Replaced { .. } | Reason::Reshaped { .. });
            prop_assert!(!stops_replica, "the rebuilt engine stops a replica: {action:?}");
        }
    }
}

proptest! {
    #![proptest_config(cases(5, 6))]

    /// The same from objects alone: nothing is given twice, and what runs is counted as it was.
    #[test]
    fn an_engine_told_of_what_runs_counts_it_once(system in system(), ops in prop::collection::vec(op(), 1..40)) {
        let mut world = World::new(&system);
        for op in &ops {
            world.step(op);
        }
        let held = objects::held_really(&world);
        for named in [true, false] {
            let mut engine = objects::from_objects(&world, named);
            checks::engine(&engine);
            let found = objects::held(engine.state());
            if named {
                prop_assert_eq!(&found, &held);
            }
            objects::check(engine.state());
            engine.decide(world.now);
            checks::engine(&engine);
            objects::check(engine.state());
        }
    }

    /// With the past of the engine before it, it knows what that had learned, and counts nothing else as held.
    #[test]
    fn an_engine_that_remembers_knows_the_past_and_holds_what_runs(system in system(), ops in prop::collection::vec(op(), 1..40)) {
        let mut world = World::new(&system);
        for op in &ops {
            world.step(op);
        }
        let mut engine = objects::remembering(&world);
        checks::engine(&engine);
        prop_assert_eq!(objects::held(engine.state()), objects::held_really(&world));
        let (was, is) = (world.state(), engine.state());
        prop_assert_eq!((&is.history, is.stop_ms), (&was.history, was.stop_ms));
        if was.now == world.now {
            prop_assert_eq!(&is.usage.decayed_ms, &was.usage.decayed_ms);
        }
        for (name, job) in is.jobs.iter() {
            let before = was.jobs.get(name).unwrap();
            prop_assert_eq!(job.served_ms, before.served_ms, "{}", name);
            prop_assert_eq!(&job.progress, &before.progress, "{}", name);
        }
        engine.decide(world.now);
        checks::engine(&engine);
        objects::check(engine.state());
    }
}

proptest! {
    #![proptest_config(cases(15, 2))]

    /// With the outside frozen the engine comes to rest, and what it stops on the way is bounded by what changed before.
    #[test]
    fn a_closed_system_comes_to_rest_without_flapping(system in system(), ops in prop::collection::vec(op(), 1..40)) {
        let mut world = World::new(&system);
        for op in &ops {
            world.step(op);
        }
        let changes = ops.iter().filter(|op| !matches!(op, Op::Advance(_) | Op::CarryOut(_) | Op::Progress(_))).count() as u64;
        let devices: u64 = system.nodes.iter().map(|node| u64::from(node.devices)).sum();
        let stops = world.settle();
        prop_assert!(stops <= (changes + 3) * (devices + 3), "{stops} stops after {changes} changes");
        // Twice at rest is the same rest.
        let more = world.settle();
        prop_assert_eq!(more, 0);
    }
}

proptest! {
    #![proptest_config(cases(15, 3))]

    /// At one moment nobody is stopped twice, so no set of jobs takes from each other in a circle, and a bounded number of
    /// decisions is enough.
    #[test]
    fn a_frozen_system_reaches_a_fixed_point_and_stops_nobody_twice(system in system(), ops in prop::collection::vec(op(), 1..40)) {
        let mut world = World::new(&system);
        for op in &ops {
            world.step(op);
        }
        world.freeze();
    }
}

proptest! {
    #![proptest_config(cases(10, 5))]

    /// Who is called impossible does not start on the same nodes when all of them are empty, and a job of one group that is not
    /// does.
    #[test]
    fn a_job_is_impossible_when_the_empty_cluster_refuses_it(system in system(), ops in prop::collection::vec(op(), 1..40)) {
        let mut world = World::new(&system);
        for op in &ops {
            world.step(op);
            empty::check(&world);
        }
    }
}

proptest! {
    #![proptest_config(cases(10, 4))]

    /// The same where most jobs get their sizes by shares: all invariants, a fixed point, and rest.
    #[test]
    fn jobs_that_share_keep_every_promise(system in sharing_system(), ops in prop::collection::vec(sharing_op(), 1..60)) {
        let mut world = World::new(&system);
        for op in &ops {
            world.step(op);
        }
        world.freeze();
        world.settle();
        prop_assert_eq!(world.settle(), 0);
    }
}
