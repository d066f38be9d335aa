//! What is wrong with a document, for the person who wrote it.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    /// `Kind/name`.
    pub subject: String,
    /// Path of the field; empty: the whole file.
    pub field: String,
    /// Its value as JSON, if there is one.
    pub value: Option<String>,
    pub what: String,
    pub remedy: String,
}

impl Problem {
    /// A problem with a whole file.
    pub fn of_file(file: &str, what: &str, remedy: &str) -> Self {
        Self {
            file: file.to_owned(),
            subject: String::new(),
            field: String::new(),
            value: None,
            what: what.to_owned(),
            remedy: remedy.to_owned(),
        }
    }
}

/// Longest value that is repeated in an error.
const SHOWN: usize = 120;

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if !self.subject.is_empty() {
            write!(f, " {}:", self.subject)?;
        }
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        if let Some(value) = &self.value {
            let shown: String = value.chars().take(SHOWN).collect();
            let more = if shown.len() < value.len() { "..." } else { "" };
            write!(f, " ({shown}{more})")?;
        }
        write!(f, " {}; {}", self.what, self.remedy)
    }
}

/// All that is wrong, one a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}
