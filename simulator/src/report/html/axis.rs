//! An axis: from values to pixels, and where its ticks stand.

use super::text::number;

/// Values beyond are left out, and spans below its inverse count as none: both would overflow.
const HUGE: f64 = 1e100;
/// Least share of the largest value that a logarithmic axis still shows.
const DECADES: f64 = 1e-6;

/// An axis between two values, `from` left or below.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    from: f64,
    to: f64,
    log: bool,
    /// Pixels of `from` and `to`.
    pixels: (f64, f64),
}

impl Axis {
    /// An axis over the values, widened to round numbers. Logarithmic ones show what is above 0.
    pub fn over(values: impl Iterator<Item = f64> + Clone, log: bool, pixels: (f64, f64)) -> Self {
        let finite = values.filter(|value| value.abs() < HUGE);
        let most = finite.clone().fold(f64::NEG_INFINITY, f64::max);
        let least = finite.clone().fold(f64::INFINITY, f64::min);
        if log && most > 1.0 / HUGE {
            let positive = finite.filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
            let from = 10_f64.powf(positive.max(most * DECADES).log10().floor());
            return Self { from, to: most.max(from * 10.0), log: true, pixels };
        }
        let (least, most) = if least <= most { (least, most) } else { (0.0, 1.0) };
        let most = if most - least > 1.0 / HUGE { most } else { least + least.abs().max(1.0) };
        Self { from: least, to: most, log: false, pixels }
    }

    /// The same from 0, and to the next tick; a logarithmic one stays as it is.
    #[must_use]
    pub fn with_zero(self) -> Self {
        if self.log {
            return self;
        }
        let from = self.from.min(0.0);
        let step = step((self.to - from) / 5.0);
        Self { from, to: (self.to / step).ceil() * step, ..self }
    }

    /// The same up to a value.
    #[must_use]
    pub fn up_to(self, to: f64) -> Self {
        Self { to, ..self }
    }

    /// Where a value stands; beyond the axis, at its end.
    pub fn at(&self, value: f64) -> f64 {
        let value = value.clamp(-HUGE, HUGE);
        let part = if self.log {
            (value.max(self.from) / self.from).log10() / (self.to / self.from).log10()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        self.pixels.0 + part.clamp(0.0, 1.0) * (self.pixels.1 - self.pixels.0)
    }

    /// Whether a value stands at the left edge only because a logarithmic axis cannot show it.
    pub fn cuts(&self, value: f64) -> bool {
        self.log && value < self.from
    }

    /// Ticks with labels, about `wanted`.
    pub fn ticks(&self, wanted: u32) -> Vec<(f64, String)> {
        if self.log {
            let decades = (self.to / self.from).log10();
            let stride = (decades / f64::from(wanted)).ceil().max(1.0);
            let all = std::iter::successors(Some(self.from), |at| Some(at * 10_f64.powf(stride)));
            return all.take_while(|at| *at <= self.to * 1.000_001).map(|at| (at, short(at))).collect();
        }
        let step = step((self.to - self.from) / f64::from(wanted));
        let first = (self.from / step - 1e-9).ceil() * step;
        let all = (0..50).map(|n| first + f64::from(n) * step);
        let all = all.take_while(|at| *at <= self.to + step * 1e-6);
        all.map(|at| if at.abs() < step / 2.0 { 0.0 } else { at }).map(|at| (at, short(at))).collect()
    }
}

/// The least of 1, 2, 2.5, 5 times a power of ten that is not below `least`.
fn step(least: f64) -> f64 {
    if !(least.is_finite() && least > 0.0) {
        return 1.0;
    }
    let power = 10_f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0].into_iter().find(|factor| factor * power >= least * 0.999_999);
    factor.unwrap_or(10.0) * power
}

/// A tick's label: 12k rather than 12 000.
fn short(value: f64) -> String {
    let (scaled, suffix) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    format!("{}{suffix}", number(scaled))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks(5).into_iter().map(|tick| tick.1).collect()
    }

    #[test]
    fn ticks_are_round() {
        let axis = Axis::over([3.0, 610.0].into_iter(), false, (0.0, 100.0)).with_zero();
        assert_eq!(labels(&axis), ["0", "200", "400", "600", "800"]);
        assert!((axis.at(400.0) - 50.0).abs() < 1e-9);
        let small = Axis::over([0.0, 0.9].into_iter(), false, (0.0, 1.0)).with_zero();
        assert_eq!(labels(&small), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
    }

    #[test]
    fn logarithmic_axes_start_at_a_power_of_ten() {
        let axis = Axis::over([0.0, 3.0, 45_000.0].into_iter(), true, (0.0, 100.0));
        assert_eq!(labels(&axis), ["1", "10", "100", "1000", "10k"]);
        assert!(axis.cuts(0.0) && !axis.cuts(1.0));
        assert!(axis.at(0.0).abs() < 1e-9 && axis.at(45_000.0) > 99.9);
    }

    #[test]
    fn nothing_equal_or_infinite_values_still_give_an_axis() {
        for values in
            [vec![], vec![f64::NAN], vec![f64::INFINITY], vec![5.0, 5.0], vec![0.0], vec![-3.0, -3.0], vec![1e300, -1e300]]
        {
            for log in [false, true] {
                let axis = Axis::over(values.iter().copied(), log, (0.0, 100.0)).with_zero();
                assert!((0.0..=100.0).contains(&axis.at(5.0)), "{values:?} {axis:?}");
                assert!(axis.ticks(5).len() < 60, "{values:?}");
            }
        }
    }
}
