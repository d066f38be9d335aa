//! Tiresias' rule as the authors of Pollux ran it: two queues by attained GPU time, fixed sizes, most free node first.
//!
//! A job waits in the first queue in order of submission until the GPUs it asks for times its run time pass a bound, then
//! goes to the end of the second. Each round takes jobs in that order as long as GPUs last and passes over those that do
//! not fit; the rest is stopped. No job is moved while it runs.

use std::collections::BTreeMap;

use super::world::{Grant, Rule, Seen, Setting};

/// Two-dimensional least attained service, discretised.
#[derive(Debug)]
pub struct Tiresias {
    demote_at_gpu_s: u64,
    /// Order of demotion by job.
    demoted: BTreeMap<usize, usize>,
    run_s: BTreeMap<usize, u64>,
    asked_at_s: u64,
}

impl Tiresias {
    /// Demotes a job at so many GPU-seconds.
    pub fn new(demote_at_gpu_s: u64) -> Self {
        Self { demote_at_gpu_s, demoted: BTreeMap::new(), run_s: BTreeMap::new(), asked_at_s: 0 }
    }

    fn account(&mut self, now_s: u64, jobs: &[Seen<'_>]) {
        let passed_s = now_s - self.asked_at_s;
        self.asked_at_s = now_s;
        for job in jobs.iter().filter(|job| !job.grant.nodes.is_empty()) {
            let run_s = self.run_s.entry(job.id).or_default();
            *run_s += passed_s;
            if *run_s * u64::from(job.spec.gpus) >= self.demote_at_gpu_s {
                let last = self.demoted.len();
                self.demoted.entry(job.id).or_insert(last);
            }
        }
    }
}

impl Rule for Tiresias {
    fn decide(&mut self, now_s: u64, jobs: &[Seen<'_>], setting: &Setting) -> Vec<Grant> {
        self.account(now_s, jobs);
        let mut order: Vec<(usize, &Seen<'_>)> = jobs.iter().enumerate().collect();
        order.sort_by_key(|(_, job)| self.demoted.get(&job.id).map(|at| at + 1));
        let mut left = setting.gpus();
        order.retain(|(_, job)| {
            let fits = job.spec.gpus <= left;
            left -= if fits { job.spec.gpus } else { 0 };
            fits
        });
        let mut free: Vec<u32> = (0..setting.nodes).map(|_| setting.gpus_per_node).collect();
        let mut grants: Vec<Grant> = jobs.iter().map(|_| Grant::default()).collect();
        for running in [true, false] {
            for (at, job) in order.iter().filter(|(_, job)| job.grant.nodes.is_empty() != running) {
                let nodes = if running { job.grant.nodes.clone() } else { emptiest(&free, job.spec.gpus) };
                for (node, gpus) in &nodes {
                    free.iter_mut().skip(*node as usize).take(1).for_each(|free| *free -= gpus);
                }
                if let Some(grant) = grants.get_mut(*at) {
                    *grant = Grant { nodes, batch: None };
                }
            }
        }
        grants
    }
}

/// GPUs from the node with most free ones, the first of equals, until there are enough.
fn emptiest(free: &[u32], mut gpus: u32) -> Vec<(u32, u32)> {
    let mut nodes: Vec<(u32, u32)> = (0u32..).zip(free.iter().copied()).collect();
    nodes.sort_by_key(|(node, free)| (std::cmp::Reverse(*free), *node));
    let mut taken = Vec::new();
    for (node, free) in nodes.into_iter().filter(|(_, free)| *free > 0) {
        let count = free.min(gpus);
        if count == 0 {
            break;
        }
        taken.push((node, count));
        gpus -= count;
    }
    taken
}
