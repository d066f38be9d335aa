//! Kills without warning, at seeded random times of the day.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use serde::Serialize;
use tidegate_load::Report;
use tokio::time::{Instant, sleep, sleep_until};

use crate::harness::Up;
use crate::processes::{self, Process};

/// What is killed.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Victim {
    Up,
    Router,
    Replica,
    Worker,
}

/// Every kind, and how often in one day.
pub const VICTIMS: [(Victim, usize); 4] = [(Victim::Up, 3), (Victim::Router, 2), (Victim::Replica, 3), (Victim::Worker, 3)];
/// The part of the day in which kills fall: after the start has settled, and with time to recover before the end.
const FROM: Duration = Duration::from_secs(15);
const TO: Duration = Duration::from_secs(160);
/// A person restarts what died; until then the rest must carry on.
const UP_IS_DOWN_FOR: Duration = Duration::from_secs(1);
/// A model may be asleep, a job between two attempts.
const VICTIM_WITHIN: Duration = Duration::from_secs(30);
/// Between the look at the clock and the kill on a busy machine.
const CLOCK_SLACK_MS: u64 = 100;

/// One kill.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    pub victim: Victim,
    pub pid: i32,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Seconds of the day, for people.
    pub second: u64,
    /// Its command line.
    pub command: String,
}

/// When what is killed: the same for the same seed.
pub fn plan(seed: u64) -> Vec<(Duration, Victim)> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut victims: Vec<Victim> = VICTIMS.iter().flat_map(|(victim, times)| vec![*victim; *times]).collect();
    victims.shuffle(&mut random);
    let count = u32::try_from(victims.len()).unwrap_or(1);
    // One in each equal part, so that kills are spread, at a random moment of it.
    let part = TO.saturating_sub(FROM) / count;
    (0u32..).zip(victims).map(|(i, victim)| (FROM + part * i + part.mul_f64(random.random::<f64>()), victim)).collect()
}

/// Carries out the plan; `up` is started again by itself.
pub async fn kill_all(up: &mut Up, seed: u64) -> Result<Vec<Kill>> {
    let began = Instant::now();
    let mut random = StdRng::seed_from_u64(seed.wrapping_add(1));
    let mut kills = Vec::new();
    for (at, victim) in plan(seed) {
        sleep_until(began + at).await;
        kills.push(kill(up, victim, began, &mut random).await.with_context(|| format!("kill {victim:?} at {at:?}"))?);
    }
    Ok(kills)
}

async fn kill(up: &mut Up, victim: Victim, began: Instant, random: &mut StdRng) -> Result<Kill> {
    let process = find(&up.data(), victim, up.pid(), random).await?;
    let at_ms = now_ms();
    if victim == Victim::Up {
        up.kill()?;
        sleep(UP_IS_DOWN_FOR).await;
        up.start_again()?;
    } else {
        process.signal(Signal::SIGKILL);
    }
    eprintln!("killed {victim:?} (pid {}) at second {}", process.pid, began.elapsed().as_secs());
    Ok(Kill { victim, pid: process.pid, at_ms, second: began.elapsed().as_secs(), command: process.command.join(" ") })
}

/// Waits until there is one.
async fn find(data: &Path, victim: Victim, up: i32, random: &mut StdRng) -> Result<Process> {
    let deadline = Instant::now() + VICTIM_WITHIN;
    loop {
        let alive: Vec<Process> = processes::of(data)?.into_iter().filter(|process| is(process, victim, up)).collect();
        if let Some(found) = alive.choose(random) {
            return Ok(found.clone());
        }
        anyhow::ensure!(Instant::now() < deadline, "none was alive within {VICTIM_WITHIN:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

fn is(process: &Process, victim: Victim, up: i32) -> bool {
    match victim {
        Victim::Up => process.pid == up,
        Victim::Router => process.part() == Some("router"),
        Victim::Replica => process.part() == Some("replica"),
        Victim::Worker => process.worker().is_some(),
    }
}

/// Requests without a right answer: those that were in flight when a process on their way was killed, and all others.
#[derive(Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    pub in_flight_in_killed: u64,
    pub others: u64,
}

/// A loss is excused when a router or a replica was killed between its sending and its end.
pub fn attribute(model: &tidegate_load::ModelReport, report: &Report, kills: &[Kill]) -> Losses {
    let on_the_way = |kill: &&Kill| matches!(kill.victim, Victim::Router | Victim::Replica);
    let excused = model.lost_requests.iter().chain(&model.failed_requests).filter(|lost| {
        let sent = report.started_unix_ms + lost.sent_ms;
        let ended = report.started_unix_ms + lost.ended_ms;
        kills.iter().filter(on_the_way).any(|kill| sent <= kill.at_ms + CLOCK_SLACK_MS && kill.at_ms <= ended + CLOCK_SLACK_MS)
    });
    let in_flight_in_killed = u64::try_from(excused.count()).unwrap_or(u64::MAX);
    let totals = &model.totals;
    Losses { in_flight_in_killed, others: (totals.lost + totals.failed + totals.unfinished).saturating_sub(in_flight_in_killed) }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_load::{LostRequest, ModelReport};

    #[test]
    fn the_plan_is_the_same_for_a_seed_ordered_and_kills_every_kind() {
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
        assert!(plan(7).is_sorted_by_key(|(at, _)| *at));
        assert!(plan(7).iter().all(|(at, _)| (FROM..=TO).contains(at)));
        assert!(VICTIMS.iter().all(|(victim, times)| plan(7).iter().filter(|(_, v)| v == victim).count() == *times));
    }

    fn losses(victim: Victim, sent_ms: u64, ended_ms: u64) -> Losses {
        let kills = [Kill { victim, pid: 1, at_ms: 1_005_000, second: 5, command: String::new() }];
        let mut model = ModelReport {
            lost_requests: vec![LostRequest { sent_ms, ended_ms, error: String::new() }],
            ..ModelReport::default()
        };
        model.totals.lost = 1;
        attribute(&model, &Report { started_unix_ms: 1_000_000, ..Report::default() }, &kills)
    }

    #[test]
    fn a_loss_is_excused_only_when_a_process_on_its_way_died_meanwhile() {
        assert_eq!(losses(Victim::Router, 4_000, 6_000), Losses { in_flight_in_killed: 1, others: 0 });
        assert_eq!(losses(Victim::Replica, 4_990, 5_010), Losses { in_flight_in_killed: 1, others: 0 });
        assert_eq!(losses(Victim::Router, 5_500, 6_000), Losses { in_flight_in_killed: 0, others: 1 });
        assert_eq!(losses(Victim::Up, 4_000, 6_000), Losses { in_flight_in_killed: 0, others: 1 });
        assert_eq!(losses(Victim::Worker, 4_000, 6_000), Losses { in_flight_in_killed: 0, others: 1 });
    }
}
