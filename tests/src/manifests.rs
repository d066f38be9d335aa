//! Small manifests that tests start `up` with. Paces are quick: a test waits for machinery, not for a device.

use crate::harness::workspace;

/// Two queues with two devices each.
pub fn queues() -> String {
    queue("inference", 2) + &queue("research", 2)
}

/// A queue that owns `nominal` devices.
pub fn queue(name: &str, nominal: u32) -> String {
    document("Queue", name, &format!("  nominal: {nominal}\n"))
}

/// The committed digits model, asleep until asked.
pub fn digits() -> String {
    let onnx = workspace().join("examples/tide/models/digits.onnx");
    model("digits", &onnx.to_string_lossy(), "")
}

/// A model of the queue `inference` with an SLO for a busy machine; `more` are further lines of its spec.
pub fn model(name: &str, onnx: &str, more: &str) -> String {
    let spec = format!(
        "  queue: inference\n  source:\n    onnx: {onnx}\n  sloMilliseconds: 2000\n  coldStartBudgetMilliseconds: 30000\n  \
         simulatedPace:\n    perBatchMicros: 1000\n    perRowMicros: 100\n{more}"
    );
    document("Model", name, &spec)
}

/// A job of the queue `research` that runs `script` in `/bin/sh`, with `min` to `max` workers.
pub fn shell_job(name: &str, min: u32, max: u32, script: &str) -> String {
    let command = serde_json::json!(["/bin/sh", "-c", script]);
    let spec = format!(
        "  queue: research\n  workers:\n    min: {min}\n    max: {max}\n  template:\n    command: {command}\n  \
         checkpoint:\n    graceSeconds: 5\n    restartSeconds: 0\n"
    );
    document("TrainingJob", name, &spec)
}

/// Runs until SIGTERM, and says what it is told.
pub const ENDLESS: &str = r#"trap 'echo "told to stop"; exit 0' TERM
echo "attempt $TIDEGATE_ATTEMPT rank $RANK of $WORLD_SIZE"
while :; do sleep 0.05; done"#;

/// One YAML document; `spec` is indented by two.
pub fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("---\napiVersion: tidegate.dev/v1alpha1\nkind: {kind}\nmetadata:\n  name: {name}\nspec:\n{spec}")
}
