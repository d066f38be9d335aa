//! Devices that are made of the same GPU (partitionable devices): each consumes counters of its pool, and no counter is consumed beyond what there is.
//!
//! The engine does not know counters. It is told of those devices alone whose counters are free beside what is held or promised, whoever has
//! allocated it, and of others when that changes. So of two that exclude each other and are both free it may choose both at once: the
//! start that is carried out second is dropped, and decided again without its device. And it does not see that the end of what
//! holds one partition would make room for another one: nobody is stopped for that.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::names::DeviceId;

use super::{Asker, Devices};
use crate::facts::PodFacts;
use crate::facts::device::{Counters, DeviceFacts, PoolKey, parts};

impl Devices {
    /// What is left of a pool's counters beside what is held and promised.
    pub(super) fn counters_left(&self, pool: &PoolKey) -> Counters {
        let slices = self.pools.get(pool).into_iter().flatten().filter_map(|name| self.slices.get(name));
        let newest = slices.clone().map(|slice| slice.generation).max();
        let sets = slices.filter(|slice| Some(slice.generation) == newest).flat_map(|slice| slice.counters.clone());
        let mut left: Counters = sets.collect();
        let first = pool.device("");
        let of_pool = |device: &&DeviceId| device.as_str().starts_with(first.as_str());
        let held = self.held.range(first.clone()..).map(|(device, _)| device).take_while(of_pool);
        let busy: BTreeSet<&DeviceId> = held.chain(self.kept.range(first.clone()..).take_while(of_pool)).collect();
        // The name of another pool may begin with this one's.
        for device in busy.into_iter().filter(|device| pool_of(device).as_ref() == Some(pool)) {
            take(&mut left, &self.consumed_by(device));
        }
        left
    }

    /// Why a start that is given these devices cannot be: their counters are consumed by others, or they exclude each other.
    pub fn lacks_counters<'a>(&self, devices: impl Iterator<Item = &'a DeviceId>) -> Option<Lack<'a>> {
        let mut left = BTreeMap::<PoolKey, Counters>::new();
        for device in devices.filter(|device| !self.is_busy(device)) {
            let consumes = self.consumed_by(device);
            let Some(pool) = pool_of(device).filter(|_| !consumes.is_empty()) else { continue };
            let free = self.counters_left(&pool);
            let of_start = left.entry(pool).or_insert_with(|| free.clone());
            if !fits(&free, &consumes) {
                return Some(Lack::Taken);
            }
            if !fits(of_start, &consumes) {
                return Some(Lack::Excludes(device));
            }
            take(of_start, &consumes);
        }
        None
    }

    /// How many of the devices that would suit a pod are kept from it, in words; and whether all are, which then is all there is to say.
    pub fn lacks(&self, pod: &PodFacts) -> Option<(String, bool)> {
        let shape = self.shapes.get(self.shape_of.get(&Asker::Pod(pod.key.clone()))?)?;
        let mut left = BTreeMap::<PoolKey, Counters>::new();
        let (mut kept, mut all) = (0_u32, 0_u32);
        for (_, device) in shape.suiting() {
            let consumes = self.consumed_by(device);
            let pool = pool_of(device).filter(|_| !consumes.is_empty())?;
            let left = left.entry(pool.clone()).or_insert_with(|| self.counters_left(&pool));
            all += 1;
            kept += u32::from(!self.is_busy(device) && !fits(left, &consumes));
        }
        let told =
            format!("of {all} devices that suit {kept} are not free, because others are held that are made of the same GPUs");
        (kept > 0).then_some((told, kept == all))
    }

    /// What a device consumes, as it was told or is published.
    fn consumed_by(&self, device: &DeviceId) -> Counters {
        let told = self.places.get(device).and_then(|node| self.nodes.get(node)?.told.get(device));
        if let Some(told) = told.filter(|told| !told.consumes.is_empty()) {
            return told.consumes.clone();
        }
        let published = || {
            let (_, _, name) = parts(device)?;
            let slices = self.pools.get(&pool_of(device)?)?.iter().filter_map(|slice| self.slices.get(slice));
            slices.flat_map(|slice| &slice.devices).find(|facts| facts.name == name)
        };
        published().map(|facts: &DeviceFacts| facts.consumes.clone()).unwrap_or_default()
    }
}

/// See [`Devices::lacks_counters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::index) enum Lack<'a> {
    /// By others, meanwhile.
    Taken,
    /// By others of the same start.
    Excludes(&'a DeviceId),
}

/// Thousandths of its GPU that a device is, by memory; none for one that has as much as any that is made of the same GPU.
pub(super) fn part(device: &DeviceFacts, pool: &[&DeviceFacts]) -> Option<u16> {
    let sets: BTreeSet<&String> = device.consumes.keys().collect();
    let of_same = pool.iter().filter(|other| other.consumes.keys().any(|set| sets.contains(set)));
    let most = of_same.map(|other| other.memory_mib).max()?;
    let milli = u16::try_from(device.memory_mib.saturating_mul(1000).div_ceil(most.max(1))).unwrap_or(1000);
    (milli < 1000).then_some(milli)
}

pub(super) fn fits(left: &Counters, consumes: &Counters) -> bool {
    let of = |set: &str, counter: &str| left.get(set).and_then(|counters| counters.get(counter)).copied().unwrap_or(0);
    consumes.iter().all(|(set, counters)| counters.iter().all(|(counter, amount)| *amount <= of(set, counter)))
}

fn take(left: &mut Counters, consumes: &Counters) {
    for (set, counters) in consumes {
        for (counter, amount) in counters {
            if let Some(there) = left.get_mut(set).and_then(|there| there.get_mut(counter)) {
                *there = there.saturating_sub(*amount);
            }
        }
    }
}

fn pool_of(device: &DeviceId) -> Option<PoolKey> {
    let (driver, name, _) = parts(device)?;
    Some(PoolKey { driver: driver.to_owned(), name: name.to_owned() })
}
