//! `tidegate simulate study` by whoever has no public data: every study runs on what `generate all` writes.
#![expect(clippy::unwrap_used, reason = "tests")]

use clap::Parser;
use serde_json::Value;
use tidegate_simulator::command::{self, Ended};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: command::Args,
}

fn simulate(line: &str) -> (Ended, String) {
    let cli = Cli::try_parse_from(["simulate"].into_iter().chain(line.split_whitespace())).unwrap();
    let mut out = Vec::new();
    let ended = command::run(&cli.args, &mut out).unwrap();
    (ended, String::from_utf8(out).unwrap())
}

/// Runs a study on synthetic data; its rows, once all that holds for every study is checked.
fn rows(name: &str, jobs: u32) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().display();
    simulate(&format!("generate all --jobs {jobs} --seed 3 --out {data}"));
    let (ended, text) = simulate(&format!("study {name} --data {data} --json"));
    let studies: Value = serde_json::from_str(&text).unwrap();
    let study = &studies[0];
    assert!(study["assumptions"].to_string().contains("SYNTHETIC data"), "{text}");
    let rows = study["rows"].as_array().unwrap().clone();
    assert!(rows.iter().all(|row| row["published"].is_null()), "{text}");
    let missed = |row: &Value| {
        let ours = row["ours"].as_f64();
        row["goal"]["at_least"].as_f64().is_some_and(|least| ours < Some(least))
            || row["goal"]["at_most"].as_f64().is_some_and(|most| ours.is_none_or(|ours| ours > most))
    };
    assert_eq!(ended == Ended::Missed, rows.iter().any(missed), "{text}");
    rows
}

fn has(rows: &[Value], what: &str) -> bool {
    rows.iter().any(|row| row["what"].as_str().is_some_and(|text| text.contains(what)))
}

#[test]
fn fgd_is_judged_by_its_own_rule_on_a_synthetic_list() {
    let rows = rows("fgd", 20_000);
    assert_eq!(rows.len(), 4, "random, best fit, and FGD at two loads");
    for row in rows.iter().filter(|row| row["what"].as_str().unwrap().contains("FGD")) {
        assert_eq!(row["goal"]["at_least"], row["rule"], "{row}");
        assert!(row["ours"].as_f64().unwrap() > 80.0, "{row}");
    }
}

#[test]
fn pollux_is_judged_by_tiresias_on_synthetic_curves() {
    let rows = rows("pollux", 12_000);
    assert!(has(&rows, "resizes per job-hour") && has(&rows, "evictions per job-hour"));
    let judged: Vec<&Value> = rows.iter().filter(|row| !row["goal"].is_null()).collect();
    assert!(judged.len() == 2 && judged.iter().all(|row| row["ours"].as_f64().unwrap() > 0.0), "{judged:?}");
}

#[test]
fn philly_and_lyra_run_on_synthetic_jobs_and_rates() {
    for (name, jobs) in [("philly", 2000), ("lyra", 300)] {
        let rows = rows(name, jobs);
        assert!(has(&rows, "per job-hour"), "{name}");
        assert!(rows.iter().any(|row| !row["goal"].is_null()), "{name}");
    }
}
