//! A small application for tests: 1 s per step on any GPUs, batches of 8 to 16 samples.

use std::fs;

use super::application::{Application, Facts};

/// Statistical iterations at the end of each epoch; steps of batch 8 take 1 s and larger ones as much per sample.
pub(super) fn application(ends: &[f64]) -> Application {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let steps = |lead: &str| format!("{lead},1,0.125,0\n{lead},8,1,0\n{lead},16,2,0\n");
    let placements: String = ["1", "2", "3", "4", "11", "44"].map(steps).concat();
    write("placements.csv", &format!("placement,local_bsz,step_time,sync_time\n{placements}"));
    let scalability = ["2,2", "2,8"].map(steps).concat();
    write("scalability.csv", &format!("num_nodes,num_replicas,local_bsz,step_time,sync_time\n{scalability}"));
    let epochs: Vec<String> = ends.iter().map(|end| format!("{end},{end},0,1,1\n")).collect();
    for batch in ["8", "16"] {
        write(&format!("validation-{batch}.csv"), &format!("progress,iteration,metric,grad_sqr,grad_var\n{}", epochs.concat()));
    }
    Application::read(folder.path(), Facts { epochs: ends.len(), max_local_batch: None }).unwrap()
}
