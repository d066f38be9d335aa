use super::tests_support::{HEADER, NODES, file};
use super::*;

fn read(pods: &str, skip_bad: bool) -> Result<Lists, Error> {
    Lists::read(file(NODES).path(), file(&format!("{HEADER}{pods}")).path(), skip_bad)
}

#[test]
fn pods_of_one_shape_share_it_and_classes_are_sets() {
    let lists = read("a,1000,1,1,810,\nb,1000,2,1,810,\nc,2000,1,2,1000,T4|P100\nd,500,1,0,0,\n", false).unwrap();
    assert_eq!(lists.pods.iter().map(|pod| pod.shape).collect::<Vec<_>>(), [0, 0, 1, 2]);
    assert_eq!(lists.shapes[1], Shape { cpu_milli: 2000, gpus: Gpus::Whole(2), classes: 0b11 });
    assert_eq!(lists.pods.iter().map(Pod::gpu_milli).collect::<Vec<_>>(), [810, 810, 2000, 0]);
    assert_eq!((lists.gpu_milli(), lists.class_gpus(), lists.counts()), (10_000, vec![2, 8], vec![2, 1, 1]));
}

#[test]
fn a_list_without_gpu_spec_takes_any_class() {
    let pods = file("name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1000,1,1,1000\n");
    let lists = Lists::read(file(NODES).path(), pods.path(), false).unwrap();
    assert_eq!(lists.shapes[0].classes, ANY_CLASS);
}

#[test]
fn a_wrong_row_stops_with_line_field_and_remedy() {
    for (row, field) in [
        ("a,x,1,1,810,", "cpu_milli"),
        ("a,-1,1,1,810,", "cpu_milli"),
        ("a,1,-1,1,810,", "memory_mib"),
        ("a,1,1,17,1000,", "num_gpu"),
        ("a,1,1,1,1001,", "gpu_milli"),
        ("a,1,1,1,0,", "gpu_milli"),
        ("a,1,1,0,10,", "gpu_milli"),
        ("a,1,1,2,500,", "gpu_milli"),
        ("a,1,1,1,500,H100", "gpu_spec"),
        ("a,1", "num_gpu"),
    ] {
        let error = read(&format!("ok,1000,1,1,810,\n{row}\n"), false).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, Error::Row { line: 3, .. }) && text.contains(field) && text.contains("--skip-bad"),
            "{row}: {text}"
        );
        assert_eq!(error.code(), 64);
    }
}

#[test]
fn several_wrong_rows_are_counted_and_can_be_left_out() {
    let rows = "ok,1000,1,1,810,\na,x,1,1,810,\nb,1,1,1,5000,\n";
    let text = read(rows, false).unwrap_err().to_string();
    assert!(text.contains("2 rows") && text.contains("line 3") && text.contains("line 4"), "{text}");
    let lists = read(rows, true).unwrap();
    assert_eq!((lists.pods.len(), lists.skipped.len()), (1, 2));
}

#[test]
fn a_row_that_is_not_text_is_told_with_its_line() {
    use std::io::Write;

    let mut pods = file(HEADER);
    pods.write_all(b"ok,1000,1,1,810,\n\xff\xfe,1,1,1,810,\n").unwrap();
    let text = Lists::read(file(NODES).path(), pods.path(), false).unwrap_err().to_string();
    assert!(text.contains("line 3") && text.contains("UTF-8"), "{text}");
}

#[test]
fn a_missing_file_is_named() {
    let error = Lists::read(Path::new("/nowhere/nodes.csv"), Path::new("pods.csv"), false).unwrap_err();
    assert!(error.to_string().contains("/nowhere/nodes.csv"), "{error}");
}

#[test]
fn a_missing_column_stops_it_whatever_is_skipped() {
    let pods = file("name,cpu_milli,memory_mib,num_gpu\na,1000,1,1\n");
    let error = Lists::read(file(NODES).path(), pods.path(), true).unwrap_err();
    assert!(error.to_string().contains("no column gpu_milli"), "{error}");
}
