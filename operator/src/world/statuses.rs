//! What people read of queues and pools: `kubectl get queues`.

use std::collections::BTreeMap;

use tidegate_api::kinds::{Condition, PoolStatus, QueueStatus};
use tidegate_core::books::GPU;
use tidegate_core::names::QueueName;
use tidegate_core::quota::{NodeIx, ResourceIx, Tree};
use tidegate_core::state::Phase;

use super::World;
use crate::facts::PodKey;
use crate::index::{Ours, Write};

/// An object whose status is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown<T> {
    pub uid: String,
    pub generation: i64,
    /// Why its specification cannot be read.
    pub problem: Option<String>,
    /// As it was last written.
    pub status: T,
}

impl World {
    /// The status of every queue and pool that reads otherwise than it was written. `now` in RFC 3339.
    pub(super) fn our_statuses(&mut self, now: &str) -> Vec<Write> {
        let mut jobs = BTreeMap::<&QueueName, (u32, u32)>::new();
        for job in self.engine.state().jobs.values() {
            let (running, waiting) = jobs.entry(&job.spec.queue).or_default();
            match job.phase {
                Phase::Running(_) => *running += 1,
                Phase::Waiting { .. } => *waiting += 1,
                Phase::Finished(_) => {}
            }
        }
        let books = self.engine.books();
        let mut writes = Vec::new();
        for (name, shown) in &mut self.queues {
            let queue = QueueName::from(name.as_str());
            let node = books.tree.node(&queue);
            let gpus = |amount: fn(&Tree, NodeIx, ResourceIx) -> i64| {
                node.map_or_else(String::new, |node| decimal(amount(&books.tree, node, GPU)))
            };
            let broken = shown.problem.as_ref().or_else(|| books.broken.get(&queue));
            let (running, waiting) = jobs.get(&queue).copied().unwrap_or_default();
            let status = QueueStatus {
                gpus_used: gpus(Tree::usage),
                gpus_owned: gpus(Tree::guaranteed),
                running,
                waiting,
                observed_generation: shown.generation,
                conditions: vec![accepted(broken.map(String::as_str), shown.generation, &shown.status.conditions, now)],
            };
            if status != shown.status {
                writes.push(Write::status(Ours::Queue, &PodKey(name.as_str().into()), &shown.uid, &status));
                shown.status = status;
            }
        }
        writes.extend(self.pool_statuses(now));
        writes
    }

    fn pool_statuses(&mut self, now: &str) -> Vec<Write> {
        let cluster = self.engine.books().cluster.nodes();
        let present = || cluster.iter().filter(|node| node.present);
        let gpus: usize = present().map(|node| node.devices.iter().filter(|device| device.usable).count()).sum();
        let (nodes, gpus) = (u32::try_from(present().count()).unwrap_or(u32::MAX), u32::try_from(gpus).unwrap_or(u32::MAX));
        let first = self.policies.keys().next().cloned();
        let mut writes = Vec::new();
        for (name, shown) in &mut self.pools {
            let other = first.as_ref().filter(|first| *first != name);
            let unused = other.map(|first| format!("the Pool {first} counts, as the first by name: keep one of the two"));
            let problem = shown.problem.clone().or(unused);
            let status = PoolStatus {
                nodes,
                gpus,
                observed_generation: shown.generation,
                conditions: vec![accepted(problem.as_deref(), shown.generation, &shown.status.conditions, now)],
            };
            if status != shown.status {
                writes.push(Write::status(Ours::Pool, &PodKey(name.as_str().into()), &shown.uid, &status));
                shown.status = status;
            }
        }
        writes
    }
}

fn accepted(problem: Option<&str>, generation: i64, was: &[Condition], now: &str) -> Condition {
    match problem {
        Some(problem) => Condition::new("Accepted", false, "Invalid", problem, generation, was, now),
        None => Condition::new("Accepted", true, "Valid", "", generation, was, now),
    }
}

/// Thousandths as people write them.
fn decimal(milli: i64) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli.unsigned_abs() % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn thousandths_are_written_as_people_do() {
        let all: Vec<String> = [0, 4_000, 2_500, 125, 10_000].into_iter().map(decimal).collect();
        assert_eq!(all, ["0", "4", "2.5", "0.125", "10"]);
    }
}
