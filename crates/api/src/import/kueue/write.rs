//! Queues as YAML with comments, and the same remarks as lines.

use super::Imported;
use super::tree::{Plan, Planned};
use crate::manifest::{self, Problem, Problems};

const HEAD: &str = "# Queues made of Kueue's manifests by `tidegate import kueue`. \
                    Each remark is something to look at before they are applied.\n";
const NOTHING: &str = "there is no Cohort and no ClusterQueue in the input; nothing is written";

/// The text, if our own validation takes it: what no Queue can hold, such as too many quotas, is found here.
pub fn write(plan: Plan) -> Result<Imported, Problems> {
    let Plan { queues, told } = plan;
    let mut imported = Imported::default();
    let general: Vec<String> = told.iter().map(line).collect();
    imported.told.extend(general.iter().cloned());
    if queues.is_empty() {
        imported.told.push(NOTHING.to_owned());
        return Ok(imported);
    }
    imported.yaml.push_str(HEAD);
    imported.yaml.push_str(&comments(&general));
    let mut problems = Vec::new();
    for Planned { place, queue, told } in &queues {
        match serde_yaml::to_string(queue) {
            Ok(yaml) => {
                if let Err(Problems(found)) = manifest::parse(&yaml, place) {
                    problems.extend(found);
                }
                let told: Vec<String> = told.iter().map(line).collect();
                imported.yaml.push_str("---\n");
                imported.yaml.push_str(&comments(&told));
                imported.yaml.push_str(&yaml);
                imported.told.extend(told);
            }
            Err(e) => problems.push(Problem::of_file(place, &format!("cannot be written as YAML: {e}"), "report this")),
        }
    }
    if problems.is_empty() { Ok(imported) } else { Err(Problems(problems)) }
}

fn comments(lines: &[String]) -> String {
    lines.iter().map(|line| format!("# {line}\n")).collect::<Vec<_>>().concat()
}

/// A remark as one line: what YAML or a terminal would take for the end of a line or a command is escaped.
fn line(problem: &Problem) -> String {
    let harmful = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
    let text = problem.to_string();
    let escaped = text.chars().map(|c| if harmful(c) { c.escape_default().to_string() } else { c.to_string() });
    escaped.collect::<Vec<_>>().concat()
}
