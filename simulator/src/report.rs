//! What a study found: a table of published | peers' rule | ours | goal, as text, JSON and HTML; and series over time.

pub mod chart;
pub mod csv;
pub mod html;
pub mod run;

use std::fmt;

use serde::Serialize;

pub use chart::{Chart, Kind, Series};

/// One published experiment, done again.
#[derive(Serialize, Clone, Debug, Default)]
pub struct Study {
    pub name: String,
    /// What is taken for granted: mappings, costs, what ours may see.
    pub assumptions: Vec<String>,
    pub rows: Vec<Row>,
    /// Figures without a published counterpart or goal.
    pub details: serde_json::Map<String, serde_json::Value>,
}

/// One figure.
#[derive(Serialize, Clone, Debug)]
pub struct Row {
    pub what: String,
    pub unit: &'static str,
    pub published: Option<f64>,
    /// The peers' rule, implemented again and run on the same input.
    pub rule: Option<f64>,
    /// How far `rule` may be from `published`, in the figure's unit; beyond, the comparison is void.
    pub tolerance: Option<f64>,
    pub ours: Option<f64>,
    pub goal: Option<Goal>,
}

/// What ours must reach.
#[derive(Serialize, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Row {
    /// A figure without a published one and without a goal.
    pub fn plain(what: impl Into<String>, unit: &'static str, rule: Option<f64>, ours: f64) -> Self {
        Self { what: what.into(), unit, published: None, rule, tolerance: None, ours: Some(ours), goal: None }
    }

    /// Whether the rule came out as published.
    pub fn is_valid(&self) -> bool {
        match (self.published, self.rule, self.tolerance) {
            (Some(published), Some(rule), Some(tolerance)) => (published - rule).abs() <= tolerance,
            _ => true,
        }
    }

    /// Whether the goal is reached; true without one.
    pub fn is_reached(&self) -> bool {
        match (self.goal, self.ours) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(Goal::AtLeast(least)), Some(ours)) => ours >= least,
            (Some(Goal::AtMost(most)), Some(ours)) => ours <= most,
        }
    }
}

impl Study {
    /// Says that the data is made up, and takes out what was published about other data.
    pub fn mark_synthetic(&mut self) {
        let note = "SYNTHETIC data: nothing published is about it; goals are judged on it, and where the public trace's goal is a figure \
                    of that trace (fgd, pollux) the bar is the peers' rule";
        self.assumptions.insert(0, note.to_owned());
        for row in &mut self.rows {
            (row.published, row.tolerance) = (None, None);
        }
    }

    /// Whether every baseline came out and every goal is reached.
    pub fn passed(&self) -> bool {
        self.rows.iter().all(|row| row.is_valid() && row.is_reached())
    }
}

impl fmt::Display for Study {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "study {}", self.name)?;
        for assumption in &self.assumptions {
            writeln!(f, "  assumes: {assumption}")?;
        }
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
        writeln!(f, "  {:<58} {:>12} {:>12} {:>12} {:>14}", "", "published", "rule", "ours", "goal")?;
        for row in &self.rows {
            let goal = match row.goal {
                Some(Goal::AtLeast(least)) => format!(">= {least:.3}"),
                Some(Goal::AtMost(most)) => format!("<= {most:.3}"),
                None => "-".to_owned(),
            };
            let verdict = match (row.is_valid(), row.is_reached()) {
                (false, _) => "  VOID: the baseline did not come out",
                (true, false) => "  MISSED",
                (true, true) => "",
            };
            let what = format!("{} ({})", row.what, row.unit);
            let (published, rule, ours) = (number(row.published), number(row.rule), number(row.ours));
            writeln!(f, "  {what:<58} {published:>12} {rule:>12} {ours:>12} {goal:>14}{verdict}")?;
        }
        Ok(())
    }
}
