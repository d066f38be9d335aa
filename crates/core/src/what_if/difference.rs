//! The answer, and how it reads.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::eta::Estimate;
use crate::explain::words;
use crate::names::JobName;
use crate::time::At;

/// What is different.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The changes in few words.
    pub changes: Vec<String>,
    pub now: At,
    /// How far both runs have looked.
    pub until: At,
    /// Jobs whose expected start is another one, by name.
    pub starts: Vec<Shift>,
    /// Jobs that are stopped or made smaller more often or less often, by name.
    pub disruptions: Vec<Disruption>,
    pub before: Levels,
    pub after: Levels,
}

impl Difference {
    /// Whether the changes make no difference at all.
    pub fn is_none(&self) -> bool {
        self.starts.is_empty() && self.disruptions.is_empty() && self.before == self.after
    }
}

/// When a job starts.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// There is no such waiting job.
    Absent,
    Starts {
        at: At,
        rests_on: Estimate,
    },
    /// Not within the horizon, as far as can be seen.
    NotForeseen,
}

impl Moment {
    /// The moment, if there is one.
    pub fn at(self) -> Option<At> {
        if let Self::Starts { at, .. } = self { Some(at) } else { None }
    }
}

/// The start of one job.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Shift {
    pub job: JobName,
    pub before: Moment,
    pub after: Moment,
}

impl Shift {
    /// Whether the job waits on one side alone: it was submitted or removed.
    pub fn is_only_one_sided(&self) -> bool {
        (self.before == Moment::Absent) != (self.after == Moment::Absent)
    }

    /// Whether it starts sooner than before: not foreseen is later than any moment.
    pub fn is_earlier(&self) -> bool {
        self.after.at().is_some_and(|after| self.before.at().is_none_or(|before| after < before))
    }
}

/// Stops of one job for whatever reason, growth left out.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Disruption {
    pub job: JobName,
    pub before: u32,
    pub after: u32,
    /// The first, of the side that has more.
    pub first: Option<FirstStop>,
}

/// One stop.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct FirstStop {
    pub at: At,
    /// Workers; `to` 0: it waits.
    pub from: u32,
    pub to: u32,
    pub reason: String,
}

/// Devices of one side.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// Devices that take work, once all that is ordered at first has happened.
    pub gpus: u64,
    /// Of these, those that nothing is on, and thousandths that are lent, then.
    pub free: u64,
    pub lent_milli: u64,
    /// Thousandths of devices on average over the horizon.
    pub mean_free_milli: u64,
    pub mean_lent_milli: u64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes = if self.changes.is_empty() { "nothing changes".to_owned() } else { self.changes.join("; ") };
        writeln!(f, "what if: {changes}; until {}", words::clock(self.until, self.now))?;
        table(f, &self.levels())?;
        let (earlier, later): (Vec<&Shift>, Vec<&Shift>) = self.starts.iter().partition(|shift| shift.is_earlier());
        self.section(f, "starts sooner", &earlier)?;
        self.section(f, "starts later", &later)?;
        if !self.disruptions.is_empty() {
            writeln!(f)?;
            table(f, &self.stops())?;
        }
        if self.is_none() {
            writeln!(f, "\nno difference")?;
        }
        Ok(())
    }
}

impl Difference {
    fn levels(&self) -> Vec<Vec<String>> {
        let row = |what: &str, of: &dyn Fn(&Levels) -> u64| {
            let number = |levels: &Levels| words::milli(i64::try_from(of(levels)).unwrap_or(i64::MAX));
            vec![what.to_owned(), number(&self.before), number(&self.after)]
        };
        vec![
            vec!["devices".to_owned(), "before".to_owned(), "after".to_owned()],
            row("  in use or free", &|levels| levels.gpus.saturating_mul(1000)),
            row("  free at first", &|levels| levels.free.saturating_mul(1000)),
            row("  free on average", &|levels| levels.mean_free_milli),
            row("  lent at first", &|levels| levels.lent_milli),
            row("  lent on average", &|levels| levels.mean_lent_milli),
        ]
    }

    fn section(&self, f: &mut fmt::Formatter<'_>, title: &str, shifts: &[&Shift]) -> fmt::Result {
        if shifts.is_empty() {
            return Ok(());
        }
        writeln!(f)?;
        let mut rows = vec![vec![title.to_owned(), "before".to_owned(), "after".to_owned(), String::new()]];
        for shift in shifts {
            let by = match (shift.before.at(), shift.after.at()) {
                (Some(before), Some(after)) if after < before => format!("{} sooner", words::span(before.since(after))),
                (Some(before), Some(after)) => format!("{} later", words::span(after.since(before))),
                _ => String::new(),
            };
            rows.push(vec![format!("  job/{}", shift.job), self.moment(shift.before), self.moment(shift.after), by]);
        }
        table(f, &rows)
    }

    fn moment(&self, moment: Moment) -> String {
        match moment {
            Moment::Absent => "-".to_owned(),
            Moment::NotForeseen => "not foreseen".to_owned(),
            Moment::Starts { at, .. } if at <= self.now => "now".to_owned(),
            Moment::Starts { at, .. } => words::clock(at, self.now),
        }
    }

    fn stops(&self) -> Vec<Vec<String>> {
        let mut rows =
            vec![vec!["stopped or smaller".to_owned(), "before".to_owned(), "after".to_owned(), "the first".to_owned()]];
        for stop in &self.disruptions {
            let first = stop.first.as_ref().map(|first| {
                let at = if first.at <= self.now { "now".to_owned() } else { words::clock(first.at, self.now) };
                format!("{at}, from {} to {} worker(s): {}", first.from, first.to, first.reason)
            });
            let times = |count: u32| format!("{count} time(s)");
            rows.push(vec![format!("  job/{}", stop.job), times(stop.before), times(stop.after), first.unwrap_or_default()]);
        }
        rows
    }
}

/// Rows in columns as wide as their widest cell.
fn table(f: &mut fmt::Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(f, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}
