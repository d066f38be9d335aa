//! A span of time on the command line: `90s`, `45m`, `36h`, `3d`, `2w`.

use std::fmt;
use std::str::FromStr;

/// Milliseconds since a trace's own zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span(pub(super) u64);

const UNITS: [(char, u64); 5] = [('w', 604_800_000), ('d', 86_400_000), ('h', 3_600_000), ('m', 60_000), ('s', 1000)];
/// Ten years, as in traces.
const MOST_MS: u64 = 315_360_000_000;

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit = UNITS.iter().find(|(unit, _)| text.ends_with(*unit));
        let parsed = unit.and_then(|(unit, ms)| text.strip_suffix(*unit)?.parse::<u64>().ok()?.checked_mul(*ms));
        let span = parsed.filter(|ms| *ms <= MOST_MS).map(Self);
        span.ok_or_else(|| {
            format!("`{text}` is no span of time; write a number with s, m, h, d or w, at most ten years, for instance 36h")
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, ms) = UNITS.into_iter().find(|(_, ms)| self.0.is_multiple_of(*ms)).unwrap_or(('s', 1000));
        write!(f, "{}{unit}", self.0 / ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written_alike_and_others_refused() {
        for text in ["90s", "45m", "36h", "3d", "2w"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        for text in ["", "h", "3", "-1h", "1.5h", "9999w", "3y"] {
            assert!(text.parse::<Span>().unwrap_err().contains("36h"), "{text}");
        }
    }
}
