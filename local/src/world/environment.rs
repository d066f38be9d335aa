//! What this box adds to the environment that `docs/training-contract.md` promises: the worker's devices.

use std::collections::BTreeMap;

use tidegate_api::contract::{self, Attempt};
use tidegate_api::kinds::EnvVar;

use crate::devices::{self, Device};

/// The environment of one worker on these devices.
pub(super) fn environment(attempt: &Attempt<'_>, rank: usize, devices: &[&Device], own: &[EnvVar]) -> BTreeMap<String, String> {
    let mut env = attempt.environment(rank, own);
    let mut set = |name: &str, value: String| drop(env.insert(name.to_owned(), value));
    set(contract::LOCAL_RANK, rank.to_string());
    set(contract::CUDA_VISIBLE_DEVICES, devices::visible(devices));
    if let Some(device) = devices.iter().find(|device| device.simulated) {
        set(contract::SIMULATED_DEVICE, device.class.clone());
    }
    let group = attempt.workers.get(rank).and_then(|place| attempt.groups.get(usize::from(place.group)));
    if let Some(milli) = group.and_then(|group| devices::share(&group.ask, devices)) {
        set(contract::DEVICE_MILLI, milli.to_string());
    }
    env
}

#[cfg(test)]
mod tests {
    use tidegate_core::ask::{Amount, Ask};
    use tidegate_core::plan::Placed;
    use tidegate_core::state::Group;

    use super::*;

    #[test]
    fn a_worker_that_shares_a_device_is_told_how_much_of_it() {
        let ask = |amount| Ask { amount, ..Ask::default() };
        let group = |ask| Group { name: String::new(), min: 1, max: 1, ask, spread: None };
        let groups = [group(ask(Amount::Whole(1))), group(ask(Amount::MemoryMib(20_480)))];
        let placed = |group| Placed { group, node: "box".into(), devices: Vec::new(), slices: 0 };
        let attempt = Attempt {
            job: "night",
            number: 3,
            workers: &[placed(0), placed(1)],
            groups: &groups,
            choice: None,
            master: ("127.0.0.1", 4_000),
            checkpoints: Some("/kept"),
            progress_url: None,
        };
        let device = devices::find(Some("1xH100-80GB")).unwrap().remove(0);
        let found: Vec<_> = (0..2).map(|rank| environment(&attempt, rank, &[&device], &[])).collect();
        let shares: Vec<_> = found.iter().map(|env| env.get("TIDEGATE_DEVICE_MILLI").map(String::as_str)).collect();
        assert_eq!(shares, [None, Some("250")]);
        assert_eq!(found[1]["TIDEGATE_SIMULATED_DEVICE"], "H100-80GB");
        assert_eq!((found[1]["LOCAL_RANK"].as_str(), found[1]["TIDEGATE_CHECKPOINT_DIR"].as_str()), ("1", "/kept"));
    }
}
