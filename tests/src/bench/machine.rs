//! The machine that a benchmark ran on, and the processor time of processes.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

/// `USER_HZ`: the unit of processor times in /proc, 100 on every architecture that we build for.
const TICK: Duration = Duration::from_millis(10);

/// What a figure depends on.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_gib: f64,
    pub kernel: String,
    /// Over the last minute, before the benchmark: above the number of cores the figures are noisy.
    pub load_before: f64,
}

impl Machine {
    pub fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let memory_kib = field(&read("/proc/meminfo"), "MemTotal").and_then(|v| v.split_whitespace().next()?.parse::<f64>().ok());
        let load = read("/proc/loadavg");
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: super::figures::round(memory_kib.unwrap_or(0.0) / f64::from(1 << 20)),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: load.split_whitespace().next().and_then(|value| value.parse().ok()).unwrap_or(0.0),
        }
    }
}

/// What the processes have used since they had used `before`.
///
/// # Errors
/// One of them has ended.
pub fn cpu_since(before: Duration, pids: &[u32]) -> Result<Duration> {
    let now = pids.iter().map(|pid| cpu_time(*pid)).sum::<Option<Duration>>();
    now.map(|now| now.saturating_sub(before)).context("a measured process has ended")
}

/// User and system time of a process, all its threads together, from its start. `None` when it is gone.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold spaces; utime and stime are the 12th and 13th field after it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u32>().ok();
    Some(TICK * (ticks(11)?.checked_add(ticks(12)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_of_this_process_grows_with_work_and_of_none_is_none() {
        let before = cpu_time(std::process::id()).unwrap();
        let mut sum = 0_u64;
        while cpu_time(std::process::id()).unwrap() < before + 2 * TICK {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(cpu_time(u32::MAX).is_none());
    }

    #[test]
    fn the_machine_is_described() {
        let machine = Machine::look();
        assert!(machine.cores > 0 && machine.memory_gib > 0.1 && !machine.kernel.is_empty());
    }
}
