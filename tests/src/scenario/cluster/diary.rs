//! What workers of a job write to their standard error: how each attempt began and how far it came, to the step.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// One attempt, as its rank 0 wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    pub number: u32,
    pub workers: u32,
    /// The step of the checkpoint that it began with.
    pub from: u64,
    /// The last step of which it said something.
    pub last: u64,
    pub checkpoints: u64,
}

/// Every attempt of a job, in order.
pub fn read(file: &Path) -> Result<Vec<Attempt>> {
    Ok(attempts(&fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?))
}

/// The most that each stop threw away: steps that were done and done again.
pub fn steps_lost(attempts: &[Attempt]) -> Vec<u64> {
    attempts.iter().zip(attempts.iter().skip(1)).map(|(before, after)| before.last.saturating_sub(after.from)).collect()
}

fn attempts(text: &str) -> Vec<Attempt> {
    let mut found: Vec<Attempt> = Vec::new();
    for line in text.lines() {
        if let Some(attempt) = began(line) {
            found.push(attempt);
        } else if let (Some((step, checkpoint)), Some(attempt)) = (reached(line), found.last_mut()) {
            attempt.last = attempt.last.max(step);
            attempt.checkpoints += u64::from(checkpoint);
        }
    }
    found
}

/// `attempt 3: rank 0 of 2 goes on from step 75 of 800`
fn began(line: &str) -> Option<Attempt> {
    let (number, rest) = line.strip_prefix("attempt ")?.split_once(": rank 0 of ")?;
    let (workers, rest) = rest.split_once(" goes on from step ")?;
    let (step, _) = rest.split_once(" of ")?;
    let from = step.parse().ok()?;
    Some(Attempt { number: number.parse().ok()?, workers: workers.parse().ok()?, from, last: from, checkpoints: 0 })
}

/// `step 100: checkpoint, held-out loss 0.5`, or `stopped at step 103 of 800`; and whether it is a checkpoint.
fn reached(line: &str) -> Option<(u64, bool)> {
    if let Some(rest) = line.strip_prefix("stopped at step ") {
        return Some((rest.split_once(" of ")?.0.parse().ok()?, false));
    }
    let (step, rest) = line.strip_prefix("step ")?.split_once(": ")?;
    Some((step.parse().ok()?, rest.starts_with("checkpoint")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_read_with_what_they_began_from_and_how_far_they_came() {
        let text = "attempt 1: rank 1 of 2 goes on from step 0 of 800\nattempt 1: rank 0 of 2 goes on from step 0 of 800\n\
                    step 25: checkpoint, held-out loss 0.5\nstep 40: checkpoint, held-out loss 0.4\nstopped at step 40 of 800\n\
                    KeyError: x\nattempt 2: rank 0 of 1 goes on from step 25 of 800\n";
        let first = Attempt { number: 1, workers: 2, from: 0, last: 40, checkpoints: 2 };
        let second = Attempt { number: 2, workers: 1, from: 25, last: 25, checkpoints: 0 };
        assert_eq!(attempts(text), [first, second]);
        assert_eq!(steps_lost(&attempts(text)), [15]);
    }

    #[test]
    fn the_example_s_workers_write_what_is_read_here() {
        let script = fs::read_to_string(crate::harness::workspace().join("examples/tide/train/elastic.py")).unwrap();
        for words in [
            "attempt {contract.attempt}: rank {group.rank} of {group.size} goes on from step {run.step} of",
            "step {run.step}: checkpoint",
            "stopped at step {run.step} of",
        ] {
            assert!(script.contains(words), "{words}");
        }
    }
}
