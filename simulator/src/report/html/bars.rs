//! The figures of one row of a study as bars on one scale, the goal as a mark across them.

use std::fmt;

use crate::report::{Goal, Row};

use super::text::number;

const WIDTH: f64 = 220.0;
const BAR: f64 = 8.0;
const GAP: f64 = 3.0;

/// Bars of a row.
pub struct Bars<'a>(pub &'a Row);

impl fmt::Display for Bars<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.0;
        let all = [("published", row.published), ("rule", row.rule), ("ours", row.ours)];
        let bars: Vec<(&str, f64)> =
            all.into_iter().filter_map(|(name, value)| Some((name, value.filter(|v| v.is_finite())?))).collect();
        let goal = row.goal.map(|goal| match goal {
            Goal::AtLeast(value) | Goal::AtMost(value) => value,
        });
        let most = bars.iter().map(|bar| bar.1).chain(goal).fold(0.0, f64::max);
        if bars.is_empty() || most <= 0.0 {
            return Ok(());
        }
        let height = bars.len() as f64 * (BAR + GAP) + GAP;
        let spoken: Vec<String> = bars.iter().map(|(name, value)| format!("{name} {}", number(*value))).collect();
        write!(f, "<svg class=\"bars\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">", spoken.join(", "))?;
        for (index, (name, value)) in bars.iter().enumerate() {
            let (top, width) = (GAP + index as f64 * (BAR + GAP), (value / most).clamp(0.0, 1.0) * (WIDTH - 4.0));
            let width = width.max(1.0);
            write!(
                f,
                "<rect class=\"{name}\" x=\"0\" y=\"{top}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"1.5\"><title>{name} {}</title></rect>",
                number(*value)
            )?;
        }
        if let Some(goal) = goal.filter(|goal| goal.is_finite()) {
            let at = (goal / most).clamp(0.0, 1.0) * (WIDTH - 4.0);
            write!(f, "<path class=\"goal\" d=\"M{at:.1} 0V{height}\"><title>goal {}</title></path>", number(goal))?;
        }
        write!(f, "</svg>")
    }
}
