//! Batches, holds, refusals, retries.

use std::time::Duration;

use tidegate_api::control::{Endpoint, ModelConfig};
use tokio::task::JoinSet;

use super::support::{Answer, Front, Replica, World, double, eventually};

fn spawn(front: &Front, values: impl IntoIterator<Item = f32>) -> JoinSet<(f32, Answer)> {
    let mut set = JoinSet::new();
    for value in values {
        let answer = front.infer(value);
        set.spawn(async move { (value, answer.await) });
    }
    set
}

#[tokio::test]
async fn requests_that_wait_for_a_busy_replica_leave_in_one_batch_and_each_gets_its_own_answer() {
    let replica = Replica::gated("r1");
    let world = World::start(vec![double(vec![replica.endpoint()])]);
    let front = Front::start(&world, &[]).await;

    let mut first = spawn(&front, [100.0]);
    replica.saw(1).await;
    let rest = spawn(&front, (1u8..=8).map(f32::from));
    world.demand("double", |d| d.queued == 8 && d.in_flight == 1).await;
    replica.permits.add_permits(2);

    let (_, answer) = first.join_next().await.unwrap().unwrap();
    assert_eq!((answer.status, answer.header("x-tidegate-batch-rows")), (200, Some("1")));
    for (value, answer) in rest.join_all().await {
        assert_eq!(answer.body["outputs"][0]["data"][0].as_f64(), Some(f64::from(value) * 2.0), "{answer:?}");
        assert_eq!(answer.body["outputs"][0]["shape"], serde_json::json!([1, 4]));
        assert_eq!((answer.header("x-tidegate-batch-rows"), answer.header("x-tidegate-replica")), (Some("8"), Some("r1")));
        assert!(answer.header("x-tidegate-queue-us").unwrap().parse::<u64>().unwrap() > 0);
        assert_eq!(answer.header("x-tidegate-woken"), None);
    }
    assert_eq!(*replica.batches.lock(), [1, 8]);
    let demand = world.demand("double", |d| d.answered_total == 9).await;
    assert_eq!((demand.batches_total, demand.batch_rows_total, demand.fit_samples), (2, 9, 2));
    assert!(demand.p99_us > 0 && demand.arrival_milli_rows_per_s > 0, "{demand:?}");
}

#[tokio::test]
async fn a_request_without_replicas_is_reported_at_once_held_and_woken_by_the_first_replica() {
    let world = World::start(vec![double(vec![])]);
    let front = Front::start(&world, &[]).await;
    let mut held = spawn(&front, [3.0]);
    world.demand("double", |d| d.held == 1 && d.queued == 1).await;
    let replica = Replica::open("r1");
    world.configure(vec![double(vec![replica.endpoint()])]);
    let (_, answer) = held.join_next().await.unwrap().unwrap();
    assert_eq!((answer.status, answer.header("x-tidegate-woken")), (200, Some("true")), "{answer:?}");
    let demand = world.demand("double", |d| d.woken_total == 1).await;
    assert_eq!((demand.late_total, demand.held), (0, 0));
}

#[tokio::test]
async fn a_held_request_is_refused_when_its_budget_ends() {
    let config = ModelConfig { slo_ms: 50, cold_start_budget_ms: 100, ..double(vec![]) };
    let world = World::start(vec![config]);
    let front = Front::start(&world, &[]).await;
    let answer = front.infer(1.0).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
    assert!(answer.error().contains("deadline"));
    assert_eq!(world.demand("double", |d| d.refused_total == 1).await.answered_total, 0);
}

#[tokio::test]
async fn a_client_may_lower_its_deadline_but_not_raise_it() {
    let replica = Replica::gated("r1");
    let world = World::start(vec![double(vec![replica.endpoint()])]);
    let front = Front::start(&world, &[]).await;
    let busy = spawn(&front, [1.0]);
    replica.saw(1).await;
    let mut request = super::support::row(2.0);
    request["parameters"] = serde_json::json!({ "timeout": 20_000 });
    let answer = front.post("/v2/models/double/infer", request.to_string().into()).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    replica.permits.add_permits(1);
    assert_eq!(busy.join_all().await[0].1.status, 200);
}

#[tokio::test]
async fn one_more_than_the_queue_holds_is_refused_at_once() {
    let replica = Replica::gated("r1");
    let world = World::start(vec![ModelConfig { max_queued_requests: 2, ..double(vec![replica.endpoint()]) }]);
    let front = Front::start(&world, &[]).await;
    let first = spawn(&front, [1.0]);
    replica.saw(1).await;
    let waiting = spawn(&front, [2.0, 3.0]);
    world.demand("double", |d| d.queued == 2).await;
    let refused = front.infer(4.0).await;
    assert_eq!(refused.status, 429);
    assert!(refused.header("retry-after").is_some() && refused.error().contains("full"), "{refused:?}");
    replica.permits.add_permits(10);
    assert!(first.join_all().await.iter().chain(&waiting.join_all().await).all(|(_, a)| a.status == 200));
}

#[tokio::test]
async fn a_batch_of_a_killed_replica_is_answered_by_another() {
    let (dying, healthy) = (Replica::gated("r1"), Replica::open("r2"));
    let world = World::start(vec![double(vec![dying.endpoint()])]);
    let front = Front::start(&world, &[]).await;
    let mut asked = spawn(&front, [7.0]);
    dying.saw(1).await;
    world.configure(vec![double(vec![dying.endpoint(), healthy.endpoint()])]);
    dying.kill();
    let (_, answer) = asked.join_next().await.unwrap().unwrap();
    assert_eq!((answer.status, answer.header("x-tidegate-replica")), (200, Some("r2")), "{answer:?}");
    assert!(front.metrics().await.contains(r#"tidegate_router_retries_total{model="double"} 1"#));
}

#[tokio::test]
async fn a_request_whose_only_replica_died_waits_for_its_successor() {
    let dying = Replica::gated("r1");
    let world = World::start(vec![double(vec![dying.endpoint()])]);
    let front = Front::start(&world, &[]).await;
    let mut asked = spawn(&front, [7.0]);
    dying.saw(1).await;
    dying.kill();
    world.demand("double", |d| d.held == 1).await;
    let successor = Replica::open("r2");
    world.configure(vec![double(vec![successor.endpoint()])]);
    let (_, answer) = asked.join_next().await.unwrap().unwrap();
    assert_eq!((answer.status, answer.header("x-tidegate-woken")), (200, Some("true")), "{answer:?}");
}

#[tokio::test]
async fn a_replica_that_does_not_listen_yet_is_tried_again() {
    let world = World::start(vec![double(vec![])]);
    let front = Front::start(&world, &[]).await;
    let late = Replica::open("r1");
    late.kill();
    let nobody = Endpoint { draining: false, ..late.endpoint() };
    world.configure(vec![double(vec![nobody.clone()])]);
    let mut asked = spawn(&front, [1.0]);
    eventually(|| async { front.metrics().await.contains(r#"tidegate_router_retries_total{model="double"}"#) }).await;
    let replica = Replica::open("r2");
    world.configure(vec![double(vec![nobody, replica.endpoint()])]);
    assert_eq!(asked.join_next().await.unwrap().unwrap().1.status, 200);
}

#[tokio::test]
async fn one_bad_request_in_a_batch_fails_alone() {
    let replica = Replica::gated("r1");
    let world = World::start(vec![double(vec![replica.endpoint()])]);
    let front = Front::start(&world, &[]).await;
    let first = spawn(&front, [9.0]);
    replica.saw(1).await;
    let mixed = spawn(&front, [1.0, -1.0, 2.0, -2.0]);
    world.demand("double", |d| d.queued == 4).await;
    replica.permits.add_permits(100);
    assert_eq!(first.join_all().await[0].1.status, 200);
    for (value, answer) in mixed.join_all().await {
        let wanted = if value > 0.0 {
            200
        } else if value > -1.5 {
            400
        } else {
            500
        };
        assert_eq!(answer.status, wanted, "{value}: {answer:?}");
    }
    assert_eq!(*replica.batches.lock(), [1, 4, 1, 1, 1, 1]);
    assert_eq!(world.demand("double", |d| d.failed_total == 2).await.answered_total, 3);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_request_out_of_the_queue() {
    let replica = Replica::gated("r1");
    let world = World::start(vec![double(vec![replica.endpoint()])]);
    let front = Front::start(&world, &[]).await;
    let first = spawn(&front, [1.0]);
    replica.saw(1).await;
    let mut leaving = spawn(&front, [2.0, 3.0]);
    world.demand("double", |d| d.queued == 2).await;
    leaving.shutdown().await;
    world.demand("double", |d| d.queued == 0 && d.failed_total == 2).await;
    replica.permits.add_permits(10);
    assert_eq!(first.join_all().await[0].1.status, 200);
    assert_eq!(*replica.batches.lock(), [1]);
    assert!(front.metrics().await.contains(r#"outcome="disconnected"} 2"#));
}

#[tokio::test]
async fn load_spreads_over_replicas_and_a_draining_one_gets_nothing() {
    let (a, b, draining) = (Replica::gated("a"), Replica::gated("b"), Replica::gated("c"));
    let leaving = Endpoint { draining: true, ..draining.endpoint() };
    let world = World::start(vec![double(vec![a.endpoint(), b.endpoint(), leaving])]);
    let front = Front::start(&world, &[]).await;
    let asked = spawn(&front, [1.0, 2.0]);
    a.saw(1).await;
    b.saw(1).await;
    for replica in [&a, &b] {
        replica.permits.add_permits(1);
    }
    assert!(asked.join_all().await.iter().all(|(_, answer)| answer.status == 200));
    assert!(draining.batches.lock().is_empty());
}

#[tokio::test]
async fn a_paused_model_refuses_and_answers_again_afterwards() {
    let replica = Replica::open("r1");
    let world = World::start(vec![ModelConfig { paused: true, ..double(vec![replica.endpoint()]) }]);
    let front = Front::start(&world, &[]).await;
    let refused = front.infer(1.0).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(front.get("/v2/models/double/ready").await.0, 503);
    world.configure(vec![double(vec![replica.endpoint()])]);
    eventually(|| async { front.infer(1.0).await.status == 200 }).await;
}

#[tokio::test]
async fn a_shutdown_answers_what_is_in_flight_and_takes_nothing_new() {
    let replica = Replica::gated("r1");
    let world = World::start(vec![double(vec![replica.endpoint()])]);
    let front = Front::start(&world, &[]).await;
    let asked = spawn(&front, [1.0, 2.0]);
    world.demand("double", |d| d.queued + d.in_flight == 2).await;
    front.end();
    let connect = || async { tokio::net::TcpStream::connect(front.address).await.is_err() };
    eventually(connect).await;
    replica.permits.add_permits(2);
    assert!(asked.join_all().await.iter().all(|(_, answer)| answer.status == 200));
    front.ended().await.unwrap();
}

#[tokio::test]
async fn a_shutdown_does_not_wait_beyond_its_deadline() {
    let replica = Replica::gated("r1");
    let world = World::start(vec![double(vec![replica.endpoint()])]);
    let front = Front::start(&world, &["--drain-timeout-ms", "100"]).await;
    let request = front.client.post(front.url("/v2/models/double/infer")).body(super::support::row(1.0).to_string());
    let mut asked = JoinSet::new();
    asked.spawn(request.send());
    replica.saw(1).await;
    front.end();
    assert!(asked.join_next().await.unwrap().unwrap().is_err());
    tokio::time::timeout(Duration::from_secs(5), front.ended()).await.unwrap().unwrap();
}
