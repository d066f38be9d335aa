//! What pods ask of a node and what it has, of all that it can have too little of.

use tidegate_core::state::Scarce;

use crate::facts::NodeFacts;
use crate::facts::pod::Requests;

/// For each pod the amounts in MiB are rounded, up, a few times: by so much all of them together may seem too much and be none.
const ROUNDING_MIB: u64 = 4;

/// One amount for each of [`Scarce::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amounts([u64; Scarce::ALL.len()]);

impl Amounts {
    pub fn of_pod(requests: &Requests) -> Self {
        Self::each(|scarce| match scarce {
            Scarce::Gpus => u64::from(requests.gpus),
            Scarce::Cpu => requests.cpu_milli,
            Scarce::Memory => requests.memory_mib,
            Scarce::EphemeralStorage => requests.storage_mib,
            Scarce::Pods => 1,
        })
    }

    pub fn of_node(facts: &NodeFacts) -> Self {
        Self::each(|scarce| match scarce {
            Scarce::Gpus => facts.all_gpus,
            Scarce::Cpu => facts.cpu_milli,
            Scarce::Memory => facts.memory_mib,
            Scarce::EphemeralStorage => facts.storage_mib,
            Scarce::Pods => facts.pods,
        })
    }

    fn each(amount: impl Fn(Scarce) -> u64) -> Self {
        Self(Scarce::ALL.map(amount))
    }

    fn with(self, other: Self, both: impl Fn(u64, u64) -> u64) -> Self {
        let mut all = self.0.into_iter().zip(other.0).map(|(one, other)| both(one, other));
        Self(std::array::from_fn(|_| all.next().unwrap_or_default()))
    }

    pub fn plus(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    pub fn less(self, other: Self) -> Self {
        self.with(other, u64::saturating_sub)
    }

    pub fn of(self, scarce: Scarce) -> u64 {
        Scarce::ALL.into_iter().zip(self.0).find(|(known, _)| *known == scarce).map_or(0, |(_, amount)| amount)
    }

    /// The first of which there is some.
    pub fn first(self) -> Option<Scarce> {
        Scarce::ALL.into_iter().zip(self.0).find(|(_, amount)| *amount > 0).map(|(scarce, _)| scarce)
    }

    pub fn is_none(self) -> bool {
        self.first().is_none()
    }

    /// Whether both are some of the same.
    pub fn meets(self, other: Self) -> bool {
        !self.with(other, std::cmp::min).is_none()
    }

    /// Of these, those of which the other has as much.
    pub fn covered_by(self, other: Self) -> Self {
        self.with(other, |wanted, there| if there >= wanted { wanted } else { 0 })
    }

    /// How much more is asked than a node has. What it has none of it has not told yet: a kubelet that comes back tells its GPUs
    /// late.
    pub fn beyond(self, has: Self) -> Self {
        let rounding = ROUNDING_MIB.saturating_mul(self.of(Scarce::Pods));
        let slack = Self::each(|scarce| if matches!(scarce, Scarce::Memory | Scarce::EphemeralStorage) { rounding } else { 0 });
        let told = Self(has.0.map(|amount| if amount == 0 { u64::MAX } else { amount }));
        self.less(told.plus(slack))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_what_is_asked_beyond_what_is_there_but_for_what_is_rounded() {
        let has = Amounts([8, 4_000, 1_024, 0, 110]);
        assert!(Amounts([8, 4_000, 1_024, 0, 110]).beyond(has).is_none());
        assert_eq!(Amounts([9, 4_500, 1_024, 0, 3]).beyond(has), Amounts([1, 500, 0, 0, 0]));
        assert!(Amounts([0, 0, 1_024 + 12, 77, 3]).beyond(has).is_none(), "rounded up thrice; a disk of which nothing is told");
        assert_eq!(Amounts([0, 0, 1_024 + 13, 0, 3]).beyond(has).first(), Some(Scarce::Memory));
    }
}
