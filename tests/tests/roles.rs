//! What workers and replicas are told of their part: their group, the choice that was made for them, their slice of a device.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_tests::harness::{Options, Up, until, workspace};
use tidegate_tests::{manifests, processes};

const SOON: Duration = Duration::from_secs(30);

async fn start(yaml: &str, gpus: u32) -> Up {
    Up::start(Options::with_manifest(yaml, gpus).unwrap()).await.unwrap()
}

fn apply(up: &Up, yaml: &str) -> (Option<i32>, String) {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(file.path(), yaml).unwrap();
    let output = up.cli(&["apply", "-f", &file.path().to_string_lossy()]).unwrap();
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// A line of the log of a worker, once it is there.
async fn told(up: &Up, job: &str, rank: usize) -> String {
    let line = || async {
        let output = up.cli(&["logs", &format!("job/{job}"), "--rank", &rank.to_string()])?;
        let log = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(log.lines().find_map(|line| line.strip_prefix("told: ")).map(str::to_owned))
    };
    until("what it is told", SOON, line).await.unwrap_or_else(|error| format!("{error:#}\n{}", up.log()))
}

/// A job of two kinds of workers.
fn actors(groups: &str) -> String {
    let script = format!(
        "echo \"told: $RANK $TIDEGATE_GROUP $TIDEGATE_GROUP_RANK of $TIDEGATE_GROUP_SIZE on $CUDA_VISIBLE_DEVICES$TIDEGATE_DEVICE_MILLI\"; {}",
        manifests::ENDLESS
    );
    manifests::shell_job("play", 1, 1, &script)
        .replace("  workers:\n    min: 1\n    max: 1\n", &format!("  groups: [{groups}]\n"))
}

#[tokio::test]
async fn workers_of_several_groups_run_together_and_each_knows_its_own() {
    let up = start(&manifests::queues(), 4).await;
    let groups = "{name: learner, min: 2, max: 2}, {name: actor, min: 3, max: 3, gpu: {count: 0}}, {name: judge, min: 1, max: 1, gpu: {milli: 250}}";
    assert_eq!(apply(&up, &actors(groups)).0, Some(0));
    let mut said = Vec::new();
    for rank in 0..6 {
        said.push(told(&up, "play", rank).await);
    }
    let parts: Vec<(&str, &str)> = said.iter().map(|line| line.split_once(" on ").unwrap()).collect();
    let who: Vec<&str> = parts.iter().map(|(who, _)| *who).collect();
    let expected =
        ["0 learner 0 of 2", "1 learner 1 of 2", "2 actor 0 of 3", "3 actor 1 of 3", "4 actor 2 of 3", "5 judge 0 of 1"];
    assert_eq!(who, expected);
    let devices: BTreeSet<&str> = parts.iter().take(2).map(|(_, device)| *device).collect();
    assert_eq!(devices.len(), 2, "each learner has a device of its own: {said:?}");
    assert!(parts[2..5].iter().all(|(_, device)| device.is_empty()), "actors have none: {said:?}");
    assert!(parts[5].1.ends_with("250"), "the judge is told its share: {said:?}");
    let job = up.job("play").await.unwrap();
    assert_eq!((job.workers, job.min, job.max), (6, 6, 6));
}

#[tokio::test]
async fn groups_that_do_not_fit_are_refused_alone_or_together() {
    let up = start(&manifests::queues(), 4).await;
    let refused = |groups: &str, words: &[&str]| {
        let (code, said) = apply(&up, &actors(groups));
        assert_eq!(code, Some(64), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    };
    refused("{name: a, min: 1, max: 1}, {name: b, min: 5, max: 5}", &["spec.groups[1].min", "room for 4", "at most 4"]);
    refused("{name: a, min: 2, max: 2}, {name: b, min: 3, max: 3}", &["spec.groups", "2 x a, 3 x b", "lower the min of some"]);
    refused("{name: a, min: 1, max: 1, spread: {level: rack}}", &["spec.groups[0].spread.level", "topologyLevels"]);
}

/// A job of one worker whose settings 16 and 64 have these speeds.
fn choosing(urls: &str, small: u32, large: u32) -> String {
    let script = format!("echo \"told: $TIDEGATE_CHOICE\"; echo \"$TIDEGATE_PROGRESS_URL\" > {urls}; {}", manifests::ENDLESS);
    let points = format!(
        "  speedup: [{{workers: 1, speedMilli: {small}, choice: 16}}, {{workers: 1, speedMilli: {large}, choice: 64}}]\n"
    );
    manifests::shell_job("chooser", 1, 1, &script) + &points
}

#[tokio::test]
async fn a_choice_is_told_at_the_start_and_a_better_one_with_the_answer_to_progress() {
    let up = start(&manifests::queues(), 1).await;
    let urls = up.data().join("url").display().to_string();
    assert_eq!(apply(&up, &choosing(&urls, 800, 1000)).0, Some(0));
    assert_eq!(told(&up, "chooser", 0).await, "64");
    let url = until("its URL", SOON, || async { Ok(std::fs::read_to_string(&urls).ok().filter(|text| text.ends_with('\n'))) });
    let url = url.await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let choice = || async {
        let answer = http.post(url.trim()).body("{\"step\":1}").send().await?.error_for_status()?;
        Ok::<Value, anyhow::Error>(answer.json().await?)
    };
    assert_eq!(choice().await.unwrap(), json!({"choice": 64}));
    assert_eq!(apply(&up, &choosing(&urls, 1200, 1000)).0, Some(0));
    assert_eq!(choice().await.unwrap(), json!({"choice": 16}));
    let job = up.job("chooser").await.unwrap();
    assert_eq!((job.attempt, job.phase.as_str()), (1, "running"), "it goes on without a restart");
}

#[tokio::test]
async fn models_that_may_share_take_turns_on_one_device_and_their_replicas_know_their_slice() {
    let onnx = workspace().join("examples/tide/models/digits.onnx");
    let model = |name: &str| manifests::model(name, &onnx.to_string_lossy(), "  maxSharers: 2\n");
    let pool = manifests::document("Pool", "pool", "  lendAfterSeconds: 0\n");
    // The second model's slice finds a half free and two whole devices.
    let up = start(&(pool + &manifests::queue("inference", 3) + &model("one") + &model("two")), 3).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = json!({"inputs": [{"name": "image", "shape": [1, 64], "datatype": "FP32", "data": vec![1.0; 64]}]});
    let ask = |name: &'static str| http.post(up.url(&format!("/v2/models/{name}/infer"))).json(&body).send();
    let alone = || async {
        ask("one").await?.error_for_status()?;
        let replicas = processes::of(&up.data())?.into_iter().filter(|process| process.part() == Some("replica"));
        let replicas: Vec<bool> =
            replicas.map(|process| process.command.windows(2).any(|pair| pair == ["--device-milli", "500"])).collect();
        Ok((replicas == [true]).then_some(()))
    };
    until("one model to have a slice", Duration::from_mins(1), alone)
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", up.log()));
    let shared = || async {
        for name in ["one", "two"] {
            ask(name).await?.error_for_status()?;
        }
        let state = up.state().await?;
        let running =
            |device: &&tidegate_api::view::Device| device.holders.iter().filter(|holder| holder.phase == "running").count();
        Ok(state.devices.iter().any(|device| running(&device) == 2).then_some(()))
    };
    until("one device to be shared", Duration::from_mins(1), shared)
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", up.log()));
    let replicas = processes::of(&up.data()).unwrap();
    let slices = replicas.iter().filter(|process| process.command.windows(2).any(|pair| pair == ["--device-milli", "500"]));
    assert_eq!(slices.filter(|process| process.part() == Some("replica")).count(), 2);
    let told = until("what the router measured", SOON, || async {
        for name in ["one", "two"] {
            ask(name).await?.error_for_status()?;
        }
        let snapshot: Value = up.get("/api/v1/snapshot").await?;
        Ok(["burst_milli", "late_ppm"].iter().all(|figure| is_demand_told(&snapshot, figure)).then_some(()))
    });
    told.await.unwrap();
}

/// Whether some model's demand has this figure.
fn is_demand_told(snapshot: &Value, figure: &str) -> bool {
    match snapshot {
        Value::Object(fields) => {
            fields.get("demand").is_some_and(|demand| demand[figure].is_number())
                || fields.values().any(|value| is_demand_told(value, figure))
        }
        Value::Array(items) => items.iter().any(|value| is_demand_told(value, figure)),
        _ => false,
    }
}
