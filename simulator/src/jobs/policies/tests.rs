//! Each rule on a floor of a few nodes, through the world; and all of them on random jobs.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::backfill::Backfill;
use super::engine::EnginePolicy;
use super::fair::Fair;
use super::floor::{Floor, Locality};
use super::history::History;
use super::ordered::Ordered;
use super::tiresias::Tiresias;
use crate::jobs::world::{Job, Outcome, Setup, run};
use crate::jobs::{Costs, Fixed, Policy, Wish};

/// Submitted at (s), runs for (s), GPUs, queue.
type Line = (u64, u32, u32, &'static str);

fn job(&(submit_s, seconds, gpus, queue): &Line) -> Job {
    let wish = Wish {
        name: format!("{queue}-{submit_s}"),
        queue: queue.to_owned(),
        owner: queue.to_owned(),
        recipe: gpus.to_string(),
        priority: 0,
        min_gpus: gpus,
        max_gpus: gpus,
        gpus,
        classes: Vec::new(),
        speedup: Vec::new(),
        preemptible: true,
    };
    Job { submit: submit_s * 1000, wish, work: Box::new(Fixed { seconds: f64::from(seconds) }), tells_progress: false }
}

fn setup(nodes: &[u32]) -> Setup {
    let costs = Costs { restart_ms: 30_000, checkpoint_every_ms: 600_000 };
    Setup { nodes: nodes.to_vec(), costs, report_every_ms: 60_000, sample_every_ms: 600_000 }
}

fn history() -> History {
    History::new(50, 1, 1_800_000)
}

fn outcome(nodes: &[u32], lines: &[Line], policy: &mut dyn Policy) -> Outcome {
    run(&setup(nodes), &lines.iter().map(job).collect::<Vec<_>>(), policy).unwrap()
}

/// First starts in seconds.
fn starts(nodes: &[u32], lines: &[Line], policy: &mut dyn Policy) -> Vec<u64> {
    outcome(nodes, lines, policy).records.iter().map(|record| record.first_start.unwrap() / 1000).collect()
}

fn strict(nodes: &[u32]) -> Floor {
    Floor::new(nodes, Locality::Strict)
}

#[test]
fn a_strict_head_holds_up_the_rest_and_best_effort_passes_it_over() {
    let lines = [(0, 100, 3, "a"), (1, 100, 4, "a"), (2, 10, 1, "a")];
    assert_eq!(starts(&[4], &lines, &mut Ordered::fifo(strict(&[4]))), [0, 100, 200]);
    assert_eq!(starts(&[4], &lines, &mut Ordered::best_effort(strict(&[4]))), [0, 100, 2]);
}

#[test]
fn the_oracle_starts_the_shortest_first() {
    let lines = [(0, 100, 4, "a"), (1, 90, 4, "a"), (2, 10, 4, "a")];
    assert_eq!(starts(&[4], &lines, &mut Ordered::sjf(strict(&[4]), vec![100, 90, 10])), [0, 110, 100]);
}

#[test]
fn the_queue_with_the_smaller_share_goes_first() {
    let lines = [(0, 100, 2, "a"), (0, 200, 2, "a"), (1, 50, 2, "a"), (2, 50, 2, "b")];
    assert_eq!(starts(&[4], &lines, &mut Fair::new(strict(&[4]))), [0, 0, 150, 100]);
}

#[test]
fn reclaim_takes_from_the_queue_above_its_share_and_only_then() {
    let lines = [(0, 2000, 2, "a"), (0, 2000, 2, "a"), (100, 50, 2, "b"), (110, 50, 2, "b")];
    let out = outcome(&[4], &lines, &mut Fair::reclaiming(strict(&[4])));
    assert_eq!(out.records.iter().map(|record| record.first_start.unwrap() / 1000).collect::<Vec<_>>(), [0, 0, 100, 150]);
    assert_eq!(out.records.iter().map(|record| record.stops).sum::<u32>(), 1);
}

#[test]
fn backfill_lets_short_jobs_pass_and_keeps_the_heads_reservation() {
    let known = [(0, 1000, 3, "long"), (0, 100, 1, "short"), (0, 900, 1, "mid")];
    let lines =
        [known.as_slice(), &[(2000, 1000, 3, "long"), (2010, 50, 4, "head"), (2020, 900, 1, "mid"), (2500, 100, 1, "short")]]
            .concat();
    let starts = starts(&[4], &lines, &mut Backfill::new(strict(&[4]), history(), 90));
    assert_eq!(&starts[3..], [2000, 3000, 2020, 3050]);
    let lines =
        [known.as_slice(), &[(2000, 1000, 3, "long"), (2010, 50, 4, "head"), (2200, 900, 1, "mid"), (2500, 100, 1, "short")]]
            .concat();
    let starts = self::starts(&[4], &lines, &mut Backfill::new(strict(&[4]), history(), 90));
    assert_eq!(&starts[3..], [2000, 3000, 3050, 2500]);
}

#[test]
fn tiresias_stops_who_attained_more_and_never_its_equal() {
    let lines = [(0, 3600, 4, "a"), (1800, 60, 4, "b"), (1800, 60, 4, "b")];
    let policy = |level: u64| Tiresias::new(strict(&[4]), vec![level]);
    let out = outcome(&[4], &lines, &mut policy(4 * 1_200_000));
    assert_eq!(
        out.records.iter().map(|record| (record.first_start.unwrap() / 1000, record.stops)).collect::<Vec<_>>(),
        [(0, 1), (1800, 0), (1860, 0)]
    );
    assert_eq!(outcome(&[4], &lines, &mut policy(4 * 7_200_000)).records[0].stops, 0);
}

fn ours(nodes: &[u32]) -> EnginePolicy {
    EnginePolicy::new(&setup(nodes)).in_one_queue()
}

#[test]
fn ours_moves_a_job_aside_rather_than_stop_it() {
    let lines = [(0, 1200, 3, "a"), (0, 9000, 1, "a"), (0, 9000, 1, "a"), (1500, 600, 4, "b")];
    let out = outcome(&[4, 4], &lines, &mut ours(&[4, 4]));
    let came_to: Vec<(u32, u32)> = out.records.iter().map(|record| (record.stops, record.resizes)).collect();
    assert_eq!(came_to, [(0, 0), (0, 1), (0, 0), (0, 0)]);
    assert!(out.records[3].first_start.unwrap() <= 1_560_000, "{:?}", out.records[3]);
}

#[test]
fn ours_stops_a_long_job_for_a_short_one_when_it_knows_that_it_is_short() {
    let short = (0..20).map(|at| (at * 100, 60, 4, "short"));
    let lines: Vec<Line> = short.chain([(3000, 40_000, 4, "long"), (30_000, 60, 4, "short")]).collect();
    let out = outcome(&[4], &lines, &mut ours(&[4]));
    assert_eq!((out.records[20].stops, out.records[21].stops), (1, 0));
    assert!(out.records[21].first_start.unwrap() < 31_000_000, "{:?}", out.records[21]);
    assert!(out.records[20].lost_gpu_ms * 4 <= out.records[20].held_gpu_ms);
}

fn random(seed: u64) -> Vec<Job> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut at = 0;
    (0..120)
        .map(|_| {
            at += rng.random_range(0..400);
            let gpus = [1, 1, 1, 2, 4, 8, 12][rng.random_range(0..7)];
            let mut job = job(&(at, rng.random_range(60..8000), gpus, ["a", "b", "c"][rng.random_range(0..3)]));
            job.wish.preemptible = rng.random_range(0..4) > 0;
            job
        })
        .collect()
}

fn all(nodes: &[u32], locality: Locality, jobs: &[Job]) -> Vec<Box<dyn Policy>> {
    let floor = || Floor::new(nodes, locality);
    vec![
        Box::new(Ordered::fifo(floor())),
        Box::new(Ordered::best_effort(floor())),
        Box::new(Ordered::sjf(floor(), (0..).take(jobs.len()).collect())),
        Box::new(Fair::new(floor())),
        Box::new(Fair::reclaiming(floor())),
        Box::new(Backfill::new(floor(), history(), 90)),
        Box::new(Tiresias::new(floor(), vec![3_600_000, 36_000_000])),
        Box::new(ours(nodes)),
        Box::new(EnginePolicy::new(&setup(nodes))),
    ]
}

/// The world refuses what over-commits a node, so to come to the end is half of the proof.
#[test]
fn every_rule_finishes_random_jobs_and_stops_none_that_may_not_be() {
    let nodes = [8, 8, 4, 2];
    let mut stops: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..20 {
        let jobs = random(seed);
        for locality in [Locality::Strict, Locality::Relaxed] {
            for mut policy in all(&nodes, locality, &jobs) {
                let out = run(&setup(&nodes), &jobs, policy.as_mut()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                for (job, record) in jobs.iter().zip(&out.records) {
                    assert!(record.finished.is_some(), "seed {seed}, {}: {} never ends", policy.name(), job.wish.name);
                    assert!(job.wish.preemptible || record.stops + record.resizes == 0, "seed {seed}, {}", policy.name());
                    let useful = (job.work.total() * 1000.0 * f64::from(job.wish.gpus)).round();
                    let counted = record.held_gpu_ms as f64 - record.lost_gpu_ms as f64;
                    assert!((counted - useful).abs() <= 1000.0, "seed {seed}, {}: {counted} {useful}", policy.name());
                }
                *stops.entry(policy.name()).or_default() += out.records.iter().map(|record| record.stops).sum::<u32>();
            }
        }
    }
    let stopping: Vec<&str> = stops.into_iter().filter(|(_, count)| *count > 0).map(|(name, _)| name).collect();
    assert_eq!(stopping, ["fair-reclaim", "tidegate", "tiresias"]);
}
