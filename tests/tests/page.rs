//! The page at `/` in headless Chromium: lanes show who holds each GPU, and change when that changes.
//!
//! A picture of a running `up` for the documentation:
//!
//! ```sh
//! chromium --headless=new --no-sandbox --window-size=1400,900 --virtual-time-budget=8000 --screenshot=docs/page.png http://127.0.0.1:8080/
//! ```
#![expect(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Stdio};
use std::time::Duration;

use tidegate_tests::harness::{Options, Up, until};
use tidegate_tests::manifests;
use tidegate_tests::outside::installed;

const SOON: Duration = Duration::from_mins(1);

/// The document as the browser has it after a few seconds of its scripts.
fn dom(up: &Up) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut browser = Command::new(installed("TIDEGATE_TEST_CHROMIUM").unwrap());
    browser.args([
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--no-proxy-server",
    ]);
    browser.arg(format!("--user-data-dir={}", profile.path().display()));
    browser.args(["--timeout=5000", "--virtual-time-budget=5000", "--dump-dom"]).arg(up.url("/"));
    let output = browser.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Device and holder of each lane: elements with `data-device` and `data-holder`.
fn lanes(dom: &str) -> Vec<(String, String)> {
    let value = |tag: &str, name: &str| {
        tag.split_once(&format!("{name}=\"")).map(|(_, rest)| rest.split('"').next().unwrap_or_default().to_owned())
    };
    let mut lanes: Vec<_> =
        dom.split('<').filter_map(|tag| Some((value(tag, "data-device")?, value(tag, "data-holder")?))).collect();
    lanes.sort();
    lanes.dedup();
    lanes
}

#[test]
fn lanes_are_read_from_their_attributes() {
    let dom =
        r#"<p>x</p><div class="l" data-device="b" data-holder=""><i data-device="a" data-colour="red" data-holder="job/x"></i>"#;
    assert_eq!(lanes(dom), [("a".to_owned(), "job/x".to_owned()), ("b".to_owned(), String::new())]);
}

#[tokio::test]
async fn lanes_change_holder_when_the_tide_turns() {
    let yaml = manifests::queues() + &manifests::digits();
    let up = Up::start(Options::with_manifest(&yaml, 2).unwrap()).await.unwrap();
    let empty = lanes(&dom(&up));
    assert_eq!(empty.len(), 2, "{empty:?}");
    assert!(empty.iter().all(|(_, holder)| !holder.contains('/')), "{empty:?}");

    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(file.path(), manifests::shell_job("night", 2, 2, manifests::ENDLESS)).unwrap();
    let applied = up.cli(&["apply", "-f", &file.path().to_string_lossy()]).unwrap();
    assert!(applied.status.success(), "{applied:?}");
    let running = || async { Ok(up.job("night").await?.phase == "running").map(|yes| yes.then_some(())) };
    until("the job to run", SOON, running).await.unwrap();
    let night = lanes(&dom(&up));
    assert!(night.len() == 2 && night.iter().all(|(_, holder)| holder == "job/night"), "{night:?}");

    let cancelled = up.cli(&["cancel", "job/night"]).unwrap();
    assert!(cancelled.status.success(), "{cancelled:?}");
    let body =
        r#"{"inputs":[{"name":"image","shape":[1,64],"datatype":"FP32","data":["#.to_owned() + &["0"; 64].join(",") + "]}]}";
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http.post(up.url("/v2/models/digits/infer")).body(body).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    let day = lanes(&dom(&up));
    assert!(
        day.iter().any(|(_, holder)| holder == "model/digits") && day.iter().all(|(_, holder)| holder != "job/night"),
        "{day:?}"
    );
}
