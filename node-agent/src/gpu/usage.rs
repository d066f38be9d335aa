//! Who used a GPU for how long. Conserving: what users got and what nobody can be named for add up to the GPU's own busy
//! time, so that a sum over pods never counts a second twice.
//!
//! A step's busy time is shared out among the processes by the driver's samples of them. Where it gives none (MIG, old
//! boards, another PID namespace) it goes to the only holder that the kubelet names; with several, to nobody. While MIG is on,
//! each instance is shared out by itself, in seconds of the instance: a part of a chip has no share of the whole chip's time.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use tidegate_nvml::{Fact, Process, Reading};

use crate::pods::{Mismatch, Owners, Place};

/// Users are bounded by the pods of a node; above so many the rest counts as nobody.
const MOST_USERS: usize = 512;

/// Who holds or uses a device.
#[derive(Serialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    pub namespace: String,
    pub pod: String,
    pub container: String,
    /// The MIG instance, when it is not the whole GPU.
    pub mig: Option<String>,
}

/// What a holder has and had.
#[derive(Clone, Debug, Default)]
pub struct User {
    /// The kubelet gave it the device.
    pub allocated: bool,
    /// By which Dynamic Resource Allocation claim, `namespace/name`.
    pub claim: Option<String>,
    /// Memory of its processes in bytes.
    pub memory_bytes: u64,
    /// How many processes of it run here.
    pub processes: usize,
    /// Busy seconds that are its own.
    pub active: f64,
    /// Seconds that the device was allocated to it.
    pub held: f64,
}

/// Of one process.
#[derive(Clone, Debug)]
pub struct Running {
    pub process: Process,
    pub place: Place,
    /// Its holder, if one can be named.
    pub holder: Option<Holder>,
    /// Busy seconds that are its own.
    pub active: f64,
}

/// Of the seconds of a step, how many the GPU was busy.
#[derive(Clone, Debug)]
pub struct Share {
    pub busy: f64,
    pub elapsed: f64,
    /// The same of each MIG instance, by UUID; empty while MIG is off.
    pub instances: Vec<(String, f64)>,
}

/// Of one GPU.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub users: BTreeMap<Holder, User>,
    /// Busy seconds that nobody can be named for.
    pub unattributed: f64,
    /// By pid.
    pub running: BTreeMap<u32, Running>,
    /// Where the kubelet and the processes' cgroups disagree.
    pub mismatches: Vec<Mismatch>,
}

impl Usage {
    /// A reading, with who was given the device, where its processes run, and whose containers these are.
    pub fn observe(
        &mut self,
        reading: &Reading,
        share: &Share,
        allocated: &[(Holder, Option<String>)],
        places: &HashMap<u32, Place>,
        owners: &Owners,
    ) {
        if let Fact::Known(processes) = &reading.processes {
            let before = std::mem::take(&mut self.running);
            for process in &processes.list {
                let place = places.get(&process.pid).cloned().unwrap_or_default();
                let holder = owners.holder(&place, allocated);
                let active = before.get(&process.pid).map_or(0.0, |before| before.active);
                self.running.insert(process.pid, Running { process: process.clone(), place, holder, active });
            }
        }
        if share.instances.is_empty() {
            self.share_out(share.busy.max(0.0), allocated);
        }
        for (mig, busy) in &share.instances {
            let its: Vec<_> = allocated.iter().filter(|(holder, _)| holder.mig.as_ref() == Some(mig)).collect();
            match its.as_slice() {
                [(only, _)] => self.credit(Some(only), *busy),
                _ => self.unattributed += busy,
            }
        }
        self.refresh(allocated, share.elapsed);
        self.mismatches = Mismatch::find(allocated, &self.running.values());
    }

    fn share_out(&mut self, busy: f64, allocated: &[(Holder, Option<String>)]) {
        let share = |running: &Running| running.process.sm.known().copied().unwrap_or(0.0);
        let all: f64 = self.running.values().map(share).sum();
        if all <= 0.0 {
            match allocated {
                [(only, _)] => self.credit(Some(only), busy),
                _ => self.unattributed += busy,
            }
            return;
        }
        let mut parts = Vec::with_capacity(self.running.len());
        for running in self.running.values_mut() {
            let part = busy * share(running) / all;
            running.active += part;
            parts.push((running.holder.clone(), part));
        }
        for (holder, part) in parts {
            self.credit(holder.as_ref(), part);
        }
    }

    fn credit(&mut self, holder: Option<&Holder>, seconds: f64) {
        match holder {
            Some(holder) if self.users.contains_key(holder) || self.users.len() < MOST_USERS => {
                self.users.entry(holder.clone()).or_default().active += seconds;
            }
            _ => self.unattributed += seconds,
        }
    }

    /// What holds now. A user that neither holds nor runs any more is dropped, and its seconds go to nobody's.
    fn refresh(&mut self, allocated: &[(Holder, Option<String>)], elapsed: f64) {
        for user in self.users.values_mut() {
            (user.allocated, user.claim, user.memory_bytes, user.processes) = (false, None, 0, 0);
        }
        for (holder, claim) in allocated.iter().take(MOST_USERS) {
            let user = self.users.entry(holder.clone()).or_default();
            (user.allocated, user.claim) = (true, claim.clone());
            user.held += elapsed;
        }
        for running in self.running.values() {
            let Some(holder) = &running.holder else { continue };
            if self.users.contains_key(holder) || self.users.len() < MOST_USERS {
                let user = self.users.entry(holder.clone()).or_default();
                user.processes += 1;
                user.memory_bytes += running.process.memory_bytes.known().copied().unwrap_or(0);
            }
        }
        let gone = |user: &User| !user.allocated && user.processes == 0;
        self.unattributed += self.users.values().filter(|user| gone(user)).map(|user| user.active).sum::<f64>();
        self.users.retain(|_, user| !gone(user));
    }
}
