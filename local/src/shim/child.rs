//! Starts the command of a unit.

use std::io::{self, PipeReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};

use crate::unit::folder::Folder;
use crate::unit::process::Process;
use crate::unit::{UNIT_DIR_ENV, UNIT_ENV, UnitSpec};

/// Where a passed socket is expected (`sd_listen_fds(3)`).
const FIRST_LISTEN_FD: i32 = 3;

/// A started command.
#[derive(Debug)]
pub struct Child {
    /// Leader of its own process group.
    pub process: Process,
    /// What it writes to standard output and standard error; `None` once both are closed.
    pub output: Option<PipeReader>,
}

/// Starts it. It has standard streams and, if asked for, the socket as descriptor 3; nothing else of the shim's.
pub fn spawn(spec: &UnitSpec, folder: &Folder, listener: Option<&TcpListener>) -> io::Result<Child> {
    let (program, arguments) = spec.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let (output, input) = io::pipe()?;
    let mut command = Command::new(resolve(spec, program));
    command
        .args(arguments)
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_PID")
        .envs(&spec.env)
        .env(UNIT_ENV, spec.id.as_str())
        .env(UNIT_DIR_ENV, folder.path())
        .current_dir(&spec.working_dir)
        .stdin(Stdio::null())
        .stdout(input.try_clone()?)
        .stderr(input)
        .process_group(0);
    if let Some(listener) = listener {
        let mapping = FdMapping { parent_fd: listener.try_clone()?.into(), child_fd: FIRST_LISTEN_FD };
        // Without LISTEN_PID, which cannot be known before the fork; `listenfd` takes its absence as a match.
        command.env("LISTEN_FDS", "1").fd_mappings(vec![mapping]).map_err(io::Error::other)?;
    }
    let mut child = command.spawn()?;
    // Not reaped yet, so the pid is its own even if it has ended.
    match Process::of(child.id()) {
        Ok(process) => Ok(Child { process, output: Some(output) }),
        Err(e) => {
            child.kill()?;
            child.wait()?;
            Err(e)
        }
    }
}

fn resolve(spec: &UnitSpec, program: &str) -> PathBuf {
    if program.contains('/') { spec.working_dir.join(program) } else { PathBuf::from(program) }
}
