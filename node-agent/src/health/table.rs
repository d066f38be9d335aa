//! The rules as the documentation shows them. `tidegate node-agent --table health` prints it, and a test compares.

use std::fmt::Write;

use super::{CAUSES, XIDS};

/// The causes with their rules, and the XIDs with their meanings, in Markdown.
pub fn markdown() -> String {
    let mut text = String::from("| cause | state | raised when | quiet | source |\n|---|---|---|---|---|\n");
    for cause in CAUSES {
        let rule = cause.rule();
        let (state, quiet) = (rule.severity.state().word(), rule.quiet.as_secs());
        let kind = if rule.by_event { "event" } else { "sign" };
        let _strings_take_all =
            writeln!(text, "| `{}` | {state} | {} | {kind}, {quiet} s | {} |", rule.word, rule.raised, rule.source);
    }
    text.push_str("\n| XID | is | to do at once | finding |\n|---|---|---|---|\n");
    for row in XIDS {
        let number = if row.first == row.last { row.first.to_string() } else { format!("{} to {}", row.first, row.last) };
        let cause = row.cause().map_or("none".to_owned(), |cause| format!("`{}`", cause.rule().word));
        let _strings_take_all = writeln!(text, "| {number} | {} | {} | {cause} |", row.name, row.action.word());
    }
    text.push_str("| any other | not in the table | | `unknown_xid` |\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_is_the_table() {
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/node-agent.md");
        let page = std::fs::read_to_string(page).unwrap();
        assert!(
            page.contains(&markdown()),
            "docs/node-agent.md is not what `tidegate node-agent --table health` prints; run `cargo xtask docs`"
        );
    }
}
