use std::io::Cursor;
use std::path::PathBuf;

use super::*;

const PHILLY: &str = "timestamp,duration,num_gpus,gpu_time,cluster\n";
const POLLUX: &str = "name,time,application,num_replicas,batch_size\n";
const OPENB: &str =
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n";

fn all(bytes: &[u8], format: Format, bad: &mut Bad) -> Result<Vec<TraceJob>, Error> {
    jobs_from(Cursor::new(bytes.to_vec()), Path::new("trace"), format, bad)?.collect()
}

fn good(text: &str, format: Format) -> Vec<TraceJob> {
    all(text.as_bytes(), format, &mut Bad::stops()).unwrap()
}

fn error(text: impl AsRef<[u8]>, format: Format) -> String {
    all(text.as_ref(), format, &mut Bad::stops()).unwrap_err().to_string()
}

#[test]
fn philly_jobs_are_sorted_and_counted_from_the_first_midnight() {
    let text = format!("{PHILLY}2017-10-09 07:01:55,66.0,2,132.0,11cb48\r\n2017-10-08 06:00:00,1.5,1,1.5,6214e9");
    let jobs = good(&text, Format::Philly);
    assert_eq!((jobs[0].submit_ms, jobs[0].duration_ms, jobs[0].name.as_str()), (6 * 3_600_000, Some(1500), "philly-1"));
    assert_eq!((jobs[1].submit_ms, jobs[1].gpus, jobs[1].queue.as_str()), (24 * 3_600_000 + 25_315_000, 2, "11cb48"));
}

#[test]
fn columns_may_come_in_any_order_and_with_others() {
    let jobs = good("x,batch_size,num_replicas,application,time,name\n,64,4,yolov3,12.5,a\n", Format::Pollux);
    assert_eq!((jobs[0].batch_size, jobs[0].gpus, jobs[0].submit_ms, jobs[0].recipe.as_str()), (Some(64), 4, 12_500, "yolov3"));
    assert_eq!(jobs[0].duration_ms, None);
}

#[test]
fn a_pod_has_shares_classes_and_the_time_it_ran() {
    let row = "p,6000,12288,1,460,V100M16|T4|T4,LS,Running,100,160,130\n";
    let job = good(&format!("{OPENB}{row}"), Format::Openb).remove(0);
    assert_eq!((job.gpus, job.gpu_milli, job.cpu_milli, job.memory_mib), (1, 460, 6000, 12288));
    assert_eq!((job.submit_ms, job.duration_ms, job.priority), (100_000, Some(30_000), 100));
    assert_eq!(job.classes, [("T4".to_owned(), 1000), ("V100M16".to_owned(), 1000)]);
    let short = good("name,cpu_milli,memory_mib,num_gpu,gpu_milli\np,1,2,8,1000\n", Format::Openb).remove(0);
    assert_eq!((short.submit_ms, short.duration_ms, short.gpus_per_node), (0, None, Some(8)));
}

#[test]
fn a_wrong_field_is_named_with_line_value_and_remedy() {
    let philly = |row: &str| (format!("{PHILLY}{row}\n"), Format::Philly);
    let pollux = |row: &str| (format!("{POLLUX}{row}\n"), Format::Pollux);
    let openb = |row: &str| (format!("{OPENB}{row}\n"), Format::Openb);
    let cases = [
        (philly("2017-10-09,66.0,1,66.0,a"), "timestamp", "write a time"),
        (philly("2017-10-09 07:01:55,-66.0,1,66.0,a"), "duration", "write seconds"),
        (philly("2017-10-09 07:01:55,0,1,66.0,a"), "duration", "above 0"),
        (philly("2017-10-09 07:01:55,NaN,1,66.0,a"), "duration", "write seconds"),
        (philly("2017-10-09 07:01:55,1e99,1,66.0,a"), "duration", "ten years"),
        (philly("2017-10-09 07:01:55,66.0,0,66.0,a"), "num_gpus", "at most 65536"),
        (philly("2017-10-09 07:01:55,66.0,70000,66.0,a"), "num_gpus", "at most 65536"),
        (philly("2017-10-09 07:01:55,66.0,1.5,66.0,a"), "num_gpus", "at most 65536"),
        (philly("2017-10-09 07:01:55,66.0,1,66.0,"), "cluster", "write a name"),
        (philly("2017-10-09 07:01:55,66.0,1,66.0"), "line", "4 fields"),
        (philly("timestamp,duration,num_gpus,gpu_time,cluster"), "line", "delete this line"),
        (pollux("a,-1,b,1,1"), "time", "write seconds"),
        (pollux("a,1,b,1,0"), "batch_size", "samples"),
        (pollux("a,1,,1,1"), "application", "write a name"),
        (openb("p,1,1,2,500,,LS,,0,1,0"), "gpu_milli", "only a pod with one GPU"),
        (openb("p,1,1,0,500,,LS,,0,1,0"), "gpu_milli", "num_gpu 0"),
        (openb("p,1,1,65,1000,,LS,,0,1,0"), "num_gpu", "one node"),
        (openb("p,1,1,1,1000,,XX,,0,1,0"), "qos", "Burstable"),
        (openb("p,1,1,1,1000,,LS,,5,1,5"), "deletion_time", "before"),
        (openb("p,1,1,1,1000,,LS,,5,9,10"), "scheduled_time", "between"),
        (openb("p,-1,1,1,1000,,LS,,5,9,6"), "cpu_milli", "thousandths"),
    ];
    for ((text, format), field, remedy) in cases {
        let error = error(&text, format);
        let named = error.starts_with(&format!("trace, line 2: {field} is \""));
        assert!(named && error.contains(remedy) && error.contains("--skip-bad"), "{text}: {error}");
    }
}

#[test]
fn a_submit_time_that_goes_back_asks_to_sort_the_file() {
    let error = error(format!("{POLLUX}a,5,b,1,1\nc,4,b,1,1\n"), Format::Pollux);
    assert!(error.contains("line 3: time is \"4\"") && error.contains("sort the file"), "{error}");
}

#[test]
fn what_is_no_such_table_is_told_at_once() {
    for (text, what) in [
        ("", "begins with the line name,time,application"),
        ("\r\n\r\n", "begins with"),
        ("name,time,application,num_replicas\n", "column batch_size is missing"),
        ("name,time,application,num_replicas,batch_size,time\n", "column time stands there twice"),
        (PHILLY, "column name is missing"),
    ] {
        let error = error(text, Format::Pollux);
        assert!(error.contains("header is") && error.contains(what) && error.contains("trace, line"), "{error}");
    }
    assert!(good(POLLUX, Format::Pollux).is_empty());
}

#[test]
fn text_that_is_not_utf8_is_named_with_its_column() {
    let error = error([POLLUX.as_bytes(), b"a,1,b\xff,1,1\n"].concat(), Format::Pollux);
    assert!(error.contains("line 2: application is") && error.contains("save the file as UTF-8"), "{error}");
}

#[test]
fn bad_rows_are_counted_and_left_out_when_asked() {
    let text = format!("{POLLUX}a,1,b,1,1\nb,x,b,1,1\nc,3,b,1,1\nd,4,b,-1,1\n");
    let mut bad = Bad::new(true);
    assert_eq!(all(text.as_bytes(), Format::Pollux, &mut bad).unwrap().len(), 2);
    assert_eq!((bad.rows(), bad.first().len()), (2, 2));
    assert!(bad.to_string().contains("2 bad rows") && bad.to_string().contains("line 3: time is \"x\""), "{bad}");
}

#[test]
fn without_skipping_the_first_bad_row_ends_the_run_and_all_are_counted() {
    let rows = "b,x,b,1,1\n".repeat(14);
    let mut bad = Bad::stops();
    let mut jobs =
        jobs_from(Cursor::new(format!("{POLLUX}a,1,b,1,1\n{rows}").into_bytes()), Path::new("t"), Format::Pollux, &mut bad)
            .unwrap();
    assert!(jobs.next().unwrap().is_ok());
    assert!(jobs.next().unwrap().unwrap_err().to_string().contains("line 3"));
    assert!(jobs.next().is_none());
    drop(jobs);
    assert_eq!((bad.rows(), bad.first().len()), (14, 10));
    assert!(bad.to_string().ends_with("and 4 more"), "{bad}");
}

#[test]
fn gavel_steps_become_time_by_the_table_beside_the_trace() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("a.trace");
    std::fs::write(&trace, "M (batch size 8)\tcmd\tdir\t-n\t1\t100\t2\t1\t-1.000000\t7\n").unwrap();
    let missing = jobs(&trace, Format::Gavel, &mut Bad::stops()).err().unwrap().to_string();
    assert!(missing.contains("simulation_throughputs.json"), "{missing}");
    let table = "{\"v100\": {\"('M (batch size 8)', 2)\": {\"null\": 4.0, \"x\": [1, 2]}}, \"k80\": {\"('M (batch size 8)', 2)\": {\"null\": 1.0}}, \"p100\": {\"('M (batch size 8)', 2)\": {\"null\": 0.0}}}";
    std::fs::write(folder.path().join("simulation_throughputs.json"), table).unwrap();
    let job = jobs(&trace, Format::Gavel, &mut Bad::stops()).unwrap().next().unwrap().unwrap();
    assert_eq!((job.submit_ms, job.duration_ms, job.gpus, job.batch_size), (7000, Some(25_000), 2, Some(8)));
    assert_eq!(job.classes, [("v100".to_owned(), 1000), ("k80".to_owned(), 250)]);
    std::fs::write(folder.path().join("simulation_throughputs.json"), "{\n\"v100\": 3}").unwrap();
    let broken = jobs(&trace, Format::Gavel, &mut Bad::stops()).err().unwrap().to_string();
    assert!(broken.contains("line 2: throughputs"), "{broken}");
}

/// The public traces, when `TIDEGATE_DATA` names their folder: file, format, jobs, GPUs asked.
#[test]
fn the_public_traces_are_read_whole_without_a_bad_row() {
    let Some(data) = std::env::var_os("TIDEGATE_DATA").map(PathBuf::from) else {
        eprintln!("skipped: TIDEGATE_DATA is unset");
        return;
    };
    let cases = [
        ("philly/philly.csv.gz", Format::Philly, 82_247),
        ("pollux/workloads/workload-1.csv", Format::Pollux, 160),
        ("tiresias/60_job.csv", Format::Tiresias, 60),
        ("gavel/max_min_fairness.trace", Format::Gavel, 96),
        ("gavel/minimize_makespan.trace", Format::Gavel, 100),
        ("openb/openb_pod_list_default.csv", Format::Openb, 8152),
        ("openb/openb_pod_list_gpushare80.csv", Format::Openb, 8152),
        ("openb/openb_pod_list_multigpu40.csv", Format::Openb, 8746),
    ];
    for (file, format, count) in cases {
        let mut bad = Bad::stops();
        let all: Result<Vec<_>, _> = jobs(&data.join(file), format, &mut bad).unwrap().collect();
        let all = all.unwrap();
        assert_eq!((all.len(), bad.rows()), (count, 0), "{file}");
        assert!(all.windows(2).all(|two| two[0].submit_ms <= two[1].submit_ms), "{file}");
    }
    let mut bad = Bad::stops();
    let philly: f64 = jobs(&data.join("philly/philly.csv.gz"), Format::Philly, &mut bad)
        .unwrap()
        .map(|job| job.unwrap())
        .map(|job| job.duration_ms.unwrap() as f64 / 3.6e6 * f64::from(job.gpus))
        .sum();
    assert!((philly - 978_078.0).abs() < 1.0, "{philly}");
}
