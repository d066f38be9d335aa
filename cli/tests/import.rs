//! `tidegate import kueue`: which stream says what, and with which exit code.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn import(args: &[&str], stdin: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["import", "kueue"]).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may have ended for a wrong argument before it reads.
    drop(child.stdin.take().unwrap().write_all(stdin.as_bytes()));
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const TEAM: &str = "apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: team}
spec:
  namespaceSelector: {}
  stopPolicy: Hold
";

#[test]
fn queues_go_to_standard_output_and_what_is_lost_to_standard_error() {
    for args in [&[][..], &["-f", "-"]] {
        let output = import(args, TEAM);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let (queues, lost) = (text(&output.stdout), text(&output.stderr));
        assert!(queues.contains("kind: Queue\n") && queues.contains("name: team\n"), "{queues}");
        assert!(lost.contains("standard input, document 1: ClusterQueue/team: spec.stopPolicy"), "{lost}");
        assert!(queues.contains(&format!("# {lost}")), "{queues}");
    }
}

#[test]
fn wrong_input_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queues.yaml");
    std::fs::write(&path, TEAM.replace("name: team", "name: Team")).unwrap();
    let output = import(&["-f", path.to_str().unwrap()], "");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(64), String::new()));
    let said = text(&output.stderr);
    assert!(said.contains("queues.yaml, document 1: ClusterQueue/Team: metadata.name (\"Team\") is not a name"), "{said}");
    assert_eq!(import(&["-f", "/nonexistent/x.yaml"], "").status.code(), Some(64));
    assert_eq!(Command::new(env!("CARGO_BIN_EXE_tidegate")).args(["import", "slurm"]).output().unwrap().status.code(), Some(64));
}
