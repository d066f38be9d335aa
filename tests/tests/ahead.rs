//! Questions about the future from the command line: expected starts, and what a change would do; of a running `up` and of its
//! snapshot's file.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use serde_json::Value;
use tidegate_tests::harness::{Options, Up, until};
use tidegate_tests::manifests;

const SOON: Duration = Duration::from_secs(30);

/// A job of all four devices that expects to run for an hour.
fn hour(name: &str) -> String {
    manifests::shell_job(name, 4, 4, manifests::ENDLESS) + "  expectedSeconds: 3600\n"
}

/// Four devices; `first` has them all, `second` waits.
async fn busy() -> Up {
    let up = Up::start(Options::with_manifest(&(manifests::queues() + &hour("first")), 4).unwrap()).await.unwrap();
    until("first to run", SOON, || async { Ok(up.job("first").await.ok().filter(|job| job.phase == "running")) }).await.unwrap();
    let file = file(&hour("second"));
    cli(&up, &["apply", "-f", &file.path().to_string_lossy()]);
    up
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn cli(up: &Up, arguments: &[&str]) -> String {
    let output = up.cli(arguments).unwrap();
    assert!(output.status.success(), "{arguments:?}: {}\n{}", String::from_utf8_lossy(&output.stderr), up.log());
    String::from_utf8(output.stdout).unwrap()
}

fn json(up: &Up, arguments: &[&str]) -> Value {
    serde_json::from_str(&cli(up, &[arguments, &["--json"]].concat())).unwrap()
}

fn refused(up: &Up, arguments: &[&str]) -> String {
    let output = up.cli(arguments).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(64), true), "{arguments:?}: {said}");
    said
}

#[tokio::test]
async fn the_expected_start_of_a_waiting_job_is_told_on_the_command_line_and_in_the_state() {
    let up = busy().await;
    let second = json(&up, &["eta", "job/second"])["second"].clone();
    let (at, now) = (second["at_ms"].as_u64().unwrap(), up.state().await.unwrap().now_ms);
    assert!((3_000_000..=3_601_000).contains(&(at - now)), "{second}");
    assert_eq!(second["rests_on"], "user");
    let said = cli(&up, &["eta"]);
    assert!(said.contains("second") && said.contains("(in 1 h") | said.contains("(in 59 min"), "{said}");
    let shown = until("it to be shown", SOON, || async { Ok(up.job("second").await?.eta) }).await.unwrap();
    assert!(shown.at_ms.unwrap().abs_diff(at) < 60_000, "{shown:?} {at}");
    assert!(cli(&up, &["top", "--once"]).contains("expected to start"));

    assert!(refused(&up, &["eta", "job/first"]).contains("job/first does not wait"));
    assert!(refused(&up, &["eta", "job/nobody"]).contains("there is no job/nobody"));
}

#[tokio::test]
async fn what_if_tells_what_a_change_would_do_and_changes_nothing() {
    let up = busy().await;
    let second = |difference: &Value| {
        let shifts = difference["starts"].as_array().unwrap().clone();
        shifts.into_iter().find(|shift| shift["job"] == "second").unwrap_or_else(|| panic!("{difference}"))
    };
    let difference = json(&up, &["what-if", "node/box=+1", "queue/research:gpu=+4"]);
    let starts_now = second(&difference)["after"]["starts"]["at"].as_u64().unwrap();
    assert!(starts_now.abs_diff(difference["now"].as_u64().unwrap()) < 1_000, "{difference}");
    assert_eq!((difference["before"]["gpus"].as_u64(), difference["after"]["gpus"].as_u64()), (Some(4), Some(8)));
    let table = cli(&up, &["what-if", "node/box=+1"]);
    assert!(table.contains("starts sooner") && table.contains("job/second"), "{table}");

    let urgent = file(&hour("urgent").replace("spec:\n", "spec:\n  priority: 5\n"));
    let difference = json(&up, &["what-if", "-f", &urgent.path().to_string_lossy()]);
    assert_eq!(difference["changes"][0], "job/urgent submitted to research");
    assert_eq!(difference["disruptions"][0]["job"], "first", "it goes before it in its queue: {difference}");
    assert!(up.job("urgent").await.is_err() && up.job("first").await.unwrap().phase == "running");
}

#[tokio::test]
async fn a_snapshot_answers_without_up_what_up_answers() {
    let up = busy().await;
    let snapshot = file(&cli(&up, &["snapshot"]));
    let path = snapshot.path().to_string_lossy().into_owned();
    let ask = ["what-if", "node/box=+1"];
    let live = json(&up, &ask);
    let options = ["--snapshot", &path, "--server", "http://127.0.0.1:1"];
    let kept = json(&up, &[&ask[..], &options].concat());
    assert_eq!(kept["changes"], live["changes"]);
    assert_eq!((&kept["before"]["gpus"], &kept["after"]["gpus"]), (&live["before"]["gpus"], &live["after"]["gpus"]));
    assert_eq!(kept["starts"][0]["job"], "second");
    assert!(json(&up, &[&["eta"][..], &options].concat())["second"]["at_ms"].is_u64());
    assert!(refused(&up, &[&["eta", "job/nobody"][..], &options].concat()).contains("there is no job/nobody"));
    std::fs::write(snapshot.path(), "{}").unwrap();
    assert!(refused(&up, &[&ask[..], &options].concat()).contains("write one with `tidegate snapshot > FILE`"));
}

#[tokio::test]
async fn a_question_that_makes_no_sense_is_refused_with_field_and_remedy() {
    let up = busy().await;
    let queue = file(&manifests::queue("more", 1));
    let queue = queue.path().to_string_lossy();
    let first = file(&hour("first"));
    let first = first.path().to_string_lossy();
    for (arguments, words) in [
        (&["what-if", "queue/visoin:gpu=+4"][..], &["`queue` names queue `visoin`", "there are: inference, research"][..]),
        (&["what-if", "queue/research:gpu=-5"], &["`nominal` is -3000", "give a number from 0"]),
        (&["what-if", "node/other=+1"], &["`like` names node `other`", "box"]),
        (&["what-if", "job/nobody:priority=1"], &["`job` names job `nobody`"]),
        (&["what-if", "policy:headroom=1"], &["`headroom`", "headroom_percent"]),
        (&["what-if", "policy:headroom_percent=ten"], &["`headroom_percent`", "now it is 25"]),
        (&["what-if", "-f", &queue], &["Queue/more cannot be asked about", "queue/NAME:RESOURCE=N"]),
        (&["what-if", "-f", &first], &["`name` is `first`", "choose another name"]),
        (&["what-if", "vision=+4"], &["is not a change", "queue/NAME:RESOURCE=+N"]),
        (&["what-if"], &["CHANGE"]),
        (&["what-if", "node/box=+1", "--hours", "400"], &["--hours", "336"]),
    ] {
        let said = refused(&up, arguments);
        assert!(words.iter().all(|word| said.contains(word)), "{arguments:?}: {said}");
    }
    let answer = reqwest::Client::builder().no_proxy().build().unwrap().post(up.url("/api/v1/what-if"));
    let answer = answer.body(r#"{"changes": [], "horizon": 1}"#).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 400);
    assert!(answer.text().await.unwrap().contains("horizon"));
}
