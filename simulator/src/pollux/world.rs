//! The authors' world: a fixed cluster in rounds; between two decisions every job runs on what it was given.
//!
//! Promises what their simulator does: jobs are seen at the end of the round they are submitted in, a start or a change of
//! GPUs costs a fixed time without progress, nothing done is lost, an epoch ends on a whole second. A rule sees [`Seen`]
//! only; how much work a job has in all stays here. Distributed jobs that share a node do not slow each other (their default).

use super::application::Application;
use super::workload::Spec;

/// GPUs given to a job: `(node, GPUs on it)` in the order they were given, and the batch it is told to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    pub nodes: Vec<(u32, u32)>,
    /// Absent: the job's own.
    pub batch: Option<u32>,
}

impl Grant {
    /// GPUs on all nodes.
    pub fn gpus(&self) -> u32 {
        self.nodes.iter().map(|(_, gpus)| gpus).sum()
    }
}

/// Shape and costs.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    pub nodes: u32,
    pub gpus_per_node: u32,
    /// Seconds between decisions.
    pub round_s: u32,
    /// Seconds without progress after a start or a change of GPUs.
    pub restart_s: u32,
}

impl Setting {
    /// GPUs of the cluster.
    pub fn gpus(&self) -> u32 {
        self.nodes * self.gpus_per_node
    }
}

/// What a scheduler knows of an unfinished job: what the user wrote and what the job reports while it runs.
pub struct Seen<'a> {
    /// Index in the workload, stable.
    pub id: usize,
    pub spec: &'a Spec,
    pub grant: &'a Grant,
    /// Statistical iterations made so far.
    pub done: f64,
    /// GPU-seconds held so far.
    pub attained_gpu_s: f64,
    /// Times it was given other GPUs after its first start.
    pub restarts: u32,
    /// What the job measures of itself.
    pub profile: Profile<'a>,
}

/// Measured speed of a job in its present epoch.
#[derive(Clone, Copy)]
pub struct Profile<'a> {
    application: &'a Application,
    epoch: usize,
}

impl Profile<'_> {
    /// Statistical iterations per second on GPUs per node with a batch; 0 when the batch cannot be split so far.
    pub fn rate(&self, placement: &[u32], batch: u32) -> f64 {
        let fits = self.application.fits(batch, placement.iter().sum());
        if fits { self.application.rate(placement, batch, self.epoch) } else { 0.0 }
    }

    /// Smallest and largest batch that the job offers.
    pub fn batches(&self) -> (u32, u32) {
        self.application.batches
    }

    /// The epoch it is in, from 0; speed by batch changes with it.
    pub fn epoch(&self) -> usize {
        self.epoch
    }

    /// Statistical iterations that it says it will make: only for a rule that may trust declarations.
    pub fn declared_total(&self) -> f64 {
        self.application.total()
    }
}

/// A scheduling rule.
pub trait Rule {
    /// A job that it saw has ended, after so many statistical iterations.
    fn finished(&mut self, _id: usize, _spec: &Spec, _done: f64) {}
    /// What each unfinished job shall hold from now on, in the order of `jobs`, which is the order of submission.
    fn decide(&mut self, now_s: u64, jobs: &[Seen<'_>], setting: &Setting) -> Vec<Grant>;
}

/// What came of a workload.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Seconds from submission to end, in the order of the workload.
    pub jct_s: Vec<f64>,
    /// Changes of GPUs while running.
    pub resizes: u64,
    /// Stops of running jobs.
    pub evictions: u64,
    /// GPU-seconds held.
    pub held_gpu_s: f64,
    /// Seconds that jobs held GPUs.
    pub running_s: f64,
    /// Grants that would have over-committed a node and were not carried out; 0 for a correct rule.
    pub refused: u64,
}

impl Outcome {
    /// Mean completion time, hours.
    pub fn mean_hours(&self) -> f64 {
        self.jct_s.iter().sum::<f64>() / self.jct_s.len().max(1) as f64 / 3600.0
    }
}

struct Job<'a> {
    spec: &'a Spec,
    application: &'a Application,
    grant: Grant,
    epoch: usize,
    done: f64,
    restarting_s: f64,
    attained_gpu_s: f64,
    started: bool,
    restarts: u32,
    ended_s: Option<f64>,
    told: bool,
}

/// Runs a workload to its end. The result does not depend on anything but the arguments.
pub fn run(setting: &Setting, applications: &[Application], specs: &[Spec], rule: &mut dyn Rule) -> Outcome {
    let mut jobs: Vec<Job<'_>> =
        specs.iter().filter_map(|spec| Some(Job::new(spec, applications.get(spec.application)?))).collect();
    let mut outcome = Outcome::default();
    let mut now_s = 0u64;
    // No workload of 8 h lasts 60 days; a rule that starves a job ends here.
    while jobs.iter().any(|job| job.ended_s.is_none()) && now_s < 60 * 86_400 {
        for job in &mut jobs {
            job.advance(now_s, setting.round_s, &mut outcome);
        }
        now_s += u64::from(setting.round_s);
        decide(setting, now_s, &mut jobs, rule, &mut outcome);
    }
    let jct = |job: &Job<'_>| job.ended_s.unwrap_or(now_s as f64) - job.spec.submitted_s as f64;
    outcome.jct_s = jobs.iter().map(jct).collect();
    outcome
}

fn decide(setting: &Setting, now_s: u64, jobs: &mut [Job<'_>], rule: &mut dyn Rule, outcome: &mut Outcome) {
    for (id, job) in jobs.iter_mut().enumerate().filter(|(_, job)| job.ended_s.is_some() && !job.told) {
        job.told = true;
        rule.finished(id, job.spec, job.done);
    }
    let waiting = |job: &Job<'_>| job.ended_s.is_none() && job.spec.submitted_s <= now_s;
    let open: Vec<usize> = jobs.iter().enumerate().filter(|(_, job)| waiting(job)).map(|(id, _)| id).collect();
    if open.is_empty() {
        return;
    }
    let seen: Vec<Seen<'_>> = open.iter().filter_map(|id| jobs.get(*id).map(|job| job.seen(*id))).collect();
    let grants = rule.decide(now_s, &seen, setting);
    drop(seen);
    let mut free: Vec<u32> = (0..setting.nodes).map(|_| setting.gpus_per_node).collect();
    for (id, grant) in open.into_iter().zip(grants) {
        let Some(job) = jobs.get_mut(id) else { continue };
        let fits = take(&mut free, &grant.nodes);
        outcome.refused += u64::from(!fits);
        job.give(if fits { grant } else { Grant::default() }, setting.restart_s, outcome);
    }
}

/// Takes GPUs from nodes, all or nothing.
fn take(free: &mut [u32], nodes: &[(u32, u32)]) -> bool {
    let has = |(node, gpus): &(u32, u32)| free.get(*node as usize).is_some_and(|free| free >= gpus);
    if !nodes.iter().all(has) {
        return false;
    }
    for (node, gpus) in nodes {
        if let Some(free) = free.get_mut(*node as usize) {
            *free -= gpus;
        }
    }
    true
}

impl<'a> Job<'a> {
    fn new(spec: &'a Spec, application: &'a Application) -> Self {
        Self {
            spec,
            application,
            grant: Grant::default(),
            epoch: 0,
            done: 0.0,
            restarting_s: 0.0,
            attained_gpu_s: 0.0,
            started: false,
            restarts: 0,
            ended_s: None,
            told: false,
        }
    }

    fn seen(&self, id: usize) -> Seen<'_> {
        Seen {
            id,
            spec: self.spec,
            grant: &self.grant,
            done: self.done,
            attained_gpu_s: self.attained_gpu_s,
            restarts: self.restarts,
            profile: Profile { application: self.application, epoch: self.epoch },
        }
    }

    fn give(&mut self, grant: Grant, restart_s: u32, outcome: &mut Outcome) {
        if grant.nodes != self.grant.nodes {
            let (was, is) = (!self.grant.nodes.is_empty(), !grant.nodes.is_empty());
            outcome.resizes += u64::from(was && is);
            outcome.evictions += u64::from(was && !is);
            self.restarts += u32::from(is && self.started);
            if is {
                self.started = true;
                self.restarting_s = f64::from(restart_s);
            }
        }
        self.grant = grant;
    }

    /// Runs for one round from `from_s`.
    fn advance(&mut self, from_s: u64, round_s: u32, outcome: &mut Outcome) {
        if self.ended_s.is_some() || self.grant.nodes.is_empty() {
            return;
        }
        let placement: Vec<u32> = self.grant.nodes.iter().map(|(_, gpus)| *gpus).collect();
        let batch = self.grant.batch.unwrap_or(self.spec.batch);
        let mut left_s = f64::from(round_s);
        let waited = self.restarting_s.min(left_s);
        self.restarting_s -= waited;
        left_s -= waited;
        while left_s > 0.0 && self.ended_s.is_none() {
            let rate = self.application.rate(&placement, batch, self.epoch);
            let end = self.application.end_of(self.epoch);
            if self.done + rate * left_s < end {
                self.done += rate * left_s;
                left_s = 0.0;
            } else {
                left_s -= ((end - self.done) / rate).round_ties_even().min(left_s);
                self.done = end;
                self.epoch += 1;
                let at_s = from_s as f64 + f64::from(round_s) - left_s;
                self.ended_s = (self.epoch >= self.application.epochs).then_some(at_s);
            }
        }
        let used_s = f64::from(round_s) - if self.ended_s.is_some() { left_s } else { 0.0 };
        self.attained_gpu_s += used_s * f64::from(self.grant.gpus());
        outcome.held_gpu_s += used_s * f64::from(self.grant.gpus());
        outcome.running_s += used_s;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pollux::testing::application;

    const SETTING: Setting = Setting { nodes: 2, gpus_per_node: 4, round_s: 60, restart_s: 30 };

    /// Gives each job what a list says for the round, the last for ever.
    struct Fixed(Vec<Vec<(u32, u32)>>);

    impl Rule for Fixed {
        fn decide(&mut self, _now_s: u64, jobs: &[Seen<'_>], _setting: &Setting) -> Vec<Grant> {
            let nodes = if self.0.len() > 1 { self.0.remove(0) } else { self.0.first().cloned().unwrap_or_default() };
            jobs.iter().map(|_| Grant { nodes: nodes.clone(), batch: None }).collect()
        }
    }

    fn spec(submitted_s: u64) -> Spec {
        Spec { name: "job".to_owned(), submitted_s, application: 0, gpus: 1, batch: 8 }
    }

    #[test]
    fn a_job_is_seen_at_the_end_of_the_round_and_pays_a_restart() {
        // 100 statistical iterations of 1 s: submitted at 10, seen at 60, at work from 90.
        let outcome = run(&SETTING, &[application(&[40.0, 100.0])], &[spec(10)], &mut Fixed(vec![vec![(0, 1)]]));
        assert_eq!(outcome.jct_s, [180.0]);
        assert_eq!((outcome.resizes, outcome.evictions, outcome.refused), (0, 0, 0));
        assert!((outcome.held_gpu_s - 130.0).abs() < 1e-9);
    }

    #[test]
    fn a_stop_keeps_what_is_done_and_a_new_start_pays_again() {
        let rounds = vec![vec![(0, 1)], vec![], vec![(1, 1)]];
        let outcome = run(&SETTING, &[application(&[40.0, 100.0])], &[spec(10)], &mut Fixed(rounds));
        // 30 s of work until 120, none until 180, the other 70 s from 210.
        assert_eq!(outcome.jct_s, [270.0]);
        assert_eq!((outcome.resizes, outcome.evictions), (0, 1));
    }

    #[test]
    fn a_move_is_a_resize_and_costs_a_restart() {
        let rounds = vec![vec![(0, 1)], vec![(1, 1)]];
        let outcome = run(&SETTING, &[application(&[40.0, 100.0])], &[spec(10)], &mut Fixed(rounds));
        assert_eq!(outcome.jct_s, [210.0]);
        assert_eq!(outcome.resizes, 1);
    }

    #[test]
    fn a_grant_that_over_commits_a_node_is_refused_and_counted() {
        let outcome = run(&SETTING, &[application(&[100.0])], &[spec(0), spec(0)], &mut Fixed(vec![vec![(0, 3)]]));
        assert!(outcome.refused > 0);
        assert!(outcome.jct_s[1] > outcome.jct_s[0]);
    }

    #[test]
    fn tiresias_stops_the_demoted_job_and_passes_over_what_does_not_fit() {
        let (mut whole, mut small) = (spec(0), spec(100));
        (whole.gpus, small.application) = (8, 1);
        let mut rule = crate::pollux::tiresias::Tiresias::new(8 * 120);
        let outcome = run(&SETTING, &[application(&[1000.0]), application(&[100.0])], &[whole, small], &mut rule);
        // Demoted after two rounds, at 180, and back when the small one has ended.
        assert_eq!(outcome.evictions, 1);
        assert!(outcome.jct_s[1] < outcome.jct_s[0]);
        assert_eq!(outcome.refused, 0);
    }
}
