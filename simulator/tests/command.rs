//! `tidegate simulate` as a user calls it, on small synthetic traces.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io;
use std::path::Path;

use clap::Parser;
use serde_json::Value;
use tempfile::TempDir;
use tidegate_simulator::Error;
use tidegate_simulator::command::{self, Ended};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: command::Args,
}

fn parse(line: &str) -> Result<Cli, String> {
    Cli::try_parse_from(["simulate"].into_iter().chain(line.split_whitespace())).map_err(|error| error.to_string())
}

fn simulate(line: &str) -> Result<(Ended, String), String> {
    let mut out = Vec::new();
    let ended = command::run(&parse(line)?.args, &mut out).map_err(|error: Error| error.to_string())?;
    Ok((ended, String::from_utf8(out).unwrap()))
}

fn refused(line: &str) -> String {
    simulate(line).unwrap_err()
}

fn json(line: &str) -> Value {
    serde_json::from_str(&simulate(line).unwrap().1).unwrap()
}

/// `text` is refused with every one of `words`.
fn names(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is missing in: {text}");
    }
}

fn file(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn philly(folder: &Path, jobs: u32) -> String {
    let file = folder.join("philly.csv");
    simulate(&format!("generate philly --jobs {jobs} --seed 7 --out {}", file.display())).unwrap();
    file.display().to_string()
}

/// Three jobs of 1, 6 and 8 GPUs, an hour apart.
const THREE: &str = "timestamp,duration,num_gpus,cluster\n2017-10-09 00:00:00,600,1,a\n2017-10-09 01:00:00,600,6,b\n2017-10-09 02:00:00,600,8,a\n";

#[test]
fn every_policy_runs_a_trace_to_its_end_and_the_figures_are_comparable() {
    let folder = tempfile::tempdir().unwrap();
    let trace = philly(folder.path(), 300);
    let (csv, html) = (folder.path().join("series.csv"), folder.path().join("report.html"));
    let policies = "fifo,best-effort,sjf,fair,backfill,tiresias,tidegate";
    let report = json(&format!(
        "jobs --trace {trace} --format philly --cluster 20x8 --policy {policies} --json --csv {} --html {}",
        csv.display(),
        html.display()
    ));
    assert_eq!((&report["jobs"], &report["bad_rows"], &report["gpus"]), (&300.into(), &0.into(), &160.into()));
    let rows = report["policies"].as_array().unwrap();
    assert_eq!(rows.len(), 7);
    for row in rows {
        assert_eq!(row["all"]["jobs"], 300, "{row}");
        for key in ["mean", "p50", "p99"] {
            assert!(row["all"]["wait_h"][key].is_number() && row["all"]["jct_h"][key].as_f64().unwrap() > 0.0, "{row}");
        }
        for key in ["utilisation", "lent_gpu_hours", "preemptions", "lost_gpu_hours", "fairness"] {
            assert!(row[key].is_number(), "{key}: {row}");
        }
        for key in ["preemptions_per_job_hour", "resizes_per_job_hour"] {
            assert!(row[key].is_number(), "{key}: {row}");
        }
    }
    let mean = |name: &str| rows.iter().find(|row| row["policy"] == name).unwrap()["all"]["jct_h"]["mean"].as_f64().unwrap();
    assert!(mean("tidegate") <= mean("fifo") * 1.001, "{} {}", mean("tidegate"), mean("fifo"));
    assert!(std::fs::read_to_string(csv).unwrap().lines().count() > 10);
    is_a_page_of_its_own(&std::fs::read_to_string(html).unwrap());
}

/// A whole page with charts that loads nothing from elsewhere.
fn is_a_page_of_its_own(html: &str) {
    names(html, &["<!doctype html>", "<svg", "</html>"]);
    // The name of SVG's language is no address that is loaded.
    let loads = html.replace("http://www.w3.org/2000/svg", "");
    for elsewhere in ["http://", "https://", "src=", "<link", "@import", "url("] {
        assert!(!loads.contains(elsewhere), "the page has {elsewhere}");
    }
}

#[test]
fn the_same_command_prints_the_same_figures_and_a_report_names_the_command_that_prints_it() {
    let folder = tempfile::tempdir().unwrap();
    let line = format!("jobs --trace {} --format philly --cluster 16x8 --to 4w --json", philly(folder.path(), 150));
    let first = json(&line);
    assert_eq!(first, json(&line));
    let again = first["command"].as_str().unwrap().strip_prefix("tidegate simulate ").unwrap();
    assert_eq!(first, json(again));
}

#[test]
fn a_trace_can_be_cut_and_what_is_left_out_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let trace = file(&folder, "three.csv", THREE);
    let line = format!("jobs --trace {trace} --format philly --cluster 2x8 --policy fifo --json");
    let cut = json(&format!("{line} --from 30m --to 2h"));
    assert_eq!((&cut["jobs"], &cut["outside_span"]), (&1.into(), &2.into()));
    names(&cut["notes"].to_string(), &["2 jobs are left out by --from and --to"]);
    names(&refused(&format!("{line} --from 3h")), &["no job is left", "2h", "--from"]);
    names(&refused(&format!("{line} --from 3h --to 1h")), &["--to 1h is not after --from 3h"]);
    names(&refused(&format!("{line} --from soon")), &["--from", "soon", "36h"]);
}

#[test]
fn a_job_that_no_placement_can_hold_is_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let trace = file(&folder, "three.csv", THREE);
    let on = |shape: &str| format!("jobs --trace {trace} --format philly --policy fifo --cluster {shape}");
    names(&refused(&on("1x1")), &["three.csv", "6 GPUs", "the cluster has 1: give --cluster more", "--skip-bad"]);
    // Eight GPUs in all, but a job of eight is a whole node of five and three on one other node.
    names(&refused(&on("1x5,3x1")), &["8 GPUs", "cannot be placed on 1x5:GPU,3x1:GPU", "more nodes"]);
    let rest = json(&format!("{} --skip-bad --json", on("1x6")));
    assert_eq!((&rest["jobs"], &rest["too_large"]), (&2.into(), &1.into()));
}

#[test]
fn bad_rows_stop_the_run_with_line_field_and_remedy_or_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{THREE}2017-10-09 03:00:00,-5,1,a\n2017-10-09 04:00:00,60,lots,a\n2017-10-09 05:00:00,1e300,1,a\n");
    let trace = file(&folder, "bad.csv", &text);
    let line = format!("jobs --trace {trace} --format philly --cluster 2x8 --policy fifo --json");
    names(
        &refused(&line),
        &["bad.csv, line 5", "duration is \"-5\"", "--skip-bad", "3 bad rows", "line 6: num_gpus is \"lots\"", "line 7"],
    );
    let skipped = json(&format!("{line} --skip-bad"));
    assert_eq!((&skipped["jobs"], &skipped["bad_rows"]), (&3.into(), &3.into()));
    assert_eq!(skipped["first_bad_rows"].as_array().unwrap().len(), 3);
    let headless = file(&folder, "headless.csv", "a,b\n1,2\n");
    names(&refused(&line.replace("bad.csv", "headless.csv")), &[&headless, "line 1", "header", "check --format"]);
}

#[test]
fn a_study_names_a_bad_row_and_has_no_flag_to_leave_it_out() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    simulate(&format!("generate all --jobs 50 --out {}", data.display())).unwrap();
    let rates = data.join("servegen/derived_total_rate.csv");
    let text = std::fs::read_to_string(&rates).unwrap().replacen("m-small,0,", "m-small,0,-", 1);
    std::fs::write(&rates, text).unwrap();
    let error = refused(&format!("study lyra --data {}", data.display()));
    names(&error, &["derived_total_rate.csv, line 2", "total_rate_rps is \"-"]);
    assert!(!error.contains("--skip-bad"), "{error}");
}

#[test]
fn wrong_flags_and_missing_files_are_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let trace = file(&folder, "three.csv", THREE);
    let line = format!("jobs --trace {trace} --format philly");
    names(&refused(&format!("{line} --cluster 16")), &["--cluster", "16x4:T4"]);
    names(&refused(&line), &["--cluster is missing", "76x8"]);
    names(&refused(&format!("{line} --cluster 2x8 --policy fifa")), &["fifa", "fifo", "tidegate"]);
    names(&refused(&format!("jobs --trace {trace} --format csv --cluster 2x8")), &["csv", "philly", "kueue-generator"]);
    names(&refused(&format!("{line} --cluster 2x8 --restart-seconds -1")), &["-1"]);
    names(&refused("jobs --trace /nowhere.csv --format philly --cluster 1x8"), &["/nowhere.csv"]);
    names(&refused("study philly --data /nowhere"), &["--data /nowhere", "philly/philly.csv.gz", "not there"]);
    names(&refused("study fgd --data /nowhere"), &["expected_results", "and 14 more files"]);
    names(&refused("study phily"), &["phily", "philly"]);
    names(&refused("generate all"), &["--out", "folder"]);
    names(&refused("pack --nodes /nowhere.csv --pods /nowhere.csv"), &["/nowhere.csv"]);
}

#[test]
fn shares_classes_and_pods_without_gpus_are_counted_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let pods = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,creation_time,deletion_time\n\
                a,1000,1000,1,500,,0,100\nb,1000,1000,0,0,,5,100\nc,1000,1000,1,1000,T4|P100,10,100\nd,1000,1000,2,1000,,20,100\n";
    let trace = file(&folder, "pods.csv", pods);
    let line = format!("jobs --trace {trace} --format openb --policy fifo,tidegate --json");
    let report = json(&format!("{line} --cluster 2x2"));
    assert_eq!((&report["jobs"], &report["without_gpu"]), (&3.into(), &1.into()));
    assert_eq!((&report["shares_rounded_up"], &report["class_wishes_dropped"]), (&1.into(), &1.into()));
    names(&refused(&format!("{line} --cluster 4x1")), &["job d", "2 of them on one node, the largest node has 1"]);
}

#[test]
fn a_pollux_workload_runs_by_the_measured_curves() {
    let folder = tempfile::tempdir().unwrap();
    let trace = file(
        &folder,
        "w.csv",
        "name,time,application,num_replicas,batch_size\nncf-0,10,ncf,1,32768\ncifar10-1,20,cifar10,6,2048\n",
    );
    let line = format!("jobs --trace {trace} --format pollux --policy sjf,tidegate --json");
    names(&refused(&line), &["--curves", "traces", "no run times"]);
    let Ok(data) = std::env::var("TIDEGATE_DATA") else { return };
    let report = json(&format!("{line} --curves {data}/pollux/traces"));
    assert_eq!((&report["gpus"], &report["jobs"]), (&64.into(), &2.into()));
    names(&report["notes"].to_string(), &["as fast as measured"]);
    assert!(report["policies"][0]["all"]["jct_h"]["max"].as_f64().unwrap() > 0.05, "{report}");
    let other = file(&folder, "x.csv", "name,time,application,num_replicas,batch_size\nx-0,10,x,1,8\n");
    names(
        &refused(&format!("jobs --trace {other} --format pollux --curves {data}/pollux/traces")),
        &["application \"x\"", "cifar10"],
    );
}

#[test]
fn generated_traces_go_to_the_writer_or_the_file_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let text = |line: &str| simulate(line).unwrap().1;
    assert_eq!(text("generate tiresias --jobs 5").lines().count(), 6);
    assert_eq!(text("generate tiresias --jobs 5 --out -"), text("generate tiresias --jobs 5"));
    let file = folder.path().join("new/t.csv");
    assert_eq!(text(&format!("generate tiresias --jobs 5 --out {}", file.display())), "");
    assert_eq!(std::fs::read_to_string(file).unwrap(), text("generate tiresias --jobs 5"));
}

/// Two nodes of eight GPUs and a list of pods.
fn lists(folder: &TempDir, pods: &str) -> String {
    let nodes = file(folder, "nodes.csv", "sn,cpu_milli,memory_mib,gpu,model\na,64000,262144,8,T4\nb,64000,262144,8,P100\n");
    let pods = file(folder, "pods.csv", &format!("name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n{pods}"));
    format!("pack --nodes {nodes} --pods {pods} --arrive 100 --seeds 1..3")
}

#[test]
fn packing_tells_what_was_allocated_and_how_fast() {
    let folder = tempfile::tempdir().unwrap();
    let line = lists(&folder, "p,1000,1000,1,500,\nq,1000,1000,2,1000,T4\n");
    for policy in ["fgd", "bestfit", "random", "tidegate"] {
        let report = json(&format!("{line} --format openb --policy {policy} --json"));
        let number = |key: &str| report[key].as_f64().unwrap();
        assert!(number("allocation_percent_mean") > 50.0 && number("allocation_percent_sd") >= 0.0, "{report}");
        let unallocated = 16.0 * (100.0 - number("allocation_percent_mean")) / 100.0;
        assert!((number("unallocated_gpus_mean") - unallocated).abs() < 1e-6, "{report}");
        // Two pods may be placed before the clock of CPU time moves; what is measured is a rate.
        assert!(report["decisions_per_s"].as_f64().is_none_or(|rate| rate > 0.0), "{report}");
        assert!(report.get("decisions_per_s").is_some(), "{report}");
        assert_eq!(report["policy"], policy);
    }
}

#[test]
fn pods_that_cannot_be_are_named_by_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let line = lists(&folder, "p,1000,1000,1,500,A100\nq,-5,1000,1,1000,\nr,1000,1000,40,1000,\ns,1000,1000,1,1000,\n");
    let text = refused(&line);
    names(
        &text,
        &["3 rows are wrong", "line 2: gpu_spec is \"A100\"", "line 3: cpu_milli is \"-5\"", "line 4: num_gpu is \"40\""],
    );
    names(&text, &["models of the node list", "0 to 16 GPUs", "--skip-bad"]);
    let rest = json(&format!("{line} --skip-bad --json"));
    assert_eq!((&rest["pods"], rest["skipped_rows"].as_array().unwrap().len()), (&1.into(), 3));
    names(&refused(&line.replace("1..3", "9..1")), &["9..1", "42..51"]);
    names(&refused(&line.replace("--arrive 100", "--arrive 0")), &["--arrive", "1..=1000"]);
}

#[test]
fn a_generators_file_with_an_impossible_quota_is_refused_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let (_, text) = simulate("generate kueue-generator --jobs 100").unwrap();
    let quota = text.lines().find(|line| line.contains("nominalQuota")).unwrap();
    let (key, _) = quota.split_once(": ").unwrap();
    let trace = file(&folder, "generator.yaml", &text.replace(quota, &format!("{key}: -3")));
    let error = refused(&format!("jobs --trace {trace} --format kueue-generator --cluster 4x8"));
    names(&error, &["generator.yaml", "nominalQuota", "-3"]);
}

/// A reader that has gone, as `| head` does.
struct Gone;

impl io::Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let trace = file(&folder, "three.csv", THREE);
    let jobs = format!("jobs --trace {trace} --format philly --cluster 2x8");
    let pack = lists(&folder, "p,1000,1000,1,500,\n");
    for line in ["generate philly --jobs 50", &jobs, &format!("{jobs} --json"), &pack] {
        assert!(matches!(command::run(&parse(line).unwrap().args, &mut Gone), Ok(Ended::Well)), "{line}");
    }
}

/// Requests of one model for an hour: so many per second in the first half, a tenth of them in the second.
fn requests(folder: &TempDir, per_s: u32) -> String {
    let row = |window: u32| {
        let rate = if window < 3 { per_s } else { per_s / 10 };
        format!("chat,{},{rate},3,1\n", window * 600)
    };
    let rows: String = (0..6).map(row).collect();
    file(folder, "rates.csv", &format!("model,t_s,total_rate_rps,active_clients,rate_weighted_cv\n{rows}"))
}

#[test]
fn models_share_the_cluster_with_the_jobs_and_lend_what_they_do_not_need() {
    let folder = tempfile::tempdir().unwrap();
    let trace = philly(folder.path(), 2000);
    let [rates, csv, html] =
        ["rates.csv", "series.csv", "report.html"].map(|name| folder.path().join(name).display().to_string());
    simulate(&format!("generate servegen --out {rates}")).unwrap();
    let report = json(&format!(
        "jobs --trace {trace} --format philly --cluster 5x8 --skip-bad --policy fifo,tidegate --inference {rates} --format servegen \
         --inference-scale 0.4 --json --csv {csv} --html {html}"
    ));
    assert!((4..20).contains(&report["models_gpus"].as_u64().unwrap()), "{report}");
    let of = |policy: usize, key: &str| report["policies"][policy][key].as_f64().unwrap();
    assert!(of(0, "lent_gpu_hours").abs() < 1e-9 && of(1, "lent_gpu_hours") > 100.0, "{report}");
    assert!(of(0, "slo_attainment") >= 0.999 && of(1, "slo_attainment") >= 0.999, "{report}");
    let mean = |policy: usize, key: &str| report["policies"][policy][key]["mean"].as_f64().unwrap();
    assert!(mean(1, "queued_h") < mean(0, "queued_h") && mean(1, "jct_h") < mean(0, "jct_h"), "{report}");
    for key in ["preemptions_per_job_hour", "resizes_per_job_hour", "lost_gpu_hours", "training_utilisation"] {
        assert!(report["policies"][1][key].is_number(), "{key}: {report}");
    }
    assert_eq!(report["policies"][1]["by_model"][0]["name"], "m-small");
    names(&std::fs::read_to_string(csv).unwrap(), &["GPUs lent by inference,tidegate"]);
    is_a_page_of_its_own(&std::fs::read_to_string(html).unwrap());
    let again = report["command"].as_str().unwrap().strip_prefix("tidegate simulate ").unwrap();
    assert_eq!(report["policies"], json(again)["policies"]);
}

#[test]
fn wrong_inference_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let trace = file(&folder, "three.csv", THREE);
    let rates = requests(&folder, 800);
    let line = format!("jobs --trace {trace} --format philly --cluster 3x8");
    names(&refused(&format!("{line} --inference {rates}")), &["--inference", "servegen, azure, mooncake"]);
    names(&refused(&format!("{line} --format azure")), &["azure", "--inference, which is missing"]);
    let shared = format!("{line} --format servegen --inference {rates}");
    names(&refused(&format!("{shared} --policy sjf")), &["--policy sjf", "`tidegate`", "`fifo`"]);
    names(&refused(&format!("{shared} --inference-scale 0")), &["--inference-scale", "above 0"]);
    names(
        &refused(&format!("{shared} --inference-scale 100")),
        &["alone need", "the cluster has 24", "smaller --inference-scale"],
    );
    names(&refused(&shared.replace("3x8", "1x12")), &["6 GPUs", "belong to the models", "--cluster"]);
    let bad = file(&folder, "bad.csv", "model,t_s,total_rate_rps,active_clients,rate_weighted_cv\nm,0,10,1,1\nm,600,-1,1,1\n");
    let line = format!("{line} --format servegen --inference {bad} --json");
    names(&refused(&line), &["bad.csv, line 3", "total_rate_rps is \"-1\"", "--skip-bad"]);
    assert_eq!(json(&format!("{line} --skip-bad"))["bad_inference_rows"], 1);
    names(&refused(&line.replace("servegen", "azure")), &["bad.csv, line 1", "TIMESTAMP", "--format"]);
}

#[test]
fn a_study_of_the_engine_says_so_and_judges_itself() {
    let (ended, text) = simulate("study production-1300").unwrap();
    names(&text, &["cycle, 99th percentile", "`ours` is the engine"]);
    // A loaded machine may miss a figure in milliseconds; that a miss is said, and only then, is what is tested here.
    assert_eq!(ended == Ended::Missed, text.contains("MISSED"), "{text}");
}
