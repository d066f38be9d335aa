//! Devices that several claims may have at once (`allowMultipleAllocations`): what a request consumes of such a device.
//!
//! As kube-scheduler counts: what is not asked for is consumed by the default of the capacity's policy, without one whole; what is asked for is
//! rounded up to what the policy allows; and no sum of what is consumed is more than the capacity.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{CapacityRequestPolicy, Device, DeviceCapacity};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use tidegate_api::quantity;
use tidegate_core::ask::Amount;

use super::device::{MEMORY, is_named};

/// Billionths by the name of a capacity.
pub type Amounts = BTreeMap<String, i128>;

/// The capacities of a device that several may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Which of them is the memory.
    memory: String,
    all: BTreeMap<String, Capacity>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Capacity {
    value: i128,
    default: Option<i128>,
    valid: Valid,
}

/// Which amounts may be consumed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Valid {
    Any,
    /// Ascending.
    Values(Vec<i128>),
    Range {
        min: i128,
        max: Option<i128>,
        step: Option<i128>,
    },
}

/// Amounts of a list of requests, or consumed ones.
pub fn amounts(all: &BTreeMap<String, Quantity>) -> Amounts {
    all.iter().filter_map(|(name, amount)| Some((name.clone(), nano(amount)?))).collect()
}

/// Amounts as the API has them.
pub fn quantities(all: &Amounts) -> BTreeMap<&str, String> {
    let units = [(quantity::NANO, ""), (1_000_000, "m"), (1_000, "u"), (1, "n")];
    let told = |nano: i128| {
        let (unit, suffix) = units.into_iter().find(|(unit, _)| nano % unit == 0).unwrap_or((1, "n"));
        format!("{}{suffix}", nano / unit)
    };
    all.iter().map(|(name, nano)| (name.as_str(), told(*nano))).collect()
}

/// Billionths; none for what is below 0, or no quantity.
pub fn nano(amount: &Quantity) -> Option<i128> {
    quantity::nano(amount).filter(|nano| *nano >= 0)
}

impl Shared {
    /// Of a device of a driver, if it has a memory of which shares can be given.
    pub fn of(device: &Device, driver: &str) -> Option<Self> {
        let all = device.capacity.iter().flatten();
        let all: BTreeMap<String, Capacity> =
            all.filter_map(|(name, capacity)| Some((name.clone(), Capacity::of(capacity)?))).collect();
        let memory = all.iter().find(|(name, capacity)| is_named(name, driver, MEMORY) && capacity.value > 0)?.0.clone();
        Some(Self { memory, all })
    }

    /// What a request consumes; none if the device has no such capacity, or gives no such amount of it.
    pub fn consumed(&self, requests: &Amounts) -> Option<Amounts> {
        let is_known = requests.keys().all(|name| self.all.contains_key(name));
        let consumed =
            self.all.iter().map(|(name, capacity)| Some((name.clone(), capacity.consumed(requests.get(name).copied())?)));
        consumed.collect::<Option<Amounts>>().filter(|_| is_known)
    }

    /// Whether so much can be consumed beside what others consume.
    pub fn has_room(&self, beside: &[&Amounts], consumed: &Amounts) -> bool {
        let sum = |name: &str| beside.iter().filter_map(|all| all.get(name)).fold(0_i128, |sum, more| sum.saturating_add(*more));
        self.all
            .iter()
            .all(|(name, capacity)| sum(name).saturating_add(consumed.get(name).copied().unwrap_or(0)) <= capacity.value)
    }

    /// What it is to the engine: MiB of the device's memory and, if there is more than memory, thousandths of what it takes most of. Both are rounded
    /// up, so that what fits for the engine fits.
    pub fn amount(&self, consumed: &Amounts) -> Amount {
        let of = |name: &str| consumed.get(name).copied().unwrap_or(0);
        let mib = u64::try_from(parts(of(&self.memory), quantity::NANO << 20)).unwrap_or(u64::MAX).max(1);
        let all = self.all.iter().filter(|(_, capacity)| capacity.value > 0);
        let milli = all.map(|(name, capacity)| parts(of(name).saturating_mul(1000), capacity.value)).max().unwrap_or(1000);
        if self.all.len() == 1 {
            return Amount::MemoryMib(mib);
        }
        Amount::Slice { milli: u16::try_from(milli.clamp(1, 1000)).unwrap_or(1000), mib }
    }
}

/// How often `by` goes into an amount that is not below 0, rounded up.
fn parts(amount: i128, by: i128) -> i128 {
    amount / by + i128::from(amount % by != 0)
}

/// The larger of two amounts of one device.
pub fn larger(one: Amount, other: Amount) -> Amount {
    let each = |amount| match amount {
        Amount::MemoryMib(mib) => (None, mib),
        Amount::Slice { milli, mib } => (Some(milli), mib),
        Amount::None | Amount::Whole(_) | Amount::Milli(_) | Amount::Mig(_) => (Some(1000), u64::MAX),
    };
    let ((one_milli, one_mib), (other_milli, other_mib)) = (each(one), each(other));
    let mib = one_mib.max(other_mib);
    one_milli.max(other_milli).map_or(Amount::MemoryMib(mib), |milli| Amount::Slice { milli, mib })
}

impl Capacity {
    fn of(capacity: &DeviceCapacity) -> Option<Self> {
        let policy = capacity.request_policy.as_ref();
        Some(Self {
            value: nano(&capacity.value)?,
            default: policy.and_then(|policy| nano(policy.default.as_ref()?)),
            valid: policy.map_or(Valid::Any, Valid::of),
        })
    }

    fn consumed(&self, request: Option<i128>) -> Option<i128> {
        let consumed = match request {
            None => self.default.unwrap_or(self.value),
            Some(request) => self.valid.rounded(request)?,
        };
        (consumed <= self.value).then_some(consumed)
    }
}

impl Valid {
    fn of(policy: &CapacityRequestPolicy) -> Self {
        if let Some(range) = &policy.valid_range {
            let step = range.step.as_ref().and_then(nano).filter(|step| *step > 0);
            return Self::Range { min: nano(&range.min).unwrap_or(0), max: range.max.as_ref().and_then(nano), step };
        }
        match policy.valid_values.as_deref() {
            None | Some([]) => Self::Any,
            Some(values) => Self::Values(values.iter().filter_map(nano).collect()),
        }
    }

    /// The least amount that may be consumed for a request.
    fn rounded(&self, request: i128) -> Option<i128> {
        match self {
            Self::Any => Some(request),
            Self::Values(values) => values.iter().copied().find(|value| *value >= request),
            Self::Range { min, max, step } => {
                let up = |step: &i128| min + parts(request - min, *step) * step;
                let rounded = if request <= *min { *min } else { step.as_ref().map_or(request, up) };
                max.is_none_or(|max| rounded <= max).then_some(rounded)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const GIB: i128 = quantity::NANO << 30;

    #[expect(clippy::needless_pass_by_value, reason = "tests write JSON in place")]
    fn shared(capacity: Value) -> Shared {
        let device = json!({"name": "gpu-0", "allowMultipleAllocations": true, "capacity": capacity});
        Shared::of(&serde_json::from_value(device).unwrap(), "gpu.example.com").unwrap()
    }

    fn asked(name: &str, amount: &str) -> Amounts {
        amounts(&BTreeMap::from([(name.to_owned(), Quantity(amount.to_owned()))]))
    }

    #[test]
    fn what_is_asked_for_is_rounded_up_to_what_the_policy_allows() {
        let range = json!({"memory": {"value": "80Gi", "requestPolicy": {
            "default": "4Gi", "validRange": {"min": "2Gi", "max": "40Gi", "step": "2Gi"},
        }}});
        let device = shared(range);
        let of = |request: &str| device.consumed(&asked("memory", request)).map(|all| all["memory"] / GIB);
        assert_eq!(["1Gi", "2Gi", "3Gi", "40Gi", "41Gi"].map(of), [Some(2), Some(2), Some(4), Some(40), None]);
        assert_eq!(device.consumed(&Amounts::new()).unwrap()["memory"], 4 * GIB);
        assert_eq!(device.consumed(&asked("cores", "1")), None, "it has no such capacity");
        let values =
            shared(json!({"memory": {"value": "80Gi", "requestPolicy": {"default": "10Gi", "validValues": ["10Gi", "20Gi"]}}}));
        assert_eq!(values.consumed(&asked("memory", "11Gi")).unwrap()["memory"], 20 * GIB);
        assert_eq!(values.consumed(&asked("memory", "21Gi")), None);
    }

    #[test]
    fn what_is_not_asked_for_is_consumed_whole_without_a_policy() {
        let device = shared(json!({"memory": {"value": "80Gi"}, "cores": {"value": "100"}}));
        let memory = device.consumed(&asked("memory", "20Gi")).unwrap();
        assert_eq!(memory["cores"], 100 * quantity::NANO);
        assert_eq!(device.amount(&memory), Amount::Slice { milli: 1000, mib: 20_480 });
        let both = device.consumed(&[asked("memory", "20Gi"), asked("cores", "33.3")].into_iter().flatten().collect()).unwrap();
        assert_eq!(device.amount(&both), Amount::Slice { milli: 333, mib: 20_480 });
        assert!(device.has_room(&[&both, &both], &both) && !device.has_room(&[&memory], &both));
        assert_eq!(quantities(&both), BTreeMap::from([("cores", "33300m".to_owned()), ("memory", "21474836480".to_owned())]));
    }

    #[test]
    fn of_memory_alone_the_engine_has_the_same_figure() {
        let device = shared(json!({"gpu.example.com/memory": {"value": "80Gi"}}));
        let consumed = device.consumed(&asked("gpu.example.com/memory", "1.5Gi")).unwrap();
        assert_eq!(device.amount(&consumed), Amount::MemoryMib(1_536));
        assert_eq!(larger(Amount::MemoryMib(1), Amount::Slice { milli: 5, mib: 0 }), Amount::Slice { milli: 5, mib: 1 });
        assert!(!device.has_room(&[], &asked("gpu.example.com/memory", "81Gi")));
    }
}
