//! Life with, without and again with a world.

use std::sync::atomic::Ordering;

use super::support::{Front, Replica, World, double, eventually};

#[tokio::test]
async fn inference_goes_on_without_the_world_and_its_successor_is_found() {
    let (old, new) = (Replica::open("old"), Replica::open("new"));
    let world = World::start(vec![double(vec![old.endpoint()])]);
    let front = Front::start(&world, &[]).await;
    world.configure(vec![double(vec![old.endpoint()])]);
    world.demand("double", |_| true).await;
    world.kill();
    eventually(|| async { front.metrics().await.contains("tidegate_router_control_connected 0") }).await;
    assert_eq!(front.infer(1.0).await.header("x-tidegate-replica"), Some("old"));

    // Another world on the same address counts its versions anew.
    let successor = World::start_at(world.address, 1, vec![double(vec![new.endpoint()])]);
    eventually(|| async { front.infer(1.0).await.header("x-tidegate-replica") == Some("new") }).await;
    assert_eq!(successor.sessions.load(Ordering::SeqCst), 1);
    assert!(front.metrics().await.contains("tidegate_router_control_connected 1"));
}

#[tokio::test]
async fn a_model_that_is_removed_refuses_those_who_wait() {
    let replica = Replica::gated("r1");
    let world = World::start(vec![double(vec![replica.endpoint()])]);
    let front = Front::start(&world, &[]).await;
    let mut asked = tokio::task::JoinSet::new();
    for value in [1.0, 2.0] {
        asked.spawn(front.infer(value));
    }
    world.demand("double", |d| d.queued == 1 && d.in_flight == 1).await;
    world.configure(vec![]);
    eventually(|| async { front.get("/v2/models/double").await.0 == 404 }).await;
    replica.permits.add_permits(2);
    let mut statuses: Vec<u16> = asked.join_all().await.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
}

#[tokio::test]
async fn a_malformed_model_does_not_stop_the_others() {
    let replica = Replica::open("r1");
    let mut malformed = double(vec![]);
    malformed.name = "malformed".to_owned();
    malformed.inputs[0].datatype = "FP7".to_owned();
    let world = World::start(vec![malformed, double(vec![replica.endpoint()])]);
    let front = Front::start(&world, &[]).await;
    assert_eq!(front.infer(1.0).await.status, 200);
    assert_eq!(front.get("/v2/models/malformed").await.0, 404);
}
