//! Lines into rows: columns by name, numbers within sane bounds, every complaint with its line and column.
//!
//! A header may list its columns in any order and have others besides; a column twice, or a needed one missing, is
//! refused at once. A row has as many fields as the header. The header once more (joined files) is a bad row.

use std::path::Path;

use crate::Error;

use super::input::Lines;
use super::tally::Bad;

/// Ten years in seconds: longer than any of the traces spans, and far from overflow in milliseconds.
pub const TEN_YEARS_S: f64 = 315_360_000.0;
/// Longest stretch of a wrong field that is shown.
const SHOWN: usize = 60;

/// A format's columns.
#[derive(Clone, Copy)]
pub struct Columns {
    /// As in `--format`.
    pub format: &'static str,
    /// Must be there.
    pub needed: &'static [&'static str],
    /// Are read if there.
    pub optional: &'static [&'static str],
    pub separator: char,
    /// Whether the first line names them; otherwise they come as in `needed`.
    pub header: bool,
}

/// What makes one value of a row.
pub type Read<T> = Box<dyn FnMut(&Row<'_>) -> Result<T, Error>>;

/// A table being read.
pub struct Table<T> {
    lines: Lines,
    columns: Columns,
    header: Vec<u8>,
    /// Where each of the header's fields goes: the column's name, if it is one of ours.
    names: Vec<Option<&'static str>>,
    rows: u64,
    read: Read<T>,
}

/// One row.
pub struct Row<'a> {
    path: &'a Path,
    line: u64,
    /// 0 for the first.
    pub number: u64,
    names: &'a [Option<&'static str>],
    fields: &'a [&'a str],
}

impl<T> Table<T> {
    /// Reads the header.
    pub fn new(mut lines: Lines, columns: Columns, read: Read<T>) -> Result<Self, Error> {
        let mut header = Vec::new();
        let mut names: Vec<_> = columns.needed.iter().copied().map(Some).collect();
        if columns.header {
            header = lines.advance()?.map(<[u8]>::to_vec).unwrap_or_default();
            names = columns.index(&lines, &header)?;
        }
        Ok(Self { lines, columns, header, names, rows: 0, read })
    }

    /// Its rows; the bad ones go to `bad`.
    pub fn rows(self, bad: &mut Bad) -> Rows<'_, T> {
        Rows { table: self, bad, done: false }
    }

    /// The next row. The outer error is the file's, the inner one the row's.
    fn advance(&mut self) -> Result<Option<Result<T, Error>>, Error> {
        let Some(bytes) = self.lines.advance()? else {
            if self.rows == 0 && !self.columns.header {
                let remedy = self.columns.remedy();
                return Err(self.lines.layout("file", "empty".to_owned(), &remedy));
            }
            return Ok(None);
        };
        let bytes = bytes.to_vec();
        let number = self.rows;
        self.rows += 1;
        let mut row = Row { path: self.lines.path(), line: self.lines.line(), number, names: &self.names, fields: &[] };
        if self.columns.header && bytes == self.header {
            return Ok(Some(Err(row.bad("line", "the header once more", "files were joined; delete this line"))));
        }
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => text,
            Err(error) => return Ok(Some(Err(row.not_text(&bytes, error.valid_up_to(), self.columns.separator)))),
        };
        let fields: Vec<&str> = text.split(self.columns.separator).map(plain).collect();
        if fields.len() != self.names.len() {
            let found = format!("{} fields", fields.len());
            return Ok(Some(Err(row.bad("line", &found, "write as many fields as the format (its header) has columns"))));
        }
        row.fields = &fields;
        Ok(Some((self.read)(&row)))
    }
}

impl Columns {
    fn index(&self, lines: &Lines, header: &[u8]) -> Result<Vec<Option<&'static str>>, Error> {
        let wrong = |found: String, remedy: &str| Err(lines.layout("header", shown(&found), remedy));
        let text = String::from_utf8_lossy(header);
        let found: Vec<&str> = text.split(self.separator).map(plain).collect();
        if header.is_empty() {
            return wrong(String::new(), &self.remedy());
        }
        for name in self.needed {
            if !found.contains(name) {
                let remedy = format!("column {name} is missing; {}", self.remedy());
                return wrong(text.clone().into_owned(), &remedy);
            }
        }
        let ours = |name: &&str| self.needed.iter().chain(self.optional).copied().find(|known| known == name);
        let names: Vec<_> = found.iter().map(ours).collect();
        for (at, name) in names.iter().enumerate() {
            if let Some(name) = name.filter(|_| names.get(..at).is_some_and(|before| before.contains(name))) {
                return wrong(text.clone().into_owned(), &format!("column {name} stands there twice; delete one"));
            }
        }
        Ok(names)
    }

    fn remedy(&self) -> String {
        let begins = if self.header { "begins with the line" } else { "has rows of" };
        let separator = if self.separator == '\t' { " <tab> ".to_owned() } else { self.separator.to_string() };
        format!("a {} trace {begins} {}; check --format", self.format, self.needed.join(&separator))
    }
}

/// A field without spaces around it and without the quotes that some programs put around every field.
fn plain(field: &str) -> &str {
    let field = field.trim_matches([' ', '\r']);
    field.strip_prefix('"').and_then(|field| field.strip_suffix('"')).unwrap_or(field)
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

impl Row<'_> {
    /// A field as it stands; empty if the column is not there.
    pub fn get(&self, field: &'static str) -> &str {
        let at = self.names.iter().position(|name| *name == Some(field));
        at.and_then(|at| self.fields.get(at)).copied().unwrap_or_default()
    }

    /// A name: not empty, no control characters.
    pub fn text(&self, field: &'static str) -> Result<&str, Error> {
        let text = self.get(field);
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(self.wrong(field, "write a name"));
        }
        Ok(text)
    }

    /// A whole number from `least` to `most`; `12.0` counts as whole.
    pub fn whole(&self, field: &'static str, least: u32, most: u32, remedy: &'static str) -> Result<u32, Error> {
        let text = self.get(field);
        let text = text.strip_suffix(".0").unwrap_or(text);
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| self.wrong(field, remedy))
    }

    /// Any number from 0 to `most`.
    pub fn number(&self, field: &'static str, most: f64, remedy: &'static str) -> Result<f64, Error> {
        let number = self.get(field).parse().ok().filter(|number| (0.0..=most).contains(number));
        number.ok_or_else(|| self.wrong(field, remedy))
    }

    /// Seconds, 0 to ten years, as milliseconds.
    pub fn ms(&self, field: &'static str) -> Result<u64, Error> {
        let seconds: Option<f64> = self.get(field).parse().ok();
        let seconds = seconds.filter(|seconds| (0.0..=TEN_YEARS_S).contains(seconds));
        let seconds = seconds.ok_or_else(|| self.wrong(field, "write seconds from 0 to 315360000 (ten years)"))?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
        Ok((seconds * 1000.0).round() as u64)
    }

    /// Seconds of running time: more than 0.
    pub fn duration_ms(&self, field: &'static str) -> Result<u64, Error> {
        match self.ms(field)? {
            0 => Err(self.wrong(field, "write the run time in seconds, above 0; a job without one did not run")),
            ms => Ok(ms),
        }
    }

    /// GPUs of a job.
    pub fn gpus(&self, field: &'static str, least: u32) -> Result<u32, Error> {
        self.whole(field, least, 65_536, "write the number of GPUs, at most 65536")
    }

    /// A complaint about a field of this row.
    pub fn wrong(&self, field: &'static str, remedy: &'static str) -> Error {
        self.bad(field, self.get(field), remedy)
    }

    fn bad(&self, field: &'static str, found: &str, remedy: &'static str) -> Error {
        Error::Row { path: self.path.to_owned(), line: self.line, field, found: shown(found), remedy }
    }

    fn not_text(&self, bytes: &[u8], good: usize, separator: char) -> Error {
        let before = bytes.get(..good).unwrap_or_default().iter().filter(|byte| char::from(**byte) == separator).count();
        let field = self.names.get(before).copied().flatten().unwrap_or("line");
        let found = String::from_utf8_lossy(bytes);
        let found = found.split(separator).nth(before).unwrap_or_default();
        self.bad(field, found, "this is not UTF-8 text; save the file as UTF-8")
    }
}

/// Rows that parsed. Ends after the first error.
pub struct Rows<'a, T> {
    table: Table<T>,
    bad: &'a mut Bad,
    done: bool,
}

impl<T> Rows<'_, T> {
    /// Counts what is bad in the rest of the file, so that the user sees it all at once.
    fn look_through(&mut self) {
        while let Ok(Some(row)) = self.table.advance() {
            if let Err(error) = row {
                self.bad.note(&error);
            }
        }
    }
}

impl<T> Iterator for Rows<'_, T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            match self.table.advance() {
                Ok(Some(Ok(value))) => return Some(Ok(value)),
                Ok(Some(Err(error))) => {
                    self.bad.note(&error);
                    if !self.bad.is_skipping() {
                        self.done = true;
                        self.look_through();
                        return Some(Err(error));
                    }
                }
                Ok(None) => self.done = true,
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

/// A reader that refuses a job submitted before the one above it; `field` holds the submit time.
pub fn in_order(field: &'static str, mut read: Read<super::TraceJob>) -> Read<super::TraceJob> {
    let mut last = 0;
    Box::new(move |row| {
        let job = read(row)?;
        if job.submit_ms < last {
            return Err(row.wrong(field, "it is less than in the row above; sort the file by this column"));
        }
        last = job.submit_ms;
        Ok(job)
    })
}
