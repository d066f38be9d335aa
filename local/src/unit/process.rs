//! Processes by pid and start time, and the trees they form, from `/proc`.
//!
//! A pid alone names different processes over time; with the start time (in clock ticks since boot) it names one.
//! A signal goes through a pidfd that is checked after it was opened, so it never reaches a later holder of the pid.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::UNIT_DIR_ENV;

/// One process, for ever.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Start, in clock ticks since boot.
    pub start_ticks: u64,
}

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Who it is.
    pub process: Process,
    /// Its parent's pid.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// It has ended and waits to be reaped.
    pub zombie: bool,
}

impl Stat {
    /// Reads it; `None` when there is no such process.
    pub fn of(pid: u32) -> Option<Self> {
        parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }
}

/// Fields by `proc_pid_stat(5)`. The name (field 2) may hold anything, so counting starts behind its last parenthesis.
fn parse(pid: u32, line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    Some(Stat {
        process: Process { pid, start_ticks: field(22)?.parse().ok()? },
        parent: field(4)?.parse().ok()?,
        group: field(5)?.parse().ok()?,
        zombie: matches!(field(3)?, "Z" | "X"),
    })
}

impl Process {
    /// This process.
    pub fn current() -> io::Result<Self> {
        Self::of(std::process::id())
    }

    /// The process that has `pid` now.
    pub fn of(pid: u32) -> io::Result<Self> {
        Stat::of(pid).map(|s| s.process).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no process {pid}")))
    }

    /// Whether it runs (a zombie does not).
    pub fn is_alive(self) -> bool {
        Stat::of(self.pid).is_some_and(|s| s.process == self && !s.zombie)
    }

    /// A handle that becomes readable when it ends; `None` when it has been reaped.
    pub fn open(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        // Checked after the pid is pinned: what matches now is what the handle names.
        Ok(Stat::of(self.pid).is_some_and(|s| s.process == self).then_some(fd))
    }

    /// Sends SIGKILL; whether there was someone to get it.
    pub fn kill(self) -> bool {
        matches!(self.open(), Ok(Some(fd)) if pidfd_send_signal(&fd, Signal::KILL).is_ok())
    }
}

/// All processes of the machine that can be seen, at about one moment.
#[derive(Debug, Default)]
pub struct Table(HashMap<u32, Stat>);

impl Table {
    /// Reads `/proc`.
    pub fn read() -> io::Result<Self> {
        let mut table = HashMap::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
            if let Some(stat) = Stat::of(pid) {
                table.insert(pid, stat);
            }
        }
        Ok(Self(table))
    }

    /// Everyone below `root`, zombies too, without `root`.
    pub fn descendants(&self, root: u32) -> Vec<Stat> {
        let mut children: HashMap<u32, Vec<Stat>> = HashMap::new();
        for stat in self.0.values() {
            children.entry(stat.parent).or_default().push(*stat);
        }
        let mut found = Vec::new();
        let mut seen = HashSet::from([root]);
        let mut next = vec![root];
        while let Some(pid) = next.pop() {
            for child in children.get(&pid).into_iter().flatten().filter(|c| seen.insert(c.process.pid)) {
                found.push(*child);
                next.push(child.process.pid);
            }
        }
        found
    }

    /// Members of a process group.
    pub fn group(&self, group: u32) -> Vec<Stat> {
        self.0.values().filter(|s| s.group == group).copied().collect()
    }

    /// Processes that were started with `TIDEGATE_UNIT_DIR=folder`, and whatever they started.
    pub fn marked(&self, folder: &Path) -> Vec<Stat> {
        let mark = [UNIT_DIR_ENV.as_bytes(), b"=", folder.as_os_str().as_encoded_bytes()].concat();
        let has_mark = |s: &&Stat| {
            fs::read(format!("/proc/{}/environ", s.process.pid))
                .is_ok_and(|env| env.split(|b| *b == 0).any(|var| var == mark.as_slice()))
        };
        self.0.values().filter(|s| !s.zombie).filter(has_mark).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_parentheses_does_not_confuse_the_parser() {
        let line = "7 (a) b) 1 (c) S 3 5 5 0 -1 4194304 124 0 0 0 0 0 0 0 20 0 1 0 183262 3133440 386";
        let stat = parse(7, line).unwrap();
        assert_eq!(stat, Stat { process: Process { pid: 7, start_ticks: 183_262 }, parent: 3, group: 5, zombie: false });
        assert_eq!(parse(7, "7 (a"), None);
        assert_eq!(parse(7, "7 (a) S 3"), None);
    }

    #[test]
    fn a_process_with_another_start_time_is_another_process() {
        let me = Process::current().unwrap();
        assert!(me.is_alive());
        assert!(me.open().unwrap().is_some());
        let other = Process { start_ticks: me.start_ticks + 1, ..me };
        assert!(!other.is_alive());
        assert!(other.open().unwrap().is_none());
        assert!(!other.kill());
    }

    #[test]
    fn descendants_are_found_through_generations_and_cycles_end() {
        let stat = |pid, parent, group| Stat { process: Process { pid, start_ticks: 1 }, parent, group, zombie: false };
        let table =
            Table([(2, stat(2, 1, 2)), (3, stat(3, 2, 2)), (4, stat(4, 3, 4)), (1, stat(1, 4, 1)), (9, stat(9, 8, 9))].into());
        let mut below: Vec<u32> = table.descendants(2).iter().map(|s| s.process.pid).collect();
        below.sort_unstable();
        assert_eq!(below, [1, 3, 4]);
        assert_eq!(table.group(2).len(), 2);
    }
}
