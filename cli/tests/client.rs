//! The executable as a shell sees it: exit codes, and which stream says what.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::TcpListener;
use std::process::{Command, Output};

fn tidegate(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.env_remove("TIDEGATE_SERVER").args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn without_a_running_up_the_remedy_is_named() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = format!("http://127.0.0.1:{port}");
    for args in [
        vec!["top", "--once"],
        vec!["explain", "job/night"],
        vec!["eta"],
        vec!["what-if", "node/box=+1"],
        vec!["snapshot"],
        vec!["drain", "gpu/gpu0"],
        vec!["logs", "job/night"],
    ] {
        let output = tidegate(&[args, vec!["--server", &server]].concat());
        assert_eq!(output.status.code(), Some(69));
        let expected = format!("tidegate: no tidegate up answers at {server}; start one with `tidegate up` or give --server\n");
        assert_eq!(stderr(&output), expected);
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_wrong_target_is_a_usage_error() {
    let output = tidegate(&["cancel", "model/minilm"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("write it as job/NAME"), "{}", stderr(&output));
}

#[test]
fn a_missing_manifest_is_named_before_anything_is_sent() {
    let output = tidegate(&["apply", "-f", "/nonexistent/night.yaml"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("/nonexistent/night.yaml"), "{}", stderr(&output));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let pipe = format!("{} crd | head -n 1; exit ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_tidegate"));
    let output = Command::new("bash").args(["-c", &pipe]).output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
    assert_eq!(output.stdout, b"---\n");
}
