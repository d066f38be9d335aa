//! `ServeGen`'s models with service times measured by Splitwise.

use std::path::Path;

use serde::Deserialize;

use crate::Error;
use crate::capacity::{Model, ModelSpec};
use crate::inference::servegen;
use crate::inference::service::Measured;
use crate::trace::Bad;

/// How the rates become models.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Inference {
    pub attainment: f64,
    pub measured: MeasuredOn,
    pub families: Vec<Family>,
    pub slo_scale: f64,
    pub burst_limit: f64,
}

/// Which measurement, and the model's size in billions of parameters.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct MeasuredOn {
    pub model: String,
    pub hardware: String,
    pub tensor_parallel: u32,
    pub billions: f64,
}

/// One of `ServeGen`'s models.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Family {
    pub series: String,
    pub billions: f64,
    pub gpus: u32,
    pub clients: bool,
    pub max_rows: u32,
    pub load_s: f64,
    pub max_sharers: u32,
}

/// All models, families in the order of the settings.
pub fn models(data: &Path, inference: &Inference) -> Result<Vec<Model>, Error> {
    let folder = data.join("servegen");
    let totals = servegen::totals(&folder.join("derived_total_rate.csv"), &mut Bad::stops())?;
    let on = &inference.measured;
    let measured = Measured::fit(&data.join("splitwise/perf_model.csv"), &on.model, &on.hardware, on.tensor_parallel)?;
    let mut models = Vec::new();
    for family in &inference.families {
        let lengths = folder.join("derived_length_hist.csv");
        let input = servegen::mean_tokens(&lengths, &family.series, "input_tokens")?;
        let output = servegen::mean_tokens(&lengths, &family.series, "output_tokens")?;
        let scale = family.billions / f64::from(family.gpus) / (on.billions / f64::from(on.tensor_parallel));
        let batch = measured.batch(input, output, scale);
        let series = if family.clients {
            servegen::fill_common_gaps(&servegen::clients(&folder.join(format!("{}-trace.tar.gz", family.series)))?)
        } else {
            totals.get(&family.series).cloned().into_iter().collect()
        };
        if series.is_empty() {
            return Err(Error::Usage(format!("settings/tide.yaml: inference.families: no series {:?}", family.series)));
        }
        for series in series {
            let spec = ModelSpec {
                name: format!("{}/{}", family.series, series.name),
                class: 0,
                gpus: family.gpus,
                batch,
                slo_s: (batch.base_s + batch.row_s) * inference.slo_scale,
                max_rows: family.max_rows,
                load_s: family.load_s,
                max_sharers: family.max_sharers,
            };
            models.push(Model { spec, demand: series.with_burst_limit(inference.burst_limit) });
        }
    }
    Ok(models)
}
