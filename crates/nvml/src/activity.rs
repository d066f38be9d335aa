//! How much of a chip was busy, through GPM: consecutive samples chain, so that no time is unobserved.
//!
//! Hopper and later. What NVML calls utilisation is something else: the share of time in which any kernel was resident.

use nvml_wrapper::Nvml;
use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::gpm::{GpmSample, gpm_metrics_get};
use serde::{Deserialize, Serialize};

use crate::fact::Fact;

/// Shares from 0 to 1 of the time between two readings.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Activity {
    /// Multiprocessors with at least one warp, averaged over all of them.
    pub sm: Fact<f64>,
    /// Warps in flight, of those that the chip could hold.
    pub occupancy: Fact<f64>,
    /// Tensor cores computing, of any type.
    pub tensor: Fact<f64>,
    /// Memory bandwidth in use.
    pub memory_bandwidth: Fact<f64>,
}

impl Activity {
    /// One answer to all questions.
    fn all(fact: &Fact<f64>) -> Self {
        Self { sm: fact.clone(), occupancy: fact.clone(), tensor: fact.clone(), memory_bandwidth: fact.clone() }
    }

    /// What a device without GPM says.
    pub fn unsupported() -> Self {
        Self::all(&Fact::Unsupported)
    }
}

const METRICS: [GpmMetricId; 4] =
    [GpmMetricId::SmUtil, GpmMetricId::SmOccupancy, GpmMetricId::AnyTensorUtil, GpmMetricId::DramBwUtil];

/// The last sample of a chain, of a GPU or of one of its MIG instances.
#[derive(Debug, Default)]
pub(crate) struct Chain<'a> {
    last: Option<GpmSample<'a>>,
}

impl<'a> Chain<'a> {
    /// What was busy since the last call. `None` the first time: a chain needs a beginning.
    pub fn next(&mut self, nvml: &'a Nvml, sample: impl FnOnce() -> Result<GpmSample<'a>, NvmlError>) -> Option<Activity> {
        // The wrapper frees a sample without asking whether the library can.
        if nvml.lib().nvmlGpmSampleFree.is_err() {
            return Some(Activity::unsupported());
        }
        let now = match sample() {
            Ok(now) => now,
            Err(e) => {
                self.last = None;
                return Some(Activity::all(&Fact::read(Err(e))));
            }
        };
        let last = self.last.take();
        let told = last.map(|last| between(nvml, &last, &now));
        self.last = Some(now);
        told
    }
}

fn between<'a>(nvml: &'a Nvml, first: &GpmSample<'a>, second: &GpmSample<'a>) -> Activity {
    let answers = match gpm_metrics_get(nvml, first, second, &METRICS) {
        Ok(answers) => answers,
        Err(e) => return Activity::all(&Fact::read(Err(e))),
    };
    let mut shares = answers.into_iter().map(|answer| Fact::read(answer.and_then(|metric| share(metric.value))));
    let mut next = || shares.next().unwrap_or(Fact::Unsupported);
    Activity { sm: next(), occupancy: next(), tensor: next(), memory_bandwidth: next() }
}

/// Percent to a share. GPM answers "not a number" for a window that it could not measure.
fn share(percent: f64) -> Result<f64, NvmlError> {
    if percent.is_finite() { Ok((percent / 100.0).clamp(0.0, 1.0)) } else { Err(NvmlError::NoData) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_was_not_measured_is_no_idle_one() {
        assert!(matches!(share(f64::NAN), Err(NvmlError::NoData)));
        assert!((share(37.0).unwrap() - 0.37).abs() < 1e-9);
        assert!((share(104.0).unwrap() - 1.0).abs() < 1e-9, "rounding of the driver");
    }
}
