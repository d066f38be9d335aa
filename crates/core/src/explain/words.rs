//! Numbers, times and lists as a person reads them.

use std::collections::BTreeSet;

use crate::ask::{Amount, Ask};
use crate::names::QueueName;
use crate::state::{Group, Resource};
use crate::time::At;

/// Names told of a longer list; the others are counted.
const MOST_NAMES: usize = 6;

/// Thousandths as a number without needless digits.
pub(crate) fn milli(amount: i64) -> String {
    let sign = if amount < 0 { "-" } else { "" };
    let (whole, part) = (amount.unsigned_abs() / 1000, amount.unsigned_abs() % 1000);
    if part == 0 {
        return format!("{sign}{whole}");
    }
    let digits = format!("{part:03}");
    format!("{sign}{whole}.{}", digits.trim_end_matches('0'))
}

/// MiB in the largest unit that loses nothing worth telling.
pub(crate) fn memory(mib: u64) -> String {
    match mib {
        0..2_048 => format!("{mib} MiB"),
        _ if mib.is_multiple_of(1024) => format!("{} GiB", mib / 1024),
        _ => format!("{}.{} GiB", mib / 1024, mib % 1024 * 10 / 1024),
    }
}

/// An amount of a resource without its unit.
pub(crate) fn number(resource: &Resource, amount: i64) -> String {
    match resource {
        Resource::Gpu | Resource::Class(_) | Resource::Cpu => milli(amount),
        Resource::Memory => milli(amount.saturating_mul(1000) / 1024),
    }
}

/// The unit of a resource.
pub(crate) fn unit(resource: &Resource) -> String {
    match resource {
        Resource::Gpu => "device(s)".to_owned(),
        Resource::Class(class) => class.to_string(),
        Resource::Cpu => "core(s)".to_owned(),
        Resource::Memory => "GiB of memory".to_owned(),
    }
}

/// A node of the quota tree.
pub(crate) fn queue(name: &QueueName) -> String {
    if name.0.is_empty() { "the pool".to_owned() } else { format!("queue {name}") }
}

/// A length of time, two units of it.
pub(crate) fn span(ms: u64) -> String {
    let seconds = ms.div_ceil(1000);
    let (days, hours, minutes) = (seconds / 86_400, seconds % 86_400 / 3_600, seconds % 3_600 / 60);
    match (days, hours, minutes) {
        (0, 0, 0..2) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, 0) => format!("{hours} h"),
        (0, ..) => format!("{hours} h {minutes} min"),
        (_, 0, _) => format!("{days} d"),
        _ => format!("{days} d {hours} h"),
    }
}

/// The time of day, and how long it is until then.
pub(crate) fn clock(at: At, now: At) -> String {
    let minutes = at.0 / 60_000;
    format!("{:02}:{:02} UTC (in {})", minutes / 60 % 24, minutes % 60, span(at.since(now)))
}

/// A list in one sentence.
pub(crate) fn list(names: &[String]) -> String {
    if names.len() <= MOST_NAMES {
        return names.join(", ");
    }
    let told = names.get(..MOST_NAMES - 1).unwrap_or_default();
    format!("{} and {} more", told.join(", "), names.len() - told.len())
}

/// Classes that will do, as the end of "needs 2 devices".
pub(crate) fn of_classes(ask: &Ask) -> String {
    let classes: BTreeSet<&str> = ask.classes.iter().map(|wish| wish.class.as_str()).collect();
    if classes.is_empty() { String::new() } else { format!(" of {}", classes.into_iter().collect::<Vec<_>>().join(" or ")) }
}

/// What a group needs at its smallest.
pub(crate) fn need(group: &Group) -> String {
    let of = of_classes(&group.ask);
    let each = if group.min > 1 { format!(" for each of {} workers", group.min) } else { String::new() };
    match group.ask.amount {
        Amount::Whole(devices) if group.min > 1 && devices > 1 => {
            format!("{} device(s){of} ({} workers of {devices})", group.min.saturating_mul(devices), group.min)
        }
        Amount::Whole(devices) => format!("{} device(s){of}", group.min.saturating_mul(devices)),
        Amount::MemoryMib(mib) => format!("{} of one device{of}{each}", memory(mib)),
        Amount::Milli(share) => format!("{} of one device{of}{each}", milli(i64::from(share))),
        Amount::Slice { milli: share, mib } => {
            format!("{} and {} of one device{of}{each}", milli(i64::from(share)), memory(mib))
        }
        Amount::Mig(profile) => format!("a MIG instance of {} slice(s){of}{each}", profile.compute_slices()),
        Amount::None => format!("{}{each}", beside(&group.ask)),
    }
}

/// The CPU and memory of an ask.
pub(crate) fn beside(ask: &Ask) -> String {
    let cores = (ask.cpu_milli > 0).then(|| format!("{} core(s)", milli(i64::try_from(ask.cpu_milli).unwrap_or(i64::MAX))));
    let memory = (ask.memory_mib > 0).then(|| format!("{} of memory", memory(ask.memory_mib)));
    cores.into_iter().chain(memory).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_read_as_a_person_would_write_them() {
        assert_eq!(milli(2_000), "2");
        assert_eq!(milli(2_250), "2.25");
        assert_eq!(milli(-500), "-0.5");
        assert_eq!(memory(1_000), "1000 MiB");
        assert_eq!(memory(40_960), "40 GiB");
        assert_eq!(memory(81_000), "79.1 GiB");
        assert_eq!(span(90_000), "90 s");
        assert_eq!(span(600_000), "10 min");
        assert_eq!(span(7_500_000), "2 h 5 min");
        assert_eq!(span(90_000_000), "1 d 1 h");
        assert_eq!(clock(At(51_600_000), At(44_100_000)), "14:20 UTC (in 2 h 5 min)");
    }

    #[test]
    fn a_long_list_is_cut_and_counted() {
        let names: Vec<String> = (0..9).map(|index| format!("job/{index}")).collect();
        assert_eq!(list(&names[..2]), "job/0, job/1");
        assert_eq!(list(&names), "job/0, job/1, job/2, job/3, job/4 and 4 more");
    }
}
