//! `cargo xtask docs`: the tables of the documentation that are made from the code, each between two marks, and the definitions of the kinds.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{cache, cargo, command};

/// A page below `docs/`, the name of the marks, and what `tidegate` prints for it.
const TABLES: [(&str, &str, &[&str]); 7] = [
    ("metrics.md", "node-agent", &["node-agent", "--table", "metrics"]),
    ("node-agent.md", "health", &["node-agent", "--table", "health"]),
    ("kinds/pool.md", "reference", &["crd", "--docs", "Pool"]),
    ("kinds/queue.md", "reference", &["crd", "--docs", "Queue"]),
    ("kinds/training-job.md", "reference", &["crd", "--docs", "TrainingJob"]),
    ("kinds/model.md", "reference", &["crd", "--docs", "Model"]),
    ("kinds/gpu-node.md", "reference", &["crd", "--docs", "GpuNode"]),
];

/// What `kubectl apply` and Helm take.
const DEFINITIONS: &str = "charts/tidegate/crds/tidegate.dev.yaml";

/// Writes all of them.
pub fn run() -> Result<()> {
    cargo::build()?;
    for (page, mark, arguments) in TABLES {
        let path = cache::workspace().join("docs").join(page);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let written =
            between(&text, mark, &printed(arguments)?).with_context(|| format!("{} has no marks `{mark}`", path.display()))?;
        fs::write(&path, written).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let path = cache::workspace().join(DEFINITIONS);
    fs::write(&path, printed(&["crd"])?).with_context(|| format!("cannot write {}", path.display()))
}

fn printed(arguments: &[&str]) -> Result<String> {
    let mut tidegate = Command::new(cargo::built("tidegate")?);
    tidegate.args(arguments);
    let output = tidegate.output().with_context(|| format!("cannot run `{}`", command::line(&tidegate)))?;
    ensure!(output.status.success(), "`{}` failed: {}", command::line(&tidegate), output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// `text` with `table` between the marks of that name.
fn between(text: &str, mark: &str, table: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- begin {mark} -->\n"), format!("<!-- end {mark} -->"));
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}{table}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_the_marks_is_replaced_and_nothing_else() {
        let text = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n";
        assert_eq!(between(text, "x", "new\n").unwrap(), "a\n<!-- begin x -->\nnew\n<!-- end x -->\nb\n");
        assert_eq!(between(text, "y", "new"), None);
    }
}
