//! What came out of a run, in figures.

use serde::Serialize;

/// One job's end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ended {
    pub team: u32,
    pub gpus: u32,
    /// Seconds it held no GPU between arrival and end, after stops included.
    pub wait_s: f64,
    /// Seconds from arrival to end.
    pub jct_s: f64,
    pub stops: u32,
    pub resizes: u32,
}

/// One class over the measured span.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
pub struct ClassUse {
    pub name: String,
    pub gpus: u32,
    /// Share of GPU time held by jobs.
    pub training: f64,
    /// Share of GPU time in which a request was computed.
    pub inference_busy: f64,
    /// Share of GPU time reserved for models.
    pub inference_held: f64,
}

/// Requests of one model over the measured span.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
pub struct Served {
    pub name: String,
    pub requests: f64,
    /// Share inside the SLO.
    pub attained: f64,
    /// GPU-hours held.
    pub gpu_hours: f64,
}

/// All figures of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub jobs: Vec<Ended>,
    /// Jobs that did not end before the limit of the simulation.
    pub unfinished: u32,
    pub classes: Vec<ClassUse>,
    pub models: Vec<Served>,
    /// GPU-seconds of work done again after stops.
    pub lost_gpu_s: f64,
    /// GPU-hours of jobs on GPUs that belong to models.
    pub lent_gpu_hours: f64,
    pub samples: Vec<Sample>,
}

/// The state at one moment, after a round was carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    pub at_ms: u64,
    /// Held by jobs, and by models.
    pub training_gpus: u32,
    pub serving_gpus: u32,
    pub waiting_jobs: u32,
    /// Held by jobs of what belongs to models.
    pub lent_gpus: u32,
}

/// Means and tails.
#[derive(Serialize, Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    pub mean: f64,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Spread {
    /// Of any values; zeros when there are none. Percentiles by nearest rank.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let rank = |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)));
        let at = |percent| rank(percent).copied().unwrap_or_default();
        let mean = sorted.iter().sum::<f64>() / sorted.len().max(1) as f64;
        Self { mean, p50: at(50), p99: at(99), max: at(100) }
    }
}

impl Outcome {
    pub fn wait_s(&self) -> Spread {
        Spread::of(self.jobs.iter().map(|job| job.wait_s))
    }

    pub fn jct_s(&self) -> Spread {
        Spread::of(self.jobs.iter().map(|job| job.jct_s))
    }

    /// Share of all requests inside the SLO.
    pub fn attained(&self) -> f64 {
        let requests: f64 = self.models.iter().map(|model| model.requests).sum();
        let inside: f64 = self.models.iter().map(|model| model.requests * model.attained).sum();
        if requests > 0.0 { inside / requests } else { 1.0 }
    }

    /// The figures of a report's details.
    pub fn figures(&self) -> serde_json::Value {
        let (stops, resizes) = self.disturbances_per_job_hour();
        serde_json::json!({
            "jobs": self.jobs.len(),
            "unfinished": self.unfinished,
            "wait_s": self.wait_s(),
            "jct_s": self.jct_s(),
            "attained": self.attained(),
            "worst_model_attained": self.models.iter().map(|model| model.attained).fold(1.0, f64::min),
            "classes": self.classes,
            "lent_gpu_hours": self.lent_gpu_hours,
            "lost_gpu_hours": self.lost_gpu_s / 3600.0,
            "stops_per_job_hour": stops,
            "resizes_per_job_hour": resizes,
        })
    }

    /// Stops and resizes per job-hour.
    pub fn disturbances_per_job_hour(&self) -> (f64, f64) {
        let hours = self.jobs.iter().map(|job| job.jct_s - job.wait_s).sum::<f64>() / 3600.0;
        let stops: u32 = self.jobs.iter().map(|job| job.stops).sum();
        let resizes: u32 = self.jobs.iter().map(|job| job.resizes).sum();
        (f64::from(stops) / hours.max(1e-9), f64::from(resizes) / hours.max(1e-9))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_by_nearest_rank() {
        let spread = Spread::of((1..=100).map(f64::from));
        assert!((spread.mean - 50.5).abs() < 1e-9 && (spread.p99 - 100.0).abs() < 1e-9);
        assert_eq!(Spread::of(std::iter::empty()), Spread::default());
    }

    #[test]
    fn attainment_weighs_requests() {
        let served = |requests, attained| Served { requests, attained, ..Served::default() };
        let outcome = Outcome { models: vec![served(900.0, 1.0), served(100.0, 0.5)], ..Outcome::default() };
        assert!((outcome.attained() - 0.95).abs() < 1e-9);
    }
}
