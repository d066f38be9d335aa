//! A trace of requests, as a user names it, into the models that answer them.
//!
//! A trace tells when requests come and, if it has single ones, how long they are; what their models cost is taken from
//! `settings/inference.yaml`. `ServeGen`'s file has several models, the others one, named as the file is.

use std::path::Path;

use clap::ValueEnum;
use serde::Deserialize;

use super::engine::Rules;
use super::{Model, ModelSpec};
use crate::Error;
use crate::inference::requests::{self, Request};
use crate::inference::service::Measured;
use crate::inference::{Series, servegen};
use crate::trace::Bad;

const SETTINGS: &str = include_str!("../../settings/inference.yaml");

/// A request trace's format.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Requests per second of each model: `model,t_s,total_rate_rps,active_clients,rate_weighted_cv`, a row per 600 s.
    Servegen,
    /// Single requests: `TIMESTAMP,ContextTokens,GeneratedTokens`.
    Azure,
    /// Single requests: JSON lines with `timestamp`, `input_length` and `output_length`.
    Mooncake,
}

/// `settings/inference.yaml`.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    window_s: u32,
    pub round_s: u64,
    prefill_s: f64,
    step_s: (f64, f64),
    scale: f64,
    tokens: (f64, f64),
    max_rows: u32,
    load_s: f64,
    pub evict_s: f64,
    slo_scale: f64,
    pub attainment: f64,
    burst_limit: f64,
    pub rules: Rules,
}

/// The committed settings.
pub fn settings() -> Result<Settings, Error> {
    serde_yaml::from_str(SETTINGS).map_err(|error| Error::Usage(format!("simulator/settings/inference.yaml: {error}")))
}

/// The models of a trace, rates times `scale`. Rows that do not parse go to `bad`.
pub fn models(path: &Path, format: Format, scale: f64, settings: &Settings, bad: &mut Bad) -> Result<Vec<Model>, Error> {
    let single = |requests: Vec<Request>| {
        let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        vec![(requests::series(&name, &requests, settings.window_s), mean_tokens(&requests))]
    };
    let series: Vec<(Series, (f64, f64))> = match format {
        Format::Servegen => servegen::totals(path, bad)?.into_values().map(|series| (series, settings.tokens)).collect(),
        Format::Azure => single(requests::azure(path, bad)?),
        Format::Mooncake => single(requests::mooncake(path, bad)?),
    };
    if series.iter().all(|(series, _)| series.mean_rps() <= 0.0) {
        return Err(Error::Usage(format!("--inference: {} has no request: check the file and its --format", path.display())));
    }
    Ok(series.into_iter().map(|(series, tokens)| settings.model(series.scaled(scale), tokens)).collect())
}

impl Settings {
    fn model(&self, series: Series, (input, output): (f64, f64)) -> Model {
        let measured = Measured { prefill_s: self.prefill_s, step_s: self.step_s };
        let batch = measured.batch(input, output, self.scale);
        let spec = ModelSpec {
            name: series.name.clone(),
            class: 0,
            gpus: 1,
            batch,
            slo_s: (batch.base_s + batch.row_s) * self.slo_scale,
            max_rows: self.max_rows,
            load_s: self.load_s,
            max_sharers: 1,
        };
        Model { spec, demand: series.with_burst_limit(self.burst_limit) }
    }
}

/// Mean input and output tokens, at least one of each.
fn mean_tokens(requests: &[Request]) -> (f64, f64) {
    let mean = |of: fn(&Request) -> u32| {
        (requests.iter().map(|request| f64::from(of(request))).sum::<f64>() / requests.len().max(1) as f64).max(1.0)
    };
    (mean(|request| request.input_tokens), mean(|request| request.output_tokens))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_are_those_that_splitwise_measured() {
        let Ok(data) = std::env::var("TIDEGATE_DATA") else { return };
        let fit = Measured::fit(&Path::new(&data).join("splitwise/perf_model.csv"), "llama2-70b", "h100-80gb", 2).unwrap();
        let settings = settings().unwrap();
        let near = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-3;
        assert!(near(settings.prefill_s, fit.prefill_s) && near(settings.step_s.0, fit.step_s.0), "{fit:?}");
        assert!(near(settings.step_s.1, fit.step_s.1), "{fit:?}");
    }

    #[test]
    fn single_requests_become_one_model_whose_lengths_set_its_pace() {
        let folder = tempfile::tempdir().unwrap();
        let of = |output: u32| {
            let path = folder.path().join("chat.jsonl");
            let line = |at: u32| format!("{{\"timestamp\": {}, \"input_length\": 100, \"output_length\": {output}}}\n", at * 500);
            std::fs::write(&path, (0..240).map(line).collect::<String>()).unwrap();
            models(&path, Format::Mooncake, 3.0, &settings().unwrap(), &mut Bad::stops()).unwrap()
        };
        let (short, long) = (of(10), of(100));
        assert_eq!((short.len(), short[0].spec.name.as_str(), short[0].demand.windows.len()), (1, "chat", 2));
        assert!((short[0].demand.at(0).rate_rps - 6.0).abs() < 1e-9);
        assert!(long[0].spec.slo_s > 5.0 * short[0].spec.slo_s);
    }

    #[test]
    fn a_trace_without_requests_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("silent.csv");
        std::fs::write(&path, "TIMESTAMP,ContextTokens,GeneratedTokens\n").unwrap();
        let error = models(&path, Format::Azure, 1.0, &settings().unwrap(), &mut Bad::stops()).unwrap_err().to_string();
        assert!(error.contains("silent.csv has no request") && error.contains("--format"), "{error}");
    }
}
