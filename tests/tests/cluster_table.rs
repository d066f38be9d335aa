//! The operator on a real API server with 500 nodes, in scenarios that read as a table: `cluster_table/scenarios.txt`.
//!
//! ```text
//! == the name of the scenario
//! queues   NAME gpu=N [parent=NAME] [borrow=N]
//! comes    NAME COUNTxGPUS of QUEUE [option ...]     pods; those of a name that is there already are added to it
//! ends     NAME [COUNT]                              of those that run so many, or all, have done their work
//! expect   NAME runs COUNT [in COUNT LEVEL]          so many of them run, in so many places (a label of nodes)
//!          NAME waits COUNT: WORDS                   so many wait, and the condition of each has these words
//!
//! option   group[=N] job[=N] gang[=N]   one gang by a PodGroup, by a Job that owns them, by a label: N start together, or all
//!          prio=N takes=SECONDS pinned (not preemptible) claims (GPUs by ResourceClaims)
//!          within=LEVEL near=LEVEL (topology that they require, or wish for) on=LABEL:VALUE
//! ```
//!
//! KWOK runs the pods, and ends and deletes them when they are told to. After each `expect` what must always be so is checked from the
//! API's objects: no GPU is given twice, no gang in part. And the engine itself, restored from the operator's snapshot, must believe
//! what the objects say, have nothing to order, and give the operator's own reasons. Each scenario leaves the cluster empty;
//! `TIDEGATE_TEST_SCENARIO` plays those alone whose names have these words.

#[path = "cluster_table/belief.rs"]
mod belief;
#[path = "cluster_table/play.rs"]
mod play;
#[path = "cluster_table/table.rs"]
mod table;

use anyhow::Result;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceSlice};
use kube::api::{Api, PostParams};
use play::Board;
use serde_json::{Value, json};
use tidegate_api::kinds::Pool;
use tidegate_tests::control_plane::kwok::{DONE_STAGE, GPUS, usual};
use tidegate_tests::control_plane::witness::Witness;
use tidegate_tests::control_plane::{ControlPlane, POD_GROUPS};

const PORT: u16 = 9001;
const NODES: u32 = 500;
/// Nodes of a rack, and of a block.
const RACK: u32 = 5;
const BLOCK: u32 = 25;
/// Nodes whose drivers publish GPUs, and how many each.
const PUBLISHING: std::ops::Range<u32> = 490..494;
const PUBLISHED: u32 = 4;

async fn board() -> Result<Board> {
    let mut plane = ControlPlane::start_with(&POD_GROUPS).await?;
    plane.kwok(DONE_STAGE)?;
    let stands = |number: u32| {
        let at = |label: &str, size: u32| (format!("example.com/{label}"), format!("{label}-{}", number / size));
        vec![at("rack", RACK), at("block", BLOCK)]
    };
    plane.kwok_nodes(NODES, &usual(), stands).await?;
    let pool: Pool = serde_json::from_value(json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "Pool", "metadata": {"name": "pool"},
        "spec": {"topologyLevels": ["example.com/block", "example.com/rack"], "maxEvictionsPerMinute": 10_000},
    }))?;
    Api::all(plane.client.clone()).create(&PostParams::default(), &pool).await?;
    for number in PUBLISHING {
        publish(&plane, number).await?;
    }
    let class: DeviceClass = serde_json::from_value(json!({
        "metadata": {"name": "gpu"}, "spec": {"selectors": [{"cel": {"expression": "device.driver == 'gpu.example.com'"}}]},
    }))?;
    Api::all(plane.client.clone()).create(&PostParams::default(), &class).await?;
    plane.operator("operator", PORT, &[])?;
    Board::new(plane, PORT).await
}

/// As a driver publishes the GPUs of a node.
async fn publish(plane: &ControlPlane, number: u32) -> Result<()> {
    let node = format!("node-{number}");
    let device = |index: u32| json!({"name": format!("gpu-{index}"), "capacity": {"memory": {"value": "80Gi"}}});
    let devices: Vec<Value> = (0..PUBLISHED).map(device).collect();
    let slice: ResourceSlice = serde_json::from_value(json!({
        "metadata": {"name": format!("{node}-gpu.example.com")},
        "spec": {
            "driver": "gpu.example.com", "nodeName": node, "devices": devices,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
        },
    }))?;
    Api::all(plane.client.clone()).create(&PostParams::default(), &slice).await?;
    Ok(())
}

#[tokio::test]
async fn scenarios_on_500_nodes() {
    let scenarios = table::scenarios(include_str!("cluster_table/scenarios.txt")).unwrap();
    assert!(scenarios.len() >= 14, "{} scenarios", scenarios.len());
    let mut board = board().await.unwrap();
    let witness = Witness::of(&board.plane, GPUS);
    let mut wrong = Vec::new();
    let only = std::env::var("TIDEGATE_TEST_SCENARIO").unwrap_or_default();
    for scenario in scenarios.iter().filter(|scenario| scenario.name.contains(&only)) {
        wrong.extend(board.play(scenario).await.err().map(|error| format!("{}: {error:#}", scenario.name)));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let seen = witness.tells(&board.plane).await.unwrap();
    assert!(seen.wrong.is_empty(), "{:#?}", seen.wrong);
    board.plane.check_belief(PORT).await.unwrap();
}
