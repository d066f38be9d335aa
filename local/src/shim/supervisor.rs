//! The life of one unit: start, run, stop, start again.

use std::io::{self, Read};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::wait::WaitStatus;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::backoff::Backoff;
use super::child::{Child, spawn};
use super::reaper::Family;
use super::signals::Signals;
use crate::unit::folder::Folder;
use crate::unit::log::LogWriter;
use crate::unit::process::Process;
use crate::unit::{Exit, Restart, Run, UnitSpec, now_ms};

/// Grace when SIGTERM comes from elsewhere than the world, for instance at the machine's shutdown; Docker's default.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// How often processes are looked for whose end sends no SIGCHLD, because another one is their parent.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// One read of the output; a pipe's default capacity.
const READ_BYTES: usize = 64 << 10;
/// Reads after the last writer ended. More than a pipe can hold, so that it ends even if a descriptor escaped.
const LAST_READS: usize = 32;

/// Runs one unit.
pub struct Supervisor<'a> {
    folder: &'a Folder,
    spec: &'a UnitSpec,
    listener: Option<TcpListener>,
    signals: Signals,
    log: LogWriter,
    me: Process,
    /// Set by a stop request: when SIGKILL follows.
    kill_at: Option<Instant>,
    restarts: u32,
    last_exit: Option<Exit>,
}

impl<'a> Supervisor<'a> {
    /// Nothing is started yet.
    pub fn new(folder: &'a Folder, spec: &'a UnitSpec, listener: Option<TcpListener>, signals: Signals, me: Process) -> Self {
        let log = LogWriter::open(folder, spec.log_max_bytes);
        Self { folder, spec, listener, signals, log, me, kill_at: None, restarts: 0, last_exit: None }
    }

    /// Runs the command until it ends for good; how it ended.
    pub fn run(mut self) -> Exit {
        let mut backoff = Backoff::default();
        if self.folder.file("stop.json").exists() {
            return Exit { at_ms: now_ms(), requested: true, ..Exit::default() };
        }
        loop {
            let started = Instant::now();
            let exit = self.run_once();
            if exit.requested || self.spec.restart == Restart::Never {
                return exit;
            }
            self.last_exit = Some(exit.clone());
            self.restarts = self.restarts.saturating_add(1);
            self.pause(backoff.after(started.elapsed()));
            if self.kill_at.is_some() {
                return Exit { requested: true, ..exit };
            }
        }
    }

    fn run_once(&mut self) -> Exit {
        match spawn(self.spec, self.folder, self.listener.as_ref()) {
            Ok(mut child) => {
                self.record(&child);
                let family = Family { me: self.me, main: child.process };
                let killed = self.supervise(family, &mut child);
                self.end_all(family, &mut child);
                let status = family.reap_main();
                self.exit_of(status, killed)
            }
            Err(e) => self.failed_start(&e),
        }
    }

    fn record(&mut self, child: &Child) {
        let run = Run {
            shim_pid: self.me.pid,
            shim_start_ticks: self.me.start_ticks,
            pid: child.process.pid,
            start_ticks: child.process.start_ticks,
            started_ms: now_ms(),
            restarts: self.restarts,
            last_exit: self.last_exit.clone(),
        };
        if let Err(e) = self.folder.write_run(&run) {
            self.log.note(&format!("cannot write run.json: {e}"));
        }
    }

    /// Until the command has ended (when stopping: with its group), or the grace has run out, which it returns.
    fn supervise(&mut self, family: Family, child: &mut Child) -> bool {
        loop {
            self.signals.take_child();
            let ended = family.has_main_ended();
            if ended && (self.kill_at.is_none() || family.is_group_gone()) {
                return false;
            }
            let left = self.kill_at.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return true;
            }
            self.wait(Some(child), if ended { left.map(|l| l.min(LOOK_AGAIN)) } else { left });
            if self.take_stop() {
                family.terminate();
            }
        }
    }

    /// Kills all that is left. A process in an uninterruptible call may still hold a device, so this waits for as long as it takes.
    fn end_all(&mut self, family: Family, child: &mut Child) {
        loop {
            match family.kill_all() {
                Ok(true) => break,
                Ok(false) => self.wait(Some(child), Some(LOOK_AGAIN)),
                Err(e) => {
                    self.log.note(&format!("cannot look for processes left behind: {e}"));
                    break;
                }
            }
            self.signals.take_child();
            self.take_stop();
        }
        for _ in 0..LAST_READS {
            if child.output.is_none() {
                break;
            }
            self.wait(Some(child), Some(Duration::ZERO));
        }
    }

    /// Between two runs.
    fn pause(&mut self, delay: Duration) {
        let until = Instant::now() + delay;
        while !self.take_stop() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.signals.take_child();
            self.wait(None, Some(left));
        }
    }

    /// Waits for a signal, for output (which it puts in the log), or for `timeout`.
    fn wait(&mut self, child: Option<&mut Child>, timeout: Option<Duration>) {
        let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
        let output = child.map(|c| &mut c.output);
        let readable = {
            let mut fds: Vec<PollFd<'_>> =
                self.signals.fds().iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
            if let Some(Some(pipe)) = output.as_deref() {
                fds.push(PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN));
            }
            // An interrupted call is a signal: the caller looks.
            poll(&mut fds, timeout.as_ref()).is_ok() && fds.get(2).is_some_and(|fd| !fd.revents().is_empty())
        };
        if let Some(output) = output.filter(|_| readable) {
            self.copy_output(output);
        }
    }

    fn copy_output(&mut self, output: &mut Option<io::PipeReader>) {
        let Some(pipe) = output else { return };
        let mut bytes = vec![0; READ_BYTES];
        match pipe.read(&mut bytes) {
            Ok(n) if n > 0 => self.log.write(bytes.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => *output = None,
        }
    }

    /// Whether a first stop request has come. A later one can shorten the grace, never lengthen it.
    fn take_stop(&mut self) -> bool {
        if !self.signals.take_term() {
            return false;
        }
        let grace = self.folder.stop().ok().flatten().map_or(DEFAULT_GRACE, |s| Duration::from_millis(s.grace_ms));
        let kill_at = Instant::now() + grace;
        let first = self.kill_at.is_none();
        self.kill_at = Some(self.kill_at.map_or(kill_at, |at| at.min(kill_at)));
        first
    }

    fn exit_of(&self, status: Option<WaitStatus>, killed: bool) -> Exit {
        let (code, signal) = match status {
            Some(WaitStatus::Exited(_, code)) => (Some(code), None),
            Some(WaitStatus::Signaled(_, signal, _)) => (None, Some(signal as i32)),
            _ => (None, None),
        };
        Exit { code, signal, at_ms: now_ms(), killed, requested: self.kill_at.is_some(), lost: false, error: None }
    }

    /// Exit codes as a shell gives them.
    fn failed_start(&mut self, error: &io::Error) -> Exit {
        let program = self.spec.command.first().map_or("", String::as_str);
        let error_text = format!("cannot start {program:?} in {}: {error}", self.spec.working_dir.display());
        self.log.note(&error_text);
        let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
        Exit { code: Some(code), at_ms: now_ms(), error: Some(error_text), ..Exit::default() }
    }
}
