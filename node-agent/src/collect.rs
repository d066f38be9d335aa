//! The threads that talk to the driver. NVML's calls block, and a wedged driver blocks them for good, so each GPU has a
//! thread, the event queue has one, and one opens and closes NVML; the rest of the agent never waits for any of them.
//!
//! ```text
//! keeper ── open ──> Session ──┬── GPU thread: read, publish, wait for the next tick   (one a GPU)
//!   ▲                          └── event thread: wait for XIDs, publish
//!   └── the session is over: the driver went away, a GPU was lost or came back, the count changed
//! ```
//!
//! A session ends when all its threads have returned; one that hangs keeps it open, and the other GPUs are read on.

mod event;
mod gpu;
mod session;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tidegate_nvml::Inventory;

use crate::node::Node;
use session::{End, Session};

/// How often the keeper looks after its session.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The first pause before NVML is opened again; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(15);
/// With a GPU missing NVML is opened anew: only that finds one that came back. It costs the others a step of their
/// activity, so the pause doubles from the first to the last.
const FIRST_SEARCH: Duration = Duration::from_secs(15);
const LAST_SEARCH: Duration = Duration::from_mins(5);

/// What the threads share.
#[derive(Debug)]
pub struct Shared {
    pub node: Mutex<Node>,
    /// When this process began, `past` after the beginning of time: every moment is a duration since that.
    began: Instant,
    past: Duration,
    /// Where NVML is; absent: where the loader finds it.
    pub library: Option<PathBuf>,
    /// Usually `/proc`.
    pub proc: PathBuf,
    stopping: Mutex<bool>,
    stop: Condvar,
}

impl Shared {
    pub fn new(node: Node, past: Duration, library: Option<PathBuf>, proc: PathBuf) -> Self {
        let (node, began) = (Mutex::new(node), Instant::now());
        Self { node, began, past, library, proc, stopping: Mutex::new(false), stop: Condvar::new() }
    }

    /// Now.
    pub fn at(&self) -> Duration {
        self.past + self.began.elapsed()
    }

    /// Tells every thread to end.
    pub fn stop(&self) {
        *self.stopping.lock() = true;
        self.stop.notify_all();
    }

    /// Waits; whether the agent is ending.
    fn pause(&self, length: Duration) -> bool {
        let deadline = Instant::now() + length;
        let mut stopping = self.stopping.lock();
        while !*stopping && !self.stop.wait_until(&mut stopping, deadline).timed_out() {}
        *stopping
    }
}

/// Opens NVML, keeps it open, opens it again; until [`Shared::stop`]. Blocks, so it is a thread of its own.
pub fn keep(shared: &Arc<Shared>) {
    let first_search = FIRST_SEARCH.min(shared.node.lock().times.interval * 15);
    let (mut pause, mut search, mut said) = (FIRST_PAUSE, first_search, None);
    loop {
        match Inventory::open(shared.library.as_deref()) {
            Ok(inventory) => {
                (pause, said) = (FIRST_PAUSE, None);
                let began = shared.at();
                search = match Session::start(shared, inventory).look_after(search) {
                    End::Stopping => return,
                    // It lasted: what is missing now is another GPU than the last time.
                    End::Searching if shared.at() > began + search * 2 => first_search,
                    End::Searching => (search * 2).min(LAST_SEARCH),
                    End::Broken => {
                        shared.node.lock().renewed();
                        first_search
                    }
                };
            }
            Err(error) => {
                let category = error.category();
                if said.replace(category) != Some(category) {
                    tracing::warn!(%error, category, "no GPU can be seen; looking again and again");
                }
                {
                    let mut node = shared.node.lock();
                    node.renewed();
                    node.closed(category, &error.to_string(), shared.at());
                }
                if shared.pause(pause) {
                    return;
                }
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    }
}
