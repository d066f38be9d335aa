//! Which devices of one node a worker takes, and how many workers the node could take.

use super::free::{Claim, DeviceFree, NodeFree, bits};
use super::score;
use crate::ask::{Amount, Ask};
use crate::fragment::{Gpus, Mix, Placement, Shape};
use crate::node::MAX_DEVICES;

/// Devices of one node for one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub mask: u64,
    /// MIG slices of the one device.
    pub slices: u8,
    /// Nothing on them is about to end: the worker can start at once.
    pub settled: bool,
}

impl Choice {
    /// What the ask claims of these devices.
    pub fn claim(&self, ask: &Ask, node: &NodeFree) -> Claim {
        let device = bits(self.mask).next().and_then(|index| node.devices.get(index));
        let (milli, mib) = device.map_or((0, 0), |device| (milli_of(ask, device), mib_of(ask, device)));
        Claim { mask: self.mask, slices: self.slices, milli, mib, cpu_milli: ask.cpu_milli, memory_mib: ask.memory_mib }
    }
}

/// Thousandths of the device that the ask takes.
pub fn milli_of(ask: &Ask, device: &DeviceFree) -> u16 {
    match ask.amount {
        Amount::None => 0,
        Amount::Whole(_) => 1000,
        Amount::Milli(milli) | Amount::Slice { milli, .. } => milli.clamp(1, 1000),
        Amount::Mig(profile) => profile.milli(),
        Amount::MemoryMib(mib) => u16::try_from((mib * 1000).div_ceil(device.memory_mib.max(1)).clamp(1, 1000)).unwrap_or(1000),
    }
}

/// Memory of the device that the ask takes.
fn mib_of(ask: &Ask, device: &DeviceFree) -> u64 {
    match ask.amount {
        Amount::None => 0,
        Amount::Whole(_) => device.memory_mib,
        Amount::MemoryMib(mib) | Amount::Slice { mib, .. } => mib,
        Amount::Milli(milli) => device.memory_mib * u64::from(milli.min(1000)) / 1000,
        Amount::Mig(profile) => device.memory_mib * u64::from(profile.memory_slices()) / 8,
    }
}

/// What one worker asks, and whether its devices must be on one island.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    pub ask: &'a Ask,
    pub shape: &'a Shape,
    pub island: bool,
}

/// Devices for one more worker on what is not firmly claimed, those first that are free now.
pub fn choose(wish: Wish<'_>, node: &NodeFree, eligible: u64, mix: &Mix) -> Option<Choice> {
    let Wish { ask, shape, .. } = wish;
    if eligible == 0 || !has_cpu_memory(ask, node, (0, 0)) {
        return None;
    }
    let settled = node.releasing.is_empty() || has_cpu_memory(ask, node, node.releasing_cpu_memory());
    let choice = match ask.amount {
        Amount::None => Some(Choice { mask: 0, slices: 0, settled: true }),
        Amount::Whole(devices) if wish.island => whole_of_one(node, eligible, devices),
        Amount::Whole(devices) => whole(node, eligible, devices),
        Amount::Milli(_) | Amount::MemoryMib(_) | Amount::Slice { .. } => {
            share(ask, shape, node, eligible, mix).map(|(choice, _)| choice)
        }
        Amount::Mig(_) => instance(ask, node, eligible),
    }?;
    Some(Choice { settled: choice.settled && settled, ..choice })
}

/// The choice and how good it is.
pub fn rated(wish: Wish<'_>, node: &NodeFree, eligible: u64, mix: &Mix) -> Option<(Choice, Option<Placement>)> {
    let Wish { ask, shape, .. } = wish;
    let choice = choose(wish, node, eligible, mix)?;
    let class = bits(eligible).next().and_then(|at| node.devices.get(at)).map_or(0, |device| device.class_ix);
    let placement = match ask.amount {
        Amount::Milli(_) | Amount::MemoryMib(_) | Amount::Slice { .. } => {
            share(ask, shape, node, eligible, mix).and_then(|(_, placement)| placement)
        }
        Amount::None | Amount::Whole(_) | Amount::Mig(_) => score::place(shape, node, class, &node.free, mix),
    };
    Some((choice, placement))
}

/// Workers that the node could take on what is not firmly claimed.
pub fn fit(wish: Wish<'_>, node: &NodeFree, eligible: u64) -> u32 {
    let ask = wish.ask;
    if eligible == 0 {
        return 0;
    }
    let per = |free: i64, need: u64| u64::try_from(free).unwrap_or(0).checked_div(need).unwrap_or(u64::MAX);
    let beside = per(node.cpu_milli, ask.cpu_milli).min(per(node.memory_mib, ask.memory_mib));
    let on_devices = match ask.amount {
        Amount::None => u64::MAX,
        Amount::Whole(devices) if wish.island => {
            islands(node, free_mask(node, eligible)).iter().map(|(size, ..)| u64::from(size / devices.max(1))).sum()
        }
        Amount::Whole(devices) => u64::from(free_mask(node, eligible).count_ones()) / u64::from(devices.max(1)),
        Amount::Milli(_) | Amount::MemoryMib(_) | Amount::Slice { .. } => {
            bits(eligible).filter_map(|at| node.devices.get(at)).map(|device| shares(ask, device)).sum()
        }
        Amount::Mig(_) => bits(eligible).filter_map(|at| node.devices.get(at)).map(|device| instances(ask, device)).sum(),
    };
    u32::try_from(beside.min(on_devices)).unwrap_or(u32::MAX).min(1_000_000)
}

fn has_cpu_memory(ask: &Ask, node: &NodeFree, less: (i64, i64)) -> bool {
    let fits = |free: i64, need: u64| need == 0 || u64::try_from(free).unwrap_or(0) >= need;
    fits(node.cpu_milli - less.0, ask.cpu_milli) && fits(node.memory_mib - less.1, ask.memory_mib)
}

/// Devices without a firm claim.
fn free_mask(node: &NodeFree, eligible: u64) -> u64 {
    bits(eligible).filter(|at| node.devices.get(*at).is_some_and(|device| device.firm == 0)).map(|at| 1 << at).sum()
}

fn whole(node: &NodeFree, eligible: u64, devices: u32) -> Option<Choice> {
    let free = free_mask(node, eligible);
    if free.count_ones() < devices {
        return None;
    }
    let settled: u64 = bits(free).filter(|at| node.devices[*at].releasing == 0).map(|at| 1 << at).sum();
    if settled.count_ones() >= devices {
        return Some(Choice { mask: in_islands(node, settled, devices), slices: 0, settled: true });
    }
    let rest = in_islands(node, free & !settled, devices - settled.count_ones());
    Some(Choice { mask: settled | rest, slices: 0, settled: false })
}

/// The same on one island: the fullest that has enough of what is free now, else of what is about to be.
fn whole_of_one(node: &NodeFree, eligible: u64, devices: u32) -> Option<Choice> {
    let free = free_mask(node, eligible);
    let now: u64 = bits(free).filter(|at| node.devices[*at].releasing == 0).map(|at| 1 << at).sum();
    let fullest = |mask: u64| islands(node, mask).into_iter().filter(|(size, ..)| *size >= devices).min();
    let (members, settled) = match fullest(now) {
        Some((.., members)) => (members, true),
        None => (fullest(free)?.2, false),
    };
    let first = bits(members & now).chain(bits(members & !now));
    Some(Choice { mask: first.take(devices as usize).map(|at| 1 << at).sum(), slices: 0, settled })
}

/// Size, number and members of each island in `mask`.
fn islands(node: &NodeFree, mask: u64) -> Vec<(u32, u8, u64)> {
    let mut islands: Vec<(u32, u8, u64)> = Vec::new();
    for at in bits(mask) {
        let island = node.devices[at].island;
        match islands.iter_mut().find(|(_, of, _)| *of == island) {
            Some((size, _, members)) => (*size, *members) = (*size + 1, *members | 1 << at),
            None => islands.push((1, island, 1 << at)),
        }
    }
    islands
}

/// `count` of the devices in `mask`: from the fullest island that has enough, else from the largest islands first.
fn in_islands(node: &NodeFree, mask: u64, count: u32) -> u64 {
    let mut sizes = islands(node, mask);
    let enough = sizes.iter().filter(|(size, ..)| *size >= count).min();
    if let Some((_, _, members)) = enough {
        return bits(*members).take(count as usize).map(|at| 1 << at).sum();
    }
    sizes.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let all = sizes.iter().flat_map(|(_, _, members)| bits(*members));
    all.take(count as usize).map(|at| 1 << at).sum()
}

/// Shares that fit on the device; one that is divided into MIG instances gives none.
fn shares(ask: &Ask, device: &DeviceFree) -> u64 {
    if device.slices != 0 || device.releasing_slices != 0 {
        return 0;
    }
    let milli = milli_of(ask, device);
    let by_milli = u64::from(device.milli / milli.max(1));
    by_milli.min(device.mib.checked_div(mib_of(ask, device)).unwrap_or(by_milli))
}

/// Whether the device has room for one more holder: a whole one, a share, or an instance on these slices.
pub fn is_free_for(ask: &Ask, device: &DeviceFree, slices: u8) -> bool {
    match ask.amount {
        _ if ask.named != device.named => false,
        Amount::None => false,
        Amount::Whole(_) => device.firm == 0,
        Amount::Milli(_) | Amount::MemoryMib(_) | Amount::Slice { .. } => shares(ask, device) > 0,
        Amount::Mig(_) => (device.slices != 0 || device.firm == 0) && slices != 0 && device.slices & slices == 0,
    }
}

/// The device for a share: one that is free now before one that is about to be, then by what the choice leaves for typical
/// work. Devices that will not do are hidden from the score.
fn share(ask: &Ask, shape: &Shape, node: &NodeFree, eligible: u64, mix: &Mix) -> Option<(Choice, Option<Placement>)> {
    let fits = |at: &usize| node.devices.get(*at).is_some_and(|device| shares(ask, device) > 0);
    let fitting: u64 = bits(eligible).filter(fits).map(|at| 1 << at).sum();
    let settled: u64 = bits(fitting).filter(|at| node.devices[*at].releasing == 0).map(|at| 1 << at).sum();
    let pool = if settled == 0 { fitting } else { settled };
    let first = bits(pool).next()?;
    let mut free = [0_u16; MAX_DEVICES];
    for (at, (seen, left)) in free.iter_mut().zip(&node.free).enumerate() {
        // What does not fit anyway may be seen: it counts as fragment or not, as it did before.
        let hidden = node.devices[at].milli >= milli_of(ask, &node.devices[at]) && pool >> at & 1 == 0;
        *seen = if hidden { 0 } else { *left };
    }
    let milli = milli_of(ask, &node.devices[first]);
    let shape = Shape { gpus: if milli == 1000 { Gpus::Whole(1) } else { Gpus::Fraction(milli) }, ..*shape };
    let placement = score::place(&shape, node, node.devices[first].class_ix, free.get(..node.free.len())?, mix);
    let tightest = || bits(pool).min_by_key(|at| (node.devices[*at].milli, *at));
    let at = placement.and_then(|placement| placement.device).filter(|at| pool >> at & 1 == 1).or_else(tightest)?;
    Some((Choice { mask: 1 << at, slices: 0, settled: settled != 0 }, placement))
}

/// The slices for one more instance. Slices that are about to be free are taken only where nothing else is.
fn slot(ask: &Ask, device: &DeviceFree) -> Option<(u8, bool)> {
    let Amount::Mig(profile) = ask.amount else { return None };
    let divided = device.slices != 0 || device.firm == 0;
    if !divided {
        return None;
    }
    let busy =
        if device.releasing > 0 && device.releasing_slices == 0 { u8::MAX } else { device.slices | device.releasing_slices };
    profile.place(busy).map(|mask| (mask, true)).or_else(|| profile.place(device.slices).map(|mask| (mask, false)))
}

fn instances(ask: &Ask, device: &DeviceFree) -> u64 {
    let mut trial = device.clone();
    let mut count = 0;
    while let Some((mask, _)) = slot(ask, &trial) {
        trial.slices |= mask;
        trial.firm += 1;
        count += 1;
    }
    count
}

fn instance(ask: &Ask, node: &NodeFree, eligible: u64) -> Option<Choice> {
    let found = bits(eligible).filter_map(|at| {
        let device = node.devices.get(at)?;
        let (slices, settled) = slot(ask, device)?;
        Some(((!settled, device.slices == 0, device.milli, at), Choice { mask: 1 << at, slices, settled }))
    });
    found.min_by_key(|(rank, _)| *rank).map(|(_, choice)| choice)
}
