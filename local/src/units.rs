//! The world's side of units: starts shims, hears of every start and end, adopts what an earlier world started.
//!
//! ```text
//!   start(spec) --> folder + shim process --> the command            DATA/units/<id>/
//!   watch task per shim:  pidfd readable --> exit.json, or clear up --> UnitEvent::Exited
//!   one task for inotify: run.json moved in ------------------------> UnitEvent::Started
//! ```
//!
//! Guarantees: a unit's events come in order, `Started` before `Exited`, and `Exited` once. When `Exited` was sent, no
//! process of the unit is left. A unit runs at most once, whatever is killed when; to run it again, `forget` it first or
//! choose another id. Dropping [`Units`] (or the end of its process) leaves the units running.
//!
//! Assumes: one world at a time on a folder (the ledger's lock sees to that).

mod launch;
mod settle;
mod watch;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::inotify;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::unit::folder::Folder;
use crate::unit::log::{self, LogChunk};
use crate::unit::process::Process;
use crate::unit::{Exit, Run, StopRequest, UnitId, UnitSpec};
use settle::{Settled, settle};

/// What can go wrong with a unit.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder of units or of one unit cannot be used.
    #[error("use {path}: {source}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The shim cannot be started, or reached.
    #[error("{doing} the shim of unit {id}: {source}")]
    Shim {
        /// Verb.
        doing: &'static str,
        /// Whose.
        id: UnitId,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No unit has this id.
    #[error("no unit {0}")]
    Unknown(UnitId),
    /// It has run already.
    #[error("unit {0} has ended; forget it before it is started again")]
    Ended(UnitId),
    /// It must end first.
    #[error("unit {0} is running; stop it first")]
    Running(UnitId),
}

impl Error {
    /// Bounded word for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Folder { .. } => "folder",
            Self::Shim { .. } => "shim",
            Self::Unknown(_) => "unknown",
            Self::Ended(_) => "ended",
            Self::Running(_) => "running",
        }
    }
}

/// What happened to a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitEvent {
    /// Its command has been started. Of starts in quick succession only the last may be told.
    Started {
        /// Whose.
        id: UnitId,
        /// The command.
        pid: u32,
        /// How many runs were before.
        restarts: u32,
    },
    /// It has ended for good and nothing of it is left.
    Exited {
        /// Whose.
        id: UnitId,
        /// How.
        exit: Exit,
    },
}

/// A unit and how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitStatus {
    /// What it was started with.
    pub spec: UnitSpec,
    /// How it is.
    pub state: UnitState,
}

/// How a unit is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitState {
    /// Its shim runs. `None`: it is about to start the command.
    Running(Option<Run>),
    /// It has ended.
    Ended(Exit),
}

/// All units of one world. Clones share them. Watching ends with the last clone; the units go on.
#[derive(Clone, Debug)]
pub struct Units {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    _watching: Arc<DropGuard>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    exe: PathBuf,
    /// Unbounded, as sending must not wait under the lock that keeps events in order. Bounded in effect: a unit sends one
    /// `Exited`, and one `Started` a run, and restarts back off.
    events: UnboundedSender<UnitEvent>,
    inotify: OwnedFd,
    cancel: CancellationToken,
    /// Held over a whole start, so that two of one unit cannot both find it absent.
    starts: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    units: HashMap<UnitId, Entry>,
    watches: HashMap<i32, UnitId>,
}

#[derive(Debug)]
struct Entry {
    spec: UnitSpec,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Running {
        shim: Arc<OwnedFd>,
        /// The run that was last told.
        run: Option<Run>,
        /// Inotify watch on the folder.
        watch: i32,
    },
    Ended(Exit),
}

impl Units {
    /// Opens the folder of units (made if absent): adopts those that run, and for those whose shim was killed kills what
    /// is left and records a `lost` end. The statuses are those at the moment of opening; later changes come as events.
    /// `exe` is the `tidegate` executable. Call it in a tokio runtime.
    pub async fn open(dir: &Path, exe: PathBuf, events: UnboundedSender<UnitEvent>) -> Result<(Self, Vec<UnitStatus>), Error> {
        let failed = |source| Error::Folder { path: dir.to_owned(), source };
        Folder::new(dir).create().map_err(failed)?;
        let dir = dir.canonicalize().map_err(failed)?;
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let inotify = inotify::init(flags).map_err(|e| failed(e.into()))?;
        let cancel = CancellationToken::new();
        let shared =
            Shared { dir, exe, events, inotify, cancel: cancel.clone(), starts: Mutex::default(), state: Mutex::default() };
        let units = Self { shared: Arc::new(shared), tasks: TaskTracker::new(), _watching: Arc::new(cancel.drop_guard()) };
        units.shared.watch_runs(&units.tasks).map_err(failed)?;
        let mut found = Vec::new();
        for folder in units.shared.folders().map_err(failed)? {
            found.extend(units.adopt(&folder).await?);
        }
        Ok((units, found))
    }

    async fn adopt(&self, folder: &Folder) -> Result<Option<UnitStatus>, Error> {
        let failed = |source| Error::Folder { path: folder.path().to_owned(), source };
        let Some(spec) = folder.spec().map_err(failed)? else {
            // The world was killed between making the folder and writing the spec: nothing was started.
            fs::remove_dir_all(folder.path()).map_err(failed)?;
            return Ok(None);
        };
        let state = match settle(folder).await.map_err(failed)? {
            Settled::Running(shim) => UnitState::Running(self.keep(spec.clone(), folder, shim, None)?),
            Settled::Ended(exit) => {
                let entry = Entry { spec: spec.clone(), phase: Phase::Ended(exit.clone()) };
                self.shared.state.lock().units.insert(spec.id.clone(), entry);
                UnitState::Ended(exit)
            }
        };
        Ok(Some(UnitStatus { spec, state }))
    }

    /// Starts a unit. `listener` is passed on when the spec says `listen_fd`. Fine when it runs already.
    /// [`UnitEvent::Started`] follows; a command that cannot be started gives [`UnitEvent::Exited`] with its `error`.
    pub fn start(&self, spec: &UnitSpec, listener: Option<&std::net::TcpListener>) -> Result<(), Error> {
        let _one_at_a_time = self.shared.starts.lock();
        match self.shared.state.lock().units.get(&spec.id).map(|e| &e.phase) {
            Some(Phase::Running { .. }) => return Ok(()),
            Some(Phase::Ended(_)) => return Err(Error::Ended(spec.id.clone())),
            None => {}
        }
        let folder = self.shared.folder(&spec.id);
        let failed = |source| Error::Folder { path: folder.path().to_owned(), source };
        folder.create().and_then(|()| folder.write_spec(spec)).map_err(failed)?;
        let (child, shim) = launch::shim(&self.shared.exe, &folder, listener.filter(|_| spec.listen_fd))
            .map_err(|source| Error::Shim { doing: "start", id: spec.id.clone(), source })?;
        self.keep(spec.clone(), &folder, shim, Some(child))?;
        Ok(())
    }

    /// Watches a unit whose shim runs; what it runs now.
    fn keep(&self, spec: UnitSpec, folder: &Folder, shim: OwnedFd, child: Option<Child>) -> Result<Option<Run>, Error> {
        let failed = |source| Error::Folder { path: folder.path().to_owned(), source };
        let id = spec.id.clone();
        let shim = Arc::new(shim);
        let mut state = self.shared.state.lock();
        // First watch, then read: a `run.json` between the two is seen by both.
        let watch = inotify::add_watch(&self.shared.inotify, folder.path(), inotify::WatchFlags::MOVED_TO);
        let watch = watch.map_err(|e| failed(e.into()))?;
        // Of an own child every start is told; of an adopted one those after this status.
        let run = if child.is_none() { folder.run().map_err(failed)? } else { None };
        let phase = Phase::Running { shim: Arc::clone(&shim), run: run.clone(), watch };
        state.watches.insert(watch, id.clone());
        state.units.insert(id.clone(), Entry { spec, phase });
        drop(state);
        self.shared.note_run(&id);
        self.tasks.spawn(Arc::clone(&self.shared).watch_shim(id, shim, child));
        Ok(run)
    }

    /// Asks a unit to end: SIGTERM to its process group, after `grace` SIGKILL to all. A later call can shorten the
    /// grace. The shim sees to it even if this process ends. Fine when it has ended.
    pub fn stop(&self, id: &UnitId, grace: Duration) -> Result<(), Error> {
        let shim = match self.shared.state.lock().units.get(id).map(|e| &e.phase) {
            Some(Phase::Running { shim, .. }) => Arc::clone(shim),
            Some(Phase::Ended(_)) => return Ok(()),
            None => return Err(Error::Unknown(id.clone())),
        };
        let folder = self.shared.folder(id);
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let written = folder.write_stop(StopRequest { grace_ms });
        // Signalled even if the file could not be written (disk full): then with the shim's default grace.
        match pidfd_send_signal(&*shim, Signal::TERM) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(e) => return Err(Error::Shim { doing: "signal", id: id.clone(), source: e.into() }),
        }
        written.map_err(|source| Error::Folder { path: folder.path().to_owned(), source })
    }

    /// Ends a unit without grace.
    pub fn kill(&self, id: &UnitId) -> Result<(), Error> {
        self.stop(id, Duration::ZERO)
    }

    /// Removes the folder of a unit that has ended. Fine when there is none.
    pub fn forget(&self, id: &UnitId) -> Result<(), Error> {
        let mut state = self.shared.state.lock();
        match state.units.get(id).map(|e| &e.phase) {
            Some(Phase::Running { .. }) => return Err(Error::Running(id.clone())),
            Some(Phase::Ended(_)) => {}
            None => return Ok(()),
        }
        let folder = self.shared.folder(id);
        fs::remove_dir_all(folder.path()).map_err(|source| Error::Folder { path: folder.path().to_owned(), source })?;
        state.units.remove(id);
        Ok(())
    }

    /// How a unit is.
    pub fn status(&self, id: &UnitId) -> Option<UnitStatus> {
        self.shared.state.lock().units.get(id).map(Entry::status)
    }

    /// How all units are, in no order.
    pub fn all(&self) -> Vec<UnitStatus> {
        self.shared.state.lock().units.values().map(Entry::status).collect()
    }

    /// The last `max_bytes` of a unit's output. Reads a local file, at most `max_bytes`.
    pub fn tail(&self, id: &UnitId, max_bytes: usize) -> Result<LogChunk, Error> {
        self.read_folder(id, |folder| log::tail(folder, max_bytes))
    }

    /// Up to `max_bytes` of a unit's output from `offset` of the whole stream, or from the oldest byte that is kept.
    /// To follow, read on from [`LogChunk::end`].
    pub fn read_log(&self, id: &UnitId, offset: u64, max_bytes: usize) -> Result<LogChunk, Error> {
        self.read_folder(id, |folder| log::read(folder, offset, max_bytes))
    }

    fn read_folder<T>(&self, id: &UnitId, read: impl FnOnce(&Folder) -> io::Result<T>) -> Result<T, Error> {
        if !self.shared.state.lock().units.contains_key(id) {
            return Err(Error::Unknown(id.clone()));
        }
        let folder = self.shared.folder(id);
        read(&folder).map_err(|source| Error::Folder { path: folder.path().to_owned(), source })
    }

    /// Stops watching and waits until all watch tasks have ended. The units go on.
    pub async fn close(&self) {
        self.shared.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Shared {
    fn folder(&self, id: &UnitId) -> Folder {
        Folder::new(self.dir.join(id.as_str()))
    }

    fn folders(&self) -> io::Result<Vec<Folder>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            if let Ok(Ok(id)) = entry?.file_name().into_string().map(UnitId::new) {
                found.push(self.folder(&id));
            } else {
                tracing::warn!(dir = %self.dir.display(), "a file among the units that is none");
            }
        }
        Ok(found)
    }
}

impl Entry {
    fn status(&self) -> UnitStatus {
        let state = match &self.phase {
            Phase::Running { run, .. } => UnitState::Running(run.clone()),
            Phase::Ended(exit) => UnitState::Ended(exit.clone()),
        };
        UnitStatus { spec: self.spec.clone(), state }
    }
}

impl Run {
    /// The command.
    pub fn process(&self) -> Process {
        Process { pid: self.pid, start_ticks: self.start_ticks }
    }
}
