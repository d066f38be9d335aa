//! The page at `/` in headless Chromium: lanes show who holds each GPU, and change colour when that changes.
//!
//! The picture in the documentation is made by `cargo xtask scenario tide --picture docs/page.png`.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use serde::Deserialize;
use tidegate_tests::browser::Browser;
use tidegate_tests::harness::{Options, Up};
use tidegate_tests::manifests;
use tidegate_tests::outside::installed;
use tokio::time::{Instant, sleep};

const SOON: Duration = Duration::from_secs(40);

/// What a lane shows: its holder now, and the colour at its newest end.
#[derive(Deserialize, Clone, Debug)]
struct Lane {
    holder: String,
    colour: Option<String>,
}

const LANES: &str = "[...document.querySelectorAll('[data-device][data-holder]')].map((lane) => {
    const newest = [...lane.querySelectorAll('.slice')].at(-1)?.firstElementChild;
    return { holder: lane.dataset.holder, colour: newest && getComputedStyle(newest).backgroundColor };
})";

/// Waits until both lanes are as `wanted` says.
async fn lanes(page: &mut Browser, what: &str, wanted: impl Fn(&[Lane]) -> bool) -> Vec<Lane> {
    let deadline = Instant::now() + SOON;
    loop {
        let lanes: Vec<Lane> = page.evaluate(LANES).unwrap();
        if lanes.len() == 2 && wanted(&lanes) {
            return lanes;
        }
        assert!(Instant::now() < deadline, "{what}: {lanes:?}");
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_change_holder_and_colour_when_the_tide_turns() {
    let yaml = manifests::queues() + &manifests::digits();
    let up = Up::start(Options::with_manifest(&yaml, 2).unwrap()).await.unwrap();
    let mut page = Browser::open(&installed("TIDEGATE_TEST_CHROMIUM").unwrap(), &up.url("/")).unwrap();
    lanes(&mut page, "nobody holds a device", |lanes| lanes.iter().all(|lane| lane.holder == "idle")).await;

    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(file.path(), manifests::shell_job("night", 2, 2, manifests::ENDLESS)).unwrap();
    let applied = up.cli(&["apply", "-f", &file.path().to_string_lossy()]).unwrap();
    assert!(applied.status.success(), "{applied:?}");
    let held = |lanes: &[Lane]| lanes.iter().all(|lane| lane.holder == "job/night" && lane.colour.is_some());
    let night = lanes(&mut page, "training holds both", held).await;

    let cancelled = up.cli(&["cancel", "job/night"]).unwrap();
    assert!(cancelled.status.success(), "{cancelled:?}");
    let body =
        r#"{"inputs":[{"name":"image","shape":[1,64],"datatype":"FP32","data":["#.to_owned() + &["0"; 64].join(",") + "]}]}";
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http.post(up.url("/v2/models/digits/infer")).body(body).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    let turned = |lanes: &[Lane]| lanes.iter().any(|lane| lane.holder == "model/digits" && lane.colour != night[0].colour);
    lanes(&mut page, "the model holds one, in another colour", turned).await;
    let reasons: String = page.evaluate("document.body.innerText").unwrap();
    assert!(reasons.contains("night") && reasons.contains("digits"), "{reasons}");
}
