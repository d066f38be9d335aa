//! Finds out how a unit is from its folder, and makes an end of one whose shim was killed.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::unit::folder::Folder;
use crate::unit::process::{Process, Table};
use crate::unit::{Exit, now_ms};

/// Between two looks at a shim that is just starting, or at processes that are just dying. Both take a few of it.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Looks after which a process that does not die of SIGKILL is reported: every 5 s.
const LOOKS_A_REPORT: u32 = 1000;

/// How a unit is.
#[derive(Debug)]
pub enum Settled {
    /// Its shim runs; the pidfd.
    Running(OwnedFd),
    /// It has ended, and nothing of it is left.
    Ended(Exit),
}

/// Decides by the lock who is in charge. When nobody is, takes the lock itself (so that a shim that comes late finds
/// `exit.json` and ends), kills what is left and records the end.
pub async fn settle(folder: &Folder) -> io::Result<Settled> {
    loop {
        match folder.holder()? {
            Some(Some(shim)) => {
                if let Some(fd) = shim.open()? {
                    return Ok(Settled::Running(fd));
                }
            }
            // It is about to write its pid.
            Some(None) => {}
            None => {
                if let Some(exit) = folder.exit()? {
                    return Ok(Settled::Ended(exit));
                }
                if let Some(lock) = folder.lock(None)? {
                    let exit = clear_up(folder).await?;
                    drop(lock);
                    return Ok(Settled::Ended(exit));
                }
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Kills everything of a unit without a shim. Returns when it is gone: its devices are free then.
async fn clear_up(folder: &Folder) -> io::Result<Exit> {
    let mut looks = 0;
    loop {
        let left = leftovers(folder)?;
        if left.is_empty() {
            break;
        }
        for process in &left {
            process.kill();
        }
        if looks % LOOKS_A_REPORT == 0 {
            tracing::warn!(unit = %folder.path().display(), processes = left.len(), "killing what a killed shim left behind");
        }
        looks += 1;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let exit = Exit { at_ms: now_ms(), lost: true, requested: folder.stop()?.is_some(), ..Exit::default() };
    if let Err(error) = folder.write_exit(&exit) {
        tracing::warn!(unit = %folder.path().display(), %error, "cannot record the end of a unit");
    }
    Ok(exit)
}

/// The recorded command with its group and descendants, and all that carry the unit's mark in their environment: a
/// daemon that left the group, or a command whose shim was killed before it could record it.
fn leftovers(folder: &Folder) -> io::Result<HashSet<Process>> {
    let table = Table::read()?;
    let mut found: HashSet<Process> = table.marked(folder.path()).iter().map(|s| s.process).collect();
    if let Some(run) = folder.run()? {
        // The group is only known to be ours while its leader lives; members are marked in any case.
        if run.process().is_alive() {
            found.insert(run.process());
            found.extend(table.group(run.pid).iter().map(|s| s.process));
        }
    }
    for process in found.clone() {
        found.extend(table.descendants(process.pid).iter().map(|s| s.process));
    }
    Ok(found.into_iter().filter(|p| p.is_alive()).collect())
}
