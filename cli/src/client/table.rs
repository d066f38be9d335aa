//! Columns of text, each as wide as its widest cell.

/// Which way a column leans: words left, figures right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lean {
    /// Words.
    Left,
    /// Figures.
    Right,
}

/// Lays rows out under their headings, two spaces apart. The last column is never padded.
pub fn lay_out(columns: &[(&str, Lean)], rows: &[Vec<String>]) -> String {
    let width = |i: usize, heading: &str| {
        let cells = rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count());
        cells.chain([heading.chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = columns.iter().enumerate().map(|(i, (heading, _))| width(i, heading)).collect();
    let headings = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
    let lines: Vec<_> = std::iter::once(&headings).chain(rows).map(|row| line(columns, &widths, row)).collect();
    lines.iter().flat_map(|line| [line.trim_end(), "\n"]).collect()
}

fn line(columns: &[(&str, Lean)], widths: &[usize], row: &[String]) -> String {
    let cells = columns.iter().zip(widths).zip(row).map(|(((_, lean), width), cell)| match lean {
        Lean::Left => format!("{cell:<width$}"),
        Lean::Right => format!("{cell:>width$}"),
    });
    cells.collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lean_left_and_figures_right() {
        let rows =
            [vec!["a".to_owned(), "1".to_owned(), "x".to_owned()], vec!["bcd".to_owned(), "100".to_owned(), "yy".to_owned()]];
        let text = lay_out(&[("NAME", Lean::Left), ("N", Lean::Right), ("WHY", Lean::Left)], &rows);
        assert_eq!(text, "NAME    N  WHY\na       1  x\nbcd   100  yy\n");
    }
}
