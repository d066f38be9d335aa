//! One HTML file without scripts or anything fetched: studies as tables with bars, runs as charts with the numbers beside.
//!
//! Guarantees: every text is escaped; a content security policy in the file itself forbids scripts and the network; colours
//! follow the reader's light or dark setting; nothing is told by colour alone; each picture has a title and a table.

mod axis;
mod bars;
mod figure;
mod study;
mod text;

use std::fmt;

use super::{Chart, Study};
use figure::Figure;
use study::Section;
use text::Escaped;

/// A figure of the whole run, shown large.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fact {
    pub label: String,
    /// With its unit.
    pub value: String,
}

impl Fact {
    /// A labelled value.
    pub fn new(label: impl Into<String>, value: impl Into<String>) -> Self {
        Self { label: label.into(), value: value.into() }
    }
}

/// The report; its `Display` is the file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Page<'a> {
    pub title: &'a str,
    /// What prints this report again: the command with its seed; may be empty.
    pub command: &'a str,
    pub facts: &'a [Fact],
    pub studies: &'a [Study],
    pub charts: &'a [Chart],
}

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = Escaped(self.title);
        writeln!(f, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">")?;
        writeln!(f, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
        writeln!(f, "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">")?;
        writeln!(f, "<meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>")?;
        writeln!(f, "<style>\n{}</style>\n</head>\n<body>\n<main>", include_str!("html/style.css"))?;
        writeln!(f, "<header>\n<p class=\"mark\">Tidegate simulation</p>\n<h1>{title}</h1>")?;
        if !self.command.is_empty() {
            writeln!(f, "<p class=\"command\"><code>{}</code></p>", Escaped(self.command))?;
        }
        writeln!(f, "</header>")?;
        self.facts(f)?;
        for study in self.studies {
            write!(f, "{}", Section(study))?;
        }
        self.charts(f)?;
        writeln!(f, "</main>\n</body>\n</html>")
    }
}

impl Page<'_> {
    fn facts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.facts.is_empty() {
            return Ok(());
        }
        writeln!(f, "<dl class=\"facts\">")?;
        for fact in self.facts {
            writeln!(f, "<div><dt>{}</dt><dd>{}</dd></div>", Escaped(&fact.label), Escaped(&fact.value))?;
        }
        writeln!(f, "</dl>")
    }

    fn charts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.charts.is_empty() {
            return Ok(());
        }
        writeln!(f, "<section class=\"charts\" aria-label=\"Charts\">")?;
        for (index, chart) in self.charts.iter().enumerate() {
            write!(f, "{}", Figure { chart, index })?;
        }
        writeln!(f, "</section>")
    }
}

#[cfg(test)]
mod tests;
