//! Jobs that wait for people and not for others: of namespaces that may not submit, or larger than the cluster. They are refused
//! without a try, hold nobody up, not even in a strict queue, and nothing is promised to them. They are looked at again when
//! nodes, queues or namespaces change.

use std::collections::BTreeSet;

use super::admission;
use super::desk::Block;
use super::impossible;
use super::round::Round;

impl Round<'_> {
    /// Why a job is not even tried, as far as is known.
    pub(super) fn shut_out(&self, ix: u32) -> Option<Block> {
        let spec = &self.state.jobs.at(ix)?.spec;
        let refused = admission::refuses(self.state, self.desk, &spec.queue, &spec.namespace);
        let never = || impossible::malformed(spec).or_else(|| self.desk.known_impossible(self.desk.kind_of(ix)?).cloned());
        refused.map(Block::Namespace).or_else(|| never().map(Block::Impossible))
    }

    /// Whether a job that was refused could never start.
    pub(super) fn impossible(&mut self, ix: u32) -> Option<Block> {
        let kind = self.desk.kind_of(ix)?;
        self.desk.impossible(self.state, kind).cloned().map(Block::Impossible)
    }

    /// Finds out which of the waiting kinds are barred, for those who must know before they are tried.
    pub(super) fn barred_kinds(&mut self) -> BTreeSet<u32> {
        let firsts = self.desk.queues.iter().flat_map(|lists| lists.waiting.iter());
        let firsts: Vec<(u32, u32)> = firsts.filter_map(|(kind, turns)| Some((*kind, turns.first()?.2))).collect();
        let barred = firsts.into_iter().filter(|(_, ix)| self.shut_out(*ix).or_else(|| self.impossible(*ix)).is_some());
        barred.map(|(kind, _)| kind).collect()
    }

    /// What was promised to the job and those of its kind is free for others.
    pub(super) fn forget_promises(&mut self, ix: u32) {
        let kind = self.desk.kind_of(ix);
        let alike: Vec<u32> = self.state.reservations.keys().copied().filter(|of| self.desk.kind_of(*of) == kind).collect();
        for ix in alike {
            self.lift(ix);
            self.forget_reservation(ix);
        }
    }
}
