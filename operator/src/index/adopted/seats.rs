//! The seats of a run, and who sits on them. A pod keeps its seat until it has ended; then the seat waits for the one that is made
//! in its place.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::names::NodeName;
use tidegate_core::plan::{ActionId, Placed};
use tidegate_core::state::JobSpec;
use tidegate_core::time::At;

use super::super::Entry;
use super::Asked;
use crate::facts::seat::{SeatOf, Seats};
use crate::facts::{PodFacts, PodKey, PodPhase};

/// One start.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// The object's: another one of its name has its own.
    pub uid: String,
    pub attempt: u32,
    pub since: At,
    pub seats: Vec<Seat>,
    /// The start, until the object is resumed.
    pub action: Option<ActionId>,
    pub resumed: bool,
    pub stopping: bool,
    pub started: bool,
    /// Seats that there ever were.
    numbers: u32,
}

/// One seat.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    number: u32,
    pub placed: Placed,
    pub pod: Option<PodKey>,
    /// Somebody has run on it.
    pub ran: bool,
    /// What was last asked of its pod.
    pub asked: Option<Asked>,
    /// Where it is counted as a pod on its way.
    pub counted: Option<NodeName>,
}

/// What is known beside a run.
pub(super) struct Site<'a> {
    pub pods: &'a BTreeMap<PodKey, Entry>,
    /// Pods that take seats of the object.
    pub members: &'a BTreeSet<PodKey>,
    /// By what label a node is chosen.
    pub hostname: &'a dyn Fn(&str) -> String,
}

impl Site<'_> {
    /// Pods of a run that have not ended.
    fn live<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = (&'a PodFacts, &'a SeatOf)> {
        let facts = self.members.iter().filter_map(|pod| self.pods.get(pod)).map(|entry| &entry.facts);
        let mine = move |facts: &'a PodFacts| Some((facts, facts.seat.as_deref().filter(|seat| seat.uid == uid)?));
        facts.filter(|facts| !facts.phase.is_over()).filter_map(mine)
    }
}

impl Seat {
    fn new(number: u32, placed: Placed) -> Self {
        Self { number, placed, pod: None, ran: false, asked: None, counted: None }
    }

    /// By what the nodes count it: no pod is called so.
    pub fn key(&self, object: &str) -> PodKey {
        PodKey(format!("{object}#{}", self.number).into())
    }

    fn is_free(&self, group: u16) -> bool {
        self.pod.is_none() && self.placed.group == group
    }

    /// Its pod leaves it, or stays.
    fn look(&mut self, site: &Site<'_>, active: bool) {
        let Some(key) = &self.pod else { return };
        let stays = site.pods.get(key).is_some_and(|entry| {
            let pod = &entry.facts;
            self.ran |= matches!(pod.phase, PodPhase::Running | PodPhase::Succeeded);
            let asked = self.asked.as_ref().is_some_and(|asked| asked.is_open(&pod.resource_version));
            !pod.phase.is_over() && (active || asked || may_be_bound(pod))
        });
        if !stays {
            (self.pod, self.asked) = (None, None);
        }
    }
}

/// It is bound, or others may bind it any moment.
fn may_be_bound(pod: &PodFacts) -> bool {
    let held_back = pod.ours.is_some() || pod.seat.as_ref().is_some_and(|seat| seat.gated);
    pod.node.is_some() || !held_back
}

impl Run {
    pub fn new(uid: &str, attempt: u32, since: At, placed: Vec<Placed>) -> Self {
        let mut run = Self {
            uid: uid.to_owned(),
            attempt,
            since,
            seats: Vec::new(),
            action: None,
            resumed: false,
            stopping: false,
            started: false,
            numbers: 0,
        };
        for placed in placed {
            run.add(placed);
        }
        run
    }

    fn add(&mut self, placed: Placed) {
        self.seats.push(Seat::new(self.numbers, placed));
        self.numbers += 1;
    }

    /// As the object has them while it runs.
    pub fn seats_of(&self) -> Seats {
        Seats::of(self.attempt, self.since, self.seats.iter().map(|seat| &seat.placed))
    }

    /// Seats by group, without the last groups that have none.
    pub fn counts(&self) -> Vec<u32> {
        let mut counts = Vec::new();
        for seat in &self.seats {
            let group = usize::from(seat.placed.group);
            counts.resize(counts.len().max(group + 1), 0);
            if let Some(count) = counts.get_mut(group) {
                *count += 1;
            }
        }
        counts
    }

    /// Gives seats to pods; `active`: also to such as wait to be told their node. Whether the seats are elsewhere, or more.
    pub fn seat_all(&mut self, site: &Site<'_>, active: bool) -> bool {
        self.seats.iter_mut().for_each(|seat| seat.look(site, active));
        let mut changed = self.follow(site);
        let taken: BTreeSet<PodKey> = self.seats.iter().filter_map(|seat| seat.pod.clone()).collect();
        let uid = self.uid.clone();
        let mut new: Vec<(&PodFacts, &SeatOf)> = site.live(&uid).filter(|(pod, _)| !taken.contains(&pod.key)).collect();
        // Who is somewhere already comes first, then who was told where to go.
        new.sort_by_key(|(pod, seat)| (pod.node.is_none(), seat.gated || seat.hostname.is_none()));
        for (pod, seat) in new {
            changed |= self.seat(site, pod, seat, active);
        }
        changed
    }

    /// A pod that is bound elsewhere than on its seat takes the seat with it.
    fn follow(&mut self, site: &Site<'_>) -> bool {
        let mut changed = false;
        for at in 0..self.seats.len() {
            let Some(seat) = self.seats.get(at) else { continue };
            let (group, from) = (seat.placed.group, seat.placed.node.clone());
            let node = seat.pod.as_ref().and_then(|pod| site.pods.get(pod)?.facts.node.clone()).map(NodeName::from);
            let Some(node) = node.filter(|node| *node != from) else { continue };
            match self.seats.iter_mut().find(|other| other.is_free(group) && other.placed.node == node) {
                Some(other) => other.placed.node = from,
                None => changed = true,
            }
            if let Some(seat) = self.seats.get_mut(at) {
                seat.placed.node = node;
            }
        }
        changed
    }

    /// The first seat of a group that nobody has, at such a node.
    fn free(&self, group: u16, at: impl Fn(&str) -> bool) -> Option<usize> {
        self.seats.iter().position(|seat| seat.is_free(group) && at(&seat.placed.node.0))
    }

    fn seat(&mut self, site: &Site<'_>, pod: &PodFacts, of: &SeatOf, active: bool) -> bool {
        if let Some(node) = &pod.node {
            return self.seat_there(pod, of.group, node);
        }
        let at = match &of.hostname {
            Some(hostname) if pod.ours.is_none() => self.free(of.group, |node| (site.hostname)(node) == *hostname),
            _ if active && !pod.ending => self.free(of.group, |_| true),
            _ => None,
        };
        if let Some(seat) = at.and_then(|at| self.seats.get_mut(at)) {
            seat.pod = Some(pod.key.clone());
        }
        false
    }

    /// A pod that is bound has its seat where it is. Whether there was none.
    fn seat_there(&mut self, pod: &PodFacts, group: u16, node: &str) -> bool {
        let here = self.free(group, |at| at == node);
        let at = here.or_else(|| self.free(group, |_| true)).unwrap_or_else(|| {
            self.add(Placed { group, node: NodeName::from(node), devices: Vec::new(), slices: 0 });
            self.seats.len() - 1
        });
        if let Some(seat) = self.seats.get_mut(at) {
            (seat.pod, seat.placed.node) = (Some(pod.key.clone()), NodeName::from(node));
            seat.ran |= pod.phase == PodPhase::Running;
        }
        here.is_none()
    }

    /// Takes back seats without a pod that no pod will come for: these.
    pub fn release(&mut self, wanted: &dyn Fn(u16) -> u32) -> Vec<Seat> {
        let mut released = Vec::new();
        for (group, count) in (0_u16..).zip(self.counts()) {
            let more = count.saturating_sub(wanted(group)) as usize;
            let mut left = more;
            released.extend(self.seats.extract_if(.., |seat| {
                let goes = left > 0 && seat.is_free(group);
                left -= usize::from(goes);
                goes
            }));
        }
        released
    }

    /// Whether a pod of it is bound, or may be any moment.
    pub fn blocks(&self, site: &Site<'_>) -> bool {
        let asked = |pod: &PodFacts| {
            let seat = self.seats.iter().find(|seat| seat.pod.as_ref() == Some(&pod.key));
            seat.and_then(|seat| seat.asked.as_ref()).is_some_and(|asked| asked.is_open(&pod.resource_version))
        };
        site.live(&self.uid).any(|(pod, _)| may_be_bound(pod) || asked(pod))
    }
}

/// A job with as many workers of each group as there are seats, and no more.
pub(super) fn sized<'a>(spec: &JobSpec, seats: impl Iterator<Item = &'a Placed>) -> JobSpec {
    let mut spec = spec.clone();
    for group in &mut spec.groups {
        (group.min, group.max) = (0, 0);
    }
    for seat in seats {
        if let Some(group) = spec.groups.get_mut(usize::from(seat.group)) {
            (group.min, group.max) = (group.min + 1, group.max + 1);
        }
    }
    spec
}
