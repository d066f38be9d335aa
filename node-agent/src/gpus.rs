//! One look at the GPUs of any machine, for `tidegate gpus`: no agent need run.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tidegate_nvml::Inventory;

use crate::node::{Node, Times};
use crate::pods::cgroup;
use crate::view::Gpus;

/// The GPUs of this machine.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// NVML's library, when it is not where the loader looks.
    #[arg(long, env = "TIDEGATE_NVML_LIBRARY", value_name = "FILE")]
    pub nvml_library: Option<PathBuf>,
    /// Prints everything that is known as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Between the two readings that what was busy is measured by.
const WINDOW: Duration = Duration::from_millis(200);
/// A driver that has not answered by then hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Looks twice. No driver, no GPU and a driver that hangs are answers too: `closed` of the result says why.
pub fn look(args: &Args) -> Gpus {
    let (send, receive) = mpsc::channel();
    let library = args.nvml_library.clone();
    // Calls block; a driver that hangs keeps this thread, which ends with the process.
    let started = thread::Builder::new().name("nvml".into()).spawn(move || {
        // Nobody listens any more when the driver took too long.
        drop(send.send(read(library.as_deref())));
    });
    let answer = started.map_err(|e| e.to_string()).map(|_| receive.recv_timeout(ANSWER_WITHIN));
    match answer {
        Ok(Ok(gpus)) => gpus,
        Ok(Err(_)) => nothing("hung", &format!("the driver has not answered within {ANSWER_WITHIN:?}")),
        Err(why) => nothing("failed", &format!("start a thread: {why}")),
    }
}

fn nothing(category: &'static str, why: &str) -> Gpus {
    let mut node = empty();
    node.closed(category, why, Duration::ZERO);
    Gpus::of(&node, Duration::ZERO)
}

fn empty() -> Node {
    Node::new(Times { interval: WINDOW, call_timeout: ANSWER_WITHIN }, 0.0)
}

fn read(library: Option<&Path>) -> Gpus {
    let (mut node, began) = (empty(), Instant::now());
    let inventory = match Inventory::open(library) {
        Ok(inventory) => inventory,
        Err(error) => return nothing(error.category(), &error.to_string()),
    };
    let count = inventory.count().unwrap_or(0);
    node.opened(inventory.driver(), inventory.topology().unwrap_or_default(), count);
    let mut gpus = Vec::new();
    for index in 0..count {
        match inventory.gpu(index) {
            Ok(gpu) => {
                node.introduce(gpu.identity());
                gpus.push(gpu);
            }
            Err(fault) => node.unreadable(index, fault),
        }
    }
    let mut places = cgroup::Reader::new("/proc".as_ref());
    for last in [false, true] {
        for gpu in &mut gpus {
            let uuid = gpu.identity().uuid.clone();
            let reading = gpu.read().map(|reading| {
                let pids: Vec<u32> =
                    reading.processes.known().iter().flat_map(|p| p.list.iter().map(|process| process.pid)).collect();
                (reading, places.read(pids.into_iter()))
            });
            node.observe(&uuid, reading, Duration::ZERO, began.elapsed());
        }
        if !last {
            thread::park_timeout(WINDOW);
        }
    }
    Gpus::of(&node, began.elapsed())
}
