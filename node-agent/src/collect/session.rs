//! One opening of NVML and the threads that use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tidegate_nvml::Inventory;

use super::{LOOK_EVERY, Shared, event, gpu};

/// Reading needs little stack, and GPUs are many.
const STACK: usize = 512 << 10;

/// What the threads of a session share.
#[derive(Debug)]
pub struct Open {
    pub shared: Arc<Shared>,
    pub inventory: Inventory,
    /// NVML must be opened anew: the driver went away.
    pub broken: AtomicBool,
    /// The threads are to return.
    pub ending: AtomicBool,
}

impl Open {
    pub fn is_over(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    pub fn break_off(&self) {
        self.broken.store(true, Ordering::Release);
    }
}

/// Why a session is over.
pub enum End {
    /// The agent is ending.
    Stopping,
    /// The driver went away.
    Broken,
    /// A GPU is missing, or there are more than before.
    Searching,
}

/// One opening of NVML.
pub struct Session {
    open: Arc<Open>,
    threads: Vec<JoinHandle<()>>,
    count: u32,
    began: Duration,
}

impl Session {
    pub fn start(shared: &Arc<Shared>, inventory: Inventory) -> Self {
        let count = inventory.count().unwrap_or(0);
        let (driver, topology) = (inventory.driver(), inventory.topology().unwrap_or_default());
        tracing::info!(gpus = count, ?driver, "NVML is open");
        shared.node.lock().opened(driver, topology, count);
        let (broken, ending) = (AtomicBool::new(false), AtomicBool::new(false));
        let open = Arc::new(Open { shared: shared.clone(), inventory, broken, ending });
        let mut session = Self { open, threads: Vec::new(), count, began: shared.at() };
        for index in 0..count {
            session.spawn(&format!("gpu-{index}"), move |open| gpu::run(open, index, count));
        }
        session.spawn("gpu-events", event::run);
        session
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce(&Open) + Send + 'static) {
        let open = self.open.clone();
        match thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(move || work(&open)) {
            Ok(thread) => self.threads.push(thread),
            Err(error) => tracing::error!(%error, name, "cannot start a thread; what it would read is missing"),
        }
    }

    /// Until the session is over and its threads have returned. Whoever ends the agent does not wait for one that hangs.
    pub fn look_after(mut self, search_after: Duration) -> End {
        let mut end = None;
        loop {
            if self.open.shared.pause(LOOK_EVERY) {
                self.open.ending.store(true, Ordering::Release);
                // Whoever waits for the agent's end waits only for so long.
                self.threads.into_iter().for_each(|thread| drop(thread.join()));
                return End::Stopping;
            }
            self.open.shared.node.lock().mark_missing(self.open.shared.at());
            if end.is_none() && !self.hangs() {
                end = self.wanted_end(search_after);
                self.open.ending.store(end.is_some(), Ordering::Release);
            }
            self.threads.retain(|thread| !thread.is_finished());
            if self.threads.is_empty()
                && let Some(end) = end.take()
            {
                return end;
            }
        }
    }

    fn wanted_end(&self, search_after: Duration) -> Option<End> {
        if self.open.broken.load(Ordering::Acquire) {
            return Some(End::Broken);
        }
        let shared = &self.open.shared;
        if self.open.inventory.count().is_ok_and(|count| count != self.count) {
            return Some(End::Searching);
        }
        let due = shared.at().saturating_sub(self.began) >= search_after;
        (due && shared.node.lock().misses_any()).then_some(End::Searching)
    }

    fn hangs(&self) -> bool {
        let shared = &self.open.shared;
        shared.node.lock().hung(shared.at()) > 0
    }
}
