//! Replaces workers that lost their devices, so that a gang of its smallest size goes on at once and where it was.
//!
//! The workers that are left keep their seats; each missing one gets a free seat beside them, within what the topology
//! requires. All of them restart (a collective does not survive the loss of a rank). What is held for a reservation stays
//! held. If one cannot be replaced the gang gives up what is left and waits for its turn like any other.

use crate::state::Seat;

use super::gang::Gang;
use super::round::{Round, shift, shift_from};

impl Round<'_> {
    /// `rest` and seats for the missing workers, held in the books; on refusal the books are as before.
    pub(super) fn repair(&mut self, ix: u32, rest: &[Seat]) -> Option<Vec<Seat>> {
        let job = self.state.jobs.at(ix)?;
        if rest.is_empty() || job.is_unwanted() {
            return None;
        }
        let spec = job.spec.clone();
        let queue = self.desk.books.tree.node(&spec.queue)?;
        let gang = Gang { spec: &spec, queue, own_only: !spec.preemptible };
        self.open_reservations();
        let mark = self.desk.books.mark();
        shift(self.state, self.desk, ix, rest);
        let left = self.desk.books.mark();
        let whole = self.complete(gang, rest);
        match &whole {
            // A new seat may be one that the job was about to give up: then it keeps that one.
            Some(whole) => {
                self.desk.books.rollback(left);
                shift_from(self.state, self.desk, ix, rest, whole);
            }
            None => self.desk.books.rollback(mark),
        }
        self.close_reservations();
        whole
    }

    fn complete(&mut self, gang: Gang<'_>, rest: &[Seat]) -> Option<Vec<Seat>> {
        let mut seats = rest.to_vec();
        for (index, group) in gang.spec.groups.iter().enumerate() {
            let has = seats.iter().filter(|seat| usize::from(seat.group) == index).count();
            // Without a worker that is left nothing says where the group must be.
            let spread = group.spread.as_ref().or(gang.spec.spread.as_ref());
            if has == 0 && group.min > 0 && spread.is_some_and(|spread| spread.required) {
                return None;
            }
            for _ in has..group.min as usize {
                let seat = self.desk.books.place_one_more(gang, index, &seats)?;
                seats.push(seat);
            }
        }
        self.desk.books.order(&mut seats);
        Some(seats)
    }
}
