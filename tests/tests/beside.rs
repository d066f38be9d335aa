//! Beside kube-scheduler: the scenario `beside`, in short. `cargo xtask scenario beside` plays it for ten minutes.
//!
//! One after the other: what is measured is seconds, and two API servers with two schedulers each are too much for two cores.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use tidegate_tests::beside::figures::Figures;
use tidegate_tests::beside::{Settings, run};
use tokio::sync::Mutex;

static ALONE: Mutex<()> = Mutex::const_new(());

fn short() -> Settings {
    Settings { nodes: 12, lasts: Duration::from_secs(40), blind: 2, ..Settings::default() }
}

/// Played again where the machine itself stood still meanwhile.
async fn play(settings: &Settings) -> Figures {
    let _alone = ALONE.lock().await;
    let figures = run(settings).await.unwrap();
    if figures.void && !figures.broken().is_empty() { run(settings).await.unwrap() } else { figures }
}

#[tokio::test]
async fn what_two_schedulers_bind_at_one_moment_is_repaired_within_five_seconds() {
    let figures = play(&short()).await;
    assert_eq!(figures.broken(), Vec::<String>::new(), "{figures:?}");
    assert!(figures.cpu_overcommits > 0 && figures.repairs > 0, "{figures:?}");
}

#[tokio::test]
async fn gpus_that_both_place_are_not_booked_twice_for_longer() {
    let figures = play(&Settings { rival_gpus: true, ..short() }).await;
    assert_eq!(figures.broken(), Vec::<String>::new(), "{figures:?}");
}
