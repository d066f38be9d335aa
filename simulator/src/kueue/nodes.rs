//! What is free on each node, and where the pods of a workload would go by topology.
//!
//! Kueue's best fit (KEP 2724): count bottom-up how many pods each domain takes; one domain for all if the wish says so,
//! the tightest that fits; inside it the largest domains first, and for the last one the tightest that still fits.
//!
//! **Promises**: a placement returned fits; nothing changes before [`Nodes::take`].

use tidegate_core::quota::ResourceIx;

use super::{Class, Layout, Wish};

/// Free amounts of every node of a [`Layout`].
#[derive(Clone, Debug)]
pub struct Nodes {
    layout: Layout,
    resources: usize,
    /// Row per node, column per resource.
    free: Vec<i64>,
    pods: Vec<u32>,
}

impl Nodes {
    /// All nodes, empty.
    pub fn new(layout: &Layout, resources: usize) -> Self {
        let mut row = vec![0; resources];
        for (resource, amount) in &layout.node {
            if let Some(slot) = row.get_mut(usize::from(*resource)) {
                *slot = *amount;
            }
        }
        let nodes = layout.nodes() as usize;
        let free = row.iter().copied().cycle().take(nodes * resources).collect();
        Self { layout: layout.clone(), resources, free, pods: vec![layout.pods_per_node; nodes] }
    }

    /// Puts pods on nodes; false, and nothing is done, if they do not fit.
    pub fn take(&mut self, class: &Class, nodes: &[(u32, u32)]) -> bool {
        let fits = nodes.iter().all(|(node, pods)| self.room(class, *node) >= *pods);
        if fits {
            self.shift(class, nodes, -1);
        }
        fits
    }

    /// Undoes [`Nodes::take`].
    pub fn give(&mut self, class: &Class, nodes: &[(u32, u32)]) {
        self.shift(class, nodes, 1);
    }

    fn shift(&mut self, class: &Class, nodes: &[(u32, u32)], sign: i64) {
        for (node, pods) in nodes {
            for (resource, amount) in &class.per_pod {
                let slot = *node as usize * self.resources + usize::from(*resource);
                if let Some(free) = self.free.get_mut(slot) {
                    *free += sign * amount * i64::from(*pods);
                }
            }
            if let Some(left) = self.pods.get_mut(*node as usize) {
                *left = if sign < 0 { *left - pods } else { *left + pods };
            }
        }
    }

    /// Pods of the class that still fit on a node.
    fn room(&self, class: &Class, node: u32) -> u32 {
        let slots = self.pods.get(node as usize).copied().unwrap_or(0);
        let by = |resource: ResourceIx, amount: i64| {
            let free = self.free.get(node as usize * self.resources + usize::from(resource)).copied().unwrap_or(0);
            if amount > 0 { u32::try_from((free / amount).max(0)).unwrap_or(u32::MAX) } else { u32::MAX }
        };
        class.per_pod.iter().map(|(resource, amount)| by(*resource, *amount)).fold(slots, u32::min)
    }

    /// Pods on each node for all pods of the class, nodes ascending; absent if they do not fit as they wish.
    pub fn place(&self, class: &Class) -> Option<Vec<(u32, u32)>> {
        let last = u8::try_from(self.layout.levels.len()).unwrap_or(1).saturating_sub(1);
        let slice = match class.wish {
            Some(Wish::Slices { level, size }) => (level, size.max(1)),
            _ => (last, 1),
        };
        let room = Room::count(self, class, slice);
        let domain = match class.wish {
            Some(Wish::Required { level }) => room.tightest(level, class.pods).map(|domain| (level, domain)),
            Some(Wish::Preferred { level }) => room.climb(level, class.pods),
            Some(Wish::Slices { .. }) | None => room.climb(0, class.pods),
        };
        let mut nodes = Vec::new();
        match (domain, class.wish) {
            (Some((level, domain)), _) => room.descend(level, domain, class.pods, &mut nodes),
            (None, Some(Wish::Required { .. })) => return None,
            (None, _) => room.spread(0, 0..room.domains(0), class.pods, &mut nodes),
        }
        nodes.sort_unstable();
        (nodes.iter().map(|(_, pods)| pods).sum::<u32>() == class.pods).then_some(nodes)
    }
}

/// Pods that fit in each domain of each level, counted in whole slices at and above the slice's level.
struct Room {
    /// Row per level.
    levels: Vec<Vec<u32>>,
    /// Domains of the next level in each domain.
    fan_out: Vec<u32>,
    slice: (u8, u32),
}

impl Room {
    fn count(nodes: &Nodes, class: &Class, slice: (u8, u32)) -> Self {
        let fan_out: Vec<u32> = nodes.layout.levels.iter().map(|(_, count)| *count).collect();
        let mut levels =
            vec![(0..nodes.layout.nodes()).map(|node| nodes.room(class, node).min(class.pods)).collect::<Vec<u32>>()];
        for (level, children) in fan_out.iter().enumerate().skip(1).rev() {
            let whole = level - 1 == usize::from(slice.0);
            let below = levels.last().map_or(&[][..], Vec::as_slice);
            let sums = below.chunks((*children).max(1) as usize).map(|rooms| {
                let sum: u32 = rooms.iter().sum();
                if whole { sum - sum % slice.1 } else { sum }
            });
            levels.push(sums.collect());
        }
        levels.reverse();
        Self { levels, fan_out, slice }
    }

    fn domains(&self, level: u8) -> u32 {
        self.levels.get(usize::from(level)).map_or(0, |rooms| u32::try_from(rooms.len()).unwrap_or(0))
    }

    fn room(&self, level: u8, domain: u32) -> u32 {
        self.levels.get(usize::from(level)).and_then(|rooms| rooms.get(domain as usize)).copied().unwrap_or(0)
    }

    /// The domain of a level with the least room that is enough.
    fn tightest(&self, level: u8, pods: u32) -> Option<u32> {
        let enough = (0..self.domains(level)).filter(|domain| self.room(level, *domain) >= pods);
        enough.min_by_key(|domain| self.room(level, *domain))
    }

    /// The tightest domain of the level or of the first wider one that has any.
    fn climb(&self, level: u8, pods: u32) -> Option<(u8, u32)> {
        (0..=level).rev().find_map(|level| self.tightest(level, pods).map(|domain| (level, domain)))
    }

    fn descend(&self, level: u8, domain: u32, pods: u32, nodes: &mut Vec<(u32, u32)>) {
        let below = level + 1;
        match self.fan_out.get(usize::from(below)) {
            Some(children) => self.spread(below, domain * children..(domain + 1) * children, pods, nodes),
            None if pods > 0 => nodes.push((domain, pods)),
            None => {}
        }
    }

    /// Over several domains of a level: the largest first, the last one as tight as possible. Above and at the level of
    /// slices each takes whole slices.
    fn spread(&self, level: u8, domains: std::ops::Range<u32>, pods: u32, nodes: &mut Vec<(u32, u32)>) {
        let mut rooms: Vec<(u32, u32)> =
            domains.map(|domain| (self.room(level, domain), domain)).filter(|(room, _)| *room > 0).collect();
        rooms.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let grain = if level <= self.slice.0 { self.slice.1 } else { 1 };
        let mut left = pods;
        for (at, (room, domain)) in rooms.iter().enumerate() {
            if left == 0 {
                return;
            }
            let tight = rooms.iter().skip(at).take_while(|(room, _)| *room >= left).min();
            let (take, domain) = match tight {
                Some((_, domain)) => (left, *domain),
                None => ((room - room % grain).min(left), *domain),
            };
            self.descend(level, domain, take, nodes);
            left -= take;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2 racks with 2 nodes of 4 CPUs.
    fn racks() -> Nodes {
        let level = |name: &str, count| (name.to_owned(), count);
        let levels = vec![level("block", 1), level("rack", 2), level("node", 2)];
        Nodes::new(&Layout { levels, node: vec![(0, 4)], pods_per_node: 110 }, 1)
    }

    fn class(pods: u32, cpus: i64, wish: Option<Wish>) -> Class {
        Class { name: "c".into(), pods, per_pod: vec![(0, cpus)], priority: 0, wish }
    }

    #[test]
    fn required_takes_the_tightest_domain_that_holds_all() {
        let mut nodes = racks();
        assert!(nodes.take(&class(1, 4, None), &[(2, 1)]));
        let rack = Some(Wish::Required { level: 1 });
        assert_eq!(nodes.place(&class(4, 1, rack)), Some(vec![(3, 4)]), "the second rack is tighter");
        assert_eq!(nodes.place(&class(5, 1, rack)), Some(vec![(0, 4), (1, 1)]), "only the first rack holds 5");
        assert_eq!(nodes.place(&class(9, 1, rack)), None);
    }

    #[test]
    fn preferred_climbs_where_required_refuses() {
        let nodes = racks();
        let wish = |wish| nodes.place(&class(9, 1, Some(wish)));
        assert_eq!(wish(Wish::Required { level: 1 }), None);
        assert_eq!(wish(Wish::Preferred { level: 1 }), Some(vec![(0, 4), (1, 4), (2, 1)]));
    }

    #[test]
    fn slices_stay_whole_in_their_racks() {
        let mut nodes = racks();
        assert!(nodes.take(&class(2, 1, None), &[(0, 1), (2, 1)]));
        let sliced = |pods, size| nodes.place(&class(pods, 1, Some(Wish::Slices { level: 1, size })));
        let placed = sliced(12, 6).unwrap();
        let first: u32 = placed.iter().filter(|(node, _)| *node < 2).map(|(_, pods)| pods).sum();
        assert_eq!(
            (first, placed.iter().map(|(_, pods)| pods).sum::<u32>()),
            (6, 12),
            "7 fit in each rack, but only one slice of 6"
        );
        assert_eq!(sliced(14, 5), None);
    }

    #[test]
    fn what_was_given_back_is_free_again() {
        let mut nodes = racks();
        let all = class(16, 1, None);
        let placed = nodes.place(&all).unwrap();
        assert!(nodes.take(&all, &placed));
        assert!(nodes.place(&class(1, 1, None)).is_none() && !nodes.take(&class(1, 1, None), &[(0, 1)]));
        nodes.give(&all, &placed);
        assert_eq!(nodes.place(&all), Some(placed));
    }
}
