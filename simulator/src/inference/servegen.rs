//! `ServeGen`'s arrival rates (14 days in windows of 600 s) as demand series.
//!
//! Windows without any active client are gaps of the source (its README) and filled by a straight line. A client's own
//! zero is a real zero: the client was silent.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::{Series, Window, number, read_text};
use crate::Error;
use crate::trace::Bad;
use crate::trace::input::Lines;
use crate::trace::table::{Columns, Read, Row, Table};

/// Length of a window in this trace.
pub const WINDOW_S: u32 = 600;

/// Windows of a model, and models, at most: a year, and far more than the public file's five.
const MOST_WINDOWS: usize = 52_560;
const MOST_MODELS: usize = 256;
/// Beyond these, a rate (requests per second) and a variation are slips.
const MOST_RPS: f64 = 1e9;
const MOST_CV: f64 = 1e4;

const COLUMNS: Columns = Columns {
    format: "servegen",
    needed: &["model", "t_s", "total_rate_rps", "active_clients", "rate_weighted_cv"],
    optional: &[],
    separator: ',',
    header: true,
};

/// One row: which window of which model; absent in a gap.
struct Rate {
    model: String,
    at: usize,
    window: Option<Window>,
}

/// The total rate of each model, from `derived_total_rate.csv`. Burstiness is the square of the rate-weighted variation.
pub fn totals(path: &Path, bad: &mut Bad) -> Result<BTreeMap<String, Series>, Error> {
    let mut models: BTreeMap<String, Vec<Option<Window>>> = BTreeMap::new();
    for rate in Table::new(Lines::open(path)?, COLUMNS, in_order())?.rows(bad) {
        let Rate { model, at, window } = rate?;
        let windows = models.entry(model).or_default();
        windows.resize(at, None);
        windows.push(window);
    }
    Ok(models.into_iter().map(|(name, windows)| (name.clone(), Series::with_gaps_filled(name, WINDOW_S, &windows))).collect())
}

/// Reads rows, and refuses one that is not after the model's row above it.
fn in_order() -> Read<Rate> {
    let mut next: BTreeMap<String, usize> = BTreeMap::new();
    Box::new(move |row| {
        let rate = rate(row)?;
        if !next.contains_key(&rate.model) && next.len() == MOST_MODELS {
            return Err(row.wrong("model", "write at most 256 different models"));
        }
        let next = next.entry(rate.model.clone()).or_default();
        if rate.at < *next {
            return Err(row.wrong("t_s", "it is not after this model's row above; sort the file by this column"));
        }
        *next = rate.at + 1;
        Ok(rate)
    })
}

fn rate(row: &Row<'_>) -> Result<Rate, Error> {
    let at = row.ms("t_s")? / (1000 * u64::from(WINDOW_S));
    let at = usize::try_from(at).ok().filter(|at| *at < MOST_WINDOWS);
    let at = at.ok_or_else(|| row.wrong("t_s", "write seconds since the start, less than a year"))?;
    let rate_rps = row.number("total_rate_rps", MOST_RPS, "write requests per second, 0 to 10^9")?;
    let is_gap = row.number("active_clients", MOST_RPS, "write how many clients were active, 0 in a gap")? < 0.5;
    let cv = match row.get("rate_weighted_cv") {
        "" => 1.0,
        _ => row.number("rate_weighted_cv", MOST_CV, "write the variation of times between requests, 0 to 10^4, or nothing")?,
    };
    Ok(Rate { model: row.text("model")?.to_owned(), at, window: (!is_gap).then_some(Window { rate_rps, burst: cv * cv }) })
}

/// One series per client of `MODEL-trace.tar.gz`, ordered by client number.
pub fn clients(path: &Path) -> Result<Vec<Series>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(File::open(path).map_err(failed)?));
    let mut clients = Vec::new();
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let inner = entry.path().map_err(failed)?.into_owned();
        let stem = inner.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(client) = stem.strip_prefix("chunk-").and_then(|rest| rest.strip_suffix("-trace")) else { continue };
        let id: u32 = client.parse().unwrap_or(u32::MAX);
        let mut text = String::new();
        entry.read_to_string(&mut text).map_err(failed)?;
        clients.push((id, client_series(&path.join(&inner), id, &text)?));
    }
    clients.sort_by_key(|(id, _)| *id);
    Ok(clients.into_iter().map(|(_, series)| series).collect())
}

/// Silence at the same time in every client is a gap of the source; `totals` says where.
fn client_series(path: &Path, id: u32, text: &str) -> Result<Series, Error> {
    let mut windows = Vec::new();
    for (index, row) in text.lines().enumerate() {
        let line = index as u64 + 1;
        let mut columns = row.split(',').skip(1);
        let rate_rps = number(path, line, "rate", columns.next())?;
        let cv = number(path, line, "cv", columns.next())?;
        windows.push(Window { rate_rps, burst: if cv > 0.0 { cv * cv } else { 1.0 } });
    }
    Ok(Series { name: format!("client-{id}"), window_s: WINDOW_S, windows })
}

/// Fills, in every client, the windows in which all clients are silent (gaps of the source).
pub fn fill_common_gaps(clients: &[Series]) -> Vec<Series> {
    let len = clients.iter().map(|series| series.windows.len()).max().unwrap_or(0);
    let is_silent = |index: usize| clients.iter().all(|s| s.windows.get(index).is_none_or(|window| window.rate_rps <= 0.0));
    let gaps: Vec<bool> = (0..len).map(is_silent).collect();
    let known = |(window, gap): (&Window, &bool)| (!gap).then_some(*window);
    let fill = |series: &Series| {
        let windows: Vec<Option<Window>> = series.windows.iter().zip(&gaps).map(known).collect();
        Series::with_gaps_filled(series.name.clone(), series.window_s, &windows)
    };
    clients.iter().map(fill).collect()
}

/// Mean tokens per request of `model` in `field` (`input_tokens`, `output_tokens`), from `derived_length_hist.csv`.
pub fn mean_tokens(path: &Path, model: &str, field: &str) -> Result<f64, Error> {
    let text = read_text(path)?;
    let (mut tokens, mut weight) = (0.0, 0.0);
    for (index, row) in text.lines().enumerate().skip(1) {
        let columns: Vec<&str> = row.split(',').collect();
        if columns.first() != Some(&model) || columns.get(2) != Some(&field) {
            continue;
        }
        let line = index as u64 + 1;
        let low = number(path, line, "tokens_lo", columns.get(3).copied())?;
        let high = number(path, line, "tokens_hi", columns.get(4).copied())?;
        let probability = number(path, line, "probability", columns.get(5).copied())?;
        tokens += f64::midpoint(low, high) * probability;
        weight += probability;
    }
    if weight > 0.0 {
        return Ok(tokens / weight);
    }
    Err(Error::Usage(format!("{}: no row for model {model:?} and field {field:?}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_without_clients_is_a_gap_and_filled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rates.csv");
        let rows = "model,t_s,total_rate_rps,active_clients,rate_weighted_cv\nm,0,10,3,2\nm,600,0,0,\nm,1200,30,4,1\n";
        std::fs::write(&path, rows).unwrap();
        let series = &totals(&path, &mut Bad::stops()).unwrap()["m"];
        let rates: Vec<f64> = series.windows.iter().map(|window| window.rate_rps).collect();
        assert_eq!(rates, [10.0, 20.0, 30.0]);
        assert!((series.windows[0].burst - 4.0).abs() < 1e-9);
    }

    #[test]
    fn silence_of_one_client_stays_silence() {
        let series = |name: &str, rates: [f64; 3]| Series {
            name: name.into(),
            window_s: WINDOW_S,
            windows: rates.into_iter().map(|rate_rps| Window { rate_rps, burst: 1.0 }).collect(),
        };
        let filled = fill_common_gaps(&[series("a", [4.0, 0.0, 8.0]), series("b", [2.0, 0.0, 0.0])]);
        assert!((filled[0].windows[1].rate_rps - 6.0).abs() < 1e-9);
        assert!(filled[1].windows[2].rate_rps.abs() < 1e-9);
    }

    #[test]
    fn bad_rates_are_named_with_their_lines_or_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rates.csv");
        std::fs::write(&path, "model,t_s,total_rate_rps,active_clients,rate_weighted_cv\nm,0,many,3,2\nm,600,1,3,2\nm,0,1,3,2\n")
            .unwrap();
        let mut bad = Bad::stops();
        let error = totals(&path, &mut bad).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("many") && bad.rows() == 2, "{error}");
        let mut bad = Bad::new(true);
        assert_eq!(totals(&path, &mut bad).unwrap()["m"].windows.len(), 2);
        assert!(bad.first()[1].contains("line 4: t_s is \"0\": it is not after"), "{bad}");
    }

    #[test]
    fn the_clients_of_the_public_trace_add_up_to_its_totals() {
        let Ok(data) = std::env::var("TIDEGATE_DATA") else { return };
        let folder = Path::new(&data).join("servegen");
        let totals = totals(&folder.join("derived_total_rate.csv"), &mut Bad::stops()).unwrap();
        let clients = clients(&folder.join("m-small-trace.tar.gz")).unwrap();
        assert_eq!((clients.len(), clients[0].windows.len(), totals["m-small"].windows.len()), (43, 2016, 2016));
        let sum: f64 = clients.iter().map(|client| client.at(72_000).rate_rps).sum();
        assert!((sum - totals["m-small"].at(72_000).rate_rps).abs() < 0.1, "{sum}");
    }
}
