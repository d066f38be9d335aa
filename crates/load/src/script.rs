//! The load script: for each model its promise, its real inputs and its rate over time, as YAML.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

/// A whole day.
#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Script {
    pub models: Vec<ModelScript>,
    /// Where the script lies; paths in it are relative to this folder.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// The traffic of one model.
#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ModelScript {
    pub name: String,
    /// Answers slower than this are late.
    pub slo_ms: u64,
    /// Answers to requests that woke the model are late only beyond this.
    pub cold_start_budget_ms: u64,
    pub traffic: TrafficScript,
    /// `[seconds, requests per second]`; straight lines between, and a jump where a time stands twice.
    pub requests_per_second: Vec<(f64, f64)>,
}

/// What is sent, and what a right answer looks like.
#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(tag = "protocol", rename_all = "snake_case", deny_unknown_fields)]
pub enum TrafficScript {
    /// Open Inference Protocol over HTTP: one FP32 row a request, answered with class probabilities.
    Oip {
        input: String,
        /// Shape of one row, without the batch dimension.
        shape: Vec<usize>,
        output: String,
        classes: usize,
        /// Lines `label,value,value,...`; `#` starts a comment. The right answer's likeliest class is the label.
        rows: PathBuf,
    },
    /// `OpenAI` embeddings: one short sentence a request, answered with a vector of length 1.
    Embeddings {
        dimensions: usize,
        /// How many different sentences; the same one must always get the same vector.
        sentences: usize,
    },
}

/// Why a script cannot be played.
#[derive(Debug, Error)]
pub enum Error {
    #[error("cannot read {path}: {source}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path}: {source}")]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_yaml::Error,
    },
    /// `field` names the place, `problem` the value and the remedy.
    #[error("{path}: {field}: {problem}")]
    Invalid { path: PathBuf, field: String, problem: String },
}

/// A day is at most a week long: it bounds what the report holds.
const MAX_SECONDS: f64 = 604_800.0;
/// More than one client process can send.
const MAX_RATE: f64 = 100_000.0;
const MAX_SENTENCES: usize = 100_000;

impl Script {
    /// Reads and checks a script.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })?;
        Self::parse(&text, path)
    }

    /// `path` names the script in errors, and its folder is where paths in it begin.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let mut script: Self = serde_yaml::from_str(text).map_err(|source| Error::Parse { path: path.into(), source })?;
        script.folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        script.check().map_err(|(field, problem)| Error::Invalid { path: path.into(), field, problem })?;
        Ok(script)
    }

    fn check(&self) -> Result<(), (String, String)> {
        if self.models.is_empty() {
            return Err(("models".into(), "empty; name at least one".into()));
        }
        let mut names = BTreeSet::new();
        for (i, model) in self.models.iter().enumerate() {
            if !names.insert(&model.name) {
                return Err((format!("models[{i}].name"), format!("{:?} stands twice; join their rates", model.name)));
            }
            model.check().map_err(|(field, problem)| (format!("models[{i}].{field}"), problem))?;
        }
        Ok(())
    }
}

impl ModelScript {
    fn check(&self) -> Result<(), (String, String)> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty() || !self.name.chars().all(plain) {
            return Err(("name".into(), format!("{:?} must be of letters, digits, '-', '_' and '.'", self.name)));
        }
        if self.slo_ms == 0 {
            return Err(("slo_ms".into(), "0; must be at least 1".into()));
        }
        let rates = &self.requests_per_second;
        let field = |i: usize| format!("requests_per_second[{i}]");
        if rates.len() < 2 {
            return Err(("requests_per_second".into(), format!("{} points; must have at least 2", rates.len())));
        }
        for (i, (at, rate)) in rates.iter().enumerate() {
            if !(0.0..=MAX_SECONDS).contains(at) {
                return Err((field(i), format!("{at} s must be from 0 to {MAX_SECONDS}")));
            }
            if !(0.0..=MAX_RATE).contains(rate) {
                return Err((field(i), format!("{rate} requests/s must be from 0 to {MAX_RATE}")));
            }
            if i > 0 && rates.get(i - 1).is_some_and(|(before, _)| before > at) {
                return Err((field(i), format!("{at} s comes before the point above it; sort by time")));
            }
        }
        self.traffic.check()
    }
}

impl TrafficScript {
    fn check(&self) -> Result<(), (String, String)> {
        match self {
            Self::Oip { shape, classes, .. } if shape.iter().product::<usize>() == 0 || *classes == 0 => {
                Err(("traffic".into(), format!("shape {shape:?} and classes {classes} must be above 0")))
            }
            Self::Embeddings { dimensions: 0, .. } => Err(("traffic.dimensions".into(), "0; must be at least 1".into())),
            Self::Embeddings { sentences, .. } if !(1..=MAX_SENTENCES).contains(sentences) => {
                Err(("traffic.sentences".into(), format!("{sentences} must be from 1 to {MAX_SENTENCES}")))
            }
            Self::Oip { .. } | Self::Embeddings { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
models:
  - name: text
    slo_ms: 1000
    cold_start_budget_ms: 5000
    traffic: {protocol: embeddings, dimensions: 384, sentences: 64}
    requests_per_second: [[0, 1], [10, 2.5]]
";

    fn error(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from}");
        Script::parse(&GOOD.replace(from, to), Path::new("/d/day.yaml")).unwrap_err().to_string()
    }

    #[test]
    fn a_good_script_is_read() {
        let script = Script::parse(GOOD, Path::new("/d/day.yaml")).unwrap();
        assert_eq!(script.folder, Path::new("/d"));
        assert_eq!(script.models[0].requests_per_second, [(0.0, 1.0), (10.0, 2.5)]);
        assert_eq!(script.models[0].traffic, TrafficScript::Embeddings { dimensions: 384, sentences: 64 });
    }

    #[test]
    fn errors_name_file_field_value_and_remedy() {
        assert_eq!(
            error("[10, 2.5]", "[10, -1]"),
            "/d/day.yaml: models[0].requests_per_second[1]: -1 requests/s must be from 0 to 100000"
        );
        assert_eq!(
            error("[[0, 1], [10", "[[11, 1], [10"),
            "/d/day.yaml: models[0].requests_per_second[1]: 10 s comes before the point above it; sort by time"
        );
        assert!(error("sentences: 64", "sentences: 0").contains("models[0].traffic.sentences: 0 must be from 1 to"));
        assert!(error("name: text", "name: ../etc").contains("models[0].name"));
        assert!(error("slo_ms: 1000", "slo_ms: 1000\n    slow: 1").contains("slow"));
        assert!(error("dimensions: 384", "dimensions: 384, colour: 1").contains("colour"));
    }

    #[test]
    fn a_missing_file_is_named() {
        assert!(
            Script::read(Path::new("/nowhere/day.yaml")).unwrap_err().to_string().starts_with("cannot read /nowhere/day.yaml")
        );
    }
}
