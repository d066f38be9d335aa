//! Places whole gangs: every group at its size, as close together as asked for, or nothing.
//!
//! A group of more than one worker runs on one GPU class (the slowest would set the pace of all) and on as few nodes as it
//! can: the fullest node that takes all that is left, else the emptiest. Where the pool has a topology, a gang stays in the
//! tightest domain of the narrowest level that holds it.

use crate::ask::{Amount, Ask, ClassWish};
use crate::books::Books;
use crate::cluster::{AskIx, Candidates, Cluster, Level, NOWHERE, bits};
use crate::names::{Class, QueueName};
use crate::quota::{Binding, NodeIx};
use crate::state::{JobSpec, Seat, Spread};

use super::desk::Block;

/// Domains that are tried for a gang; each try costs a placement.
const MAX_DOMAINS: usize = 16;

/// The part of the cluster in which workers may be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    All,
    Domain(usize, u32),
    Node(u32),
}

/// Why nothing was placed.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub block: Block,
    /// Quota would allow it, on one class at least.
    pub lacks_devices: bool,
}

impl Refusal {
    /// Neither quota nor devices refused it: it waits for people, and nothing that happens to others changes that.
    pub fn of(block: Block) -> Self {
        Self { block, lacks_devices: false }
    }
}

/// A gang to be placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gang<'a> {
    pub spec: &'a JobSpec,
    pub queue: NodeIx,
    /// It may use only what is its queue's own.
    pub own_only: bool,
}

impl Books {
    /// Places all groups of a job at their minimum. On refusal the books are as they were.
    pub(super) fn place_gang(&mut self, gang: Gang<'_>) -> Result<Vec<Seat>, Refusal> {
        let mark = self.mark();
        let placed = self.place_groups(gang);
        if placed.is_err() {
            self.rollback(mark);
        }
        placed.map(|mut seats| {
            self.order(&mut seats);
            seats
        })
    }

    fn place_groups(&mut self, gang: Gang<'_>) -> Result<Vec<Seat>, Refusal> {
        let Some(spread) = gang.spec.spread.as_ref().filter(|_| gang.spec.groups.len() > 1) else {
            return self.place_in(gang, Scope::All);
        };
        let widest = gang.spec.groups.iter().enumerate().max_by_key(|(_, group)| group.min * group.ask.devices().max(1));
        let Some((first, group)) = widest else { return Ok(Vec::new()) };
        let ask = self.cluster.intern(&group.ask);
        let scopes: Vec<Scope> = match self.cluster.topology().level(&spread.level) {
            Some(Level::Label(level)) => {
                let domains = self.domains(ask, level, Scope::All, group.min);
                domains.into_iter().map(|domain| Scope::Domain(level, domain)).collect()
            }
            Some(Level::Node) => self.nodes_for(ask, group.min).into_iter().map(Scope::Node).collect(),
            // Each worker by itself; see `place_spread`.
            Some(Level::Island) => return self.place_in(gang, Scope::All),
            None => Vec::new(),
        };
        for scope in scopes {
            let mark = self.mark();
            match self.place_in(gang, scope) {
                Ok(seats) => return Ok(seats),
                Err(_) => self.rollback(mark),
            }
        }
        if spread.required {
            return Err(self.refusal(gang, first, Some(spread)));
        }
        self.place_in(gang, Scope::All)
    }

    fn place_in(&mut self, gang: Gang<'_>, scope: Scope) -> Result<Vec<Seat>, Refusal> {
        let mut seats = Vec::new();
        for (index, group) in gang.spec.groups.iter().enumerate() {
            let spread = group.spread.as_ref().or_else(|| gang.spec.spread.as_ref().filter(|_| gang.spec.groups.len() == 1));
            let before = seats.len();
            self.place_group(gang, index, group.min, spread, scope, &mut seats)?;
            let number = u16::try_from(index).unwrap_or(u16::MAX);
            seats.iter_mut().skip(before).for_each(|seat| seat.group = number);
        }
        Ok(seats)
    }

    /// One group: on the fastest class that takes it whole.
    fn place_group(
        &mut self,
        gang: Gang<'_>,
        index: usize,
        count: u32,
        spread: Option<&Spread>,
        scope: Scope,
        seats: &mut Vec<Seat>,
    ) -> Result<(), Refusal> {
        let Some(group) = gang.spec.groups.get(index) else { return Ok(()) };
        let (mut by_quota, mut lacks_devices) = (None, false);
        let island = self.needs_island(gang, index);
        for ask in self.variants(&group.ask, count, island) {
            let (mark, before) = (self.mark(), seats.len());
            match self.place_spread(gang, ask, count, spread, scope, seats) {
                Ok(()) => return Ok(()),
                Err(binding) => {
                    self.rollback(mark);
                    seats.truncate(before);
                    lacks_devices |= binding.is_none();
                    by_quota = by_quota.or(binding);
                }
            }
        }
        match by_quota {
            Some(binding) if !lacks_devices => Err(self.by_quota(binding)),
            _ => Err(self.refusal(gang, index, spread)),
        }
    }

    fn place_spread(
        &mut self,
        gang: Gang<'_>,
        ask: AskIx,
        count: u32,
        spread: Option<&Spread>,
        scope: Scope,
        seats: &mut Vec<Seat>,
    ) -> Result<(), Option<Binding>> {
        let level = spread.map(|spread| self.cluster.topology().level(&spread.level));
        let required = spread.is_some_and(|spread| spread.required);
        if let Scope::Node(node) = scope {
            let outside = match level {
                Some(Some(Level::Label(level))) => self.cluster.topology().domain(level, node) == NOWHERE,
                Some(None) => true,
                _ => false,
            };
            return if required && outside { Err(None) } else { self.fill(gang, ask, count, scope, seats) };
        }
        match level {
            Some(None) if required => return Err(None),
            Some(Some(Level::Node)) => {
                let tightest = self.cluster.candidates(ask).tightest(count);
                let node = match scope {
                    Scope::Domain(level, domain) => self.cluster.best_in(ask, level, domain, count),
                    Scope::All | Scope::Node(_) => tightest,
                };
                let candidates = self.cluster.candidates(ask);
                if let Some(node) = node.filter(|node| candidates.fit(*node) >= count) {
                    return self.fill(gang, ask, count, Scope::Node(node), seats);
                }
                if required {
                    return Err(None);
                }
            }
            Some(Some(Level::Label(level))) => return self.place_level(gang, ask, count, level, required, scope, seats),
            // An island is a matter of one worker's devices: see `needs_island`.
            Some(Some(Level::Island) | None) | None => {}
        }
        let depth = self.cluster.topology().depth();
        if count > 1 && depth > 0 && scope == Scope::All {
            return self.place_level(gang, ask, count, depth - 1, false, scope, seats);
        }
        self.fill(gang, ask, count, scope, seats)
    }

    /// In one domain of the level; unless that is required, in one of a wider level, or anywhere.
    #[expect(clippy::too_many_arguments, reason = "one search, its parts are named")]
    fn place_level(
        &mut self,
        gang: Gang<'_>,
        ask: AskIx,
        count: u32,
        level: usize,
        required: bool,
        scope: Scope,
        seats: &mut Vec<Seat>,
    ) -> Result<(), Option<Binding>> {
        // Wider levels than the scope's hold all of it.
        let narrower = if let Scope::Domain(at, _) = scope { at + 1 } else { 0 };
        for level in (narrower..=level).rev() {
            for domain in self.domains(ask, level, scope, count) {
                let (mark, before) = (self.mark(), seats.len());
                match self.fill(gang, ask, count, Scope::Domain(level, domain), seats) {
                    Ok(()) => return Ok(()),
                    Err(Some(binding)) => return Err(Some(binding)),
                    Err(None) => {
                        self.rollback(mark);
                        seats.truncate(before);
                    }
                }
            }
            if required {
                return Err(None);
            }
        }
        self.fill(gang, ask, count, scope, seats)
    }

    /// Domains that hold `count` workers, the tightest first.
    fn domains(&mut self, ask: AskIx, level: usize, scope: Scope, count: u32) -> Vec<u32> {
        let domains = self.cluster.topology().domains(level);
        let candidates = self.cluster.candidates(ask);
        let fits = (0..domains).map(|domain| (candidates.in_domain(level, domain), domain));
        let mut fitting: Vec<(u64, u32)> = fits.filter(|(fit, _)| *fit >= u64::from(count)).collect();
        let topology = self.cluster.topology();
        let first = |domain: u32| topology.nodes(level, domain).first().copied().unwrap_or(NOWHERE);
        fitting.retain(|(_, domain)| self.is_in(first(*domain), scope));
        // Numbers of domains depend on history, their first nodes do not.
        fitting.sort_unstable_by_key(|(fit, domain)| (*fit, first(*domain)));
        fitting.truncate(MAX_DOMAINS);
        fitting.into_iter().map(|(_, domain)| domain).collect()
    }

    /// Nodes that hold `count` workers, the tightest first.
    fn nodes_for(&mut self, ask: AskIx, count: u32) -> Vec<u32> {
        let nodes = u32::try_from(self.cluster.nodes().len()).unwrap_or(u32::MAX);
        let candidates = self.cluster.candidates(ask);
        let mut fitting: Vec<(u32, u32)> =
            (0..nodes).map(|node| (candidates.fit(node), node)).filter(|(fit, _)| *fit >= count).collect();
        fitting.sort_unstable();
        fitting.truncate(MAX_DOMAINS);
        fitting.into_iter().map(|(_, node)| node).collect()
    }

    fn is_in(&self, node: u32, scope: Scope) -> bool {
        match scope {
            Scope::All => true,
            Scope::Domain(level, domain) => self.cluster.topology().domain(level, node) == domain,
            Scope::Node(only) => node == only,
        }
    }

    /// `count` workers on as few nodes of the scope as can be.
    fn fill(
        &mut self,
        gang: Gang<'_>,
        ask: AskIx,
        count: u32,
        scope: Scope,
        seats: &mut Vec<Seat>,
    ) -> Result<(), Option<Binding>> {
        let mut left = count;
        while left > 0 {
            let node = self.next_node(ask, left, count, scope).ok_or(None)?;
            let fit = self.cluster.candidates(ask).fit(node).min(left).max(1);
            for _ in 0..fit {
                seats.push(self.place(gang.queue, ask, node, gang.own_only)?);
                left -= 1;
            }
        }
        Ok(())
    }

    fn next_node(&mut self, ask: AskIx, left: u32, count: u32, scope: Scope) -> Option<u32> {
        let Self { cluster, .. } = self;
        match scope {
            Scope::Node(node) => (cluster.candidates(ask).fit(node) > 0).then_some(node),
            Scope::All => {
                let candidates = cluster.candidates(ask);
                let enough = candidates.total() >= u64::from(left);
                let node =
                    if count == 1 { candidates.best() } else { candidates.tightest(left).or_else(|| candidates.emptiest()) };
                node.filter(|_| enough)
            }
            Scope::Domain(level, domain) => {
                cluster.candidates(ask);
                cluster.best_in(ask, level, domain, left)
            }
        }
    }

    /// One more worker of a group, beside the others if it can be.
    pub(super) fn place_one_more(&mut self, gang: Gang<'_>, index: usize, beside: &[Seat]) -> Option<Seat> {
        let group = gang.spec.groups.get(index)?;
        let class = beside.iter().find(|seat| usize::from(seat.group) == index).and_then(|seat| self.class_of(seat));
        let ask = match class.filter(|_| group.ask.devices() > 0) {
            Some(class) => group.ask.on_class(&class),
            None => group.ask.clone(),
        };
        let ask = self.cluster.intern_as(&ask, self.needs_island(gang, index));
        let bounds = self.bounds(gang, index, beside);
        let inside: Option<Vec<u32>> = bounds.first().map(|first| {
            let all = match first {
                Scope::Domain(level, domain) => self.cluster.topology().nodes(*level, *domain).to_vec(),
                Scope::Node(node) => vec![*node],
                Scope::All => Vec::new(),
            };
            all.into_iter().filter(|node| bounds.iter().all(|scope| self.is_in(*node, *scope))).collect()
        });
        let candidates = self.cluster.candidates(ask);
        let settled = |node: &u32| candidates.fit(*node) > 0 && Candidates::is_settled(candidates.rank(*node));
        let allowed = |node: &u32| inside.as_ref().is_none_or(|inside| inside.contains(node));
        let best = |nodes: &mut dyn Iterator<Item = u32>| {
            nodes.filter(|node| settled(node) && allowed(node)).min_by_key(|node| (candidates.rank(*node), *node))
        };
        let near = best(&mut beside.iter().map(|seat| seat.node));
        let node = near.or_else(|| match &inside {
            Some(inside) => best(&mut inside.iter().copied()),
            None => best(&mut candidates.best().into_iter()),
        })?;
        let seat = self.place(gang.queue, ask, node, gang.own_only).ok()?;
        Some(Seat { group: u16::try_from(index).unwrap_or(u16::MAX), ..seat })
    }

    /// Whether all devices of a worker must be on one island; where that is only preferred, `cluster::choose` does what it can.
    fn needs_island(&self, gang: Gang<'_>, index: usize) -> bool {
        let group = gang.spec.groups.get(index).and_then(|group| group.spread.as_ref());
        let needs = |spread: &Spread| spread.required && self.cluster.topology().level(&spread.level) == Some(Level::Island);
        group.is_some_and(needs) || gang.spec.spread.as_ref().is_some_and(needs)
    }

    /// Where one more worker of a group may be so that what must be together stays together.
    fn bounds(&self, gang: Gang<'_>, index: usize, beside: &[Seat]) -> Vec<Scope> {
        let spec = gang.spec;
        let one = spec.groups.len() == 1;
        let group = spec.groups.get(index).and_then(|group| group.spread.as_ref()).or(spec.spread.as_ref().filter(|_| one));
        let job = spec.spread.as_ref().filter(|_| !one);
        let of_group = beside.iter().find(|seat| usize::from(seat.group) == index);
        let bounds = [(group, of_group), (job, beside.first())];
        let required =
            bounds.into_iter().filter_map(|(spread, seat)| Some((spread.filter(|spread| spread.required)?, seat?.node)));
        required
            .filter_map(|(spread, node)| match self.cluster.topology().level(&spread.level)? {
                Level::Label(level) => Some(Scope::Domain(level, self.cluster.topology().domain(level, node))),
                Level::Node => Some(Scope::Node(node)),
                Level::Island => None,
            })
            .collect()
    }

    /// The class of a seat's devices.
    pub(super) fn class_of(&self, seat: &Seat) -> Option<Class> {
        let node = self.cluster.node(seat.node)?;
        bits(seat.mask).next().and_then(|index| node.devices.get(index)).map(|device| device.class.clone())
    }

    /// The asks to try in turn: each of [`Self::by_class`], a gang first where it would rather be.
    pub(super) fn variants(&mut self, ask: &Ask, count: u32, island: bool) -> Vec<AskIx> {
        let all = self.by_class(ask, count, island);
        if count < 2 || ask.affinity.preferred.is_empty() {
            return all;
        }
        let mut tried = Vec::with_capacity(all.len() * 2);
        for ix in all {
            let preferred = self.cluster.ask(ix).where_preferred();
            tried.extend(preferred.map(|ask| self.cluster.intern_as(&ask, island)));
            tried.push(ix);
        }
        tried
    }

    /// As it is for one worker, else each class by itself, the fastest first.
    fn by_class(&mut self, ask: &Ask, count: u32, island: bool) -> Vec<AskIx> {
        if let ([wish], true) = (ask.classes.as_slice(), ask.amount != Amount::None) {
            return vec![self.cluster.intern_as(&ask.on_class(&wish.class), island)];
        }
        let alike = ask.classes.iter().all(|wish| wish.devices == 0);
        if ask.amount == Amount::None || (count == 1 && alike && !self.counts_classes()) {
            return vec![self.cluster.intern_as(ask, island)];
        }
        let classes: Vec<ClassWish> = if ask.classes.is_empty() {
            self.cluster.classes().into_iter().map(ClassWish::from).collect()
        } else {
            let mut wished = ask.classes.clone();
            wished.sort_by_key(|wish| std::cmp::Reverse(wish.speed_milli));
            wished
        };
        if classes.len() <= 1 {
            return vec![self.cluster.intern_as(ask, island)];
        }
        classes.iter().map(|wish| ask.on_class(&wish.class)).map(|ask| self.cluster.intern_as(&ask, island)).collect()
    }

    fn by_quota(&self, binding: Binding) -> Refusal {
        let at = self.tree.queue(binding.node).map_or_else(|| QueueName::from(""), |queue| queue.name.clone());
        let block =
            Block::Quota { at, resource: self.resource(binding.resource), need: binding.need, available: binding.available };
        Refusal::of(block)
    }

    fn refusal(&mut self, gang: Gang<'_>, index: usize, spread: Option<&Spread>) -> Refusal {
        let Some(group) = gang.spec.groups.get(index) else {
            return Refusal { lacks_devices: true, ..Refusal::of(Block::Capacity { group: index, fit: 0, need: 0 }) };
        };
        let ask = self.cluster.intern(&group.ask);
        let fit = self.cluster.candidates(ask).total();
        let block = if fit >= u64::from(group.min) && spread.is_some_and(|spread| spread.required) {
            Block::Spread { level: spread.map(|spread| spread.level.clone()).unwrap_or_default() }
        } else {
            Block::Capacity { group: index, fit, need: group.min }
        };
        Refusal { lacks_devices: true, ..Refusal::of(block) }
    }

    /// Whether the gang's quota would allow its minimum, before devices are chosen.
    pub(super) fn quota_allows(&self, gang: Gang<'_>) -> Result<(), Refusal> {
        self.allows(gang.queue, &self.need(gang.spec), gang.own_only).map_err(|binding| self.by_quota(binding))
    }

    /// Neighbours in rank are neighbours in place: by group, then by domain from the widest level down, node and device.
    pub(super) fn order(&self, seats: &mut [Seat]) {
        let place = |cluster: &Cluster, node: u32| -> Vec<u32> {
            let topology = cluster.topology();
            let first = |level: usize| topology.nodes(level, topology.domain(level, node)).first().copied().unwrap_or(NOWHERE);
            (0..topology.depth()).map(first).collect()
        };
        seats.sort_by_cached_key(|seat| (seat.group, place(&self.cluster, seat.node), seat.node, seat.mask, seat.slices));
    }
}
