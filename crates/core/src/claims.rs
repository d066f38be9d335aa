//! Who claims what, read from the state alone: what the books must say, from nothing.

use crate::ask::Ask;
use crate::cluster::Holder;
use crate::names::QueueName;
use crate::plan::ActionId;
use crate::state::{Job, Phase, Seat, State};

/// One worker's claim.
#[derive(Clone, Copy, Debug)]
pub struct StateClaim<'a> {
    pub holder: Holder,
    pub queue: &'a QueueName,
    pub ask: &'a Ask,
    pub seat: &'a Seat,
    /// The action that ends it.
    pub releasing: Option<ActionId>,
}

/// Every claim.
pub fn each<'a>(state: &'a State, mut visit: impl FnMut(StateClaim<'a>)) {
    for (ix, _, job) in state.jobs.slots() {
        of_job(ix, job, &mut visit);
    }
    for (ix, _, replica) in state.replicas.slots() {
        let Some(model) = state.models.get(&replica.model) else { continue };
        visit(StateClaim {
            holder: Holder::Replica(ix),
            queue: &model.spec.queue,
            ask: &replica.ask,
            seat: &replica.seat,
            releasing: replica.stop.as_ref().map(|stop| stop.action),
        });
    }
}

/// Every claim of one job: what it keeps is firm, what it gives up is releasing until the attempt has ended.
pub fn of_job<'a>(ix: u32, job: &'a Job, visit: &mut impl FnMut(StateClaim<'a>)) {
    let mut say = |seat: &'a Seat, releasing: Option<ActionId>| {
        let Some(group) = job.spec.groups.get(usize::from(seat.group)) else { return };
        visit(StateClaim { holder: Holder::Job(ix), queue: &job.spec.queue, ask: &group.ask, seat, releasing });
    };
    match &job.phase {
        Phase::Waiting { keep, .. } => keep.iter().for_each(|seat| say(seat, None)),
        Phase::Running(run) => {
            run.kept().iter().for_each(|seat| say(seat, None));
            if let Some(stop) = &run.stop {
                given_up(&run.seats, &stop.keep).for_each(|seat| say(seat, Some(stop.action)));
            }
        }
        Phase::Finished(_) => {}
    }
}

/// Seats of `seats` that are not in `keep`.
pub fn given_up<'a>(seats: &'a [Seat], keep: &[Seat]) -> impl Iterator<Item = &'a Seat> {
    let mut kept = keep.to_vec();
    seats.iter().filter(move |seat| match kept.iter().position(|other| other == *seat) {
        Some(at) => {
            kept.swap_remove(at);
            false
        }
        None => true,
    })
}
