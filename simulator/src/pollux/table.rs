//! Reads the csv files of the study: columns by name, numbers with the line they stand on.
//!
//! Promises that a file which does not parse is refused with its path, line and column; assumes a header line.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use csv::StringRecord;

use crate::Error;

/// A csv file in memory.
pub(super) struct Table {
    path: PathBuf,
    header: StringRecord,
    rows: Vec<StringRecord>,
}

/// One line of it.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    table: &'a Table,
    record: &'a StringRecord,
}

impl Table {
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let mut reader = csv::Reader::from_reader(file);
        let wrong = |error: &csv::Error| Error::Usage(format!("{}: {error}; the file must be csv with a header", path.display()));
        let header = reader.headers().map_err(|error| wrong(&error))?.clone();
        let rows: Result<Vec<StringRecord>, csv::Error> = reader.records().collect();
        Ok(Self { path: path.to_owned(), header, rows: rows.map_err(|error| wrong(&error))? })
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.rows.iter().map(|record| Line { table: self, record })
    }
}

impl<'a> Line<'a> {
    /// The text in a column.
    pub(super) fn text(self, column: &'static str) -> Result<&'a str, Error> {
        let at = self.table.header.iter().position(|name| name == column).ok_or_else(|| {
            Error::Usage(format!("{}: there is no column `{column}`; the header must name it", self.table.path.display()))
        })?;
        Ok(self.record.get(at).unwrap_or_default())
    }

    /// The number in a column; `valid` says whether its value makes sense.
    pub(super) fn number<T: FromStr + Copy>(
        self,
        column: &'static str,
        valid: impl Fn(T) -> bool,
        remedy: &'static str,
    ) -> Result<T, Error> {
        let text = self.text(column)?;
        text.parse().ok().filter(|value| valid(*value)).ok_or_else(|| self.wrong(column, remedy))
    }

    /// What is wrong with a column of this line.
    pub(super) fn wrong(self, column: &'static str, remedy: &'static str) -> Error {
        Error::Row {
            path: self.table.path.clone(),
            line: self.record.position().map_or(0, csv::Position::line),
            field: column,
            found: self.text(column).unwrap_or_default().to_owned(),
            remedy,
        }
    }
}
