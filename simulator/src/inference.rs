//! Request rates into GPUs that a model needs.
//!
//! * [`servegen`], [`requests`]: public traces as a [`Series`] of rates per window, or as single requests (one hour).
//! * [`service`]: measured prefill and token times (Splitwise) into the time `a + b*n` of a batch.
//! * [`queueing`]: what share of requests `c` GPUs answer inside the SLO. This is the truth of the virtual world;
//!   schedulers see rates and service times only.

pub mod queueing;
pub mod requests;
pub mod servegen;
pub mod service;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::Error;

/// The demand of one model: a rate per window. After the last window it starts again.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub name: String,
    /// Length of a window in seconds.
    pub window_s: u32,
    pub windows: Vec<Window>,
}

/// Demand inside one window; constant, so it jumps at the window's edge.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Window {
    /// Requests per second.
    pub rate_rps: f64,
    /// Squared coefficient of variation of the times between arrivals (1 = Poisson).
    pub burst: f64,
}

impl Series {
    /// Demand at a time in seconds since the start.
    pub fn at(&self, second: u64) -> Window {
        let index = second / u64::from(self.window_s.max(1)) % (self.windows.len().max(1) as u64);
        usize::try_from(index).ok().and_then(|index| self.windows.get(index)).copied().unwrap_or_default()
    }

    /// Mean rate, requests per second.
    pub fn mean_rps(&self) -> f64 {
        self.windows.iter().map(|window| window.rate_rps).sum::<f64>() / self.windows.len().max(1) as f64
    }

    /// The same with all rates times `factor`; burstiness stays.
    #[must_use]
    pub fn scaled(mut self, factor: f64) -> Self {
        for window in &mut self.windows {
            window.rate_rps *= factor;
        }
        self
    }

    /// The same with no window burstier than `limit`.
    #[must_use]
    pub fn with_burst_limit(mut self, limit: f64) -> Self {
        for window in &mut self.windows {
            window.burst = window.burst.min(limit);
        }
        self
    }

    /// Fills gaps (`None`) by a straight line between the neighbours; at the ends by the nearest.
    pub fn with_gaps_filled(name: String, window_s: u32, gapped: &[Option<Window>]) -> Self {
        let known: Vec<(usize, Window)> =
            gapped.iter().enumerate().filter_map(|(index, window)| window.map(|window| (index, window))).collect();
        let fill = |index: usize| {
            let after = known.partition_point(|(at, _)| *at < index);
            match (after.checked_sub(1).and_then(|before| known.get(before)), known.get(after)) {
                (Some((left, low)), Some((right, high))) => between(*low, *high, (index - left) as f64 / (right - left) as f64),
                (Some((_, only)), None) | (None, Some((_, only))) => *only,
                (None, None) => Window::default(),
            }
        };
        let filled = gapped.iter().enumerate().map(|(index, window)| window.unwrap_or_else(|| fill(index))).collect();
        Self { name, window_s, windows: filled }
    }
}

fn between(low: Window, high: Window, share: f64) -> Window {
    Window {
        rate_rps: low.rate_rps + (high.rate_rps - low.rate_rps) * share,
        burst: low.burst + (high.burst - low.burst) * share,
    }
}

/// Reads a file as text, unpacking it when its name ends in `.gz`.
pub(crate) fn read_text(path: &Path) -> Result<String, Error> {
    let failed = |source: io::Error| Error::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut text = String::new();
    if path.extension().is_some_and(|extension| extension == "gz") {
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).map_err(failed)?;
    } else {
        file.read_to_string(&mut text).map_err(failed)?;
    }
    Ok(text)
}

/// A column of a row as a number that is not negative.
pub(crate) fn number(path: &Path, line: u64, field: &str, found: Option<&str>) -> Result<f64, Error> {
    let text = found.unwrap_or_default().trim();
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err(Error::Layout {
            path: path.to_owned(),
            line,
            field: field.to_owned(),
            found: text.to_owned(),
            remedy: "write a number that is not negative".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(rate_rps: f64) -> Window {
        Window { rate_rps, burst: 1.0 }
    }

    #[test]
    fn a_series_starts_again_after_its_last_window() {
        let series = Series { name: "m".into(), window_s: 600, windows: vec![window(1.0), window(3.0)] };
        assert!((series.at(599).rate_rps - 1.0).abs() < 1e-9);
        assert!((series.at(600).rate_rps - 3.0).abs() < 1e-9);
        assert!((series.at(1200).rate_rps - 1.0).abs() < 1e-9);
        assert!((series.mean_rps() - 2.0).abs() < 1e-9);
    }

    #[test]
    fn gaps_are_a_straight_line_between_their_neighbours() {
        let gaps = [None, Some(window(2.0)), None, None, Some(window(5.0)), None];
        let series = Series::with_gaps_filled("m".into(), 600, &gaps);
        let rates: Vec<f64> = series.windows.iter().map(|window| window.rate_rps).collect();
        assert_eq!(rates, [2.0, 2.0, 3.0, 4.0, 5.0, 5.0]);
    }

    #[test]
    fn a_negative_rate_is_named_with_its_line() {
        let error = number(Path::new("rates.csv"), 7, "total_rate_rps", Some("-3")).unwrap_err().to_string();
        assert!(error.contains("rates.csv, line 7") && error.contains("-3"), "{error}");
    }
}
