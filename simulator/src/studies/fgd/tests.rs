use std::path::PathBuf;

use super::*;

fn settings() -> Settings {
    serde_yaml::from_str(SETTINGS).unwrap()
}

#[test]
fn the_committed_settings_compare_at_the_last_load_with_ten_seeds() {
    let settings = settings();
    assert!(settings.compare_at_percent.contains(&settings.arrive_percent), "the goal of the default list is at the last load");
    assert!(settings.lists.contains(&settings.baseline_list));
    assert_eq!(settings.last_seed - settings.first_seed + 1, 10);
}

#[test]
fn an_unknown_setting_is_refused() {
    assert!(serde_yaml::from_str::<Settings>(&format!("{SETTINGS}\nretry: true\n")).is_err());
}

#[test]
fn a_folder_without_the_lists_is_named() {
    let error = run(Path::new("/nowhere")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/openb"), "{error}");
}

/// The whole study takes a minute; one seed on two lists tells whether something broke.
#[test]
fn baselines_come_out_and_goals_are_reached_on_a_sample() {
    let Some(data) = std::env::var_os("TIDEGATE_DATA").map(PathBuf::from) else { return };
    let lists = ["default", "multigpu40"].map(str::to_owned).to_vec();
    let study = run_with(&Settings { last_seed: 42, lists, ..settings() }, &data.join("openb"), false).unwrap();
    assert!(study.passed(), "{study}");
    assert_eq!(study.rows.len(), 6, "random and best fit on the default list, FGD and ours on both at two loads");
}
