//! Nodes on which more was placed than they have.
//!
//! Two schedulers that each see room may bind to one node at the same moment; nobody can forbid that. What of ours the world has
//! found too much then goes, and is placed anew. Who was seen on a node all of whose devices were held already (by those that are
//! going, or will) gets the first that come free: nobody else is given what it uses.

use crate::plan::Reason;
use crate::state::{Overcommit, Seat};

use super::apply::Facts;
use super::round::{Round, firm};

impl Round<'_> {
    /// Carries out what the world has found, then seats those who lack devices.
    pub(super) fn leave_overcommitted(&mut self) {
        for (name, over) in std::mem::take(&mut self.state.overcommitted) {
            let Some(node) = self.state.nodes.ix(&name) else { continue };
            let Overcommit { scarce, jobs, replicas } = over;
            let reason = Reason::Overcommit { node: name, scarce };
            for ix in jobs.iter().filter_map(|job| self.state.jobs.ix(job)).collect::<Vec<_>>() {
                self.leave_full_node(ix, node, reason.clone());
            }
            for ix in replicas.iter().filter_map(|replica| self.state.replicas.ix(replica)).collect::<Vec<_>>() {
                if self.state.replicas.at(ix).is_some_and(|replica| replica.seat.node == node && replica.stop.is_none()) {
                    self.stop_replica(ix, reason.clone());
                }
            }
        }
        for ix in self.desk.lacking.iter().copied().collect::<Vec<_>>() {
            Facts { state: self.state, desk: self.desk }.seat_again(ix);
        }
    }

    /// A gang goes on with those of its workers that are elsewhere, if these are enough.
    fn leave_full_node(&mut self, ix: u32, node: u32, reason: Reason) {
        let Some(job) = self.state.jobs.at(ix) else { return };
        let kept = firm(job);
        let rest: Vec<Seat> = kept.iter().filter(|seat| seat.node != node).copied().collect();
        if rest.len() < kept.len() {
            let rest = if job.spec.is_gang(&rest) { rest } else { Vec::new() };
            self.stop_job(ix, rest, reason);
        }
    }
}
