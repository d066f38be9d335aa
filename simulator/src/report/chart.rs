//! Series of a run, as they are charted and written to CSV: plain numbers with units, thinned so that a report stays small.

/// How the points of a chart's series hang together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A level that holds until the next point: busy GPUs, waiting jobs.
    #[default]
    Steps,
    /// Straight lines between points.
    Line,
    /// Percent of all values that are at most x.
    Cumulative,
}

/// One line of a chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    pub name: String,
    /// `(x, y)` by x; points that are not finite are not drawn.
    pub points: Vec<(f64, f64)>,
}

/// Series with common axes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chart {
    pub title: String,
    pub unit_x: String,
    pub unit_y: String,
    pub series: Vec<Series>,
    pub kind: Kind,
    /// Logarithmic x; what is not above 0 stands at the left edge.
    pub log_x: bool,
}

/// Stretches of x in which a thinned series keeps its first, lowest, highest and last point: about one for each pixel.
const STRETCHES: usize = 600;
/// Points of a distribution.
const QUANTILES: usize = 400;

impl Series {
    /// A series of `(x, y)`, by x.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points }
    }

    /// Adds a level from `x` on; one that changes nothing is not kept.
    pub fn push(&mut self, x: f64, y: f64) {
        match self.points.last_mut() {
            Some((_, last)) if (*last - y).abs() < f64::EPSILON => {}
            Some((at, last)) if (*at - x).abs() < f64::EPSILON => *last = y,
            _ => self.points.push((x, y)),
        }
    }

    /// The distribution of values: percent of them that are at most x.
    pub fn distribution(name: impl Into<String>, values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let point = |at: usize| values.get(at).map(|value| (*value, 100.0 * (at + 1) as f64 / count as f64));
        let steps = count.min(QUANTILES);
        let mut ends: Vec<usize> = (1..=steps).map(|step| (step * count).div_ceil(steps) - 1).collect();
        // The right end of a crowded quantile says little about a tail, so the last hundredth is kept finer.
        ends.extend((1..=20).map(|step| count.saturating_sub(step)));
        ends.extend((1..count.min(2)).map(|_| 0));
        ends.sort_unstable();
        ends.dedup();
        Self::new(name, ends.into_iter().filter_map(point).collect())
    }

    /// The same course in at most `4 * 600` points; peaks and dips stay.
    #[must_use]
    pub fn thinned(&self) -> Self {
        let finite: Vec<_> = self.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
        let (Some(first), Some(last)) = (finite.first(), finite.last()) else { return Self::new(&*self.name, Vec::new()) };
        if finite.len() <= 4 * STRETCHES {
            return Self::new(&*self.name, finite);
        }
        let stretch = ((last.0 - first.0) / STRETCHES as f64).max(f64::MIN_POSITIVE);
        let same = |a: &(f64, f64), b: &(f64, f64)| ((a.0 - first.0) / stretch).floor() >= ((b.0 - first.0) / stretch).floor();
        let points = finite.chunk_by(same).flat_map(extremes).collect();
        Self::new(&*self.name, points)
    }
}

/// First, lowest, highest and last point, in their order and each once.
fn extremes(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let by_y = |a: &(usize, &(f64, f64)), b: &(usize, &(f64, f64))| a.1.1.total_cmp(&b.1.1);
    let all = || points.iter().enumerate();
    let mut kept: Vec<usize> = [all().next(), all().min_by(by_y), all().max_by(by_y), all().next_back()]
        .into_iter()
        .flatten()
        .map(|(at, _)| at)
        .collect();
    kept.sort_unstable();
    kept.dedup();
    kept.into_iter().filter_map(|at| points.get(at).copied()).collect()
}

impl Chart {
    /// Levels over time.
    pub fn over_time(
        title: impl Into<String>,
        unit_x: impl Into<String>,
        unit_y: impl Into<String>,
        series: Vec<Series>,
    ) -> Self {
        Self { title: title.into(), unit_x: unit_x.into(), unit_y: unit_y.into(), series, ..Self::default() }
    }

    /// Distributions of values, for instance of waits; logarithmic when the largest value is over 100 times the median.
    pub fn distributions(title: impl Into<String>, unit: impl Into<String>, series: Vec<Series>) -> Self {
        let wide = |series: &Series| {
            let median = series.points.get(series.points.len() / 2).map_or(0.0, |point| point.0);
            series.points.last().is_some_and(|point| point.0 > 100.0 * median)
        };
        let log_x = series.iter().any(wide);
        Self { title: title.into(), unit_x: unit.into(), unit_y: "%".to_owned(), series, kind: Kind::Cumulative, log_x }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_stays_takes_one_point() {
        let mut series = Series::new("busy", Vec::new());
        for (x, y) in [(0.0, 1.0), (1.0, 1.0), (2.0, 3.0), (2.0, 4.0), (5.0, 1.0)] {
            series.push(x, y);
        }
        assert_eq!(series.points, [(0.0, 1.0), (2.0, 4.0), (5.0, 1.0)]);
    }

    #[test]
    fn a_distribution_ends_at_all_values_and_keeps_the_tail() {
        let series = Series::distribution("wait", (1..=100_000).map(f64::from).chain([f64::NAN]));
        assert!(series.points.len() <= QUANTILES + 21);
        assert_eq!(series.points.last(), Some(&(100_000.0, 100.0)));
        assert!(series.points.iter().all(|(value, percent)| (value / 1000.0 - percent).abs() < 1e-9));
        assert!(series.points.contains(&(99_990.0, 99.99)));
        assert!(Series::distribution("none", []).points.is_empty());
        assert_eq!(Series::distribution("one", [7.0]).points, [(7.0, 100.0)]);
    }

    #[test]
    fn thinning_keeps_peaks_ends_and_order() {
        let mut points: Vec<(f64, f64)> = (0..50_000).map(|x| (f64::from(x), f64::from(x % 7))).collect();
        points[31_234].1 = 99.0;
        points[40_000].1 = f64::NAN;
        let thin = Series::new("a", points).thinned().points;
        assert!(thin.len() <= 4 * STRETCHES + 4, "{}", thin.len());
        assert!(thin.contains(&(31_234.0, 99.0)) && thin[0] == (0.0, 0.0) && thin.last() == Some(&(49_999.0, 5.0)));
        assert!(thin.windows(2).all(|two| two[0].0 < two[1].0));
    }

    #[test]
    fn waits_over_orders_of_magnitude_are_charted_logarithmically() {
        assert!(Chart::distributions("w", "s", vec![Series::distribution("a", [0.0, 0.0, 5.0])]).log_x);
        assert!(!Chart::distributions("w", "s", vec![Series::distribution("a", [4.0, 5.0, 6.0])]).log_x);
    }
}
