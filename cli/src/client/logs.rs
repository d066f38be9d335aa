//! `logs`: the end of what a worker wrote, and with `--follow` what it writes next.
//!
//! The server hands out the last bytes of a log that it rotates. Following asks for that window again and
//! again and prints what lies after the part already seen.

use std::time::Duration;

use tidegate_api::view::State;

use super::http::{Client, Error, Server};
use super::out;
use super::target::{self, Target};

/// A worker that writes more than this between two looks has lines left out.
const WINDOW_BYTES: u64 = 256 << 10;

/// How often a followed log is looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// Arguments of `logs`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// `job/NAME`.
    #[arg(value_name = "job/NAME", value_parser = target::job)]
    target: Target,
    /// Which worker.
    #[arg(long, default_value_t = 0)]
    rank: u32,
    /// How much of the end, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 10)]
    tail: u64,
    /// Goes on until the job ends.
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    server: Server,
}

pub async fn run(Args { target, rank, tail, follow, server }: Args) -> Result<(), Error> {
    let client = Client::new(&server)?;
    let path = |bytes: u64| format!("/api/v1/logs/jobs/{}?rank={rank}&tail_bytes={bytes}", target.name);
    if !follow {
        return out::print(&client.text(&path(tail)).await?);
    }
    let mut seen = client.text(&path(WINDOW_BYTES)).await?;
    out::print(end(&seen, tail))?;
    let mut goes_on = true;
    while goes_on {
        tokio::time::sleep(PERIOD).await;
        // Asked before the log, so that the last words of a job that has just ended are not missed.
        match phase(&client.get("/api/v1/state").await?, &target.name) {
            Some(phase) => goes_on = !has_ended(phase),
            None => return Ok(()),
        }
        let window = client.text(&path(WINDOW_BYTES)).await?;
        out::print(news(&seen, &window))?;
        seen = window;
    }
    Ok(())
}

fn phase<'a>(state: &'a State, name: &str) -> Option<&'a str> {
    state.jobs.iter().find(|job| job.name == name).map(|job| job.phase.as_str())
}

fn has_ended(phase: &str) -> bool {
    matches!(phase, "succeeded" | "failed" | "cancelled")
}

/// The last `bytes` of a text, a whole number of characters.
fn end(text: &str, bytes: u64) -> &str {
    let from = text.len().saturating_sub(usize::try_from(bytes).unwrap_or(usize::MAX));
    (from..=text.len()).find_map(|at| text.get(at..)).unwrap_or_default()
}

/// What `window` holds after the text of `seen`: as long as the log fits the window, `seen` is how it starts;
/// later the window starts inside of `seen`. Without any overlap the log began anew, and all of it is news.
fn news<'a>(seen: &str, window: &'a str) -> &'a str {
    let mut ends = seen.char_indices().filter_map(|(at, _)| seen.get(at..));
    ends.find_map(|end| window.strip_prefix(end)).unwrap_or(window)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_api::view::Job;

    #[test]
    fn only_what_is_new_is_printed() {
        assert_eq!(news("step 1\nstep 2\n", "step 1\nstep 2\nstep 3\n"), "step 3\n");
        assert_eq!(news("step 1\nstep 2\n", "step 1\nstep 2\n"), "");
        assert_eq!(news("step 1\nste", "step 1\nstep 2\n"), "p 2\n", "half a line is completed");
        assert_eq!(news("", "step 1\n"), "step 1\n");
    }

    #[test]
    fn a_window_that_moved_on_overlaps_with_what_was_seen() {
        assert_eq!(news("step 1\nstep 2\nstep 3\n", "step 3\nstep 4\n"), "step 4\n");
        assert_eq!(news("step 1\nstep 2\nstep 3\n", "p 2\nstep 3\nstep 4\n"), "step 4\n", "a window starts anywhere in a line");
    }

    #[test]
    fn a_log_that_began_anew_is_printed_whole() {
        assert_eq!(news("step 1\nstep 2\n", "hello\n"), "hello\n");
    }

    #[test]
    fn the_end_of_a_text_is_whole_characters() {
        assert_eq!(end("abc", 2), "bc");
        assert_eq!(end("aüb", 2), "b", "no half of a ü");
        assert_eq!(end("abc", 100), "abc");
    }

    #[test]
    fn following_ends_with_the_job() {
        let job = Job { name: "night".to_owned(), phase: "paused".to_owned(), ..Job::default() };
        let state = State { jobs: vec![job], ..State::default() };
        assert_eq!(phase(&state, "night"), Some("paused"));
        assert_eq!(phase(&state, "day"), None);
        assert!(has_ended("succeeded") && has_ended("cancelled") && !has_ended("paused"));
    }
}
