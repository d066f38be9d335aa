//! A chart as SVG, its key, its numbers as a table.

use std::fmt;

use crate::report::{Chart, Kind, Series};

use super::axis::Axis;
use super::text::{Escaped, number};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 34.0;
/// Colours in the style sheet; further series take them again, with other dashes.
const COLOURS: usize = 6;
/// Points of each series in the table behind a chart.
const LISTED: usize = 24;

/// One chart.
pub struct Figure<'a> {
    pub chart: &'a Chart,
    /// Which of the page's charts, for ids.
    pub index: usize,
}

impl fmt::Display for Figure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chart, index } = self;
        let series: Vec<Series> = chart.series.iter().map(Series::thinned).collect();
        writeln!(f, "<figure aria-labelledby=\"chart-{index}\">")?;
        writeln!(f, "<figcaption><h2 id=\"chart-{index}\">{}</h2></figcaption>", Escaped(&chart.title))?;
        if series.iter().all(|series| series.points.is_empty()) {
            return writeln!(f, "<p class=\"empty\">No values.</p>\n</figure>");
        }
        key(f, &series, chart.kind)?;
        svg(f, chart, &series)?;
        summary(f, chart, &series)?;
        values(f, chart, &series)?;
        writeln!(f, "</figure>")
    }
}

/// Dashes tell lines apart without colour; levels jump too much for that and are told apart by colour, name on hover, table.
fn dashes(index: usize, kind: Kind) -> &'static str {
    match (kind, index % 4) {
        (Kind::Steps, _) if index < COLOURS => "none",
        (_, 0) => "none",
        (_, 1) => "7 3",
        (_, 2) => "2 3",
        _ => "9 3 2 3",
    }
}

fn key(f: &mut fmt::Formatter<'_>, series: &[Series], kind: Kind) -> fmt::Result {
    writeln!(f, "<ul class=\"key\">")?;
    for (index, one) in series.iter().enumerate() {
        let (colour, dashes) = (index % COLOURS, dashes(index, kind));
        writeln!(
            f,
            "<li><svg width=\"26\" height=\"8\" aria-hidden=\"true\"><path class=\"line c{colour}\" d=\"M1 4H25\" \
             stroke-dasharray=\"{dashes}\"/></svg>{}</li>",
            Escaped(&one.name)
        )?;
    }
    writeln!(f, "</ul>")
}

fn svg(f: &mut fmt::Formatter<'_>, chart: &Chart, series: &[Series]) -> fmt::Result {
    let points = || series.iter().flat_map(|series| series.points.iter());
    let x = Axis::over(points().map(|point| point.0), chart.log_x, (LEFT, WIDTH - RIGHT));
    let y = Axis::over(points().map(|point| point.1), false, (HEIGHT - BOTTOM, TOP)).with_zero();
    let y = if chart.kind == Kind::Cumulative { y.up_to(100.0) } else { y };
    let names: Vec<String> = series.iter().map(|series| Escaped(&series.name).to_string()).collect();
    let title = Escaped(&chart.title);
    writeln!(
        f,
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}: {}\">",
        names.join(", ")
    )?;
    grid(f, chart, &x, &y, points().any(|point| x.cuts(point.0)))?;
    for (index, one) in series.iter().enumerate().filter(|(_, one)| !one.points.is_empty()) {
        let (colour, dashes) = (index % COLOURS, dashes(index, chart.kind));
        let line = line(&one.points, chart.kind, &x, &y);
        if series.len() == 1 {
            let (first, last) = (one.points.first().map_or(0.0, |p| p.0), one.points.last().map_or(0.0, |p| p.0));
            let base = y.at(0.0);
            writeln!(
                f,
                "<path class=\"area c{colour}\" d=\"{line}L{:.1} {base:.1}L{:.1} {base:.1}Z\"/>",
                x.at(last),
                x.at(first)
            )?;
        }
        writeln!(
            f,
            "<path class=\"line c{colour}\" d=\"{line}\" stroke-dasharray=\"{dashes}\"><title>{}</title></path>",
            names.get(index).map_or("", |name| name)
        )?;
    }
    writeln!(f, "</svg>")
}

fn grid(f: &mut fmt::Formatter<'_>, chart: &Chart, x: &Axis, y: &Axis, cut: bool) -> fmt::Result {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for (value, label) in y.ticks(5) {
        let at = y.at(value);
        writeln!(
            f,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/><text class=\"y\" x=\"{}\" y=\"{:.1}\">{label}</text>",
            LEFT - 8.0,
            at + 4.0
        )?;
    }
    for (index, (value, label)) in x.ticks(8).into_iter().enumerate() {
        let at = x.at(value);
        let most = if cut && index == 0 { "≤" } else { "" };
        writeln!(
            f,
            "<path class=\"tick\" d=\"M{at:.1} {bottom}v5\"/><text class=\"x\" x=\"{at:.1}\" y=\"{}\">{most}{label}</text>",
            bottom + 18.0
        )?;
    }
    writeln!(f, "<path class=\"axis\" d=\"M{LEFT} {bottom}H{right}\"/>")?;
    writeln!(f, "<text class=\"unit\" x=\"0\" y=\"12\">{}</text>", Escaped(&chart.unit_y))?;
    writeln!(f, "<text class=\"unit end\" x=\"{right}\" y=\"{}\">{}</text>", HEIGHT - 2.0, Escaped(&chart.unit_x))
}

/// The path of a series. A level goes on to the next point; a distribution rises at its values.
fn line(points: &[(f64, f64)], kind: Kind, x: &Axis, y: &Axis) -> String {
    use fmt::Write;
    let mut path = String::new();
    for (index, (at, value)) in points.iter().enumerate() {
        let (px, py) = (x.at(*at), y.at(*value));
        // A string takes every write.
        let _ = match (index, kind) {
            (0, Kind::Cumulative) => write!(path, "M{px:.1} {:.1}V{py:.1}", y.at(0.0)),
            (0, _) => write!(path, "M{px:.1} {py:.1}"),
            (_, Kind::Line) => write!(path, "L{px:.1} {py:.1}"),
            _ => write!(path, "H{px:.1}V{py:.1}"),
        };
    }
    path
}

/// One row per series: what a reader would look for in the picture.
fn summary(f: &mut fmt::Formatter<'_>, chart: &Chart, series: &[Series]) -> fmt::Result {
    let (heads, unit): ([&str; 5], _) = match chart.kind {
        Kind::Cumulative => (["p10", "p50", "p90", "p99", "max"], &chart.unit_x),
        _ => (["first", "least", "mean", "most", "last"], &chart.unit_y),
    };
    writeln!(f, "<table class=\"numbers\">\n<thead><tr><th scope=\"col\">{}</th>", Escaped(unit))?;
    for head in heads {
        write!(f, "<th scope=\"col\">{head}</th>")?;
    }
    writeln!(f, "</tr></thead>\n<tbody>")?;
    for (one, whole) in series.iter().zip(&chart.series) {
        write!(f, "<tr><th scope=\"row\">{}</th>", Escaped(&one.name))?;
        let numbers = if chart.kind == Kind::Cumulative { quantiles(&one.points) } else { course(&whole.points, chart.kind) };
        for value in numbers {
            write!(f, "<td>{}</td>", number(value))?;
        }
        writeln!(f, "</tr>")?;
    }
    writeln!(f, "</tbody>\n</table>")
}

fn quantiles(points: &[(f64, f64)]) -> [f64; 5] {
    [10.0, 50.0, 90.0, 99.0, 100.0].map(|percent| {
        let found = points.iter().find(|point| point.1 >= percent - 1e-9).or(points.last());
        found.map_or(f64::NAN, |point| point.0)
    })
}

/// First, least, mean over x, most, last.
fn course(points: &[(f64, f64)], kind: Kind) -> [f64; 5] {
    let finite: Vec<_> = points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    let (Some(first), Some(last)) = (finite.first(), finite.last()) else { return [f64::NAN; 5] };
    let (mut area, mut low, mut high) = (0.0, first.1, first.1);
    for ((x, y), (next_x, next_y)) in finite.iter().zip(finite.iter().skip(1)) {
        area += (next_x - x) * if kind == Kind::Steps { *y } else { f64::midpoint(*y, *next_y) };
        low = low.min(*next_y);
        high = high.max(*next_y);
    }
    let span = last.0 - first.0;
    let mean = if span > 0.0 { area / span } else { first.1 };
    [first.1, low, mean, high, last.1]
}

/// The course in some points, for whoever cannot see the picture.
fn values(f: &mut fmt::Formatter<'_>, chart: &Chart, series: &[Series]) -> fmt::Result {
    let (unit_x, unit_y) = (Escaped(&chart.unit_x), Escaped(&chart.unit_y));
    writeln!(f, "<details><summary>Values</summary>\n<div class=\"values\">")?;
    for one in series {
        writeln!(f, "<table><caption>{}</caption>", Escaped(&one.name))?;
        writeln!(f, "<thead><tr><th scope=\"col\">{unit_x}</th><th scope=\"col\">{unit_y}</th></tr></thead>\n<tbody>")?;
        let stride = one.points.len().div_ceil(LISTED).max(1);
        let last = one.points.len().saturating_sub(1);
        for (_, (x, y)) in one.points.iter().enumerate().filter(|(at, _)| at.is_multiple_of(stride) || *at == last) {
            writeln!(f, "<tr><td>{}</td><td>{}</td></tr>", number(*x), number(*y))?;
        }
        writeln!(f, "</tbody></table>")?;
    }
    writeln!(f, "</div></details>")
}
