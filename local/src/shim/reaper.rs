//! Ends and reaps processes below the shim.
//!
//! The command is reaped last: while it is a zombie, its pid, and so the number of its process group, cannot pass to anyone else.

use std::io;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::unit::process::{Process, Stat, Table};

/// Everyone below the shim `me`, among them the command `main`, which has not been reaped.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The shim.
    pub me: Process,
    /// The command.
    pub main: Process,
}

impl Family {
    /// Reaps adopted ones that have ended; whether the command has ended too.
    pub fn has_main_ended(self) -> bool {
        loop {
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            match waitid(Id::All, flags) {
                Ok(status) => match status.pid() {
                    Some(pid) if pid == self.main_pid() => return true,
                    Some(pid) => reap(pid),
                    None => return false,
                },
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Whether nobody of the command's process group runs.
    pub fn is_group_gone(self) -> bool {
        Table::read().is_ok_and(|t| t.group(self.main.pid).iter().all(|s| s.zombie))
    }

    /// Asks the process group to end.
    pub fn terminate(self) {
        self.signal_group(Signal::SIGTERM);
    }

    /// Kills everyone that it can see and reaps who has ended; whether nobody is left but the command, a zombie.
    pub fn kill_all(self) -> io::Result<bool> {
        self.signal_group(Signal::SIGKILL);
        let below = Table::read()?.descendants(self.me.pid);
        for stat in &below {
            self.end(*stat);
        }
        Ok(below.iter().all(|s| s.zombie && s.process == self.main))
    }

    fn end(self, stat: Stat) {
        if !stat.zombie {
            stat.process.kill();
        } else if stat.process != self.main && stat.parent == self.me.pid {
            reap(pid_of(stat.process));
        }
    }

    /// How the command ended. Waits until it has.
    pub fn reap_main(self) -> Option<WaitStatus> {
        loop {
            match waitid(Id::Pid(self.main_pid()), WaitPidFlag::WEXITED) {
                Ok(status) => return Some(status),
                Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
    }

    fn signal_group(self, signal: Signal) {
        // Fails when nobody is left in it, which is fine.
        let _ = nix::sys::signal::killpg(self.main_pid(), signal);
    }

    fn main_pid(self) -> Pid {
        pid_of(self.main)
    }
}

fn pid_of(process: Process) -> Pid {
    Pid::from_raw(i32::try_from(process.pid).unwrap_or(i32::MAX))
}

fn reap(pid: Pid) {
    let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
}
