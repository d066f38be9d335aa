//! What a worker finds in its environment: `docs/training-contract.md`, with the names of `tidegate_api::contract`.

use std::collections::BTreeMap;
use std::path::Path;

use tidegate_api::contract;
use tidegate_api::kinds::EnvVar;
use tidegate_core::names::JobName;
use tidegate_core::plan::Placed;
use tidegate_core::state::Group;

use crate::devices::{self, Device};

/// What all workers of an attempt have in common.
pub(super) struct Gang<'a> {
    pub job: &'a JobName,
    pub attempt: u32,
    pub workers: &'a [Placed],
    /// The job's groups; one without a name if it does not tell its workers apart.
    pub groups: &'a [Group],
    pub choice: Option<u32>,
    pub master_port: u16,
    pub checkpoints: &'a Path,
    pub progress_url: String,
}

impl Gang<'_> {
    /// The environment of one worker; the user's own variables cannot set any of the contract's.
    pub fn environment(&self, rank: usize, place: &Placed, devices: &[&Device], own: &[EnvVar]) -> BTreeMap<String, String> {
        let mut env: BTreeMap<String, String> =
            own.iter().map(|variable| (variable.name.clone(), variable.value.clone())).collect();
        let mut set = |name: &str, value: String| drop(env.insert(name.to_owned(), value));
        set(contract::RANK, rank.to_string());
        set(contract::WORLD_SIZE, self.workers.len().to_string());
        set(contract::LOCAL_RANK, rank.to_string());
        set(contract::MASTER_ADDR, "127.0.0.1".to_owned());
        set(contract::MASTER_PORT, self.master_port.to_string());
        set(contract::JOB, self.job.0.clone());
        set(contract::ATTEMPT, self.attempt.to_string());
        set(contract::CHECKPOINT_DIR, self.checkpoints.display().to_string());
        set(contract::PROGRESS_URL, self.progress_url.clone());
        set(contract::CUDA_VISIBLE_DEVICES, devices::visible(devices));
        if let Some(device) = devices.iter().find(|device| device.simulated) {
            set(contract::SIMULATED_DEVICE, device.class.clone());
        }
        if let Some(choice) = self.choice {
            set(contract::CHOICE, choice.to_string());
        }
        let Some(group) = self.groups.get(usize::from(place.group)) else { return env };
        if let Some(milli) = devices::share(&group.ask, devices) {
            set(contract::DEVICE_MILLI, milli.to_string());
        }
        if !group.name.is_empty() {
            let of_group = |workers: &[Placed]| workers.iter().filter(|other| other.group == place.group).count();
            set(contract::GROUP, group.name.clone());
            set(contract::GROUP_RANK, of_group(self.workers.get(..rank).unwrap_or_default()).to_string());
            set(contract::GROUP_SIZE, of_group(self.workers).to_string());
        }
        env
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::ask::{Amount, Ask};

    use super::*;

    fn placed(group: u16) -> Placed {
        Placed { group, node: "box".into(), devices: Vec::new(), slices: 0 }
    }

    fn environments(groups: &[&str], workers: &[Placed], choice: Option<u32>) -> Vec<BTreeMap<String, String>> {
        // The second group shares a device, the others have theirs to themselves.
        let ask = |nth| Ask { amount: if nth == 1 { Amount::MemoryMib(20_480) } else { Amount::Whole(1) }, ..Ask::default() };
        let group = |(nth, name): (usize, &&str)| Group { name: (*name).to_owned(), min: 1, max: 2, ask: ask(nth), spread: None };
        let groups: Vec<Group> = groups.iter().enumerate().map(group).collect();
        let gang = Gang {
            job: &JobName::from("night"),
            attempt: 3,
            workers,
            groups: &groups,
            choice,
            master_port: 4_000,
            checkpoints: Path::new("/kept"),
            progress_url: "http://x".to_owned(),
        };
        let own = [
            EnvVar { name: "RANK".to_owned(), value: "9".to_owned() },
            EnvVar { name: "MINE".to_owned(), value: "1".to_owned() },
        ];
        let device = devices::find(Some("1xH100-80GB")).unwrap().remove(0);
        workers.iter().enumerate().map(|(rank, place)| gang.environment(rank, place, &[&device], &own)).collect()
    }

    #[test]
    fn each_worker_knows_its_group_and_its_rank_in_it() {
        let found = environments(&["actor", "learner"], &[placed(0), placed(0), placed(1)], None);
        let of = |name: &str| found.iter().map(|env| env[name].as_str()).collect::<Vec<_>>();
        assert_eq!(of("RANK"), ["0", "1", "2"]);
        assert_eq!(of("WORLD_SIZE"), ["3", "3", "3"]);
        assert_eq!(of("TIDEGATE_GROUP"), ["actor", "actor", "learner"]);
        assert_eq!(of("TIDEGATE_GROUP_RANK"), ["0", "1", "0"]);
        assert_eq!(of("TIDEGATE_GROUP_SIZE"), ["2", "2", "1"]);
        let shares: Vec<_> = found.iter().map(|env| env.get("TIDEGATE_DEVICE_MILLI").map(String::as_str)).collect();
        assert_eq!(shares, [None, None, Some("250")]);
    }

    #[test]
    fn a_job_without_groups_and_choices_is_told_of_none() {
        let found = environments(&[""], &[placed(0)], None).remove(0);
        assert!(!found.keys().any(|name| name.starts_with("TIDEGATE_GROUP") || name == "TIDEGATE_CHOICE"), "{found:?}");
        assert_eq!((found["RANK"].as_str(), found["MINE"].as_str()), ("0", "1"), "the contract's names are its own");
    }

    #[test]
    fn a_choice_is_told_to_every_worker() {
        let found = environments(&[""], &[placed(0), placed(0)], Some(64));
        assert!(found.iter().all(|env| env["TIDEGATE_CHOICE"] == "64"));
    }
}
