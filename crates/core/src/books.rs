//! The books of a decision: free capacity and quota usage together, so that a try changes both or neither.

use std::collections::BTreeMap;

use crate::ask::{Amount, Ask};
use crate::cluster::{AskIx, Choice, Claim, Cluster, Holder, bits};
use crate::names::{Class, QueueName};
use crate::node::gpu_milli;
use crate::quota::{Binding, NodeIx, QueueQuota, QuotaError, ResourceIx, Tree};
use crate::state::{JobSpec, Queue, Quota, Resource, Seat, State};

/// Amounts of the resources that a claim counts as: GPUs, GPUs of its class, CPU, memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    items: [(ResourceIx, i64); 4],
    len: usize,
}

impl Amounts {
    fn push(&mut self, resource: ResourceIx, amount: i64) {
        if amount != 0
            && let Some(item) = self.items.get_mut(self.len)
        {
            *item = (resource, amount);
            self.len += 1;
        }
    }

    /// Resource and amount.
    pub fn as_slice(&self) -> &[(ResourceIx, i64)] {
        &self.items[..self.len]
    }

    /// The same of `count` claims.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        for (_, amount) in &mut self.items[..self.len] {
            *amount = amount.saturating_mul(i64::from(count));
        }
        self
    }
}

/// Fixed resources; classes follow.
pub const GPU: ResourceIx = 0;
/// See [`GPU`].
pub const CPU: ResourceIx = 1;
/// See [`GPU`].
pub const MEMORY: ResourceIx = 2;
const CLASSES: ResourceIx = 3;

/// What the pool itself owns: all there is. Capacity, not quota, limits what is borrowed of it.
const BOUNDLESS: i64 = i64::MAX / 8;

/// What is undone when a try fails.
#[derive(Clone, Copy, Debug)]
enum Entry {
    Used(NodeIx, Amounts),
    Freed(NodeIx, Amounts),
}

/// Where the books stood.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    cluster: usize,
    quota: usize,
}

/// Free capacity and quota.
#[derive(Clone, Debug)]
pub struct Books {
    pub cluster: Cluster,
    pub tree: Tree,
    /// Class resources that some queue has a quota of.
    classes: BTreeMap<Class, ResourceIx>,
    /// By resource: whether some queue has a quota of it.
    counted: Vec<bool>,
    /// By node and resource: whether the node or a sibling of it has some guaranteed.
    shared: Vec<bool>,
    /// Queues that cannot be used, and why.
    pub broken: BTreeMap<QueueName, String>,
    log: Vec<Entry>,
}

impl Default for Books {
    fn default() -> Self {
        let (tree, broken) = build(&State::default(), &BTreeMap::new());
        Self {
            cluster: Cluster::default(),
            tree,
            classes: BTreeMap::new(),
            counted: Vec::new(),
            shared: Vec::new(),
            broken,
            log: Vec::new(),
        }
    }
}

impl Books {
    /// The books of a state, from nothing.
    pub fn of(state: &State) -> Self {
        let mut books = Self::default();
        books.cluster.set_classes(&state.classes);
        books.cluster.set_mix(state.mix.clone());
        books.cluster.set_levels(&state.policy.levels, state.nodes.slots().map(|(ix, _, node)| (ix, node)));
        for (ix, _, node) in state.nodes.slots() {
            books.cluster.set_node(ix, node);
        }
        books.set_queues(state);
        books.enter(state);
        books.commit();
        books
    }

    /// Takes in the queues as they are now; usage is entered anew.
    pub fn set_queues(&mut self, state: &State) {
        let listed = state.queues.values().flat_map(|queue| queue.quotas.keys());
        let mut classes: Vec<&Class> =
            listed.filter_map(|resource| if let Resource::Class(class) = resource { Some(class) } else { None }).collect();
        classes.sort_unstable();
        classes.dedup();
        self.classes = classes.into_iter().cloned().zip(CLASSES..).collect();
        (self.tree, self.broken) = build(state, &self.classes);
        let tree = &self.tree;
        let given =
            |resource| tree.bottom_up().iter().any(|node| *node != tree.root() && tree.quota(*node, resource).nominal > 0);
        self.counted = (0..tree.resources()).map(given).collect();
        self.shared = vec![false; tree.len() * usize::from(tree.resources())];
        for parent in tree.bottom_up() {
            let children = tree.children(*parent);
            for resource in (0..tree.resources()).filter(|r| children.iter().any(|node| tree.guaranteed(*node, *r) > 0)) {
                for node in children {
                    let at = node.0 as usize * usize::from(tree.resources()) + usize::from(resource);
                    self.shared.iter_mut().skip(at).take(1).for_each(|shared| *shared = true);
                }
            }
        }
    }

    /// Enters every firm claim of the state into the quota tree alone (after [`Self::set_queues`]).
    pub fn enter_usage(&mut self, state: &State) {
        crate::claims::each(state, |claim| {
            if claim.releasing.is_none()
                && let Some(node) = self.tree.node(claim.queue)
            {
                let amounts = self.amounts(claim.ask, claim.seat.node, claim.seat.mask);
                self.tree.add(node, amounts.as_slice());
            }
        });
    }

    /// Enters every claim of the state into an empty cluster and tree.
    fn enter(&mut self, state: &State) {
        crate::claims::each(state, |claim| {
            let Some(taken) = self.claim_of(claim.ask, claim.seat) else { return };
            match claim.releasing {
                Some(_) => self.cluster.enter_releasing(claim.seat.node, taken, claim.holder),
                None => self.cluster.claim(claim.seat.node, taken),
            }
        });
        self.enter_usage(state);
    }

    /// What a seat takes of its node.
    pub fn claim_of(&self, ask: &Ask, seat: &Seat) -> Option<Claim> {
        let choice = Choice { mask: seat.mask, slices: seat.slices, settled: true };
        Some(choice.claim(ask, self.cluster.node(seat.node)?))
    }

    /// What devices of a node count as.
    pub fn amounts(&self, ask: &Ask, node: u32, mask: u64) -> Amounts {
        let mut amounts = Amounts::default();
        let device = self.cluster.node(node).and_then(|free| free.devices.get(bits(mask).next()?));
        if let Some(device) = device {
            let (milli, count) = (crate::cluster::milli_of(ask, device), i64::from(mask.count_ones()));
            amounts.push(GPU, i64::from(gpu_milli(device.part, milli)) * count);
            if let Some(class) = self.classes.get(&device.class) {
                amounts.push(*class, i64::from(milli) * count);
            }
        }
        amounts.push(CPU, signed(ask.cpu_milli));
        amounts.push(MEMORY, signed(ask.memory_mib));
        amounts
    }

    /// What one worker of the ask counts as at least, before its devices are chosen.
    pub fn least_amounts(&self, ask: &Ask) -> Amounts {
        let mut amounts = Amounts::default();
        let of_class = match ask.amount {
            Amount::Whole(devices) => i64::from(devices) * 1000,
            Amount::Milli(milli) | Amount::Slice { milli, .. } => i64::from(milli),
            Amount::Mig(profile) => i64::from(profile.milli()),
            Amount::MemoryMib(_) => 1,
            Amount::None => 0,
        };
        let part = i64::from(self.cluster.least_part(ask));
        amounts.push(GPU, (of_class.saturating_mul(part) / 1000).max(of_class.min(1)));
        if let [wish] = ask.classes.as_slice()
            && let Some(class) = self.classes.get(&wish.class)
        {
            amounts.push(*class, of_class);
        }
        amounts.push(CPU, signed(ask.cpu_milli));
        amounts.push(MEMORY, signed(ask.memory_mib));
        amounts
    }

    /// What a gang counts as at least, over all its groups.
    pub fn need(&self, spec: &JobSpec) -> Vec<(ResourceIx, i64)> {
        let mut sums: Vec<(ResourceIx, i64)> = Vec::new();
        for group in &spec.groups {
            for (resource, amount) in self.least_amounts(&group.ask).times(group.min).as_slice() {
                match sums.iter_mut().find(|(known, _)| known == resource) {
                    Some((_, sum)) => *sum = sum.saturating_add(*amount),
                    None => sums.push((*resource, *amount)),
                }
            }
        }
        sums
    }

    /// Whether some queue has a quota of its own for one of the classes.
    pub fn counts_classes(&self) -> bool {
        !self.classes.is_empty()
    }

    /// The resource of an index.
    pub fn resource(&self, ix: ResourceIx) -> Resource {
        match ix {
            GPU => Resource::Gpu,
            CPU => Resource::Cpu,
            MEMORY => Resource::Memory,
            other => {
                let class = self.classes.iter().find(|(_, of)| **of == other).map(|(class, _)| class.clone());
                Resource::Class(class.unwrap_or_else(|| Class::from("")))
            }
        }
    }

    /// Places one worker of `ask` on `node` for `queue`, if its quota allows. A job that may not be stopped uses only what is
    /// its queue's own.
    pub fn place(&mut self, queue: NodeIx, ask: AskIx, node: u32, own_only: bool) -> Result<Seat, Option<Binding>> {
        let choice = self.cluster.choose(ask, node).ok_or(None)?;
        let amounts = self.amounts(self.cluster.ask(ask), node, choice.mask);
        self.allows(queue, amounts.as_slice(), own_only).map_err(Some)?;
        let free = self.cluster.node(node).ok_or(None)?;
        let claim = choice.claim(self.cluster.ask(ask), free);
        self.cluster.claim(node, claim);
        self.add_usage(queue, amounts);
        Ok(Seat { group: 0, node, mask: choice.mask, slices: choice.slices })
    }

    /// Whether the queue may use so much more.
    pub fn allows(&self, queue: NodeIx, amounts: &[(ResourceIx, i64)], own_only: bool) -> Result<(), Binding> {
        if own_only {
            self.fits_own(queue, amounts)?;
        }
        self.tree.fits(queue, amounts)
    }

    /// Whether so much more stays within what is guaranteed to the queue. A resource that no queue has a quota of is nobody's:
    /// capacity alone limits it.
    pub fn fits_own(&self, queue: NodeIx, amounts: &[(ResourceIx, i64)]) -> Result<(), Binding> {
        let mut counted = amounts.iter().filter(|(resource, _)| self.counts(*resource));
        counted.try_for_each(|amount| self.tree.fits_nominal(queue, std::slice::from_ref(amount)))
    }

    /// Whether some of the resource is guaranteed to the node or a sibling of it: else nobody is owed any there.
    pub fn is_shared(&self, node: NodeIx, resource: ResourceIx) -> bool {
        let at = node.0 as usize * usize::from(self.tree.resources()) + usize::from(resource);
        self.shared.get(at).is_some_and(|shared| *shared)
    }

    /// Whether some queue has a quota of the resource.
    pub fn counts(&self, resource: ResourceIx) -> bool {
        self.counted.get(usize::from(resource)).is_some_and(|counted| *counted)
    }

    /// Claims a seat firmly, whatever the quota says (it was decided before).
    pub fn take(&mut self, queue: Option<NodeIx>, ask: &Ask, seat: &Seat) {
        let Some(claim) = self.claim_of(ask, seat) else { return };
        self.cluster.claim(seat.node, claim);
        if let Some(queue) = queue {
            let amounts = self.amounts(ask, seat.node, seat.mask);
            self.add_usage(queue, amounts);
        }
    }

    /// Gives up a firm seat at once.
    pub fn free(&mut self, queue: Option<NodeIx>, ask: &Ask, seat: &Seat) {
        let Some(claim) = self.claim_of(ask, seat) else { return };
        self.cluster.release(seat.node, claim);
        self.remove_usage(queue, ask, seat);
    }

    /// The holder of a firm seat is told to end: it counts no more, and stays until it has ended.
    pub fn loosen(&mut self, queue: Option<NodeIx>, ask: &Ask, seat: &Seat, holder: Holder) {
        let Some(claim) = self.claim_of(ask, seat) else { return };
        self.cluster.loosen(seat.node, claim, holder);
        self.remove_usage(queue, ask, seat);
    }

    /// The holder of a releasing seat has ended.
    pub fn settle(&mut self, ask: &Ask, seat: &Seat, holder: Holder) {
        let Some(claim) = self.claim_of(ask, seat) else { return };
        self.cluster.settle(seat.node, claim, holder);
    }

    fn add_usage(&mut self, queue: NodeIx, amounts: Amounts) {
        self.tree.add(queue, amounts.as_slice());
        self.log.push(Entry::Used(queue, amounts));
    }

    fn remove_usage(&mut self, queue: Option<NodeIx>, ask: &Ask, seat: &Seat) {
        let Some(queue) = queue else { return };
        let amounts = self.amounts(ask, seat.node, seat.mask);
        self.tree.remove(queue, amounts.as_slice());
        self.log.push(Entry::Freed(queue, amounts));
    }

    /// Where the books stand now.
    pub fn mark(&self) -> Mark {
        Mark { cluster: self.cluster.mark(), quota: self.log.len() }
    }

    /// Undoes everything since `mark`.
    pub fn rollback(&mut self, mark: Mark) {
        self.cluster.rollback(mark.cluster);
        while self.log.len() > mark.quota {
            match self.log.pop() {
                Some(Entry::Used(queue, amounts)) => self.tree.remove(queue, amounts.as_slice()),
                Some(Entry::Freed(queue, amounts)) => self.tree.add(queue, amounts.as_slice()),
                None => return,
            }
        }
    }

    /// What was done stays.
    pub fn commit(&mut self) {
        self.cluster.commit();
        self.log.clear();
    }
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// The tree of all queues that make one; the others with what is wrong with them.
fn build(state: &State, classes: &BTreeMap<Class, ResourceIx>) -> (Tree, BTreeMap<QueueName, String>) {
    let queues = &state.queues;
    let resources = CLASSES + u16::try_from(classes.len()).unwrap_or(0);
    let pool = QueueQuota {
        name: QueueName::from(""),
        parent: None,
        weight_milli: 1000,
        quotas: (0..resources).map(|resource| (resource, Quota { nominal: BOUNDLESS, ..Quota::default() })).collect(),
    };
    let unusable = |queue: &Queue| queue.namespaces.as_ref().and_then(|selector| selector.check().err());
    let told = |(name, queue): (&QueueName, &Queue)| {
        unusable(queue).map(|problem| (name.clone(), format!("queue `{name}`: `namespaceSelector`: {problem}")))
    };
    let mut broken: BTreeMap<QueueName, String> = queues.iter().filter_map(told).collect();
    let usable = queues.iter().filter(|(name, _)| !broken.contains_key(*name));
    let mut list: Vec<QueueQuota> = usable.map(|(name, queue)| entry(name, queue, classes)).collect();
    list.push(pool.clone());
    loop {
        match Tree::build(resources, list.clone()) {
            Ok(tree) if state.gone.is_empty() => return (tree, broken),
            Ok(tree) => {
                // Nobody may be below one that is gone: they come when the others make a tree.
                list.extend(state.gone.iter().map(gone));
                return (Tree::build(resources, list).unwrap_or(tree), broken);
            }
            Err(problem) => {
                let before = list.len();
                let culprit = culprit(&problem);
                list.retain(|queue| queue.name != culprit || queue.name.0.is_empty());
                let told = match &problem {
                    QuotaError::NoParent { queue, parent } if broken.contains_key(parent) => {
                        format!("queue `{queue}` is below `{parent}`, which is refused itself: mend that one first")
                    }
                    problem => problem.to_string(),
                };
                broken.insert(culprit, told);
                if list.len() == before {
                    list = vec![pool.clone()];
                }
            }
        }
    }
}

/// What is left of a queue that is not there.
fn gone(name: &QueueName) -> QueueQuota {
    QueueQuota { name: name.clone(), parent: None, weight_milli: 1000, quotas: Vec::new() }
}

/// The queue to leave out so that the rest is a tree.
fn culprit(problem: &QuotaError) -> QueueName {
    match problem {
        QuotaError::Twice { queue }
        | QuotaError::NoParent { queue, .. }
        | QuotaError::Cycle { queue, .. }
        | QuotaError::Negative { queue, .. }
        | QuotaError::NoWeight { queue }
        | QuotaError::ResourceTwice { queue, .. }
        | QuotaError::NoResource { queue, .. } => queue.clone(),
        QuotaError::TwoRoots | QuotaError::RootBelow { .. } | QuotaError::Usage { .. } => QueueName::from(""),
    }
}

fn entry(name: &QueueName, queue: &Queue, classes: &BTreeMap<Class, ResourceIx>) -> QueueQuota {
    let index = |resource: &Resource| match resource {
        Resource::Gpu => GPU,
        Resource::Cpu => CPU,
        Resource::Memory => MEMORY,
        Resource::Class(class) => classes.get(class).copied().unwrap_or(GPU),
    };
    QueueQuota {
        name: name.clone(),
        parent: queue.parent.clone(),
        weight_milli: queue.weight_milli,
        quotas: queue.quotas.iter().map(|(resource, quota)| (index(resource), *quota)).collect(),
    }
}
