//! Samples `/proc` for what must not be at one moment: work that runs twice (two processes of one worker, or two attempts of one job), and in
//! containers one GPU in two of them.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::processes::{self, Process, Worker};

/// A few times a second finds any overlap that a process could do harm in, and costs a percent of a core.
const EVERY: Duration = Duration::from_millis(200);

/// By this variable of its environment a container is told its GPUs.
const GPUS: &str = "NVIDIA_VISIBLE_DEVICES";

/// What was seen twice, in words; grows while the scenario runs.
pub async fn double_runs(data: PathBuf, stop: watch::Receiver<bool>) -> Vec<String> {
    pairs(data, stop, overlaps).await
}

/// Containers that were seen with one GPU at once, in words.
pub async fn shared_gpus(data: PathBuf, stop: watch::Receiver<bool>) -> Vec<String> {
    pairs(data, stop, sharers).await
}

type Find = fn(&[Process]) -> Vec<(Process, Process)>;

async fn pairs(data: PathBuf, mut stop: watch::Receiver<bool>, find: Find) -> Vec<String> {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen: Vec<(Process, Process)> = Vec::new();
    loop {
        tokio::select! {
            _ = stop.changed() => return seen.iter().map(describe).collect(),
            _ = ticks.tick() => {
                let now = processes::of(&data).unwrap_or_default();
                for pair in find(&now) {
                    // The list is not of one moment: both count only if the first lives on while the second lives.
                    if pair.0.is_alive() && pair.1.is_alive() && pair.0.is_alive() && !seen.contains(&pair) {
                        seen.push(pair);
                    }
                }
            }
        }
    }
}

/// Pairs that must not be: the same rank of one attempt twice, or different attempts of one job.
fn overlaps(processes: &[Process]) -> Vec<(Process, Process)> {
    let mut workers: Vec<(Worker, &Process)> = processes.iter().filter_map(|p| Some((p.worker()?, p))).collect();
    workers.sort_by_key(|(worker, process)| (worker.clone(), process.pid));
    let pairs = workers.iter().enumerate().flat_map(|(i, first)| workers.iter().skip(i + 1).map(move |second| (first, second)));
    let wrong = pairs.filter(|((a, _), (b, _))| a.job == b.job && (a.attempt != b.attempt || a.rank == b.rank));
    wrong.map(|((_, first), (_, second))| ((*first).clone(), (*second).clone())).collect()
}

/// Pairs of containers' first processes that were told of one GPU. Two processes of one container are in one group.
fn sharers(processes: &[Process]) -> Vec<(Process, Process)> {
    let first: Vec<&Process> = processes.iter().filter(|process| process.group == process.pid).collect();
    let gpus = |process: &Process| -> Vec<String> {
        let told = process.environment.get(GPUS).map(String::as_str).unwrap_or_default();
        told.split(',').filter(|gpu| !gpu.is_empty()).map(str::to_owned).collect()
    };
    let pairs = first.iter().enumerate().flat_map(|(i, one)| first.iter().skip(i + 1).map(move |other| (*one, *other)));
    let wrong = pairs.filter(|(one, other)| gpus(one).iter().any(|gpu| gpus(other).contains(gpu)));
    wrong.map(|(one, other)| (one.clone(), other.clone())).collect()
}

fn describe((first, second): &(Process, Process)) -> String {
    let who = |process: &Process| match process.worker() {
        Some(worker) => format!("{worker:?} as pid {}", process.pid),
        None => format!("{} as pid {}", process.command.join(" "), process.pid),
    };
    format!("{} and {}", who(first), who(second))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tidegate_api::contract;

    fn worker(pid: i32, job: &str, attempt: u32, rank: u32) -> Process {
        let pairs =
            [(contract::JOB, job.to_owned()), (contract::ATTEMPT, attempt.to_string()), (contract::RANK, rank.to_string())];
        let environment = pairs.map(|(name, value)| (name.to_owned(), value));
        Process { pid, start_ticks: 0, group: pid, command: vec!["python3".into()], environment: BTreeMap::from(environment) }
    }

    #[test]
    fn the_workers_of_one_attempt_may_run_together() {
        assert_eq!(overlaps(&[worker(1, "a", 2, 0), worker(2, "a", 2, 1), worker(3, "b", 1, 0)]), []);
    }

    #[test]
    fn one_rank_twice_and_two_attempts_at_once_are_found() {
        assert_eq!(overlaps(&[worker(1, "a", 2, 0), worker(2, "a", 2, 0)]).len(), 1);
        assert_eq!(overlaps(&[worker(1, "a", 2, 0), worker(2, "a", 3, 1)]).len(), 1);
    }

    #[test]
    fn one_gpu_in_two_containers_is_found() {
        let with = |pid: i32, gpus: &str| {
            let mut process = worker(pid, "a", 2, 0);
            process.environment.insert(GPUS.to_owned(), gpus.to_owned());
            process
        };
        let child = Process { pid: 9, ..with(1, "g0,g1") };
        assert_eq!(sharers(&[with(1, "g0,g1"), child, with(2, "g2"), with(3, "")]), []);
        assert_eq!(sharers(&[with(1, "g0,g1"), with(2, "g2,g1")]).len(), 1);
    }

    #[test]
    fn a_child_of_a_worker_is_not_a_second_worker() {
        let child = Process { pid: 9, group: 1, ..worker(1, "a", 2, 0) };
        assert_eq!(overlaps(&[worker(1, "a", 2, 0), child]), []);
    }
}
