use super::support::*;
use std::time::{Duration, Instant};
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tmpbench() {
    let replica = Replica::open("r1");
    replica.slow.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut cfg = double(vec![replica.endpoint()]);
    cfg.max_batch_rows = 32;
    cfg.slo_ms = 2000;
    let world = World::start(vec![cfg]);
    let front = Front::start(&world, &[]).await;
    for c in [1usize, 8, 32, 64] {
        let mut set = tokio::task::JoinSet::new();
        let start = Instant::now();
        let before = replica.batches.lock().len();
        for _ in 0..c {
            let client = front.client.clone();
            let url = front.url("/v2/models/double/infer");
            let body = row(1.5).to_string();
            set.spawn(async move {
                let mut n = 0;
                while start.elapsed() < Duration::from_secs(5) {
                    let r = client.post(&url).body(body.clone()).send().await.unwrap();
                    assert_eq!(r.status(), 200);
                    r.bytes().await.unwrap();
                    n += 1;
                }
                n
            });
        }
        let total: usize = set.join_all().await.iter().sum();
        let batches = replica.batches.lock()[before..].to_vec();
        let tn = 5.5 + 0.45 * c.min(32) as f64;
        eprintln!(
            "c={c} {}/s of {} mean batch {} tail {:?}",
            total / 5,
            c.min(32) as f64 * 1000.0 / tn,
            total / batches.len(),
            &batches[batches.len().saturating_sub(30)..]
        );
    }
}
