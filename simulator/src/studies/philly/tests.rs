use std::path::PathBuf;

use super::*;

#[test]
fn the_committed_settings_parse_and_name_610_gpus() {
    let settings = settings().unwrap();
    let stage = stage(&settings).unwrap();
    assert_eq!(stage.floor().gpus(), 610);
    assert!(stage.floor().could_ever(128) && !stage.floor().could_ever(611));
}

#[test]
fn a_field_that_nobody_reads_is_refused() {
    let text = format!("{SETTINGS}\nluck: 1\n");
    assert!(serde_yaml::from_str::<Settings>(&text).is_err());
}

/// A quarter of the weeks and the peers' rules that are quick: the whole study is `simulate study philly`.
#[test]
fn on_the_trace_ours_lets_gangs_start_and_completes_sooner_than_best_effort_fifo() {
    let Some(data) = std::env::var_os("TIDEGATE_DATA").map(PathBuf::from) else {
        eprintln!("skipped: TIDEGATE_DATA is not set");
        return;
    };
    let settings = Settings { first_week: 7, last_week: 8, ..settings().unwrap() };
    let stage = stage(&settings).unwrap();
    let jobs = jobs(&stage, &settings.cases[0], &data).unwrap();
    let theirs = measure(&stage, &jobs, &mut Ordered::best_effort(stage.floor())).unwrap();
    let ours = measure(&stage, &jobs, super::ours(&stage).as_mut()).unwrap();
    assert!(ours.gangs.wait_h.p99 <= theirs.gangs.wait_h.p99 / 3.0, "{:?} {:?}", ours.gangs.wait_h, theirs.gangs.wait_h);
    assert!(ours.all.jct_h.mean <= theirs.all.jct_h.mean, "{:?} {:?}", ours.all.jct_h, theirs.all.jct_h);
    assert!(ours.lost_fraction < 0.25, "{}", ours.lost_fraction);
}
