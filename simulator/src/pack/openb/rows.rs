//! Rows of a CSV list with names for columns, and what is said about wrong ones.

use std::fs::File;
use std::io;
use std::path::Path;

use super::Lists;
use crate::Error;

/// Wrong rows that a message shows; the others are counted.
const SHOWN: usize = 5;

/// One row.
pub(super) struct Row<'a> {
    path: &'a Path,
    header: &'a csv::StringRecord,
    record: &'a csv::StringRecord,
}

/// Adds each row of the file; wrong rows are gathered, so that one message tells how many there are and where.
/// Without one of `columns` no row can be right, so that stops it even if `skip_bad`.
pub(super) fn each(
    path: &Path,
    columns: &[&'static str],
    skip_bad: bool,
    lists: &mut Lists,
    add: fn(&mut Lists, &Row<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let read = |source: io::Error| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read)?;
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
    let header = reader.headers().map_err(|error| read(io::Error::other(error)))?.clone();
    if let Some(field) = columns.iter().find(|&&column| !header.iter().any(|name| name.trim() == column)) {
        let found = header.iter().collect::<Vec<_>>().join(",");
        return Err(Error::Usage(format!(
            "{}: there is no column {field} in {found:?}; add it to the first line",
            path.display()
        )));
    }
    let mut wrong = Vec::new();
    for record in reader.records() {
        let row = record.map_err(|error| not_text(path, &error));
        let added = row.and_then(|record| add(lists, &Row { path, header: &header, record: &record }));
        wrong.extend(added.err());
    }
    if skip_bad {
        lists.skipped.extend(wrong.iter().map(ToString::to_string));
        return Ok(());
    }
    stop(path, wrong)
}

fn not_text(path: &Path, error: &csv::Error) -> Error {
    let line = error.position().map_or(0, csv::Position::line);
    Error::Row { path: path.to_owned(), line, field: "the row", found: error.to_string(), remedy: "must be text in UTF-8" }
}

fn stop(path: &Path, mut wrong: Vec<Error>) -> Result<(), Error> {
    match wrong.len() {
        0 => Ok(()),
        1 => wrong.pop().map_or(Ok(()), Err),
        count => {
            let shown: Vec<String> = wrong.iter().take(SHOWN).map(|error| format!("\n  {error}")).collect();
            Err(Error::Usage(format!("{}: {count} rows are wrong; the first:{}", path.display(), shown.concat())))
        }
    }
}

impl Row<'_> {
    /// The column's text; an error if the row is too short.
    pub(super) fn text(&self, field: &'static str) -> Result<&str, Error> {
        self.find(field).ok_or_else(|| self.wrong(field, "", "the row must have as many columns as the first line"))
    }

    /// The column's text; empty without the column.
    pub(super) fn optional(&self, field: &'static str) -> &str {
        self.find(field).unwrap_or_default()
    }

    /// A whole number from `least` to `most`.
    pub(super) fn number(&self, field: &'static str, least: i64, most: i64, remedy: &'static str) -> Result<i64, Error> {
        let text = self.text(field)?;
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| self.wrong(field, text, remedy))
    }

    pub(super) fn wrong(&self, field: &'static str, found: &str, remedy: &'static str) -> Error {
        let line = self.record.position().map_or(0, csv::Position::line);
        Error::Row { path: self.path.to_owned(), line, field, found: found.to_owned(), remedy }
    }

    fn find(&self, field: &str) -> Option<&str> {
        let at = self.header.iter().position(|name| name.trim() == field)?;
        self.record.get(at).map(str::trim)
    }
}
