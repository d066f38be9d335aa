//! Starts a shim.

use std::fs::OpenOptions;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};

use crate::unit::folder::Folder;
use crate::unit::process::Process;

/// Descriptor of a passed socket (`sd_listen_fds(3)`), the first behind the standard streams.
const FIRST_LISTEN_FD: i32 = 3;

/// Starts the shim of `folder` in a process group of its own, out of reach of the terminal's Ctrl-C; with its pidfd.
pub fn shim(exe: &Path, folder: &Folder, listener: Option<&TcpListener>) -> io::Result<(Child, OwnedFd)> {
    let own_log = OpenOptions::new().append(true).create(true).mode(0o600).open(folder.file("shim.log"))?;
    // Whoever started this process may have left descriptors open, for instance a pipe that it waits on: a unit that
    // outlives this process must not keep them. All of our own are close-on-exec anyway.
    close_fds::set_fds_cloexec_threadsafe(FIRST_LISTEN_FD, &[]);
    let mut command = Command::new(exe);
    command
        .args(["shim", "--dir"])
        .arg(folder.path())
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_PID")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(own_log)
        .process_group(0);
    if let Some(listener) = listener {
        let mapping = FdMapping { parent_fd: listener.try_clone()?.into(), child_fd: FIRST_LISTEN_FD };
        command.env("LISTEN_FDS", "1").fd_mappings(vec![mapping]).map_err(io::Error::other)?;
    }
    let mut child = command.spawn()?;
    match Process::of(child.id()).and_then(Process::open) {
        Ok(Some(shim)) => Ok((child, shim)),
        other => {
            child.kill()?;
            child.wait()?;
            Err(other.err().unwrap_or_else(|| io::ErrorKind::NotFound.into()))
        }
    }
}
