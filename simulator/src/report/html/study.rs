//! A study as a section: the verdict, the table published | rule | ours | goal, what is assumed, further figures.

use std::fmt;

use serde_json::Value;

use crate::report::{Goal, Row, Study};

use super::bars::Bars;
use super::text::{Escaped, number};

/// The section of one study.
pub struct Section<'a>(pub &'a Study);

impl fmt::Display for Section<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let study = self.0;
        writeln!(f, "<section class=\"study\">\n<h2>Study <em>{}</em> {}</h2>", Escaped(&study.name), verdict(study))?;
        if !study.rows.is_empty() {
            table(f, study)?;
        }
        if !study.assumptions.is_empty() {
            writeln!(f, "<details open><summary>What is assumed</summary>\n<ul class=\"assumptions\">")?;
            for assumption in &study.assumptions {
                writeln!(f, "<li>{}</li>", Escaped(assumption))?;
            }
            writeln!(f, "</ul></details>")?;
        }
        if !study.details.is_empty() {
            writeln!(f, "<details><summary>Further figures</summary>\n<table class=\"details\"><tbody>")?;
            for (name, value) in &study.details {
                writeln!(f, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", Escaped(name), Escaped(&plain(value)))?;
            }
            writeln!(f, "</tbody></table></details>")?;
        }
        writeln!(f, "</section>")
    }
}

fn verdict(study: &Study) -> String {
    let void = study.rows.iter().filter(|row| !row.is_valid()).count();
    let missed = study.rows.iter().filter(|row| row.is_valid() && !row.is_reached()).count();
    let goals = study.rows.iter().filter(|row| row.goal.is_some()).count();
    match (void, missed, goals) {
        (0, 0, 0) => String::new(),
        (0, 0, 1) => badge("good", "the goal is reached"),
        (0, 0, _) => badge("good", &format!("all {goals} goals are reached")),
        (0, missed, _) => badge("bad", &format!("{missed} of {goals} goals missed")),
        (1, ..) => badge("void", "void: a baseline did not come out"),
        (void, ..) => badge("void", &format!("void: {void} baselines did not come out")),
    }
}

fn badge(class: &str, text: &str) -> String {
    format!("<span class=\"badge {class}\">{text}</span>")
}

fn table(f: &mut fmt::Formatter<'_>, study: &Study) -> fmt::Result {
    writeln!(
        f,
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Figures\"><table class=\"rows\">\n<thead><tr><th scope=\"col\">Figure</th><th scope=\"col\">Unit</th>"
    )?;
    for (name, class) in [("published", "published"), ("peers' rule", "rule"), ("ours", "ours"), ("goal", "goal")] {
        write!(f, "<th scope=\"col\" class=\"number\"><span class=\"swatch {class}\"></span>{}</th>", Escaped(name))?;
    }
    writeln!(
        f,
        "<th scope=\"col\" class=\"outcome\">Outcome</th><th scope=\"col\" class=\"picture\"><span class=\"hidden\">Bars</span></th></tr></thead>\n<tbody>"
    )?;
    for row in &study.rows {
        line(f, row)?;
    }
    writeln!(f, "</tbody>\n</table></div>")
}

fn line(f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
    let cell = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), number);
    let goal = row.goal.map_or_else(
        || "–".to_owned(),
        |goal| match goal {
            Goal::AtLeast(least) => format!("≥ {}", number(least)),
            Goal::AtMost(most) => format!("≤ {}", number(most)),
        },
    );
    let outcome = match (row.is_valid(), row.goal.is_some(), row.is_reached()) {
        (false, ..) => badge("void", "void"),
        (true, false, _) => String::new(),
        (true, true, true) => badge("good", "reached"),
        (true, true, false) => badge("bad", "missed"),
    };
    writeln!(f, "<tr><th scope=\"row\">{}</th><td>{}</td>", Escaped(&row.what), Escaped(row.unit))?;
    let tolerance = row.tolerance.map(|tolerance| format!("<small> ±{}</small>", number(tolerance))).unwrap_or_default();
    write!(f, "<td class=\"number\">{}{tolerance}</td><td class=\"number\">{}</td>", cell(row.published), cell(row.rule))?;
    write!(f, "<td class=\"number own\">{}</td><td class=\"number\">{goal}</td>", cell(row.ours))?;
    writeln!(f, "<td class=\"outcome\">{outcome}</td><td class=\"picture\">{}</td></tr>", Bars(row))
}

/// A detail without JSON's quotes; numbers as everywhere.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(value) => value.as_f64().map_or_else(|| value.to_string(), number),
        other => other.to_string(),
    }
}
