//! The rows of `philly.csv.gz` as jobs.

use std::fs::File;
use std::path::Path;

use csv::StringRecord;
use flate2::read::GzDecoder;

use super::Settings;
use crate::Error;
use crate::jobs::policies::floor::Floor;
use crate::jobs::world::Job;
use crate::jobs::{Fixed, Ms, Wish};

const DAY_S: u64 = 86_400;

/// Which rows become jobs.
pub(super) struct Filter<'a> {
    pub settings: &'a Settings,
    pub max_gpu_seconds: f64,
}

struct Parsed {
    at_s: u64,
    line: u64,
    duration_s: f64,
    gpus: u32,
    queue: String,
}

/// The jobs that `filter` keeps, by submission, from the start of its first week. All fit on `floor`.
///
/// # Errors
/// When the file cannot be read, a row does not parse or a job is larger than the cluster.
pub(super) fn read(path: &Path, filter: &Filter, floor: &Floor) -> Result<Vec<Job>, Error> {
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    let mut csv = csv::Reader::from_reader(GzDecoder::new(File::open(path).map_err(unreadable)?));
    let from = date(&filter.settings.trace_starts)
        .map(|start| start + (filter.settings.first_week.max(1) - 1) * 7 * DAY_S)
        .ok_or_else(|| Error::Usage(format!("trace_starts is {:?}; write a day as 2017-09-04", filter.settings.trace_starts)))?;
    let weeks = (filter.settings.last_week + 1).saturating_sub(filter.settings.first_week.max(1));
    let span = from..from + weeks * 7 * DAY_S;
    let mut kept = Vec::new();
    for record in csv.records() {
        let parsed = parse(path, &record.map_err(|error| unreadable(std::io::Error::other(error)))?)?;
        if span.contains(&parsed.at_s) && filter.keeps(&parsed) {
            kept.push(parsed);
        }
    }
    kept.sort_by_key(|row| (row.at_s, row.line));
    let too_large = kept.iter().find(|row| !floor.could_ever(row.gpus));
    if let Some(Parsed { line, gpus, .. }) = too_large {
        return Err(Error::Row {
            path: path.to_owned(),
            line: *line,
            field: "num_gpus",
            found: gpus.to_string(),
            remedy: "no such job fits on the empty cluster; name a larger one",
        });
    }
    Ok(kept.into_iter().map(|row| job(row, from)).collect())
}

impl Filter<'_> {
    fn keeps(&self, row: &Parsed) -> bool {
        let probes = &self.settings.probes;
        let is_probe = row.queue == probes.queue && (probes.from_s..=probes.to_s).contains(&row.duration_s);
        row.duration_s >= self.settings.min_duration_s && row.duration_s * f64::from(row.gpus) < self.max_gpu_seconds && !is_probe
    }
}

fn parse(path: &Path, record: &StringRecord) -> Result<Parsed, Error> {
    let line = record.position().map_or(0, csv::Position::line);
    let field = |at: usize| record.get(at).unwrap_or("");
    let wrong = |at: usize, field_name, remedy| Error::Row {
        path: path.to_owned(),
        line,
        field: field_name,
        found: field(at).to_owned(),
        remedy,
    };
    let duration_s: Option<f64> = field(1).parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0);
    Ok(Parsed {
        at_s: moment(field(0)).ok_or_else(|| wrong(0, "timestamp", "write it as 2017-10-09 07:01:55"))?,
        line,
        duration_s: duration_s.ok_or_else(|| wrong(1, "duration", "write seconds, 0 or more"))?,
        gpus: field(2)
            .parse()
            .ok()
            .filter(|gpus| *gpus > 0)
            .ok_or_else(|| wrong(2, "num_gpus", "write a whole number, 1 or more"))?,
        queue: Some(field(4).to_owned())
            .filter(|queue| !queue.is_empty())
            .ok_or_else(|| wrong(4, "cluster", "name the virtual cluster"))?,
    })
}

fn job(row: Parsed, from: u64) -> Job {
    Job {
        submit: (row.at_s - from) * 1000,
        wish: Wish {
            name: format!("line-{}", row.line),
            owner: row.queue.clone(),
            queue: row.queue,
            recipe: row.gpus.to_string(),
            priority: 0,
            min_gpus: row.gpus,
            max_gpus: row.gpus,
            gpus: row.gpus,
            classes: Vec::new(),
            speedup: Vec::new(),
            preemptible: true,
        },
        work: Box::new(Fixed { seconds: row.duration_s }),
        tells_progress: false,
    }
}

/// Seconds as whole milliseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float cast saturates at 0 and above")]
pub(super) fn milliseconds(seconds: f64) -> Ms {
    (seconds * 1000.0) as Ms
}

/// `2017-10-09 07:01:55` as seconds since the year 0.
fn moment(text: &str) -> Option<u64> {
    let (day, time) = text.split_once(' ')?;
    let [hour, minute, second] = numbers(time, ':')?;
    (hour < 24 && minute < 60 && second < 61).then_some(())?;
    Some(date(day)? + hour * 3600 + minute * 60 + second)
}

/// `2017-10-09` as seconds since the year 0; months are counted from March, so that the leap day is the last of a year.
fn date(text: &str) -> Option<u64> {
    let [year, month, day] = numbers(text, '-')?;
    ((1..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day)).then_some(())?;
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some(days * DAY_S)
}

fn numbers(text: &str, between: char) -> Option<[u64; 3]> {
    let parts: Option<Vec<u64>> = text.split(between).map(|part| part.parse().ok()).collect();
    parts?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_over_months_and_leap_years() {
        let days = |from: &str, to: &str| (date(to).unwrap() - date(from).unwrap()) / DAY_S;
        assert_eq!(days("2017-09-04", "2017-12-22"), 109);
        assert_eq!((days("2016-02-28", "2016-03-01"), days("2017-02-28", "2017-03-01")), (2, 1));
        assert_eq!((days("2017-12-31", "2018-01-01"), days("1900-02-28", "1900-03-01")), (1, 1));
        assert_eq!(moment("2017-10-09 07:01:55").unwrap() - date("2017-10-09").unwrap(), 7 * 3600 + 115);
    }

    #[test]
    fn a_wrong_row_is_named_with_its_line_and_field() {
        let row = |fields: [&str; 5]| parse(Path::new("p.csv"), &StringRecord::from(fields.to_vec()));
        let good = ["2017-10-09 07:01:55", "66.0", "1", "66.0", "11cb48"];
        assert!(row(good).is_ok());
        for (at, text, field) in [
            (0, "2017-13-09 07:01:55", "timestamp"),
            (0, "yesterday", "timestamp"),
            (1, "-1", "duration"),
            (2, "0", "num_gpus"),
            (4, "", "cluster"),
        ] {
            let mut fields = good;
            fields[at] = text;
            let error = row(fields).err().unwrap().to_string();
            assert!(error.contains(field) && error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
