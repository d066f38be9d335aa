//! `ServeGen`'s arrival rates (14 days in windows of 600 s) as demand series.
//!
//! Windows without any active client are gaps of the source (its README) and filled by a straight line. A client's own
//! zero is a real zero: the client was silent.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{Series, Window, number, read_text};
use crate::Error;

/// Length of a window in this trace.
pub const WINDOW_S: u32 = 600;

/// The total rate of each model, from `derived_total_rate.csv`. Burstiness is the square of the rate-weighted variation.
pub fn totals(path: &Path) -> Result<BTreeMap<String, Series>, Error> {
    let text = read_text(path)?;
    let mut models: BTreeMap<String, Vec<Option<Window>>> = BTreeMap::new();
    for (index, row) in text.lines().enumerate().skip(1) {
        let line = index as u64 + 1;
        let mut columns = row.split(',');
        let model = columns.next().unwrap_or_default().to_owned();
        let at = whole(number(path, line, "t_s", columns.next())?) / u64::from(WINDOW_S);
        let rate_rps = number(path, line, "total_rate_rps", columns.next())?;
        let is_gap = number(path, line, "active_clients", columns.next())? < 0.5;
        let cv = columns.next().unwrap_or_default();
        let cv = if cv.is_empty() { 1.0 } else { number(path, line, "rate_weighted_cv", Some(cv))? };
        let windows = models.entry(model).or_default();
        let at = usize::try_from(at).unwrap_or(usize::MAX).min(100_000);
        windows.resize(windows.len().max(at), None);
        windows.push((!is_gap).then_some(Window { rate_rps, burst: cv * cv }));
    }
    Ok(models.into_iter().map(|(name, windows)| (name.clone(), Series::with_gaps_filled(name, WINDOW_S, &windows))).collect())
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

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be finite and not negative")]
fn whole(value: f64) -> u64 {
    value as u64
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
        let series = &totals(&path).unwrap()["m"];
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
    fn a_bad_rate_names_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rates.csv");
        std::fs::write(&path, "model,t_s,total_rate_rps,active_clients,cv\nm,0,many,3,2\n").unwrap();
        let error = totals(&path).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("many"), "{error}");
    }

    #[test]
    fn the_clients_of_the_public_trace_add_up_to_its_totals() {
        let Ok(data) = std::env::var("TIDEGATE_DATA") else { return };
        let folder = Path::new(&data).join("servegen");
        let totals = totals(&folder.join("derived_total_rate.csv")).unwrap();
        let clients = clients(&folder.join("m-small-trace.tar.gz")).unwrap();
        assert_eq!((clients.len(), clients[0].windows.len(), totals["m-small"].windows.len()), (43, 2016, 2016));
        let sum: f64 = clients.iter().map(|client| client.at(72_000).rate_rps).sum();
        assert!((sum - totals["m-small"].at(72_000).rate_rps).abs() < 0.1, "{sum}");
    }
}
