//! The same training, undisturbed: one worker, outside Tidegate, as fast as it goes.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use tidegate_api::kinds::TrainingJob;
use tokio::process::{Child, Command};

use super::example::Example;

/// The figure by which a training is judged, as its last line and its last progress report name it. Lower is better.
pub const FINAL_METRIC: &str = "final_loss";

/// Runs every job of the example to its end, side by side. The final metric of each.
pub async fn undisturbed(example: &Example) -> Result<BTreeMap<String, f64>> {
    let mut running = Vec::new();
    for (name, job) in &example.jobs {
        running.push((name, start(example, job).with_context(|| format!("start {name} outside Tidegate"))?));
    }
    let mut metrics = BTreeMap::new();
    for (name, child) in running {
        metrics.insert(name.clone(), finish(child).await.with_context(|| format!("train {name} outside Tidegate"))?);
    }
    Ok(metrics)
}

fn start(example: &Example, job: &TrainingJob) -> Result<Child> {
    let template = &job.spec.template;
    let words = unpaced(&template.command)?;
    let (program, arguments) = words.split_first().context("the command is empty")?;
    let folder = example.folder.join(template.working_dir.as_deref().unwrap_or("."));
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    Ok(command.kill_on_drop(true).spawn()?)
}

/// The command without the pace of a simulated device: the numbers are the same, only sooner.
fn unpaced(command: &[String]) -> Result<Vec<String>> {
    let mut words = command.to_vec();
    let at = words.iter().position(|word| word == "--step-ms").context("no --step-ms in the command")?;
    *words.get_mut(at + 1).context("no value after --step-ms")? = "0".into();
    Ok(words)
}

async fn finish(child: Child) -> Result<f64> {
    let output = child.wait_with_output().await?;
    ensure!(output.status.success(), "ended with {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().context("printed nothing")?;
    let figures: BTreeMap<String, f64> = serde_json::from_str(last).with_context(|| format!("read its last line {last:?}"))?;
    match figures.get(FINAL_METRIC) {
        Some(metric) => Ok(*metric),
        None => bail!("no {FINAL_METRIC} in its last line {last:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pace_is_taken_away() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(unpaced(&words("python3 a.py --step-ms 400 --seed 1")).unwrap(), words("python3 a.py --step-ms 0 --seed 1"));
        assert!(unpaced(&words("python3 a.py")).is_err());
    }
}
