//! What time it is: the API server's clock counts. Objects bear its time, when a pod was made and when it was bound, and what is
//! measured from there (a gang's time to start, run times) is measured by the same clock, whatever this machine's says.
//!
//! It is asked once, when this process begins to act. From then on time passes as it passes for the lease: nobody who sets this
//! machine's clock changes it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::{Request, header};
use k8s_openapi::jiff::fmt::rfc2822;
use kube::Client;
use kube::client::Body;
use tidegate_core::time::At;
use tokio::time::timeout;

use crate::lease::REQUEST_WITHIN;

/// What an answer's date may differ by though the clocks are one: it has no fractions of seconds, and answers take a moment.
const ALIKE_MS: u64 = 2_000;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Instant,
    at: At,
}

impl Clock {
    /// The API server's; this machine's, if it does not differ from that, or if the API server does not tell.
    pub async fn of(client: &Client) -> Self {
        let told = timeout(REQUEST_WITHIN, told(client)).await.ok().flatten();
        let own = own();
        let at = match told {
            Some(told) if !is_alike(own, told) => {
                tracing::warn!(
                    machine_ms = own.0,
                    api_server_ms = told.0,
                    "this machine's clock is not the API server's, which counts; set this one"
                );
                told
            }
            Some(_) => own,
            None => {
                tracing::warn!("the API server does not tell the time: this machine's clock counts");
                own
            }
        };
        Self { began: Instant::now(), at }
    }

    /// The time now.
    pub fn now(&self) -> At {
        self.at.plus(millis(self.began.elapsed()))
    }
}

/// What the API server says of itself whoever asks has a date, as every answer.
async fn told(client: &Client) -> Option<At> {
    let request = Request::get("/version").body(Body::empty()).ok()?;
    let answer = client.send(request).await.ok()?;
    date(answer.headers().get(header::DATE)?.to_str().ok()?)
}

fn date(text: &str) -> Option<At> {
    let at = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?.as_millisecond();
    u64::try_from(at).ok().map(At)
}

fn is_alike(own: At, told: At) -> bool {
    own.0.abs_diff(told.0) <= ALIKE_MS
}

fn own() -> At {
    At(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_an_answer_is_read() {
        assert_eq!(date("Mon, 30 Nov 2026 10:00:01 GMT"), Some(At(1_796_032_801_000)));
        assert_eq!(date("yesterday"), None);
    }

    #[test]
    fn clocks_are_alike_within_what_an_answer_takes() {
        assert!(is_alike(At(10_900), At(10_000)) && is_alike(At(10_000), At(11_000)));
        assert!(!is_alike(At(10_000), At(3_610_000)) && !is_alike(At(3_610_000), At(10_000)));
    }

    #[test]
    fn time_goes_on_from_what_was_told() {
        let clock = Clock { began: Instant::now(), at: At(5_000) };
        let now = clock.now();
        assert!(now >= At(5_000) && now < At(65_000), "{now:?}");
    }
}
