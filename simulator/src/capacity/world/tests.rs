use super::super::fifo::Fifo;
use super::super::outcome::Sample;
use super::super::{Ask, ModelSpec};
use super::*;
use crate::inference::service::BatchTime;
use crate::inference::{Series, Window};

const COSTS: Costs = Costs { restart_s: 30.0, checkpoint_every_s: 600.0, evict_s: 10.0, scaling_exponent: 1.0 };

fn setup(gpus: u32) -> Setup {
    let classes = vec![GpuClass { name: "V100".into(), gpus, models: 2, speed: 1.0 }];
    Setup { classes, costs: COSTS, round_ms: 60_000, measured_ms: 600_000, sample_every_ms: 60_000, limit_ms: 1_000_000_000 }
}

fn job(job: u32, gpus: u32, arrives: Ms, work_s: f64) -> Job {
    Job { ask: Ask { job, team: 0, gpus, min_gpus: gpus, max_gpus: gpus, any_class: false }, arrives, work_s }
}

#[test]
fn jobs_wait_run_and_end_as_first_come_first_served_says() {
    let jobs = [job(0, 4, 0, 100.0), job(1, 4, 0, 100.0)];
    let outcome = run(&setup(4), &jobs, &[], &mut Fifo::new(4, vec![])).unwrap();
    assert_eq!(outcome.unfinished, 0);
    assert!((outcome.jobs[0].jct_s - 100.0).abs() < 1e-9);
    assert!((outcome.jobs[1].wait_s - 120.0).abs() < 1e-9, "the end at 100 s is seen at the round of 120 s");
    assert!((outcome.classes[0].training - 200.0 / 600.0).abs() < 1e-9);
    assert!((outcome.lent_gpu_hours - 2.0 * 200.0 / 3600.0).abs() < 1e-9, "two of the four belong to models");
    let sample =
        |at_ms, training_gpus, waiting_jobs, lent_gpus| Sample { at_ms, training_gpus, serving_gpus: 0, waiting_jobs, lent_gpus };
    assert_eq!(outcome.samples[..3], [sample(0, 4, 1, 2), sample(60_000, 4, 1, 2), sample(120_000, 4, 0, 2)]);
}

#[test]
fn a_policy_that_over_commits_is_an_error() {
    let jobs = [job(0, 4, 0, 100.0)];
    let error = run(&setup(3), &jobs, &[], &mut Fifo::new(4, vec![])).unwrap_err();
    assert!(error.to_string().contains("over-committed"), "{error}");
}

#[test]
fn a_model_with_enough_replicas_keeps_its_slo_and_one_without_does_not() {
    let batch = BatchTime { base_s: 0.1, row_s: 0.01 };
    let spec = ModelSpec { name: "m".into(), class: 0, gpus: 1, batch, slo_s: 1.0, max_rows: 64, load_s: 20.0, max_sharers: 1 };
    let demand = Series { name: "m".into(), window_s: 600, windows: vec![Window { rate_rps: 200.0, burst: 1.0 }] };
    let model = Model { spec, demand };
    let attained =
        |replicas| run(&setup(8), &[], std::slice::from_ref(&model), &mut Fifo::new(0, vec![replicas])).unwrap().attained();
    assert!(attained(3) > 0.999);
    assert!((0.3..0.5).contains(&attained(1)), "80 of 200 requests/s: {}", attained(1));
}
