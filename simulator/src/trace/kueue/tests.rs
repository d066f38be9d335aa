use std::io::Cursor;
use std::path::Path;

use super::*;

/// Kueue's `configs/baseline/generator.yaml`, cohorts and queues fewer.
const BASELINE: &str = "
cohorts:
  - className: cohort
    count: 2
    queuesSets:
    - className: cq
      count: 3
      nominalQuota: 20
      borrowingLimit: 100
      reclaimWithinCohort: Any
      withinClusterQueue: LowerPriority
      workloadsSets:
      - count: 350
        creationIntervalMs: 100
        workloads:
        - {className: small, runtimeMs: 200, priority: 50, request: 1}
      - count: 100
        creationIntervalMs: 500
        workloads:
        - {className: medium, runtimeMs: 500, priority: 100, request: 5}
      - count: 50
        creationIntervalMs: 1200
        workloads:
        - {className: large, runtimeMs: 1000, priority: 200, request: 20}
";

fn read(text: &str) -> Result<Config, Error> {
    parse(Lines::new(Path::new("generator.yaml"), Cursor::new(text.as_bytes().to_vec())).unwrap())
}

#[test]
fn sets_run_beside_each_other_and_jobs_come_by_time() {
    let config = read(BASELINE).unwrap();
    let jobs: Vec<TraceJob> = config.jobs().collect();
    assert_eq!(jobs.len(), 2 * 3 * 500);
    assert!(jobs.windows(2).all(|two| two[0].submit_ms <= two[1].submit_ms));
    assert_eq!((jobs[0].submit_ms, jobs[0].name.as_str()), (100, "cq-0-0-cohort-0/small-0-0-0"));
    assert_eq!((jobs[0].queue.as_str(), jobs[0].owner.as_str()), ("cq-0-0-cohort-0", "cohort-0"));
    let large: Vec<&TraceJob> = jobs.iter().filter(|job| job.recipe == "large").collect();
    assert_eq!((large.len(), large[0].submit_ms, large[0].gpus, large[0].priority), (300, 1200, 20, 200));
    assert_eq!(jobs.last().unwrap().submit_ms, 50 * 1200);
}

#[test]
fn pods_devices_and_fractions_become_gpus() {
    let template = |request: &str, rest: &str| {
        let tail = format!("- {{className: a, runtimeMs: 5, request: {request}{rest}}}");
        let text = BASELINE.replace("- {className: small, runtimeMs: 200, priority: 50, request: 1}", &tail);
        let job = read(&text).unwrap().jobs().next().unwrap();
        (job.gpus, job.gpus_per_node)
    };
    assert_eq!(template("\"2\"", ", podCount: 4"), (8, Some(2)));
    assert_eq!(template("500m", ", podCount: 2"), (1, None));
    assert_eq!(template("1250m", ", podCount: 4, devices: 1, tasConstraint: required, tasLevel: rack"), (4, Some(1)));
    assert_eq!(template("1.5", ""), (2, None));
}

#[test]
fn what_is_wrong_is_told_with_line_and_field() {
    let cases = [
        ("count: 350", "count: -1", "line 13", "workloadsSets[0].count"),
        ("request: 5", "request: many", "line 20", "request"),
        ("nominalQuota: 20", "nominalQuotas: 20", "line", "nominalQuotas"),
        ("count: 2\n", "count: 2000000000\n", "line 4", "cohorts[0].count"),
        ("count: 350", "count: 900000000", "line 1", "1000000000 workloads"),
        ("count: 2\n", "count: 1000000\n", "line 1", "at most 1000000 cohorts"),
        ("request: 20", "request: 70000", "line", "over the limit of 65536"),
        ("request: 20", "request: 1000000000, podCount: 1000000000", "line", "over the limit of 65536"),
        ("reclaimWithinCohort: Any", "reclaimWithinCohort: Some", "line", "reclaimWithinCohort"),
    ];
    for (good, bad, line, field) in cases {
        let error = read(&BASELINE.replacen(good, bad, 1)).unwrap_err().to_string();
        assert!(error.contains(line) && error.contains(field), "{bad}: {error}");
    }
    for (text, what) in [
        ("", "line 1"),
        ("cohorts: []", "at least one cohort"),
        ("cohorts: [", "cohorts is"),
        ("- 1", "file is"),
        ("\"\": 1", "file is"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains("generator.yaml, line") && error.contains(what), "{text}: {error}");
    }
}
