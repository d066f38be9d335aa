//! What this process costs, from /proc.

use std::fs;

/// Memory and processor time of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub resident_bytes: Option<f64>,
    pub cpu_seconds: Option<f64>,
}

/// `USER_HZ`: the unit of processor times in /proc, 100 on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Now.
pub fn usage() -> Usage {
    Usage { resident_bytes: resident(), cpu_seconds: cpu() }
}

/// `VmRSS` in KiB: `statm` counts pages, whose size differs.
fn resident() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0)
}

/// Fields 14 and 15 of proc(5)'s `stat`; the name before them may hold spaces.
fn cpu() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_costs_something() {
        let usage = usage();
        assert!(usage.resident_bytes.unwrap() > 1e5 && usage.cpu_seconds.unwrap() >= 0.0, "{usage:?}");
    }
}
