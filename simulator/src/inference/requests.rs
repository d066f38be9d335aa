//! Single requests of the one-hour traces (Azure 2023, Mooncake), and their rate per window.

use std::path::Path;

use serde::Deserialize;

use super::{Series, Window, number, read_text};
use crate::Error;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Arrival, milliseconds since the trace's first.
    pub at_ms: u64,
    pub input_tokens: u32,
    pub output_tokens: u32,
}

/// Azure's `TIMESTAMP,ContextTokens,GeneratedTokens`. Only the time of day is read: the trace spans one hour; a step
/// back over midnight is taken as the next day.
pub fn azure(path: &Path) -> Result<Vec<Request>, Error> {
    let text = read_text(path)?;
    let mut requests = Vec::new();
    let mut day_ms = 0;
    let mut last = None;
    let mut first = 0;
    for (index, row) in text.lines().enumerate().skip(1).filter(|(_, row)| !row.trim().is_empty()) {
        let line = index as u64 + 1;
        let mut columns = row.trim_end().split(',');
        let stamp = columns.next().unwrap_or_default();
        let of_day = time_of_day_ms(stamp).ok_or_else(|| Error::Row {
            path: path.to_owned(),
            line,
            field: "TIMESTAMP",
            found: stamp.to_owned(),
            remedy: "write YYYY-MM-DD HH:MM:SS.fraction",
        })?;
        day_ms += if last.is_some_and(|last| of_day + 43_200_000 < last) { 86_400_000 } else { 0 };
        last = Some(of_day);
        let at = of_day + day_ms;
        first = if requests.is_empty() { at } else { first };
        let input_tokens = tokens(number(path, line, "ContextTokens", columns.next())?);
        let output_tokens = tokens(number(path, line, "GeneratedTokens", columns.next())?);
        requests.push(Request { at_ms: at.saturating_sub(first), input_tokens, output_tokens });
    }
    Ok(requests)
}

fn time_of_day_ms(stamp: &str) -> Option<u64> {
    let (_, time) = stamp.split_once(' ')?;
    let mut parts = time.split(':');
    let hours: u64 = parts.next()?.parse().ok().filter(|hours| *hours < 24)?;
    let minutes: u64 = parts.next()?.parse().ok().filter(|minutes| *minutes < 60)?;
    let (seconds, fraction) = parts.next()?.split_once('.').unwrap_or((time.rsplit(':').next()?, "0"));
    let seconds: u64 = seconds.parse().ok().filter(|seconds| *seconds < 61)?;
    let millis: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some(((hours * 60 + minutes) * 60 + seconds) * 1000 + millis)
}

#[derive(Deserialize)]
struct MooncakeRow {
    timestamp: u64,
    input_length: u32,
    output_length: u32,
}

/// Mooncake's JSON lines; other fields (prefix hashes) are left unread.
pub fn mooncake(path: &Path) -> Result<Vec<Request>, Error> {
    let text = read_text(path)?;
    let mut requests = Vec::new();
    for (index, row) in text.lines().enumerate().filter(|(_, row)| !row.trim().is_empty()) {
        let row: MooncakeRow = serde_json::from_str(row).map_err(|error| Error::Row {
            path: path.to_owned(),
            line: index as u64 + 1,
            field: "request",
            found: error.to_string(),
            remedy: "write an object with timestamp, input_length and output_length",
        })?;
        requests.push(Request { at_ms: row.timestamp, input_tokens: row.input_length, output_tokens: row.output_length });
    }
    requests.sort_by_key(|request| request.at_ms);
    Ok(requests)
}

/// Rates per window of single requests, with the variation of the times between them.
pub fn series(name: &str, requests: &[Request], window_s: u32) -> Series {
    let span_ms = u64::from(window_s.max(1)) * 1000;
    let last = requests.last().map_or(0, |request| request.at_ms / span_ms);
    let window = |index: u64| {
        let from = requests.partition_point(|request| request.at_ms < index * span_ms);
        let to = requests.partition_point(|request| request.at_ms < (index + 1) * span_ms);
        let inside = requests.get(from..to).unwrap_or_default();
        Window { rate_rps: inside.len() as f64 / f64::from(window_s), burst: burst(inside) }
    };
    Series { name: name.to_owned(), window_s, windows: (0..=last).map(window).collect() }
}

fn burst(requests: &[Request]) -> f64 {
    let gaps: Vec<f64> =
        requests.iter().zip(requests.iter().skip(1)).map(|(left, right)| (right.at_ms - left.at_ms) as f64).collect();
    let count = gaps.len().max(1) as f64;
    let mean = gaps.iter().sum::<f64>() / count;
    if mean <= 0.0 {
        return 1.0;
    }
    gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count / (mean * mean)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be finite and not negative")]
fn tokens(value: f64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(name: &str, text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn azure_rows_become_milliseconds_since_the_first() {
        let rows =
            "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 23:59:59.9000000,10,2\r\n2023-11-17 00:00:00.1500000,7,1";
        let (_folder, path) = write("azure.csv", rows);
        let requests = azure(&path).unwrap();
        assert_eq!(requests[1], Request { at_ms: 250, input_tokens: 7, output_tokens: 1 });
    }

    #[test]
    fn mooncake_rows_are_read_and_a_broken_one_is_named() {
        let good = "{\"timestamp\": 27, \"input_length\": 6, \"output_length\": 5, \"hash_ids\": [0]}\n";
        let (_folder, path) = write("m.jsonl", good);
        assert_eq!(mooncake(&path).unwrap(), [Request { at_ms: 27, input_tokens: 6, output_tokens: 5 }]);
        let (_folder, path) = write("m.jsonl", &format!("{good}{{\"timestamp\": -1}}\n"));
        assert!(mooncake(&path).unwrap_err().to_string().contains("line 2"));
    }

    #[test]
    fn rates_count_requests_and_regular_arrivals_have_no_burst() {
        let requests: Vec<Request> =
            (0..120).map(|index| Request { at_ms: index * 500, input_tokens: 1, output_tokens: 1 }).collect();
        let series = series("m", &requests, 30);
        assert_eq!(series.windows.len(), 2);
        assert!((series.windows[1].rate_rps - 2.0).abs() < 1e-9 && series.windows[1].burst < 1e-9);
    }

    #[test]
    fn the_public_traces_have_the_rates_their_readme_says() {
        let Ok(data) = std::env::var("TIDEGATE_DATA") else { return };
        let code = azure(&Path::new(&data).join("azure-llm-2023/AzureLLMInferenceTrace_code.csv")).unwrap();
        assert_eq!(code.len(), 8819);
        assert!((series("code", &code, 60).mean_rps() - 2.57).abs() < 0.1);
        let mooncake = mooncake(&Path::new(&data).join("mooncake/conversation_trace.jsonl.gz")).unwrap();
        assert_eq!(mooncake.len(), 12_031);
    }
}
