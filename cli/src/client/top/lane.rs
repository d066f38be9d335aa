//! A device's last minutes as a row of cells.

use tidegate_api::view::Span;

/// Who holds a device during one cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell<'a> {
    /// `job` or `model`.
    pub kind: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Above its own quota.
    pub lent: bool,
}

/// `width` cells from `from_ms` to `to_ms`, each with the holder at its middle. Holders that share the device
/// take turns, so that all of them are seen.
pub fn cells<'a>(spans: &'a [Span], device: &str, from_ms: u64, to_ms: u64, width: u16) -> Vec<Option<Cell<'a>>> {
    let spans: Vec<&Span> = spans.iter().filter(|s| s.device == device).collect();
    let length = to_ms.saturating_sub(from_ms);
    let middle = |i: u64| from_ms + length * (2 * i + 1) / (2 * u64::from(width.max(1)));
    (0..u64::from(width)).map(|i| cell(&spans, middle(i), i)).collect()
}

fn cell<'a>(spans: &[&'a Span], at: u64, turn: u64) -> Option<Cell<'a>> {
    let here: Vec<&&Span> = spans.iter().filter(|s| s.from_ms <= at && s.to_ms.is_none_or(|to| at < to)).collect();
    let turn = usize::try_from(turn).ok()?.checked_rem(here.len())?;
    here.get(turn).map(|s| Cell { kind: &s.kind, name: &s.name, lent: s.lent })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(device: &str, name: &str, from_ms: u64, to_ms: Option<u64>) -> Span {
        Span { device: device.to_owned(), kind: "job".to_owned(), name: name.to_owned(), lent: false, from_ms, to_ms }
    }

    fn names(spans: &[Span]) -> String {
        cells(spans, "gpu0", 0, 100, 10).iter().map(|c| c.as_ref().map_or(".", |c| c.name)).collect()
    }

    #[test]
    fn each_cell_shows_who_held_the_device_then() {
        let spans = [span("gpu0", "a", 0, Some(30)), span("gpu0", "b", 50, None), span("gpu1", "c", 0, None)];
        assert_eq!(names(&spans), "aaa..bbbbb");
    }

    #[test]
    fn holders_of_one_device_take_turns() {
        assert_eq!(names(&[span("gpu0", "a", 0, None), span("gpu0", "b", 50, None)]), "aaaaababab");
    }

    #[test]
    fn no_width_is_no_cells() {
        assert_eq!(cells(&[], "gpu0", 0, 100, 0), vec![]);
    }
}
