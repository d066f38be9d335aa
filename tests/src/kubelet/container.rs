//! Finds what runs in a container, as the machine sees it: nothing here comes from the kubelet or from the node agent.

use std::collections::{BTreeMap, BTreeSet};
use std::{fs, io};

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The first process of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// As the machine counts.
    pub pid: u32,
    /// The GPUs that it was given, as it was told in its environment.
    pub gpus: BTreeSet<String>,
}

impl Container {
    /// Ends its first process as a crash does.
    pub fn crash(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.pid)?), Signal::SIGKILL)?)
    }
}

/// The container whose environment has these variables.
pub fn find(marks: &[(&str, &str)]) -> Result<Option<Container>> {
    let mut pids = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.find_map(|pid| first(pid, marks).ok().flatten()))
}

/// A process may end while it is looked at; that is an error of reading.
fn first(pid: u32, marks: &[(&str, &str)]) -> io::Result<Option<Container>> {
    let environment = fs::read(format!("/proc/{pid}/environ"))?;
    let environment = String::from_utf8_lossy(&environment);
    let variables: BTreeMap<&str, &str> = environment.split('\0').filter_map(|word| word.split_once('=')).collect();
    if !marks.iter().all(|(name, value)| variables.get(name) == Some(value)) || !is_first(pid)? {
        return Ok(None);
    }
    let gpus = variables.get("NVIDIA_VISIBLE_DEVICES").copied().unwrap_or_default();
    Ok(Some(Container { pid, gpus: gpus.split(',').filter(|gpu| !gpu.is_empty()).map(str::to_owned).collect() }))
}

/// `NSpid` of proc(5)'s `status`: its number in each namespace, the innermost last.
fn is_first(pid: u32) -> io::Result<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    Ok(numbers.split_whitespace().next_back() == Some("1"))
}
