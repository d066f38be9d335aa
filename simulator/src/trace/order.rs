//! The order of submission, for formats that do not keep it.

use crate::Error;

use super::TraceJob;

/// Jobs that are held at once while sorting; at about 300 bytes each they take 6 GiB.
const MOST: usize = 20_000_000;
const DAY_MS: u64 = 86_400_000;

/// All jobs by submission; equal times stay in the file's order.
pub fn sorted(
    rows: impl Iterator<Item = Result<TraceJob, Error>>,
) -> Result<impl Iterator<Item = Result<TraceJob, Error>>, Error> {
    let mut all = Vec::new();
    for job in rows {
        if all.len() == MOST {
            return Err(Error::Usage(format!("the trace has over {MOST} jobs and must be sorted in memory; split it")));
        }
        all.push(job?);
    }
    all.sort_by_key(|job: &TraceJob| job.submit_ms);
    Ok(all.into_iter().map(Ok))
}

/// Moves zero to the midnight before the first job, so that hours of the day and days of the week stay what they are.
pub fn from_midnight(jobs: impl Iterator<Item = Result<TraceJob, Error>>) -> impl Iterator<Item = Result<TraceJob, Error>> {
    let mut midnight = None;
    jobs.map(move |job| {
        job.map(|mut job| {
            let zero = *midnight.get_or_insert(job.submit_ms - job.submit_ms % DAY_MS);
            job.submit_ms = job.submit_ms.saturating_sub(zero);
            job
        })
    })
}
