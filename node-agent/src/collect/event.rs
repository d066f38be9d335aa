//! The thread of the event queue.

use super::session::Open;

/// A wait is so long that an idle queue costs nothing, and so short that the end of the session is seen soon.
const WAIT_MS: u32 = 500;
/// After a failure of the queue.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(2);

/// Publishes what the driver reports until the session is over.
pub fn run(open: &Open) {
    let shared = &open.shared;
    let watch = match open.inventory.watch() {
        Ok(watch) => watch,
        Err(error) => {
            tracing::warn!(%error, "the driver's events cannot be heard: XIDs will not be seen");
            shared.node.lock().deaf = (0..open.inventory.count().unwrap_or(0)).map(|index| (index, "no_event_set")).collect();
            return;
        }
    };
    let deaf: Vec<(u32, &'static str)> = watch.deaf().iter().map(|(index, fault)| (*index, fault.category())).collect();
    if !deaf.is_empty() {
        tracing::warn!(?deaf, "the events of some GPUs cannot be heard: their XIDs will not be seen");
    }
    shared.node.lock().deaf = deaf;
    let mut said = false;
    while !open.is_over() {
        match watch.next(WAIT_MS) {
            Ok(Some(event)) => {
                tracing::info!(?event, "the driver reports an event");
                shared.node.lock().event(&event, shared.at());
            }
            Ok(None) => {}
            Err(fault) if fault.is_of_the_driver() => return open.break_off(),
            Err(fault) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(?fault, "waiting for the driver's events failed; trying again");
                }
                if shared.pause(PAUSE) {
                    return;
                }
            }
        }
    }
}
