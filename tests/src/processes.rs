//! Which processes of the machine belong to one `tidegate up`: they carry its data folder in their environment or
//! in their command line, whoever their parent is by now.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tidegate_api::contract;

/// Set by `up` in every process that it starts, and inherited: the unit's folder under the data folder.
const UNIT_DIR: &str = "TIDEGATE_UNIT_DIR";

/// One process, as it described itself when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    /// Since boot; tells a process from a later one with its pid.
    pub start_ticks: u64,
    /// Of the process group; equal to `pid` for its leader.
    pub group: i32,
    pub command: Vec<String>,
    pub environment: BTreeMap<String, String>,
}

impl Process {
    /// `up`, `router`, `replica`, `shim`: what the executable `tidegate` runs as.
    pub fn part(&self) -> Option<&str> {
        let program = Path::new(self.command.first()?).file_name()?;
        if program == "tidegate" { self.command.get(1).map(String::as_str) } else { None }
    }

    /// The worker that it leads, if it is the command of a training job.
    pub fn worker(&self) -> Option<Worker> {
        if self.part().is_some() || self.group != self.pid {
            return None;
        }
        let number = |name: &str| self.environment.get(name)?.parse().ok();
        Some(Worker {
            job: self.environment.get(contract::JOB)?.clone(),
            attempt: number(contract::ATTEMPT)?,
            rank: number(contract::RANK)?,
        })
    }

    /// The same process, still running (a zombie does not).
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|now| now.start_ticks == self.start_ticks && now.running)
    }

    /// Sends a signal to this very process; one that has ended is no error.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive() {
            let _ended_meanwhile = kill(Pid::from_raw(self.pid), signal);
        }
    }
}

/// One worker of one attempt of a job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Worker {
    pub job: String,
    pub attempt: u32,
    pub rank: u32,
}

/// Every process of the `up` with this data folder, itself too; the caller excepted.
pub fn of(data: &Path) -> io::Result<Vec<Process>> {
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    let pids = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    Ok(pids.filter(|pid| *pid != me).filter_map(describe).filter(|process| belongs(process, data)).collect())
}

fn belongs(process: &Process, data: &Path) -> bool {
    let unit = process.environment.get(UNIT_DIR).is_some_and(|dir| Path::new(dir).starts_with(data));
    unit || process.command.iter().any(|word| Path::new(word).starts_with(data))
}

/// `None` when it ended meanwhile, is a zombie or is not ours to look at.
fn describe(pid: i32) -> Option<Process> {
    let Stat { start_ticks, group, running } = stat(pid)?;
    let environment = words(pid, "environ")?;
    let environment =
        environment.iter().filter_map(|word| word.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    running.then_some(Process { pid, start_ticks, group, command: words(pid, "cmdline")?, environment })
}

fn words(pid: i32, file: &str) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).ok()?;
    Some(
        bytes.split(|b| *b == 0).filter(|word| !word.is_empty()).map(|word| String::from_utf8_lossy(word).into_owned()).collect(),
    )
}

struct Stat {
    start_ticks: u64,
    group: i32,
    running: bool,
}

/// Fields 3 (state), 5 (process group) and 22 (start time) of proc(5)'s `stat`; the name before them may hold spaces.
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let running = !matches!(*fields.first()?, "Z" | "X");
    Some(Stat { start_ticks: fields.get(19)?.parse().ok()?, group: fields.get(2)?.parse().ok()?, running })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    #[test]
    fn a_process_is_found_by_the_folder_in_its_environment_and_described() {
        let data = tempfile::tempdir().unwrap();
        let mut worker = Command::new("sleep");
        worker.arg("60").process_group(0).env(UNIT_DIR, data.path().join("units/job-a")).env(contract::JOB, "a");
        let mut child = worker.env(contract::ATTEMPT, "3").env(contract::RANK, "1").spawn().unwrap();
        let mut found = of(data.path()).unwrap();
        // Between fork and exec the child is still a copy of this test.
        while found.first().is_none_or(|process| process.worker().is_none()) {
            std::thread::yield_now();
            found = of(data.path()).unwrap();
        }
        assert_eq!(found[0].worker(), Some(Worker { job: "a".into(), attempt: 3, rank: 1 }));
        assert_eq!(found[0].part(), None);
        found[0].signal(Signal::SIGKILL);
        child.wait().unwrap();
        assert!(!found[0].is_alive());
        assert_eq!(of(data.path()).unwrap(), []);
    }

    #[test]
    fn a_part_is_told_by_its_subcommand_and_is_no_worker() {
        let environment = BTreeMap::from([
            (contract::JOB.into(), "a".into()),
            (contract::ATTEMPT.into(), "1".into()),
            (contract::RANK.into(), "0".into()),
        ]);
        let command = vec!["/x/tidegate".into(), "shim".into(), "--dir".into(), "/d/units/a".into()];
        let shim = Process { pid: 7, start_ticks: 1, group: 7, command, environment };
        assert_eq!((shim.part(), shim.worker()), (Some("shim"), None));
        assert!(belongs(&shim, Path::new("/d")));
        assert!(!belongs(&shim, Path::new("/d/units/b")));
    }
}
