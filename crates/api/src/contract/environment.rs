//! What a worker finds in its environment, wherever it runs: `docs/training-contract.md`.

use std::collections::BTreeMap;

use tidegate_core::plan::Placed;
use tidegate_core::state::Group;

use super::{ATTEMPT, CHECKPOINT_DIR, CHOICE, GROUP, GROUP_RANK, GROUP_SIZE, JOB, MASTER_ADDR, MASTER_PORT};
use super::{PROGRESS_URL, RANK, WORLD_SIZE};
use crate::kinds::EnvVar;

/// What all workers of an attempt have in common.
#[derive(Clone, Debug)]
pub struct Attempt<'a> {
    pub job: &'a str,
    pub number: u32,
    pub workers: &'a [Placed],
    /// The job's groups; one without a name if it does not tell its workers apart.
    pub groups: &'a [Group],
    pub choice: Option<u32>,
    /// Where rank 0 may listen.
    pub master: (&'a str, u16),
    pub checkpoints: Option<&'a str>,
    pub progress_url: Option<&'a str>,
}

impl Attempt<'_> {
    /// The environment of one worker, but for what is said of its devices. The user's `own` variables set none of the contract's.
    pub fn environment(&self, rank: usize, own: &[EnvVar]) -> BTreeMap<String, String> {
        let mut env: BTreeMap<String, String> =
            own.iter().map(|variable| (variable.name.clone(), variable.value.clone())).collect();
        let mut set = |name: &str, value: String| drop(env.insert(name.to_owned(), value));
        set(RANK, rank.to_string());
        set(WORLD_SIZE, self.workers.len().to_string());
        set(MASTER_ADDR, self.master.0.to_owned());
        set(MASTER_PORT, self.master.1.to_string());
        set(JOB, self.job.to_owned());
        set(ATTEMPT, self.number.to_string());
        let told = [(CHECKPOINT_DIR, self.checkpoints.map(str::to_owned)), (PROGRESS_URL, self.progress_url.map(str::to_owned))];
        let chosen = (CHOICE, self.choice.map(|choice| choice.to_string()));
        for (name, value) in told.into_iter().chain([chosen]) {
            if let Some(value) = value {
                set(name, value);
            }
        }
        let Some(place) = self.workers.get(rank) else { return env };
        if let Some(group) = self.groups.get(usize::from(place.group)).filter(|group| !group.name.is_empty()) {
            let of_group = |workers: &[Placed]| workers.iter().filter(|other| other.group == place.group).count();
            set(GROUP, group.name.clone());
            set(GROUP_RANK, of_group(self.workers.get(..rank).unwrap_or_default()).to_string());
            set(GROUP_SIZE, of_group(self.workers).to_string());
        }
        env
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::ask::Ask;

    use super::*;

    fn placed(group: u16) -> Placed {
        Placed { group, node: "box".into(), devices: Vec::new(), slices: 0 }
    }

    fn environments(groups: &[&str], workers: &[Placed], choice: Option<u32>) -> Vec<BTreeMap<String, String>> {
        let group = |name: &&str| Group { name: (*name).to_owned(), min: 1, max: 2, ask: Ask::default(), spread: None };
        let groups: Vec<Group> = groups.iter().map(group).collect();
        let attempt = Attempt {
            job: "night",
            number: 3,
            workers,
            groups: &groups,
            choice,
            master: ("there", 4_000),
            checkpoints: None,
            progress_url: Some("http://x"),
        };
        let own = [
            EnvVar { name: "RANK".to_owned(), value: "9".to_owned() },
            EnvVar { name: "MINE".to_owned(), value: "1".to_owned() },
        ];
        (0..workers.len()).map(|rank| attempt.environment(rank, &own)).collect()
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
    }

    #[test]
    fn a_job_without_groups_and_choices_is_told_of_none() {
        let found = environments(&[""], &[placed(0)], None).remove(0);
        let named = |name: &String| name.starts_with("TIDEGATE_GROUP") || name == CHOICE || name == CHECKPOINT_DIR;
        assert!(!found.keys().any(named), "{found:?}");
        assert_eq!((found["RANK"].as_str(), found["MINE"].as_str()), ("0", "1"), "the contract's names are its own");
        assert_eq!((found["MASTER_ADDR"].as_str(), found["MASTER_PORT"].as_str()), ("there", "4000"));
    }

    #[test]
    fn a_choice_is_told_to_every_worker() {
        let found = environments(&[""], &[placed(0), placed(0)], Some(64));
        assert!(found.iter().all(|env| env["TIDEGATE_CHOICE"] == "64"));
    }
}
