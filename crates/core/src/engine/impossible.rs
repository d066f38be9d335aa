//! Jobs that no state of the present cluster could hold: with every node empty, drained devices back in use, and its queue's
//! path using nothing and borrowing all that it may. Such a job waits for people, not for others, so it holds nobody up.
//!
//! **Promise**: what is called impossible could not have been placed; the job's own specification, the nodes, the queues and the
//! topology alone decide. A gang of several groups is looked at group by group and as a sum, so that some that could never be
//! placed all the same are only said to wait.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::ask::{Affinity, Amount, Ask, Toleration};
use crate::books::{Amounts, Books};
use crate::cluster::{AskIx, Level};
use crate::explain::words;
use crate::labels::LabelsError;
use crate::names::QueueName;
use crate::node::{Health, Node};
use crate::quota::{Limit, NodeIx, ResourceIx};
use crate::state::{Group, JobSpec, Resource, Spread, State};

/// Why it can never start: the field, and what to do. `group` is `group NAME: `, or nothing when there is but one.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum Impossible {
    #[error("{group}{problem}")]
    Affinity { group: String, problem: LabelsError },
    #[error("{group}it asks for {wished}, and no node has such a device: choose from {known}")]
    Class { group: String, wished: String, known: String },
    #[error(
        "{group}no node that has the devices has the labels that its selector and affinity ask for, and only taints that it tolerates: change these, or label a node"
    )]
    Labels { group: String },
    #[error("{group}one worker asks for {need}, which no node has, even empty: ask for less a worker")]
    Amount { group: String, need: String },
    #[error("{group}one worker asks for {need}, which no node that has the devices has beside them, even empty: ask for less")]
    Beside { group: String, need: String },
    #[error(
        "{group}it needs {need} workers, and the whole cluster, empty, would hold {fit}: lower the least number of workers, or add nodes"
    )]
    Workers { group: String, need: u32, fit: u64 },
    #[error("{group}it must be within one {level}, which is no level of the pool: choose from {known}, or do not require it")]
    Level { group: String, level: String, known: String },
    #[error("{group}no {level} would hold its {need} workers, even empty: require a wider level, or fewer workers")]
    Spread { group: String, level: String, need: u32 },
    #[error(
        "its groups together need {need} devices, and those that suit and may be used together are {most}: lower the least number of workers of one, or add nodes"
    )]
    Together { need: String, most: String },
    #[error(
        "it needs {} {}, and {} may never use more than {}{}: ask for less, or raise its quota",
        words::number(.resource, *.need), words::unit(.resource), words::queue(.at), words::number(.resource, *.most),
        if *.own_only { ", which as it is not preemptible must be its own" } else { "" }
    )]
    Quota { at: QueueName, resource: Resource, need: i64, most: i64, own_only: bool },
}

impl Impossible {
    /// No node has a device of the classes that will do, but of these.
    pub fn class<'a>(group: &str, ask: &Ask, known: impl Iterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.collect();
        let known = if known.is_empty() { "none yet".to_owned() } else { known.join(", ") };
        let wished: Vec<&str> = ask.classes.iter().map(|wish| wish.class.as_str()).collect();
        let wished = if wished.is_empty() { "a device".to_owned() } else { format!("class {}", wished.join(" or ")) };
        Self::Class { group: group.to_owned(), wished, known }
    }

    /// A word for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Affinity { .. } => "BadAffinity",
            Self::Class { .. } => "NoSuchClass",
            Self::Labels { .. } => "NoSuchNode",
            Self::Level { .. } => "NoSuchLevel",
            Self::Amount { .. } | Self::Beside { .. } | Self::Workers { .. } | Self::Spread { .. } | Self::Together { .. } => {
                "LargerThanCluster"
            }
            Self::Quota { .. } => "LargerThanQuota",
        }
    }
}

/// The cluster and the queues without any work.
#[derive(Clone, Debug, Default)]
pub(super) struct Outlook {
    /// Made when the first job is refused.
    books: Option<Box<Books>>,
    /// Rises when what was found out may be wrong.
    pub epoch: u64,
}

impl Outlook {
    /// Queues, namespaces or the topology have changed.
    pub fn changed(&mut self) {
        self.books = None;
        self.epoch += 1;
    }

    /// One node has changed.
    pub fn node_changed(&mut self, state: &State, ix: u32, node: &Node) {
        if let Some(books) = &mut self.books {
            books.cluster.set_classes(&state.classes);
            books.cluster.set_node(ix, &healthy(node));
        }
        self.epoch += 1;
    }

    /// Why a job can never start; `None`: it can, or that is not known.
    pub fn of(&mut self, state: &State, spec: &JobSpec) -> Option<Impossible> {
        let books = self.books.get_or_insert_with(|| Box::new(empty(state)));
        let queue = books.tree.node(&spec.queue)?;
        let mut look = Look { books, spec, queue };
        let found = (0..).zip(&spec.groups).find_map(|(at, group)| look.group(at, group));
        found.or_else(|| look.together()).or_else(|| look.quota(&look.books.need(spec)))
    }
}

/// Drained devices come back; lost ones are not there.
fn healthy(node: &Node) -> Node {
    let mut node = node.clone();
    for device in node.devices.iter_mut().filter(|device| device.health == Health::Draining) {
        device.health = Health::Ok;
    }
    node
}

fn empty(state: &State) -> Books {
    let mut books = Books::default();
    books.cluster.set_classes(&state.classes);
    books.cluster.set_levels(&state.policy.levels, std::iter::empty());
    for (ix, _, node) in state.nodes.slots() {
        books.cluster.set_node(ix, &healthy(node));
    }
    books.set_queues(state);
    books
}

/// What makes no sense in a job, whatever there is.
pub(super) fn malformed(spec: &JobSpec) -> Option<Impossible> {
    let wrong = |(at, group): (usize, &Group)| group.ask.affinity.check().err().map(|problem| (at, problem));
    let (at, problem) = spec.groups.iter().enumerate().find_map(wrong)?;
    Some(Impossible::Affinity { group: named(spec, at), problem })
}

/// How sentences about a group begin.
fn named(spec: &JobSpec, at: usize) -> String {
    let several = spec.groups.len() > 1;
    spec.groups.get(at).filter(|_| several).map_or_else(String::new, |group| format!("group {}: ", group.name))
}

struct Look<'a> {
    books: &'a mut Books,
    spec: &'a JobSpec,
    queue: NodeIx,
}

impl Look<'_> {
    fn named(&self, at: usize) -> String {
        named(self.spec, at)
    }

    /// What keeps one group from being placed if it were alone.
    fn group(&mut self, at: usize, group: &Group) -> Option<Impossible> {
        let (own, all) = (group.spread.as_ref(), self.spec.spread.as_ref());
        // The wish of the only group stands instead of the job's.
        let binds = |spread: &&Spread| spread.required && (own.is_none() || self.spec.groups.len() > 1 || own == Some(*spread));
        let required: Vec<&Spread> = own.into_iter().chain(all).filter(binds).collect();
        let levels: Vec<Option<Level>> =
            required.iter().map(|spread| self.books.cluster.topology().level(&spread.level)).collect();
        if let Some((spread, _)) = required.iter().zip(&levels).find(|(_, level)| level.is_none()) {
            let known = self.books.cluster.topology().names().join(", ");
            return Some(Impossible::Level { group: self.named(at), level: spread.level.clone(), known });
        }
        let topology = self.books.cluster.topology();
        let one = |spread: &&Spread| spread.required && topology.level(&spread.level) == Some(Level::Island);
        let island = own.iter().chain(&all).any(one);
        let asks = self.books.variants(&group.ask, group.min, island);
        let (mut most, mut together, mut by_quota) = (0, false, None);
        for ask in asks {
            let fit = self.books.cluster.candidates(ask).total();
            most = most.max(fit);
            if fit < u64::from(group.min) || !levels.iter().flatten().all(|level| self.holds(ask, *level, group.min)) {
                continue;
            }
            together = true;
            let need = self.least(ask).times(group.min);
            match self.quota(need.as_slice()) {
                None => return None,
                found => by_quota = by_quota.or(found),
            }
        }
        if together {
            return by_quota;
        }
        if most >= u64::from(group.min) {
            let level = required.last().map(|spread| spread.level.clone()).unwrap_or_default();
            return Some(Impossible::Spread { group: self.named(at), level, need: group.min });
        }
        Some(if most == 0 {
            self.nowhere(at, group, island)
        } else {
            Impossible::Workers { group: self.named(at), need: group.min, fit: most }
        })
    }

    /// What one worker counts as at least; where there is but one class it is of that.
    fn least(&self, ask: AskIx) -> Amounts {
        let (ask, classes) = (self.books.cluster.ask(ask), self.books.cluster.classes());
        match classes.as_slice() {
            [only] if ask.classes.is_empty() => self.books.least_amounts(&ask.on_class(only)),
            _ => self.books.least_amounts(ask),
        }
    }

    /// Whether some place of the level holds so many workers.
    fn holds(&mut self, ask: AskIx, level: Level, count: u32) -> bool {
        match level {
            Level::Label(level) => {
                let domains = self.books.cluster.topology().domains(level);
                let candidates = self.books.cluster.candidates(ask);
                (0..domains).any(|domain| candidates.in_domain(level, domain) >= u64::from(count))
            }
            Level::Node => self.books.cluster.candidates(ask).tightest(count).is_some(),
            // The ask says so itself.
            Level::Island => true,
        }
    }

    /// Which part of the ask no node has: what makes the difference when it is left out.
    fn nowhere(&mut self, at: usize, group: &Group, island: bool) -> Impossible {
        let ask = &group.ask;
        if island && self.fits(ask) {
            return Impossible::Spread { group: self.named(at), level: "island".to_owned(), need: 1 };
        }
        let bare = Ask { cpu_milli: 0, memory_mib: 0, ..ask.clone() };
        if self.fits(&bare) && ask.amount != Amount::None {
            return Impossible::Beside { group: self.named(at), need: words::beside(ask) };
        }
        let anywhere = Ask {
            selector: BTreeMap::new(),
            affinity: Affinity::default(),
            tolerations: vec![Toleration::default()],
            ..ask.clone()
        };
        if self.fits(&anywhere) {
            return Impossible::Labels { group: self.named(at) };
        }
        let least = Ask { amount: Amount::Milli(1), cpu_milli: 0, memory_mib: 0, ..anywhere };
        if ask.amount == Amount::None || self.fits(&least) {
            return Impossible::Amount { group: self.named(at), need: words::need(&Group { min: 1, ..group.clone() }) };
        }
        let classes = self.books.cluster.classes();
        Impossible::class(&self.named(at), ask, classes.iter().map(crate::names::Class::as_str))
    }

    fn fits(&mut self, ask: &Ask) -> bool {
        let asks = self.books.variants(ask, 1, false);
        asks.into_iter().any(|ask| self.books.cluster.candidates(ask).total() > 0)
    }

    /// Devices that all groups need at least, against all those that suit one of them.
    fn together(&self) -> Option<Impossible> {
        let groups = &self.spec.groups;
        if groups.len() < 2 {
            return None;
        }
        let least = |group: &Group| match group.ask.amount {
            Amount::Whole(devices) => {
                let wished = group.ask.classes.iter().map(|wish| if wish.devices == 0 { devices } else { wish.devices });
                u64::from(wished.min().unwrap_or(devices)) * 1000
            }
            Amount::Milli(milli) | Amount::Slice { milli, .. } => u64::from(milli),
            Amount::Mig(_) | Amount::MemoryMib(_) | Amount::None => 0,
        };
        let need: u64 = groups.iter().map(|group| least(group).saturating_mul(u64::from(group.min))).sum();
        let nodes = self.books.cluster.nodes();
        let suits = |node: &crate::cluster::NodeFree| {
            let masks = groups.iter().filter(|group| group.ask.amount != Amount::None).map(|group| node.eligible(&group.ask));
            u64::from(masks.fold(0, |all, mask| all | mask).count_ones()) * 1000
        };
        let level = self.spec.spread.as_ref().filter(|spread| spread.required).map(|spread| spread.level.as_str());
        let most = match level.and_then(|level| self.books.cluster.topology().level(level)) {
            Some(Level::Node) => nodes.iter().map(suits).max(),
            Some(Level::Label(level)) => {
                let topology = self.books.cluster.topology();
                let domain = |domain: u32| topology.nodes(level, domain).iter().filter_map(|ix| nodes.get(*ix as usize));
                (0..topology.domains(level)).map(|of| domain(of).map(suits).sum::<u64>()).max()
            }
            Some(Level::Island) | None => Some(nodes.iter().map(suits).sum::<u64>()),
        };
        let most = most.unwrap_or(0);
        let told = |milli: u64| words::milli(i64::try_from(milli).unwrap_or(i64::MAX));
        (need > most).then(|| Impossible::Together { need: told(need), most: told(most) })
    }

    /// What the queue's path would never allow.
    fn quota(&self, need: &[(ResourceIx, i64)]) -> Option<Impossible> {
        let own_only = !self.spec.preemptible;
        let binding = self.books.allows(self.queue, need, own_only).err()?;
        Some(Impossible::Quota {
            at: self.books.tree.queue(binding.node).map_or_else(|| QueueName::from(""), |queue| queue.name.clone()),
            resource: self.books.resource(binding.resource),
            need: binding.need,
            most: binding.available,
            own_only: own_only && binding.limit == Limit::Nominal,
        })
    }
}
