//! The condensed Philly trace as jobs.
//!
//! Elastic and any-class jobs are drawn by seed: the trace does not say which could be. The draw is by job, before any
//! policy runs, and the same for all.

use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;

use super::{Ask, Job, to_ms};
use crate::Error;
use crate::inference::{number, read_text};

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Seconds since 1970 in local time.
    pub at_s: u64,
    pub duration_s: f64,
    pub gpus: u32,
    pub team: u32,
}

/// Which jobs can change their size or class.
#[derive(Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Flexibility {
    pub seed: u64,
    /// Share of jobs of at least `elastic_from_gpus` that are elastic.
    pub elastic_share: f64,
    pub elastic_from_gpus: u32,
    /// An elastic job runs on `gpus / shrink` (rounded up) to `gpus * grow`.
    pub shrink: u32,
    pub grow: u32,
    /// Share of jobs that run on any class.
    pub any_class_share: f64,
}

/// All rows by time, and the names of the virtual clusters by index.
pub fn read(path: &Path) -> Result<(Vec<Row>, Vec<String>), Error> {
    let text = read_text(path)?;
    let mut teams: Vec<String> = Vec::new();
    let mut rows = Vec::new();
    for (index, row) in text.lines().enumerate().skip(1).filter(|(_, row)| !row.trim().is_empty()) {
        let line = index as u64 + 1;
        let columns: Vec<&str> = row.split(',').collect();
        let stamp = columns.first().copied().unwrap_or_default();
        let at_s = seconds(stamp).ok_or_else(|| Error::Row {
            path: path.to_owned(),
            line,
            field: "timestamp",
            found: stamp.to_owned(),
            remedy: "write YYYY-MM-DD HH:MM:SS",
        })?;
        let duration_s = number(path, line, "duration", columns.get(1).copied())?;
        let gpus = super::ceil(number(path, line, "num_gpus", columns.get(2).copied())?).max(1);
        let name = columns.get(4).copied().unwrap_or_default();
        let team = teams.iter().position(|team| team == name).unwrap_or_else(|| {
            teams.push(name.to_owned());
            teams.len() - 1
        });
        rows.push(Row { at_s, duration_s, gpus, team: u32::try_from(team).unwrap_or(u32::MAX) });
    }
    rows.sort_by_key(|row| row.at_s);
    Ok((rows, teams))
}

/// Rows as jobs: arrivals since the first row, times `compress`; the flexible ones drawn.
pub fn jobs(rows: &[Row], compress: f64, flexibility: Flexibility) -> Vec<Job> {
    let mut rng = StdRng::seed_from_u64(flexibility.seed);
    let first = rows.first().map_or(0, |row| row.at_s);
    let job = |(index, row): (usize, &Row)| {
        let (elastic, any_class) = (rng.random::<f64>(), rng.random::<f64>());
        let is_elastic = row.gpus >= flexibility.elastic_from_gpus && elastic < flexibility.elastic_share;
        let (shrink, grow) = if is_elastic { (flexibility.shrink.max(1), flexibility.grow.max(1)) } else { (1, 1) };
        let ask = Ask {
            job: u32::try_from(index).unwrap_or(u32::MAX),
            team: row.team,
            gpus: row.gpus,
            min_gpus: row.gpus.div_ceil(shrink),
            max_gpus: row.gpus * grow,
            any_class: any_class < flexibility.any_class_share,
        };
        Job { ask, arrives: to_ms((row.at_s - first) as f64 * compress), work_s: row.duration_s }
    };
    rows.iter().enumerate().map(job).collect()
}

/// GPU-seconds of all rows.
pub fn gpu_seconds(rows: &[Row]) -> f64 {
    rows.iter().map(|row| row.duration_s * f64::from(row.gpus)).sum()
}

fn seconds(stamp: &str) -> Option<u64> {
    let (date, time) = stamp.split_once(' ')?;
    let part = |text: &str, separator, index| text.split(separator).nth(index).and_then(|part| part.parse::<u64>().ok());
    let (year, month, day) = (part(date, '-', 0)?, part(date, '-', 1)?, part(date, '-', 2)?);
    let (hour, minute, second) = (part(time, ':', 0)?, part(time, ':', 1)?, part(time, ':', 2)?);
    if !(1970..3000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 {
        return None;
    }
    // Days since 1970 of the proleptic Gregorian calendar (H. Hinnant's days_from_civil).
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stamps_are_seconds_since_1970() {
        assert_eq!(seconds("1970-01-02 00:00:01"), Some(86_401));
        assert_eq!(seconds("2017-10-09 07:01:55"), Some(1_507_532_515));
        assert_eq!(seconds("2017-13-09 07:01:55"), None);
    }

    #[test]
    fn flexible_jobs_are_drawn_by_seed_and_small_jobs_never_shrink() {
        let rows: Vec<Row> = (0..1000)
            .map(|index| Row { at_s: 100 + index, duration_s: 60.0, gpus: if index % 2 == 0 { 1 } else { 4 }, team: 0 })
            .collect();
        let flexibility =
            Flexibility { seed: 1, elastic_share: 0.5, elastic_from_gpus: 2, shrink: 2, grow: 2, any_class_share: 0.2 };
        let drawn = jobs(&rows, 2.0, flexibility);
        assert_eq!(drawn, jobs(&rows, 2.0, flexibility));
        assert_eq!(drawn[10].arrives, 20_000);
        assert!(drawn.iter().all(|job| job.ask.gpus > 1 || job.ask.min_gpus == job.ask.max_gpus));
        let elastic = drawn.iter().filter(|job| job.ask.min_gpus == 2 && job.ask.max_gpus == 8).count();
        assert!((200..300).contains(&elastic), "{elastic}");
    }

    #[test]
    fn a_bad_time_names_file_line_and_field() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("philly.csv");
        std::fs::write(&path, "timestamp,duration,num_gpus,gpu_time,cluster\nyesterday,1,1,1,a\n").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("line 2: timestamp") && error.contains("yesterday"), "{error}");
    }
}
