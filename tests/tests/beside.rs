//! Beside kube-scheduler: the scenario `beside`, in short. `cargo xtask scenario beside` plays it for ten minutes.

use std::time::Duration;

use tidegate_tests::beside::{Settings, run};

fn short() -> Settings {
    Settings { nodes: 12, lasts: Duration::from_secs(40), blind: 2, ..Settings::default() }
}

#[tokio::test]
async fn what_two_schedulers_bind_at_one_moment_is_repaired_within_five_seconds() {
    let figures = run(&short()).await.unwrap();
    assert_eq!(figures.broken(), Vec::<String>::new(), "{figures:?}");
    assert!(figures.cpu_overcommits > 0 && figures.repairs > 0, "{figures:?}");
}

#[tokio::test]
async fn gpus_that_both_place_are_not_booked_twice_for_longer() {
    let figures = run(&Settings { rival_gpus: true, ..short() }).await.unwrap();
    assert_eq!(figures.broken(), Vec::<String>::new(), "{figures:?}");
}
