//! What the engine promises, on random event sequences carried out late and in any order.
//! `PROPTEST_CASES` sets how many.

#[path = "properties/world.rs"]
mod world;

use proptest::prelude::*;
use tidegate_core::plan::ActionKind;
use world::{Op, World, is_running, op, rebuilt};

fn cases() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(512);
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    /// Checked after every step, in `World::check` and `World::decide`: the snapshot restores, a decision over everything is
    /// the same, no device is over-committed, gangs are whole, every action has a reason, and a second decision adds nothing.
    #[test]
    fn every_invariant_holds_after_every_step(devices in 1_u32..6, serving in 0_u32..6, ops in prop::collection::vec(op(), 1..60)) {
        let serving = serving.min(devices);
        let mut world = World::new(devices, serving, devices - serving);
        world.decide();
        for op in &ops {
            world.step(op);
        }
    }

    /// Design section 8, property 3.
    #[test]
    fn an_engine_rebuilt_from_observation_and_ledger_disturbs_no_running_job(devices in 1_u32..6, ops in prop::collection::vec(op(), 1..40)) {
        let mut world = World::new(devices, devices, 0);
        world.decide();
        for op in &ops {
            world.step(op);
        }
        let mut engine = rebuilt(&world);
        let plan = engine.decide(world.now);
        for action in &plan.actions {
            if let ActionKind::StopJob { job, .. } = &action.kind {
                prop_assert!(!is_running(world.engine.state(), job), "the rebuilt engine stops {job}: {action:?}");
            }
            let stops_replica = matches!(&action.kind, ActionKind::StopReplica { .. });
            prop_assert!(!stops_replica, "the rebuilt engine stops a replica: {action:?}");
        }
    }

    /// With the outside frozen the engine comes to rest, and what it stops on the way is bounded by what changed before.
    #[test]
    fn a_closed_system_comes_to_rest_without_flapping(devices in 1_u32..6, serving in 0_u32..6, ops in prop::collection::vec(op(), 1..40)) {
        let serving = serving.min(devices);
        let mut world = World::new(devices, serving, devices - serving);
        world.decide();
        for op in &ops {
            world.step(op);
        }
        let changes = ops.iter().filter(|op| !matches!(op, Op::Advance(_) | Op::CarryOut(_) | Op::Progress(_))).count() as u64;
        let stops = world.settle();
        prop_assert!(stops <= (changes + 3) * (u64::from(devices) + 3), "{stops} stops after {changes} changes");
        // Twice at rest is the same rest.
        let more = world.settle();
        prop_assert_eq!(more, 0);
    }
}
