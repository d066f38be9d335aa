//! A command as one would type it again, for reports: every word quoted where a shell needs it.

use std::fmt;

use clap::ValueEnum;

/// Words of a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line(Vec<String>);

impl Line {
    /// A command without flags.
    pub(super) fn new(command: &[&str]) -> Self {
        Self(command.iter().map(ToString::to_string).collect())
    }

    /// Adds `--name value`.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.0.extend([format!("--{name}"), value.to_string()]);
        self
    }

    /// Adds `--name value` if there is one.
    #[must_use]
    pub(super) fn with_some(self, name: &str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Adds `--name` if it was given.
    #[must_use]
    pub(super) fn with_switch(mut self, name: &str, is_on: bool) -> Self {
        self.0.extend(is_on.then(|| format!("--{name}")));
        self
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(|word| quoted(word)).collect();
        f.write_str(&words.join(" "))
    }
}

/// A value as it is written on the command line.
pub(super) fn word(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:,=+@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        let line =
            Line::new(&["tidegate", "x"]).with("trace", "my trace's.csv").with_some("to", Some("3d")).with_switch("json", false);
        assert_eq!(line.to_string(), r"tidegate x --trace 'my trace'\''s.csv' --to 3d");
    }
}
