//! What the node agent says of the GPUs, asked over and over: each belongs to one container at a time.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// It looks once a second itself.
const EVERY: Duration = Duration::from_secs(1);
/// A pod that is gone may be listed until the agent looks again.
const PATIENCE: Duration = Duration::from_secs(5);

/// GPUs that it gave to two containers at one moment, in words. It answers there.
pub async fn shared_gpus(agent: String, mut stop: watch::Receiver<bool>) -> Vec<String> {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut found = Vec::new();
    loop {
        tokio::select! {
            _ = stop.changed() => return found,
            _ = ticks.tick() => {
                for shared in ask(&agent).await.map(|gpus| shared(&gpus)).unwrap_or_default() {
                    if !found.contains(&shared) {
                        found.push(shared);
                    }
                }
            }
        }
    }
}

async fn ask(agent: &str) -> Result<Value> {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    Ok(serde_json::from_str(&client.get(format!("{agent}/gpus")).send().await?.error_for_status()?.text().await?)?)
}

fn shared(gpus: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let holders = |gpu: &Value| -> Vec<String> {
        let users = gpu["users"].as_array().cloned().unwrap_or_default();
        users.iter().filter(|user| user["allocated"] == true).map(|user| text(&user["pod"])).collect()
    };
    let all = gpus["gpus"].as_array().cloned().unwrap_or_default();
    let told = all.iter().map(|gpu| (text(&gpu["identity"]["uuid"]), holders(gpu)));
    told.filter(|(_, holders)| holders.len() > 1)
        .map(|(gpu, holders)| format!("the agent says that {gpu} belongs to {}", holders.join(" and ")))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_gpu_of_two_containers_is_told_and_one_that_was_another_s_is_not() {
        let gpu = |uuid: &str, users: Value| json!({"identity": {"uuid": uuid}, "users": users});
        let user = |pod: &str, allocated: bool| json!({"pod": pod, "allocated": allocated});
        let gpus = json!({"gpus": [
            gpu("a", json!([user("old", false), user("new", true)])),
            gpu("b", json!([user("one", true), user("other", true)])),
        ]});
        assert_eq!(shared(&gpus), ["the agent says that b belongs to one and other"]);
    }
}
