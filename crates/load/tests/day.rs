//! The example's day is what its comments say, by the paces in the example's own manifests.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use serde_yaml::Value;
use tidegate_load::{ModelScript, Script};

const DEVICES: f64 = 4.0;

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/tide")
}

fn day() -> Script {
    Script::read(&example().join("load/day.yaml")).unwrap()
}

fn manifest(file: &str) -> Value {
    serde_yaml::from_str(&std::fs::read_to_string(example().join(file)).unwrap()).unwrap()
}

fn model<'a>(script: &'a Script, name: &str) -> &'a ModelScript {
    script.models.iter().find(|model| model.name == name).unwrap()
}

fn rate_at(model: &ModelScript, second: f64) -> f64 {
    let points = &model.requests_per_second;
    let lines = points.windows(2).map(|pair| (pair[0], pair[1]));
    let mut on_line = lines.filter(|((from, _), (to, _))| *from <= second && second < *to);
    on_line.next().map_or(0.0, |((from, low), (to, high))| low + (high - low) * (second - from) / (to - from))
}

/// Requests per second of one device at the largest batch of which two fit into the SLO.
fn capacity(spec: &Value) -> f64 {
    let number = |value: &Value| value.as_f64().unwrap();
    let (base, per_row) = (number(&spec["simulatedPace"]["perBatchMicros"]), number(&spec["simulatedPace"]["perRowMicros"]));
    let fitting = ((number(&spec["sloMilliseconds"]) * 1000.0 / 2.0 - base) / per_row).floor();
    let rows = fitting.min(number(&spec["batching"]["maxRows"]));
    rows * 1e6 / (base + per_row * rows)
}

fn seconds() -> impl Iterator<Item = f64> {
    (0..1800).map(|tenth| f64::from(tenth) / 10.0)
}

fn highest_second(model: &ModelScript) -> f64 {
    seconds().max_by(|a, b| rate_at(model, *a).total_cmp(&rate_at(model, *b))).unwrap()
}

#[test]
fn every_manifest_of_the_example_is_valid() {
    let files = ["pool.yaml", "queues.yaml", "digits.yaml", "minilm.yaml", "training.yaml"];
    let objects =
        files.map(|file| tidegate_api::manifest::parse(&std::fs::read_to_string(example().join(file)).unwrap(), file).unwrap());
    let names: Vec<String> = objects.iter().flatten().map(|object| format!("{}/{}", object.kind(), object.name())).collect();
    let expected = [
        "Pool/box",
        "Queue/serving",
        "Queue/training",
        "Model/digits",
        "Model/all-minilm-l6-v2",
        "TrainingJob/spirals",
        "TrainingJob/letters",
    ];
    assert_eq!(names, expected);
}

#[test]
fn the_models_and_promises_are_those_of_the_manifests() {
    let script = day();
    for file in ["digits.yaml", "minilm.yaml"] {
        let manifest = manifest(file);
        let model = model(&script, manifest["metadata"]["name"].as_str().unwrap());
        assert_eq!(manifest["spec"]["sloMilliseconds"].as_u64(), Some(model.slo_ms));
        assert_eq!(manifest["spec"]["coldStartBudgetMilliseconds"].as_u64(), Some(model.cold_start_budget_ms));
    }
}

#[test]
fn the_highest_point_offers_at_least_70_percent_of_four_devices_and_fits_into_them() {
    let script = day();
    let loads: Vec<(&ModelScript, f64)> = ["digits.yaml", "minilm.yaml"]
        .map(manifest)
        .map(|manifest| (model(&script, manifest["metadata"]["name"].as_str().unwrap()), capacity(&manifest["spec"])))
        .into();
    let highest = seconds().map(|s| loads.iter().map(|(m, c)| rate_at(m, s) / c).sum::<f64>()).fold(0.0, f64::max);
    assert!((0.70..0.80).contains(&(highest / DEVICES)), "{}", highest / DEVICES);
    let wanted = |s: f64| loads.iter().map(|(m, c)| (rate_at(m, s) * 1.15 / c).ceil()).sum::<f64>();
    assert!(seconds().all(|s| wanted(s) <= DEVICES), "with the pool's head-room it still fits");
}

#[test]
fn the_peaks_are_out_of_phase() {
    let script = day();
    assert!((60.0..80.0).contains(&highest_second(model(&script, "digits"))));
    assert!((120.0..140.0).contains(&highest_second(model(&script, "all-minilm-l6-v2"))));
}

#[test]
fn both_models_have_nights_that_end() {
    let script = day();
    let nights = |name: &str| {
        let model = model(&script, name);
        let pairs = model.requests_per_second.windows(2);
        pairs
            .filter(|pair| {
                pair[0].1 == 0.0 && pair[1].1 == 0.0 && pair[1].0 - pair[0].0 > 20.0 && rate_at(model, pair[1].0 + 1.0) > 0.0
            })
            .count()
    };
    assert_eq!((nights("digits"), nights("all-minilm-l6-v2")), (1, 2));
}
