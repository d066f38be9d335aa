//! `tidegate shim --dir DIR`: runs one unit, so that the unit outlives the world that started it.
//!
//! It holds the unit's lock for life (a second shim on the folder ends at once: one unit, one run), starts the command
//! in its own process group, keeps its output, and when the command ends kills whatever it left behind, daemons too:
//! the shim is their subreaper, so none can leave its tree. Last it writes `exit.json`. SIGTERM asks it to stop the
//! unit, with the grace that `stop.json` says; the world may die meanwhile.
//!
//! It is one thread around `poll(2)`, without a runtime: it must be small, and hard to break.

pub mod backoff;
mod child;
mod reaper;
mod signals;
mod supervisor;

use std::net::TcpListener;
use std::path::{PathBuf, absolute};

use tidegate_runtime::exit::Error;

use crate::unit::folder::Folder;
use crate::unit::process::Process;
use signals::Signals;
use supervisor::Supervisor;

/// Arguments.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// The unit's folder.
    #[arg(long)]
    dir: PathBuf,
}

/// Runs the unit to its end. Call it before any other thread or runtime is started.
pub fn run(args: Args) -> Result<(), Error> {
    let Args { dir } = args;
    // First of all, so that the window in which SIGTERM ends the shim itself closes before there is anything to lose.
    let signals = Signals::register().map_err(|e| Error::failed("register signal handlers", e))?;
    let dir = absolute(&dir).map_err(|e| Error::failed("resolve --dir", e))?;
    let context = |what: &str| format!("{what} of {}", dir.display());
    let folder = Folder::new(&dir);
    let me = Process::current().map_err(|e| Error::failed("read /proc/self", e))?;
    let Some(_lock) = folder.lock(Some(me)).map_err(|e| Error::failed(context("take the lock"), e))? else { return Ok(()) };
    // Ended, or its shim was killed: what is left is for the world to clear up, not for a second run.
    if folder.file("exit.json").exists() || folder.file("run.json").exists() {
        return Ok(());
    }
    let spec = folder.spec().map_err(|e| Error::failed(context("read the spec"), e))?;
    let spec = spec.ok_or_else(|| Error::Usage(format!("--dir {}: no spec.json in it; name a unit's folder", dir.display())))?;
    let listener = if spec.listen_fd { Some(inherited_listener()?) } else { None };
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|e| Error::failed("become a subreaper", e))?;
    let exit = Supervisor::new(&folder, &spec, listener, signals, me).run();
    folder.write_exit(&exit).map_err(|e| Error::failed(context("record the end"), e))
}

fn inherited_listener() -> Result<TcpListener, Error> {
    let found = listenfd::ListenFd::from_env().take_tcp_listener(0);
    let found = found.map_err(|e| Error::failed("take the listening socket", e))?;
    found.ok_or_else(|| Error::Usage("listen_fd is set, but no socket came as descriptor 3 with LISTEN_FDS=1".into()))
}
