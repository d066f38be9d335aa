//! Single requests of the one-hour traces (Azure 2023, Mooncake), and their rate per window.

use std::path::Path;

use serde::Deserialize;

use super::{Series, Window};
use crate::Error;
use crate::trace::Bad;
use crate::trace::input::Lines;
use crate::trace::table::{Columns, Row, Table};

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Arrival, milliseconds since the trace's first.
    pub at_ms: u64,
    pub input_tokens: u32,
    pub output_tokens: u32,
}

/// Beyond these a token count or a time (one year, in milliseconds) is a slip.
const MOST_TOKENS: u32 = 100_000_000;
const MOST_MS: u64 = 31_536_000_000;

const COLUMNS: Columns = Columns {
    format: "azure",
    needed: &["TIMESTAMP", "ContextTokens", "GeneratedTokens"],
    optional: &[],
    separator: ',',
    header: true,
};

/// Azure's `TIMESTAMP,ContextTokens,GeneratedTokens`, by time. Only the time of day is read: the trace spans one hour; a
/// step back over midnight is taken as the next day.
pub fn azure(path: &Path, bad: &mut Bad) -> Result<Vec<Request>, Error> {
    let mut last = 0;
    let mut day_ms = 0;
    let read = move |row: &Row<'_>| {
        let of_day = time_of_day_ms(row.get("TIMESTAMP"));
        let of_day = of_day.ok_or_else(|| row.wrong("TIMESTAMP", "write YYYY-MM-DD HH:MM:SS.fraction"))?;
        let remedy = "write how many tokens, 0 to 10^8";
        let input_tokens = row.whole("ContextTokens", 0, MOST_TOKENS, remedy)?;
        let output_tokens = row.whole("GeneratedTokens", 0, MOST_TOKENS, remedy)?;
        day_ms += if of_day + 43_200_000 < last { 86_400_000 } else { 0 };
        last = of_day;
        Ok(Request { at_ms: of_day + day_ms, input_tokens, output_tokens })
    };
    let requests: Result<Vec<Request>, Error> = Table::new(Lines::open(path)?, COLUMNS, Box::new(read))?.rows(bad).collect();
    Ok(from_first(requests?))
}

/// By time, counted from the first.
fn from_first(mut requests: Vec<Request>) -> Vec<Request> {
    requests.sort_by_key(|request| request.at_ms);
    let first = requests.first().map_or(0, |request| request.at_ms);
    for request in &mut requests {
        request.at_ms -= first;
    }
    requests
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

/// Mooncake's JSON lines, by time; other fields (prefix hashes) are left unread.
pub fn mooncake(path: &Path, bad: &mut Bad) -> Result<Vec<Request>, Error> {
    let mut lines = Lines::open(path)?;
    let mut requests = Vec::new();
    let mut wrong = None;
    while let Some(text) = lines.advance()? {
        match mooncake_row(text) {
            Ok(request) => requests.push(request),
            Err(found) => {
                let remedy = "write an object with timestamp (ms, up to a year), input_length and output_length (up to 10^8)";
                let error = Error::Row { path: path.to_owned(), line: lines.line(), field: "request", found, remedy };
                bad.note(&error);
                wrong = wrong.or(Some(error));
            }
        }
    }
    match wrong.filter(|_| !bad.is_skipping()) {
        Some(error) => Err(error),
        None => Ok(from_first(requests)),
    }
}

fn mooncake_row(text: &[u8]) -> Result<Request, String> {
    let row: MooncakeRow = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if row.timestamp > MOST_MS || row.input_length.max(row.output_length) > MOST_TOKENS {
        return Err(format!("timestamp {}, lengths {} and {}", row.timestamp, row.input_length, row.output_length));
    }
    Ok(Request { at_ms: row.timestamp, input_tokens: row.input_length, output_tokens: row.output_length })
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
        let requests = azure(&path, &mut Bad::stops()).unwrap();
        assert_eq!(requests[1], Request { at_ms: 250, input_tokens: 7, output_tokens: 1 });
    }

    #[test]
    fn mooncake_rows_are_read_and_a_broken_one_is_named() {
        let good = "{\"timestamp\": 27, \"input_length\": 6, \"output_length\": 5, \"hash_ids\": [0]}\n";
        let (_folder, path) = write("m.jsonl", good);
        assert_eq!(mooncake(&path, &mut Bad::stops()).unwrap(), [Request { at_ms: 0, input_tokens: 6, output_tokens: 5 }]);
        let (_folder, path) = write("m.jsonl", &format!("{good}{{\"timestamp\": -1}}\n"));
        assert!(mooncake(&path, &mut Bad::stops()).unwrap_err().to_string().contains("line 2"));
        assert_eq!(mooncake(&path, &mut Bad::new(true)).unwrap().len(), 1);
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
        let code = azure(&Path::new(&data).join("azure-llm-2023/AzureLLMInferenceTrace_code.csv"), &mut Bad::stops()).unwrap();
        assert_eq!(code.len(), 8819);
        assert!((series("code", &code, 60).mean_rps() - 2.57).abs() < 0.1);
        let mooncake = mooncake(&Path::new(&data).join("mooncake/conversation_trace.jsonl.gz"), &mut Bad::stops()).unwrap();
        assert_eq!(mooncake.len(), 12_031);
    }
}
