//! Counterfactuals: the smallest change with which the same engine would start the work, found by trying.
//!
//! Every try is a copy of the engine that is told the change and decides once. The number is doubled until it is enough, then
//! halved down; it is never larger than all that the work needs, so a few dozen tries answer.

use crate::ask::{Amount, Ask};
use crate::cluster::{Cluster, Level};
use crate::engine::{Block, Engine, Impossible};
use crate::event::Event;
use crate::names::{DeviceId, JobName, ModelName, NodeName, QueueName};
use crate::node::{Device, Health, Node};
use crate::plan::{ActionKind, Plan};
use crate::policy::Policy;
use crate::state::{Group, Resource};
use crate::time::At;

use super::{quota, words};

/// More nodes or devices than this are not tried: an answer beyond is no help to anybody.
const MOST_ADDED: u32 = 1_024;

/// Whether a plan starts the job.
pub(super) fn starts(plan: &Plan, name: &JobName) -> bool {
    plan.actions.iter().any(|action| matches!(&action.kind, ActionKind::StartJob { job, .. } if job == name))
}

/// What would start a waiting job now.
pub(super) fn of_job(engine: &Engine, name: &JobName, block: Option<&Block>, now: At) -> Vec<String> {
    let Some(job) = engine.state().jobs.get(name) else { return Vec::new() };
    let started = |plan: &Plan| starts(plan, name);
    let trial = Trial { engine, now, starts: &started };
    let nodes = Addition::of(engine, &job.spec.groups);
    let quotas = quotas(engine, name, block);
    let mut told: Vec<String> = quotas.iter().find_map(|raise| trial.raised(raise)).into_iter().collect();
    told.extend(nodes.as_ref().and_then(|nodes| trial.added(nodes)));
    if told.is_empty()
        && let (Some(raise), Some(nodes)) = (quotas.last(), &nodes)
    {
        told.extend(trial.both(raise, nodes));
    }
    told
}

/// What would start a replica of a model now.
pub(super) fn of_model(engine: &Engine, name: &ModelName, now: At) -> Vec<String> {
    let Some(model) = engine.state().models.get(name) else { return Vec::new() };
    let started = |plan: &Plan| {
        let starts = |kind: &ActionKind| matches!(kind, ActionKind::StartReplica { model, .. } if model == name);
        plan.actions.iter().any(|action| starts(&action.kind))
    };
    let trial = Trial { engine, now, starts: &started };
    let group = Group { name: String::new(), min: 1, max: 1, ask: model.spec.ask.clone(), spread: None };
    let raise = Raise { queue: model.spec.queue.clone(), resource: Resource::Gpu, most: model.spec.ask.devices().max(1) };
    let nodes = Addition::of(engine, &[group]);
    trial.raised(&raise).into_iter().chain(nodes.and_then(|nodes| trial.added(&nodes))).collect()
}

/// A copy that is told changes and asked.
struct Trial<'a> {
    engine: &'a Engine,
    now: At,
    starts: &'a dyn Fn(&Plan) -> bool,
}

/// A quota that may be raised, in whole units.
struct Raise {
    queue: QueueName,
    resource: Resource,
    most: u32,
}

impl Raise {
    fn step(&self) -> i64 {
        if self.resource == Resource::Memory { 1024 } else { 1000 }
    }

    fn event(&self, engine: &Engine, units: u32) -> Option<Event> {
        let mut queue = engine.state().queues.get(&self.queue)?.clone();
        let quota = queue.quotas.entry(self.resource.clone()).or_default();
        quota.nominal = quota.nominal.saturating_add(i64::from(units).saturating_mul(self.step()));
        Some(Event::QueueSet { name: self.queue.clone(), queue })
    }

    fn told(&self, units: u32) -> String {
        format!("queue {} had {units} more {}", self.queue, words::unit(&self.resource))
    }
}

/// Quotas whose rise may help: where the refusal binds, and the job's own.
fn quotas(engine: &Engine, name: &JobName, block: Option<&Block>) -> Vec<Raise> {
    let Some(job) = engine.state().jobs.get(name) else { return Vec::new() };
    let books = engine.books();
    let own = &job.spec.queue;
    let needs: Vec<(Resource, i64)> = books.need(&job.spec).into_iter().map(|(ix, need)| (books.resource(ix), need)).collect();
    let raise = |queue: &QueueName, resource: &Resource, lacking: i64| {
        let step = if *resource == Resource::Memory { 1024 } else { 1000 };
        let most = u32::try_from(lacking.max(1).saturating_add(step - 1) / step).unwrap_or(MOST_ADDED).min(MOST_ADDED);
        Raise { queue: queue.clone(), resource: resource.clone(), most }
    };
    let need = |resource: &Resource| needs.iter().find(|(known, _)| known == resource).map_or(0, |(_, need)| *need);
    let bound = match block {
        Some(Block::Quota { at, resource, available, .. }) => Some((at, resource, available)),
        Some(Block::Impossible(Impossible::Quota { at, resource, most, .. })) => Some((at, resource, most)),
        _ => None,
    };
    if let Some((at, resource, available)) = bound {
        // Down to what it uses above its limit, and all that the job needs.
        let lacking = need(resource).saturating_sub((*available).min(0));
        let queues = [at, own].into_iter().filter(|queue| engine.state().queues.contains_key(*queue));
        queues.map(|queue| raise(queue, resource, lacking)).collect()
    } else {
        let class = needs.iter().find(|(resource, _)| matches!(resource, Resource::Class(_)));
        let resource = class.map_or(Resource::Gpu, |(resource, _)| resource.clone());
        let lacking = need(&resource).saturating_add(over(engine, own));
        vec![raise(own, &resource, lacking)].into_iter().filter(|_| lacking > 0).collect()
    }
}

/// Devices, in thousandths, that a queue uses above its own.
fn over(engine: &Engine, queue: &QueueName) -> i64 {
    quota::above_own(engine.books(), queue).map_or(0, |(_, above)| above)
}

/// Hardware that may be added.
enum Addition {
    /// Devices of one more kind in the only node there is.
    Devices { like: Device, most: u32 },
    /// Nodes like one that there is.
    Nodes { like: NodeName, node: Node, most: u32 },
}

impl Addition {
    fn of(engine: &Engine, groups: &[Group]) -> Option<Self> {
        let state = engine.state();
        let widest = groups.iter().max_by_key(|group| group.min * group.ask.devices().max(1))?;
        let ask = &widest.ask;
        if state.nodes.len() <= 1 {
            let most: u32 = groups.iter().map(|group| group.min.saturating_mul(group.ask.devices())).sum();
            let like = state.devices().find(|device| ask.suits(device)).cloned().or_else(|| imagined(engine, ask))?;
            return Some(Self::Devices { like, most: most.clamp(1, MOST_ADDED) });
        }
        let whole = state.nodes.iter().filter(|(_, node)| !node.gone && ask.suits_node(&node.spec));
        let room = room_around(engine, widest);
        let (name, node) = whole.max_by_key(|(name, node)| {
            let suits = node.devices.iter().filter(|device| ask.suits(device)).count();
            (suits, state.nodes.ix(name).map(&room), std::cmp::Reverse((*name).clone()))
        })?;
        let most = groups.iter().map(|group| per_group(node, group)).sum::<Option<u32>>()?;
        Some(Self::Nodes { like: name.clone(), node: node.clone(), most: most.clamp(1, MOST_ADDED) })
    }

    fn most(&self) -> u32 {
        match self {
            Self::Devices { most, .. } | Self::Nodes { most, .. } => *most,
        }
    }

    fn events(&self, count: u32) -> Vec<Event> {
        match self {
            Self::Devices { like, .. } => {
                (0..count).map(|index| seen(like, format!("what-if-{index}"), like.node.clone())).collect()
            }
            Self::Nodes { node, .. } => (0..count).flat_map(|index| copy_of(node, &format!("what-if-{index}"))).collect(),
        }
    }

    fn told(&self, count: u32) -> String {
        match self {
            Self::Devices { like, .. } => format!("{count} more {}", like.class),
            Self::Nodes { like, node, .. } => {
                let first = node.devices.first().map(|device| device.class.clone());
                let has = first.map(|class| format!(" ({} {class})", node.devices.len())).unwrap_or_default();
                format!("{count} more node(s) like {like}{has}")
            }
        }
    }
}

/// Workers that fit in the domain of a node, where the group must stay in one: a node is best added there.
fn room_around(engine: &Engine, group: &Group) -> impl Fn(u32) -> u64 {
    let mut books = engine.books().clone();
    let ask = books.cluster.intern(&group.ask);
    let spread = group.spread.as_ref().filter(|spread| spread.required);
    let level = spread.and_then(|spread| books.cluster.topology().level(&spread.level));
    let fits: Vec<u64> = match level {
        Some(Level::Label(level)) => {
            let nodes = 0..u32::try_from(books.cluster.nodes().len()).unwrap_or(0);
            let domains: Vec<u32> = nodes.map(|node| books.cluster.topology().domain(level, node)).collect();
            let candidates = books.cluster.candidates(ask);
            domains.into_iter().map(|domain| candidates.in_domain(level, domain)).collect()
        }
        _ => Vec::new(),
    };
    move |node| fits.get(node as usize).copied().unwrap_or(0)
}

/// Nodes that hold a whole group; `None` when one worker does not fit on such a node.
fn per_group(node: &Node, group: &Group) -> Option<u32> {
    let healthy = |device: &Device| Device { health: Health::Ok, ..device.clone() };
    let node = Node { devices: node.devices.iter().map(healthy).collect(), ..node.clone() };
    let mut alone = Cluster::default();
    alone.set_node(0, &node);
    let ask = alone.intern(&group.ask);
    let fit = alone.candidates(ask).fit(0);
    (fit > 0).then(|| group.min.div_ceil(fit))
}

/// Events that add a node like another one, healthy and empty.
pub(crate) fn copy_of(node: &Node, name: &str) -> Vec<Event> {
    let set = Event::NodeSet { name: NodeName::from(name), spec: node.spec.clone() };
    let devices = node.devices.iter().enumerate();
    let devices = devices.map(|(index, device)| seen(device, format!("{name}-{index}"), NodeName::from(name)));
    std::iter::once(set).chain(devices).collect()
}

fn seen(like: &Device, id: String, node: NodeName) -> Event {
    Event::DeviceSeen(Device { id: DeviceId::from(id), node, health: Health::Ok, free_since: None, ..like.clone() })
}

/// A device of a class that the cluster does not have.
fn imagined(engine: &Engine, ask: &Ask) -> Option<Device> {
    let class = ask.classes.first().map(|wish| wish.class.clone())?;
    let node = engine.state().nodes.keys().next().cloned().unwrap_or_else(|| NodeName::from("what-if"));
    let memory = if let Amount::MemoryMib(mib) = ask.amount { mib } else { 81_920 };
    Some(Device { mig: true, named: ask.named, ..Device::new("what-if", node, class.as_str(), memory) })
}

impl Trial<'_> {
    fn with(&self, events: impl IntoIterator<Item = Event>) -> bool {
        let mut changed = self.engine.clone();
        // What is ordered one after the other is let in all the same.
        let policy = Policy { max_starts: u32::MAX, ..changed.state().policy.clone() };
        changed.apply(self.now, Event::PolicySet(policy));
        for event in events {
            changed.apply(self.now, event);
        }
        changed.mark_dirty();
        (self.starts)(&changed.decide(self.now))
    }

    fn raised(&self, raise: &Raise) -> Option<String> {
        let units = smallest(raise.most, |units| self.with(raise.event(self.engine, units)))?;
        Some(format!("would start now if {}", raise.told(units)))
    }

    fn added(&self, nodes: &Addition) -> Option<String> {
        let count = smallest(nodes.most(), |count| self.with(nodes.events(count)))?;
        Some(format!("would start now with {}", nodes.told(count)))
    }

    fn both(&self, raise: &Raise, nodes: &Addition) -> Option<String> {
        let events = |units: u32, count: u32| nodes.events(count).into_iter().chain(raise.event(self.engine, units));
        let count = smallest(nodes.most(), |count| self.with(events(raise.most, count)))?;
        let units = smallest(raise.most, |units| self.with(events(units, count)))?;
        Some(format!("would start now with {}, if {} too", nodes.told(count), raise.told(units)))
    }
}

/// The smallest number of 1, 2, 4, ... up to `most` that is enough, refined by halving.
fn smallest(most: u32, enough: impl Fn(u32) -> bool) -> Option<u32> {
    let (mut low, mut high) = (0, 1);
    while !enough(high) {
        if high >= most {
            return None;
        }
        low = high;
        high = (high * 2).min(most);
    }
    while high - low > 1 {
        let middle = low.midpoint(high);
        if enough(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_number_is_found_and_none_when_all_is_not_enough() {
        for wanted in 1..=40 {
            assert_eq!(smallest(40, |count| count >= wanted), Some(wanted));
        }
        assert_eq!(smallest(40, |count| count > 40), None);
    }
}
