use std::collections::BTreeMap;
use std::io::Cursor;

use super::*;
use crate::pack::Lists;
use crate::trace::{self, Bad, Format, TraceJob};

fn text(kind: Kind, rows: u32, seed: u64) -> Vec<u8> {
    let mut out = Vec::new();
    kind.write(rows, seed, &mut out).unwrap();
    out
}

/// Reads back what was generated; no row may be bad.
fn jobs(kind: Kind, rows: u32, format: Format) -> Vec<TraceJob> {
    let mut bad = Bad::stops();
    let jobs = trace::jobs_from(Cursor::new(text(kind, rows, 42)), Path::new("generated"), format, &mut bad).unwrap();
    jobs.collect::<Result<_, _>>().unwrap()
}

fn quantile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) * percent / 100]
}

fn near(what: &str, value: f64, wanted: f64, tolerance: f64) {
    assert!((value / wanted - 1.0).abs() <= tolerance, "{what}: {value}, wanted {wanted} +-{}%", tolerance * 100.0);
}

#[test]
fn philly_has_the_originals_run_times_sizes_and_clusters() {
    let jobs = jobs(Kind::Philly, 82_247, Format::Philly);
    assert_eq!(jobs.len(), 82_247);
    let seconds: Vec<f64> = jobs.iter().map(|job| job.duration_ms.unwrap() as f64 / 1000.0).collect();
    near("p50", quantile(seconds.clone(), 50), 1144.0, 0.15);
    near("p90", quantile(seconds.clone(), 90), 11_266.0, 0.15);
    near("p99", quantile(seconds, 99), 254_884.0, 0.2);
    let one = jobs.iter().filter(|job| job.gpus == 1).count() as f64 / jobs.len() as f64;
    near("one GPU", one, 0.932, 0.02);
    let hours: f64 = jobs.iter().map(|job| f64::from(job.gpus) * job.duration_ms.unwrap() as f64 / 3.6e6).sum();
    near("GPU-hours", hours, 978_078.0, 0.25);
    let mut clusters = BTreeMap::new();
    for job in &jobs {
        *clusters.entry(job.queue.as_str()).or_insert(0_u32) += 1;
    }
    near("largest cluster", f64::from(clusters["6214e9"]) / jobs.len() as f64, 0.501, 0.1);
    assert!(clusters.len() >= 11, "{clusters:?}");
}

#[test]
fn philly_has_the_originals_day_and_week() {
    let jobs = jobs(Kind::Philly, 82_247, Format::Philly);
    let share =
        |test: &dyn Fn(u64) -> bool| jobs.iter().filter(|job| test(job.submit_ms / 3_600_000)).count() as f64 / jobs.len() as f64;
    let first = jobs[0].submit_ms / 86_400_000;
    assert_eq!(first, 0);
    near("6 to 8 o'clock", share(&|hour| (6..8).contains(&(hour % 24))), (5732.0 + 7159.0) / 82_247.0, 0.2);
    near("13 to 16 o'clock", share(&|hour| (13..16).contains(&(hour % 24))), (2415.0 + 2185.0 + 2224.0) / 82_247.0, 0.25);
    let busiest = (0..16).map(|week| share(&|hour| hour / 168 == week)).fold(0.0, f64::max);
    near("busiest week", busiest, 14_724.0 / 82_247.0, 0.15);
}

#[test]
fn openb_lists_have_the_published_marginals() {
    let pods = jobs(Kind::OpenbPods, 8152, Format::Openb);
    let count = |test: &dyn Fn(&TraceJob) -> bool| pods.iter().filter(|pod| test(pod)).count();
    assert_eq!(count(&|pod| pod.gpus == 0), 1088);
    assert_eq!(count(&|pod| pod.gpus == 1 && pod.gpu_milli < 1000), 3078);
    assert_eq!(count(&|pod| pod.gpus == 1 && pod.gpu_milli == 1000), 3911);
    assert_eq!([2, 4, 8].map(|gpus| count(&|pod| pod.gpus == gpus)), [16, 15, 44]);
    let asked: f64 = pods.iter().map(|pod| f64::from(pod.gpus * pod.gpu_milli) / 1000.0).sum();
    near("GPUs asked", asked, 6087.0, 0.01);
    near("share of 810", count(&|pod| pod.gpu_milli == 810) as f64, 1078.0, 0.02);
    let lives = pods.iter().map(|pod| pod.duration_ms.unwrap() as f64 / 1000.0).collect();
    near("median life", quantile(lives, 50), 540.0, 0.2);

    let folder = tempfile::tempdir().unwrap();
    let [nodes, pods] = [(Kind::OpenbNodes, 1213), (Kind::OpenbPods, 8152)].map(|(kind, rows)| {
        let path = folder.path().join(format!("{kind:?}.csv"));
        std::fs::write(&path, text(kind, rows, 1)).unwrap();
        path
    });
    let lists = Lists::read(&nodes, &pods, false).unwrap();
    assert_eq!((lists.nodes.len(), lists.gpu_milli(), lists.pods.len()), (1213, 6_212_000, 8152));
    let class = lists.classes.iter().position(|class| class == "G2").unwrap();
    assert_eq!(lists.nodes.iter().filter(|node| usize::from(node.class) == class).count(), 549);
}

#[test]
fn the_request_rate_swings_between_775_and_1709_over_the_day() {
    let text = String::from_utf8(text(Kind::Servegen, 20 * 2016, 42)).unwrap();
    let mut hours = [(0.0, 0_u32); 24];
    for (index, row) in text.lines().skip(1).enumerate() {
        let fields: Vec<f64> = row.split(',').skip(1).map(|field| field.parse().unwrap()).collect();
        assert_eq!(row.split(',').nth(1), Some((600 * index).to_string().as_str()));
        assert!(fields[1] > 0.0 && (15.0..=26.0).contains(&fields[2]) && fields[3] > 1.0);
        let hour = &mut hours[index / 6 % 24];
        *hour = (hour.0 + fields[1], hour.1 + 1);
    }
    let means = hours.map(|(sum, count)| sum / f64::from(count));
    near("mean", means.iter().sum::<f64>() / 24.0, 1174.0, 0.05);
    near("quietest hour", means.iter().copied().fold(f64::MAX, f64::min), 775.0, 0.08);
    near("busiest hour", means.iter().copied().fold(0.0, f64::max), 1709.0, 0.08);
}

#[test]
fn pollux_workloads_have_the_published_mix() {
    let jobs = jobs(Kind::Pollux, 1280, Format::Pollux);
    let count = |name: &str| jobs.iter().filter(|job| job.recipe == name).count();
    assert_eq!(["ncf", "cifar10", "deepspeech2", "bert", "yolov3", "imagenet"].map(count), [503, 495, 111, 86, 59, 26]);
    assert!(jobs.last().unwrap().submit_ms < 8 * 3_600_000);
    let sixth = jobs.iter().filter(|job| job.submit_ms / 3_600_000 == 5).count() as f64 / 1280.0;
    near("sixth hour", sixth, 287.0 / 1280.0, 0.2);
}

#[test]
fn tiresias_and_kueue_files_are_read_back_whole() {
    let tiresias = jobs(Kind::Tiresias, 600, Format::Tiresias);
    assert_eq!(tiresias.len(), 600);
    let seconds = tiresias.iter().map(|job| job.duration_ms.unwrap() as f64 / 1000.0).collect();
    near("median", quantile(seconds, 50), 126.5, 0.03);
    let kueue = jobs(Kind::KueueGenerator, 15_000, Format::KueueGenerator);
    assert_eq!(kueue.len(), 15_000);
    assert_eq!(kueue.iter().filter(|job| job.recipe == "large").count(), 30 * 50);
}

#[test]
fn equal_seeds_give_equal_files_and_others_do_not() {
    for kind in [Kind::Philly, Kind::OpenbNodes, Kind::OpenbPods, Kind::Servegen, Kind::Pollux, Kind::Tiresias] {
        assert_eq!(text(kind, 200, 7), text(kind, 200, 7), "{kind:?}");
        assert_ne!(text(kind, 200, 7), text(kind, 200, 8), "{kind:?}");
        assert_eq!(text(kind, 1, 7).split(|byte| *byte == b'\n').count(), 3, "{kind:?}");
    }
}

#[test]
fn a_folder_of_all_kinds_is_named_as_the_public_traces_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut args = Args { kind: Kind::All, jobs: None, seed: 1, out: folder.path().join("data") };
    run(&args, &mut std::io::sink()).unwrap();
    let mut bad = Bad::stops();
    for (file, format) in [("philly/philly.csv.gz", Format::Philly), ("pollux/workloads/workload-8.csv", Format::Pollux)] {
        let jobs = trace::jobs(&args.out.join(file), format, &mut bad).unwrap();
        assert!(jobs.map(Result::unwrap).count() >= 160, "{file}");
    }
    assert!(is_synthetic(&args.out) && !is_synthetic(folder.path()));
    args = Args { jobs: None, out: "-".into(), ..args };
    assert!(run(&args, &mut std::io::sink()).unwrap_err().to_string().contains("--out"));
    let within = Args { kind: Kind::Tiresias, jobs: None, seed: 1, out: folder.path().join("data/philly/philly.csv.gz/x") };
    assert_eq!(run(&within, &mut std::io::sink()).unwrap_err().code(), 73);
}
