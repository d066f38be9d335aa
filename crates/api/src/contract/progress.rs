//! What workers report: JSON lines.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Lines in one report.
const MAX_LINES: usize = 1_000;
/// Named figures in one line: they become rows on the page.
const MAX_METRICS: usize = 64;

/// One line of a progress report.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Named figures, for instance `loss`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// How far it is, from 0 to 1 of all its work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<f64>,
    /// Set when a checkpoint is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointDone>,
}

impl Progress {
    /// How far it is in millionths, if it says so.
    pub fn done_ppm(&self) -> Option<u32> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0 to 10^6")]
        let ppm = |done: f64| (done.clamp(0.0, 1.0) * 1e6).round() as u32;
        self.done.map(ppm)
    }
}

/// The answer to a progress report of a job that offers a choice.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// What is best for its present size now: it may change over without a restart.
    pub choice: u32,
}

/// A checkpoint that a restart can continue from.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct CheckpointDone {
    /// The step that it holds.
    pub step: u64,
}

/// The lines of a report, or what is wrong with one of them.
pub fn parse_progress(body: &str) -> Result<Vec<Progress>, String> {
    let mut lines = Vec::new();
    for (index, line) in body.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let number = index + 1;
        let parsed: Progress = serde_json::from_str(line).map_err(|e| format!("line {number}: {e}"))?;
        if parsed.metrics.len() > MAX_METRICS {
            return Err(format!("line {number}: metrics: {} names; at most {MAX_METRICS}", parsed.metrics.len()));
        }
        if let Some(done) = parsed.done.filter(|done| !(0.0..=1.0).contains(done)) {
            return Err(format!("line {number}: done: {done} is not from 0 to 1; write the part of all its work that is done"));
        }
        lines.push(parsed);
    }
    match lines.len() {
        0 => Err("the body holds no line; post JSON lines such as {\"step\":120}".to_owned()),
        count if count > MAX_LINES => Err(format!("{count} lines; at most {MAX_LINES} in one report")),
        _ => Ok(lines),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_progress as parse;

    #[test]
    fn the_line_of_the_contract_is_read() {
        let lines =
            parse("{\"step\":120,\"metrics\":{\"loss\":0.41},\"checkpoint\":{\"step\":100}}\n\n{\"step\":121}\n").unwrap();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].checkpoint.as_ref().unwrap().step, 100);
    }

    #[test]
    fn a_broken_line_is_named_by_its_number() {
        let error = parse("{\"step\":1}\n{\"stop\":2}\n").unwrap_err();
        assert!(error.starts_with("line 2:"), "{error}");
        assert!(parse("").is_err());
        assert!(parse("{\"step\":-1}").is_err());
    }

    #[test]
    fn done_is_a_part_of_the_whole() {
        let ppm = |done: &str| Ok::<_, String>(parse(&format!("{{\"step\":1,\"done\":{done}}}"))?[0].done_ppm());
        assert_eq!(ppm("0.25"), Ok(Some(250_000)));
        assert_eq!((ppm("0"), ppm("1"), ppm("null")), (Ok(Some(0)), Ok(Some(1_000_000)), Ok(None)));
        for wrong in ["1.01", "-0.5", "25"] {
            let error = ppm(wrong).unwrap_err();
            assert!(error.starts_with("line 1: done: ") && error.contains("from 0 to 1"), "{error}");
        }
    }
}
