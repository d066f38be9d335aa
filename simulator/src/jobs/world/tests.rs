use super::*;
use crate::jobs::Fixed;

/// Orders by a script: at each moment those that are due.
struct Script {
    orders: Vec<(Ms, Order)>,
    told: Vec<(Ms, String)>,
}

impl Script {
    fn new(orders: impl IntoIterator<Item = (Ms, Order)>) -> Self {
        Self { orders: orders.into_iter().collect(), told: Vec::new() }
    }
}

impl Policy for Script {
    fn name(&self) -> &'static str {
        "script"
    }

    fn submitted(&mut self, now: Ms, job: JobIx, _wish: &Wish) {
        self.told.push((now, format!("submitted {}", job.0)));
    }

    fn progressed(&mut self, now: Ms, job: JobIx, done_ppm: Option<u32>, checkpoint_at: Option<Ms>) {
        self.told.push((now, format!("progressed {} {done_ppm:?} {checkpoint_at:?}", job.0)));
    }

    fn finished(&mut self, now: Ms, job: JobIx) {
        self.told.push((now, format!("finished {}", job.0)));
    }

    fn decide(&mut self, now: Ms, orders: &mut Vec<Order>) -> Option<Ms> {
        let due = self.orders.iter().take_while(|(at, _)| *at <= now).count();
        orders.extend(self.orders.drain(..due).map(|(_, order)| order));
        self.orders.first().map(|(at, _)| *at)
    }
}

fn job(submit_s: u64, seconds: f64, gpus: u32) -> Job {
    let wish = Wish {
        name: format!("job-{submit_s}"),
        queue: "q".to_owned(),
        owner: "o".to_owned(),
        recipe: "r".to_owned(),
        priority: 0,
        min_gpus: gpus,
        max_gpus: gpus,
        gpus,
        classes: Vec::new(),
        speedup: Vec::new(),
        preemptible: true,
    };
    Job { submit: submit_s * 1000, wish, work: Box::new(Fixed { seconds }), tells_progress: true }
}

fn setup() -> Setup {
    let costs = Costs { restart_ms: 30_000, checkpoint_every_ms: 600_000 };
    Setup { nodes: vec![4, 2], costs, report_every_ms: 900_000, sample_every_ms: 600_000 }
}

fn held(nodes: &[(u32, u32)]) -> Held {
    Held { nodes: nodes.to_vec(), batch: None }
}

fn start(at_s: u64, job: u32, nodes: &[(u32, u32)]) -> (Ms, Order) {
    (at_s * 1000, Order::Start { job: JobIx(job), held: held(nodes) })
}

fn stop(at_s: u64, job: u32) -> (Ms, Order) {
    (at_s * 1000, Order::Stop { job: JobIx(job) })
}

#[test]
fn a_job_waits_runs_and_ends() {
    let mut script = Script::new([start(20, 0, &[(0, 2)])]);
    let out = run(&setup(), &[job(5, 100.0, 2)], &mut script).unwrap();
    let record = &out.records[0];
    assert_eq!((record.first_start, record.finished, record.queued_ms), (Some(20_000), Some(120_000), 15_000));
    assert_eq!((record.held_gpu_ms, record.lost_gpu_ms, record.stops), (200_000, 0, 0));
    assert_eq!(script.told, [(5_000, "submitted 0".to_owned()), (120_000, "finished 0".to_owned())]);
}

#[test]
fn a_stop_falls_back_to_the_checkpoint_and_a_start_after_it_costs_a_restart() {
    let mut script = Script::new([start(0, 0, &[(0, 2)]), stop(1000, 0), start(1100, 0, &[(1, 2)])]);
    let out = run(&setup(), &[job(0, 2000.0, 2)], &mut script).unwrap();
    let record = &out.records[0];
    assert_eq!(record.finished, Some((1100 + 30 + 2000 - 600) * 1000));
    assert_eq!((record.queued_ms, record.stops), (100_000, 1));
    assert_eq!(record.lost_gpu_ms, (400 + 30) * 1000 * 2);
    assert_eq!(record.held_gpu_ms - record.lost_gpu_ms, 2000 * 1000 * 2);
    assert_eq!(script.told[1], (900_000, "progressed 0 Some(450000) Some(600000)".to_owned()));
}

#[test]
fn a_stop_amid_a_restart_is_charged_for_the_part_that_passed() {
    let orders = [start(0, 0, &[(0, 2)]), stop(600, 0), start(700, 0, &[(0, 2)]), stop(710, 0), start(800, 0, &[(0, 2)])];
    let out = run(&setup(), &[job(0, 1000.0, 2)], &mut Script::new(orders)).unwrap();
    assert_eq!(out.records[0].lost_gpu_ms, (10 + 30) * 1000 * 2);
    assert_eq!(out.records[0].finished, Some((830 + 400) * 1000));
}

#[test]
fn a_resize_costs_a_restart_and_no_work() {
    let resize = (500_000, Order::Resize { job: JobIx(0), held: held(&[(1, 2)]) });
    let out = run(&setup(), &[job(0, 1000.0, 2)], &mut Script::new([start(0, 0, &[(0, 2)]), resize])).unwrap();
    let record = &out.records[0];
    assert_eq!((record.finished, record.resizes, record.stops), (Some(1_030_000), 1, 0));
    assert_eq!(record.lost_gpu_ms, 60_000);
}

#[test]
fn what_cannot_be_is_refused_with_policy_and_job() {
    let jobs = [job(0, 10.0, 3), job(1, 10.0, 2)];
    let cases = [
        (vec![start(1, 0, &[(0, 3)]), start(1, 1, &[(0, 2)])], "node 0 has 1 free GPUs, 2 were ordered"),
        (vec![start(1, 0, &[(2, 3)])], "no node 2"),
        (vec![start(1, 0, &[(0, 2)])], "2 GPUs, it takes 3 to 3"),
        (vec![stop(1, 0)], "does not fit"),
        (vec![start(1, 7, &[(0, 3)])], "no such job"),
        (vec![start(0, 1, &[(0, 2)])], "does not fit"),
    ];
    for (orders, what) in cases {
        let error = run(&setup(), &jobs, &mut Script::new(orders)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("policy script, job ") && text.contains(what), "{text}");
        assert_eq!(error.code(), 70);
    }
}

#[test]
fn a_policy_that_lets_a_job_wait_for_ever_is_named() {
    let error = run(&setup(), &[job(3, 10.0, 1)], &mut Script::new([])).unwrap_err();
    assert!(error.to_string().contains("job-3") && error.to_string().contains("waits for ever"), "{error}");
}

/// Twice as fast after half of its work.
struct Spurt;

impl Work for Spurt {
    fn total(&self) -> f64 {
        200.0
    }

    fn rate(&self, held: &Held, done: f64) -> f64 {
        f64::from(held.gpus()) * if done < 100.0 { 1.0 } else { 2.0 }
    }

    fn next_change(&self, done: f64) -> Option<f64> {
        (done < 100.0).then_some(100.0)
    }
}

#[test]
fn work_may_change_its_rate_by_itself() {
    let jobs = [Job { work: Box::new(Spurt), ..job(0, 0.0, 1) }];
    let out = run(&setup(), &jobs, &mut Script::new([start(0, 0, &[(0, 1)])])).unwrap();
    assert_eq!(out.records[0].finished, Some(150_000));
}

#[test]
fn the_series_counts_who_is_busy_and_who_waits() {
    let jobs = [job(0, 1000.0, 4), job(0, 1000.0, 4)];
    let out = run(&setup(), &jobs, &mut Script::new([start(1, 0, &[(0, 4)]), start(1001, 1, &[(0, 4)])])).unwrap();
    let rows: Vec<(u32, u32)> = out.samples.iter().map(|sample| (sample.busy_gpus, sample.waiting_jobs)).collect();
    assert_eq!(rows, [(0, 0), (4, 1), (4, 0), (4, 0)]);
}
