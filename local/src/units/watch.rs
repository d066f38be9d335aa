//! Turns the end of a shim and new `run.json` files into events.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::task::TaskTracker;

use super::settle::{Settled, settle};
use super::{Entry, Phase, Shared, UnitEvent};
use crate::unit::folder::RUN_FILE;
use crate::unit::{Exit, UnitId, now_ms};

/// Room for some dozens of inotify events.
const EVENT_BYTES: usize = 4096;
/// Between attempts to watch a shim when the runtime cannot (out of descriptors or memory).
const RETRY: Duration = Duration::from_secs(1);

impl Shared {
    /// Waits for the end of a unit's shim, reaps it if it is an own child, and tells.
    pub(super) async fn watch_shim(self: Arc<Self>, id: UnitId, mut shim: Arc<OwnedFd>, mut child: Option<Child>) {
        let exit = loop {
            match self.ended(&shim).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(unit = %id, %error, "cannot watch a shim; trying again");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
            if let Some(mut child) = child.take() {
                // It has ended, so this does not wait.
                drop(child.wait());
            }
            match settle(&self.folder(&id)).await {
                // Ours found another one in charge; that one is watched now.
                Ok(Settled::Running(other)) => shim = self.replace_shim(&id, other),
                Ok(Settled::Ended(exit)) => break exit,
                Err(error) => {
                    tracing::error!(unit = %id, %error, "cannot tell how a unit ended");
                    break Exit { at_ms: now_ms(), lost: true, ..Exit::default() };
                }
            }
        };
        self.tell_exit(&id, exit);
    }

    /// `false`: told to stop watching.
    async fn ended(&self, shim: &Arc<OwnedFd>) -> io::Result<bool> {
        let fd = registered(shim.try_clone()?)?;
        tokio::select! {
            () = self.cancel.cancelled() => Ok(false),
            ready = fd.readable() => ready.map(|_| true),
        }
    }

    fn replace_shim(&self, id: &UnitId, other: OwnedFd) -> Arc<OwnedFd> {
        let other = Arc::new(other);
        if let Some(Entry { phase: Phase::Running { shim, .. }, .. }) = self.state.lock().units.get_mut(id) {
            *shim = Arc::clone(&other);
        }
        other
    }

    fn tell_exit(&self, id: &UnitId, exit: Exit) {
        // A short run may end before inotify has told of its start.
        self.note_run(id);
        let mut state = self.state.lock();
        let Some(entry) = state.units.get_mut(id) else { return };
        let before = std::mem::replace(&mut entry.phase, Phase::Ended(exit.clone()));
        if let Phase::Running { watch, .. } = before {
            state.watches.remove(&watch);
            // Fails only if the kernel has removed it with the folder.
            let _ = inotify::remove_watch(&self.inotify, watch);
        }
        self.tell(UnitEvent::Exited { id: id.clone(), exit });
    }

    /// Tells of a start that has not been told.
    pub(super) fn note_run(&self, id: &UnitId) {
        let mut state = self.state.lock();
        let Some(Entry { phase: Phase::Running { run: told, .. }, .. }) = state.units.get_mut(id) else { return };
        match self.folder(id).run() {
            Ok(Some(run)) if told.as_ref() != Some(&run) => {
                let event = UnitEvent::Started { id: id.clone(), pid: run.pid, restarts: run.restarts };
                *told = Some(run);
                self.tell(event);
            }
            Ok(_) => {}
            Err(error) => tracing::error!(unit = %id, %error, "cannot read run.json"),
        }
    }

    /// Under the lock on the state, so that events have its order.
    fn tell(&self, event: UnitEvent) {
        // Nobody listens any more: the world is ending.
        drop(self.events.send(event));
    }

    /// Spawns the task that hears of new `run.json` files.
    pub(super) fn watch_runs(self: &Arc<Self>, tasks: &TaskTracker) -> io::Result<()> {
        let fd = registered(self.inotify.try_clone()?)?;
        let shared = Arc::clone(self);
        tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = shared.cancel.cancelled() => return,
                    ready = fd.readable() => match ready {
                        Ok(mut ready) => {
                            shared.read_events();
                            ready.clear_ready();
                        }
                        Err(error) => {
                            tracing::error!(%error, "cannot watch the folders of units");
                            return;
                        }
                    },
                }
            }
        });
        Ok(())
    }

    /// Reads until there are no more events for now.
    fn read_events(&self) {
        let mut buffer = [MaybeUninit::uninit(); EVENT_BYTES];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) => self.note_all_runs(),
                Ok(event) => {
                    let is_run = event.file_name().is_some_and(|n| n.to_bytes() == RUN_FILE.as_bytes());
                    let id = self.state.lock().watches.get(&event.wd()).cloned();
                    if let Some(id) = id.filter(|_| is_run) {
                        self.note_run(&id);
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    fn note_all_runs(&self) {
        let ids: Vec<UnitId> = self.state.lock().units.keys().cloned().collect();
        for id in ids {
            self.note_run(&id);
        }
    }
}

#[expect(deprecated, reason = "what replaces it is unsafe; an OwnedFd that nobody else closes is what it asks for")]
fn registered(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}
