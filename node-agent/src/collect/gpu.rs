//! The thread of one GPU.

use std::time::{Duration, Instant};

use tidegate_nvml::{Fault, Reading};

use super::session::Open;
use crate::pods::cgroup;

/// Reads the GPU with this index, one of `count`, at every tick until the session is over.
pub fn run(open: &Open, index: u32, count: u32) {
    let shared = &open.shared;
    let interval = shared.node.lock().times.interval;
    shared.node.lock().calling(index, shared.at());
    let found = open.inventory.gpu(index);
    shared.node.lock().returned(index);
    let mut gpu = match found {
        Ok(gpu) => gpu,
        Err(fault) => {
            tracing::warn!(index, ?fault, "a GPU cannot be opened");
            if fault.is_of_the_driver() {
                open.break_off();
            }
            shared.node.lock().unreadable(index, fault);
            return;
        }
    };
    shared.node.lock().introduce(gpu.identity());
    let uuid = gpu.identity().uuid.clone();
    let mut places = cgroup::Reader::new(&shared.proc);
    // The ticks of the GPUs are spread over the interval: neither the driver nor a core gets all readings at one moment.
    let mut next = Instant::now() + interval * index / count.max(1);
    while !open.is_over() {
        let began = shared.at();
        shared.node.lock().calling(index, began);
        let reading = gpu.read();
        let at = shared.at();
        let broken = reading.as_ref().is_err_and(Fault::is_of_the_driver);
        let reading = reading.map(|reading| {
            let places = places.read(pids(&reading));
            (reading, places)
        });
        {
            let mut node = shared.node.lock();
            node.returned(index);
            node.observe(&uuid, reading, at.saturating_sub(began), at);
        }
        if broken {
            return open.break_off();
        }
        next = (next + interval).max(Instant::now());
        pause_until(open, next);
    }
}

fn pids(reading: &Reading) -> impl Iterator<Item = u32> {
    reading.processes.known().into_iter().flat_map(|processes| processes.list.iter().map(|process| process.pid))
}

/// In slices, so that the end of the session is seen soon.
fn pause_until(open: &Open, deadline: Instant) {
    const SLICE: Duration = Duration::from_secs(1);
    while !open.is_over() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || open.shared.pause(left.min(SLICE)) {
            return;
        }
    }
}
