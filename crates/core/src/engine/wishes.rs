//! What must go whatever the quota says: what people ended, what stands on broken devices, what hangs.

use crate::cluster::{Holder, bits};
use crate::names::DeviceId;
use crate::node::Health;
use crate::plan::Reason;
use crate::state::{End, Phase, ReplicaPhase, Seat};

use super::round::{LOAD_TIMEOUT_MS, Round, firm};

impl Round<'_> {
    /// Carries out what people asked for: pause, cancel, delete, a smaller limit.
    pub(super) fn settle_wishes(&mut self) {
        for ix in self.desk.wished.iter().copied().collect::<Vec<_>>() {
            self.settle_wish(ix);
        }
        let by_model = &self.desk.by_model;
        self.state.models.retain(|name, model| !model.removed || by_model.get(name).is_some_and(|all| !all.is_empty()));
    }

    fn settle_wish(&mut self, ix: u32) {
        let now = self.state.now;
        let Some(job) = self.state.jobs.at(ix) else { return };
        let reason = match (job.removed, job.cancelled) {
            (true, _) => Reason::Removed,
            (false, true) => Reason::Cancelled,
            (false, false) => Reason::Paused,
        };
        if !job.is_unwanted() {
            return self.shrink_to_limit(ix);
        }
        match &job.phase {
            Phase::Running(run) if run.stop.as_ref().is_some_and(|stop| stop.keep.is_empty()) => {}
            Phase::Running(_) => self.stop_job(ix, Vec::new(), reason),
            Phase::Waiting { .. } | Phase::Finished(_) => {
                let (removed, cancelled) = (job.removed, job.cancelled);
                let waits = matches!(job.phase, Phase::Waiting { .. });
                if waits && !firm(job).is_empty() {
                    self.stop_job(ix, Vec::new(), reason);
                }
                self.forget_reservation(ix);
                if removed {
                    if let Some(name) = self.state.jobs.name(ix).cloned() {
                        self.state.jobs.remove(&name);
                        self.state.usage.held_ms.remove(&format!("job/{name}"));
                    }
                } else if cancelled
                    && waits
                    && let Some(job) = self.state.jobs.at_mut(ix)
                {
                    job.phase = Phase::Finished(End::Cancelled { at: now });
                }
                self.desk.list(self.state, ix);
            }
        }
    }

    /// A job whose limit was lowered gives back the rest.
    fn shrink_to_limit(&mut self, ix: u32) {
        let Some(job) = self.state.jobs.at(ix) else { return };
        let Some(run) = job.run() else { return };
        let keep = job.spec.within_limits(run.kept());
        let [from, to] = [run.kept().len(), keep.len()].map(|workers| u32::try_from(workers).unwrap_or(u32::MAX));
        if to < from {
            self.stop_job(ix, keep, Reason::TooLarge { from, to });
        }
    }

    /// Moves work off devices that are drained or lost.
    pub(super) fn leave_devices(&mut self) {
        for node in self.desk.out.iter().copied().collect::<Vec<_>>() {
            let Some(free) = self.state.nodes.at(node) else { continue };
            let bad = |device: &crate::node::Device| device.health != Health::Ok || free.gone;
            let out: u64 = free.devices.iter().enumerate().filter(|(_, device)| bad(device)).map(|(at, _)| 1 << at).sum();
            let gone = free.gone;
            if !self.is_held(node, out, gone) {
                continue;
            }
            for holder in self.holders_on(node, out, gone) {
                let name = |seat: &Seat| {
                    let at = bits(seat.mask & out).next();
                    at.and_then(|at| self.state.nodes.at(node)?.devices.get(at))
                        .map_or_else(|| DeviceId::from("cpu"), |device| device.id.clone())
                };
                match holder {
                    Holder::Replica(ix) => {
                        let Some(replica) = self.state.replicas.at(ix) else { continue };
                        let reason = Reason::DeviceOut { device: name(&replica.seat) };
                        self.stop_replica(ix, reason);
                    }
                    Holder::Job(ix) => self.leave_node(ix, node, out, gone),
                }
            }
        }
    }

    /// Whether anything is firmly claimed there; seldom, so that finding out who it is may cost more.
    fn is_held(&self, node: u32, out: u64, gone: bool) -> bool {
        self.desk.books.cluster.node(node).is_some_and(|free| {
            let devices = bits(out).any(|at| free.devices.get(at).is_some_and(|device| device.firm > 0));
            devices || (gone && free.is_used())
        })
    }

    /// Who firmly holds devices of `out` on the node, or anything on it if it is gone.
    fn holders_on(&self, node: u32, out: u64, gone: bool) -> Vec<Holder> {
        let touches = |seat: &Seat| seat.node == node && (gone || seat.mask & out != 0);
        let mut holders = Vec::new();
        for lists in &self.desk.queues {
            let on = |ix: &&u32| self.state.jobs.at(**ix).is_some_and(|job| firm(job).iter().any(touches));
            holders.extend(lists.holders.iter().filter(on).map(|ix| Holder::Job(*ix)));
            let serves = |ix: &&u32| {
                let replica = self.state.replicas.at(**ix);
                replica.is_some_and(|replica| replica.stop.is_none() && touches(&replica.seat))
            };
            holders.extend(lists.replicas.iter().filter(serves).map(|ix| Holder::Replica(*ix)));
        }
        holders
    }

    /// A gang that loses a worker goes on with the others if they are enough, in every group, or can be replaced.
    fn leave_node(&mut self, ix: u32, node: u32, out: u64, gone: bool) {
        let Some(job) = self.state.jobs.at(ix) else { return };
        let touches = |seat: &&Seat| seat.node == node && (gone || seat.mask & out != 0);
        let kept = firm(job);
        let Some(lost) = kept.iter().find(touches) else { return };
        let at = bits(lost.mask & out).next();
        let device = at
            .and_then(|at| self.state.nodes.at(node)?.devices.get(at))
            .map_or_else(|| DeviceId::from("cpu"), |device| device.id.clone());
        let rest: Vec<Seat> = kept.iter().filter(|seat| !touches(seat)).copied().collect();
        let enough = job.spec.is_gang(&rest);
        let reason = Reason::DeviceOut { device };
        if enough {
            self.stop_job(ix, rest, reason);
        } else if let Some(whole) = self.repair(ix, &rest) {
            self.note_stop(ix, whole, reason);
        } else {
            self.stop_job(ix, Vec::new(), reason);
        }
    }

    /// Ends replicas that hang while loading, and gangs that were not seen running in time.
    pub(super) fn give_up_hung(&mut self) {
        let now = self.state.now;
        let hung = |replica: &crate::state::Replica| {
            replica.phase == ReplicaPhase::Starting && replica.stop.is_none() && now.since(replica.since) >= LOAD_TIMEOUT_MS
        };
        let ids: Vec<u32> = self.state.replicas.slots().filter(|(_, _, replica)| hung(replica)).map(|(ix, _, _)| ix).collect();
        for ix in ids {
            self.stop_replica(ix, Reason::LoadTimeout { after_ms: LOAD_TIMEOUT_MS });
        }
        for ix in std::mem::take(&mut self.due) {
            let Some(job) = self.state.jobs.at(ix) else { continue };
            let after_ms = job.spec.gang_timeout_ms;
            let late = |run: &crate::state::Run| !run.observed && run.stop.is_none() && now.since(run.since) >= after_ms;
            if job.run().is_some_and(late) {
                self.stop_job(ix, Vec::new(), Reason::GangTimeout { after_ms });
            }
        }
    }
}
