//! What claims ask for, and which devices suit.
//!
//! The engine knows classes of devices and labels of nodes. So a *shape* (a device class, selectors, tolerations: what alike requests
//! share) is a list of classes and a mark on nodes: on a marked node all devices of the listed classes suit, and of each of these
//! nodes the engine may take whichever it likes. A node where a shape tells devices of one class apart is not marked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use tidegate_core::ask::{Amount, Toleration};
use tidegate_core::names::DeviceId;

use super::Asker;
use super::select::{Bench, Selector};
use crate::facts::device::DeviceFacts;
use crate::facts::device_claim::{DeviceClassFacts, Request};
use crate::facts::share::{self, Amounts};

/// What alike requests share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ShapeKey {
    pub class: String,
    pub selectors: Vec<String>,
    pub tolerations: Vec<Toleration>,
    pub share: Amounts,
}

impl ShapeKey {
    pub fn of(request: &Request) -> Self {
        Self {
            class: request.class.clone(),
            selectors: request.selectors.clone(),
            tolerations: request.tolerations.clone(),
            share: request.share.clone(),
        }
    }
}

/// A device of a node: what the engine calls it and its class, whose it is, and what it says.
pub(super) struct Offer<'a> {
    pub id: DeviceId,
    pub class: String,
    pub driver: &'a str,
    pub facts: &'a DeviceFacts,
}

/// What a shape finds on one node.
#[derive(Clone, Debug, Default)]
struct Found {
    offered: u32,
    suits: BTreeSet<DeviceId>,
    /// What a share is to the engine at most.
    share: Option<Amount>,
    /// By class: how many suit, and how many there are.
    classes: BTreeMap<String, (u32, u32)>,
    /// Those that would suit and are given to nobody, or not to this shape, by the reason.
    barred: BTreeMap<String, u32>,
    /// Why a selector could not be evaluated.
    problem: Option<String>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub key: ShapeKey,
    pub number: u64,
    /// Who asks for it.
    pub users: BTreeSet<Asker>,
    /// Of the device class and then of the request, or why there are none.
    selectors: Result<Vec<Selector>, String>,
    nodes: BTreeMap<String, Found>,
    /// Classes of which on some node all suit.
    listed: BTreeSet<String>,
    marked: BTreeSet<String>,
}

/// A mark that a node gets, or loses.
pub(super) type Marked = (String, String, bool);

impl Shape {
    pub fn new(key: ShapeKey, number: u64) -> Self {
        Self {
            key,
            number,
            users: BTreeSet::new(),
            selectors: Ok(Vec::new()),
            nodes: BTreeMap::new(),
            listed: BTreeSet::new(),
            marked: BTreeSet::new(),
        }
    }

    /// Takes in what its device class says now.
    pub fn compile(&mut self, class: Option<&DeviceClassFacts>) {
        let missing = || format!("names the DeviceClass {}, which does not exist: create it", self.key.class);
        self.selectors = class.ok_or_else(missing).and_then(|class| {
            let all = class.selectors.iter().chain(&self.key.selectors);
            all.map(|text| Selector::of(text).map_err(|problem| format!("asks by a {problem}"))).collect()
        });
    }

    /// The label by which nodes are marked, for the engine alone: no label of Kubernetes has a colon.
    pub fn mark(&self) -> String {
        format!("device-request:{}", self.number)
    }

    pub fn suits(&self, node: &str, device: &DeviceId) -> bool {
        self.marked.contains(node) && self.nodes.get(node).is_some_and(|found| found.suits.contains(device))
    }

    /// Devices that suit, with their nodes.
    pub fn suiting(&self) -> impl Iterator<Item = (&String, &DeviceId)> {
        let marked = self.nodes.iter().filter(|(node, _)| self.marked.contains(*node));
        marked.flat_map(|(node, found)| found.suits.iter().map(move |device| (node, device)))
    }

    /// Whether somebody asks for it, and the device suits.
    pub fn wants(&self, node: &str, device: &DeviceId) -> bool {
        !self.users.is_empty() && self.suits(node, device)
    }

    /// Classes that will do, or why nothing will.
    pub fn answer(&self) -> Result<Vec<String>, String> {
        self.selectors.as_ref().map_err(Clone::clone)?;
        if self.marked.is_empty() { Err(self.nothing()) } else { Ok(self.listed.iter().cloned().collect()) }
    }

    /// What a share is to the engine, where it is most: devices of different sizes and policies may suit.
    pub fn share(&self) -> Option<Amount> {
        let marked = self.nodes.iter().filter(|(node, _)| self.marked.contains(*node));
        marked.filter_map(|(_, found)| found.share).reduce(share::larger)
    }

    /// Looks at a node again; marks that change.
    pub fn look(&mut self, node: &str, offers: &[Offer<'_>], bench: &Bench) -> Vec<Marked> {
        let found = self.found(offers, bench);
        if offers.is_empty() {
            self.nodes.remove(node);
        } else {
            self.nodes.insert(node.to_owned(), found);
        }
        let classes = self.nodes.values().flat_map(|found| &found.classes);
        let listed: BTreeSet<String> = classes.filter(|(_, (suit, all))| suit == all).map(|(class, _)| class.clone()).collect();
        let rest = std::mem::replace(&mut self.listed, listed) != self.listed;
        let looked: Vec<String> = if rest {
            self.nodes.keys().chain(&self.marked).cloned().collect::<BTreeSet<_>>().into_iter().collect()
        } else {
            vec![node.to_owned()]
        };
        looked.into_iter().filter_map(|node| self.mark_node(node)).collect()
    }

    /// All marks, gone.
    pub fn unmarked(&self) -> Vec<Marked> {
        self.marked.iter().map(|node| (node.clone(), self.mark(), false)).collect()
    }

    fn mark_node(&mut self, node: String) -> Option<Marked> {
        let classes = self.nodes.get(&node).into_iter().flat_map(|found| &found.classes);
        let listed: Vec<_> =
            classes.filter(|(class, _)| self.listed.contains(*class)).map(|(_, (suit, all))| suit == all).collect();
        let on = !listed.is_empty() && listed.into_iter().all(|all_suit| all_suit);
        let changed = if on { self.marked.insert(node.clone()) } else { self.marked.remove(&node) };
        changed.then(|| (node, self.mark(), on))
    }

    fn found(&self, offers: &[Offer<'_>], bench: &Bench) -> Found {
        let mut found = Found { offered: u32::try_from(offers.len()).unwrap_or(u32::MAX), ..Found::default() };
        let Ok(selectors) = &self.selectors else { return found };
        let domains: BTreeSet<&str> = selectors.iter().flat_map(Selector::domains).collect();
        for Offer { id, class, driver, facts } in offers {
            let device = bench.device(driver, facts, &domains);
            let holds = device.and_then(|device| {
                // As Kubernetes does: the class decides first, and what does not hold ends the question.
                selectors.iter().try_fold(true, |holds, selector| if holds { bench.holds(selector, &device) } else { Ok(false) })
            });
            let holds = holds.unwrap_or_else(|problem| {
                found.problem.get_or_insert(problem);
                false
            });
            let tolerates =
                facts.taints.iter().all(|taint| self.key.tolerations.iter().any(|toleration| toleration.covers(taint)));
            let taken = self.taken(facts);
            let kept = (!tolerates).then_some("have a taint that the request does not tolerate");
            if let Some(why) = facts.barred.or(kept).or(taken.as_ref().err().copied()) {
                *found.barred.entry(why.to_owned()).or_default() += u32::from(holds);
            }
            if facts.barred.is_none() {
                let (suit, all) = found.classes.entry(class.clone()).or_default();
                *all += 1;
                if let (true, true, Ok(share)) = (holds, tolerates, taken) {
                    *suit += 1;
                    found.suits.insert(id.clone());
                    found.share = found.share.into_iter().chain(share).reduce(share::larger);
                }
            }
        }
        found
    }

    /// What share is taken of a device, if it is a share; or why none can be.
    fn taken(&self, facts: &DeviceFacts) -> Result<Option<Amount>, &'static str> {
        match (&facts.shared, self.key.share.is_empty()) {
            (None, true) => Ok(None),
            (None, false) => Err("are not given in shares (`capacity`)"),
            (Some(_), true) => Err("are given in shares alone: ask for one by `capacity`"),
            (Some(shared), false) => {
                let consumed = shared
                    .consumed(&self.key.share)
                    .ok_or("give no such share: it is more than there is, or than their policy allows")?;
                Ok(Some(shared.amount(&consumed)))
            }
        }
    }

    /// Why no device suits.
    fn nothing(&self) -> String {
        let all = || self.nodes.values();
        if let Some((node, (class, (suit, of)))) =
            self.nodes.iter().find_map(|(node, found)| Some((node, found.classes.iter().find(|(_, (suit, _))| *suit > 0)?)))
        {
            return format!(
                "asks by selectors that tell alike devices apart (of {of} {class} on node {node} {suit} suit): select by what all of a kind have"
            );
        }
        if let Some(problem) = all().find_map(|found| found.problem.as_ref()) {
            return format!("asks by a {problem}");
        }
        let count: u32 = all().map(|found| found.offered).sum();
        let mut told =
            format!("asks for a device of class {}: none of the {count} GPUs that drivers publish suits", self.key.class);
        let mut barred = BTreeMap::<&str, u32>::new();
        for (why, count) in all().flat_map(|found| &found.barred).filter(|(_, count)| **count > 0) {
            *barred.entry(why).or_default() += count;
        }
        for (why, count) in barred {
            // Writing to a text cannot fail.
            let _ = write!(told, "; {count} would, but those that {why} are left out");
        }
        told
    }
}
