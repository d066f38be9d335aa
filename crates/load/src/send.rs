//! Sends one request and waits for its end, over a bounded pool of kept connections.

use std::time::Duration;

use bytes::BytesMut;
use reqwest::{Client, StatusCode, Url};
use tokio::time::Instant;

use crate::judge::{Outcome, judge};
use crate::traffic::Traffic;

/// From the first byte sent to the last received; beyond it the request is lost.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// A refused connection has carried nothing, so it is safe to try again: a front door that restarts
/// is back within this time.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
const FIRST_BACKOFF: Duration = Duration::from_millis(25);
const LAST_BACKOFF: Duration = Duration::from_millis(400);
/// Kept idle connections. More than are in flight at the peak of an orderly day.
const MAX_IDLE: usize = 256;
/// Protects the client from a server that does not stop.
const MAX_BODY_BYTES: usize = 4 << 20;

#[derive(Clone)]
pub(crate) struct Sender {
    http: Client,
    target: Url,
}

/// The end of one request.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) at: Instant,
    /// Connections that were refused before one was made.
    pub(crate) connect_retries: u32,
}

impl Sender {
    pub(crate) fn new(target: &str) -> Result<Self, String> {
        let target: Url = target.parse().map_err(|e| format!("{target:?} is no URL: {e}"))?;
        if target.cannot_be_a_base() || target.scheme() != "http" {
            return Err(format!("{target} must begin with http://"));
        }
        let http = Client::builder()
            .no_proxy()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(MAX_IDLE)
            .timeout(ANSWER_TIMEOUT)
            .build()
            .map_err(|e| format!("cannot make an HTTP client: {e}"))?;
        Ok(Self { http, target })
    }

    /// Whether the server has the model. Waits a while for a server that is starting.
    pub(crate) async fn has_model(&self, model: &str) -> Result<bool, String> {
        let url = self.url(&format!("/v2/models/{model}"));
        let begun = Instant::now();
        loop {
            let problem = match self.http.get(url.clone()).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(true),
                // Triton says 400 for a model that it does not know, others 404.
                Ok(answer) if matches!(answer.status(), StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST) => return Ok(false),
                Ok(answer) => format!("{url} answers {}", answer.status()),
                Err(e) => chain(&e),
            };
            if begun.elapsed() > CONNECT_PATIENCE {
                return Err(problem);
            }
            tokio::time::sleep(LAST_BACKOFF).await;
        }
    }

    /// Sends the model's request `pick`.
    pub(crate) async fn send(&self, traffic: &Traffic, pick: usize) -> Ended {
        let Some(body) = traffic.bodies.get(pick) else {
            return ended(Outcome::Lost(format!("no request {pick}")), 0);
        };
        let url = self.url(&traffic.path);
        let begun = Instant::now();
        let (mut retries, mut backoff) = (0, FIRST_BACKOFF);
        loop {
            let request = self.http.post(url.clone()).header("content-type", "application/json").body(body.clone());
            match exchange(request, traffic, pick).await {
                Err(e) if e.is_connect() && begun.elapsed() + backoff < CONNECT_PATIENCE => {
                    tokio::time::sleep(backoff).await;
                    retries += 1;
                    backoff = (backoff * 2).min(LAST_BACKOFF);
                }
                Err(e) => return ended(Outcome::Lost(chain(&e)), retries),
                Ok(outcome) => return ended(outcome, retries),
            }
        }
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.target.clone();
        url.set_path(path);
        url
    }
}

fn ended(outcome: Outcome, connect_retries: u32) -> Ended {
    Ended { outcome, at: Instant::now(), connect_retries }
}

async fn exchange(request: reqwest::RequestBuilder, traffic: &Traffic, pick: usize) -> Result<Outcome, reqwest::Error> {
    let mut answer = request.send().await?;
    let mut body = BytesMut::new();
    while let Some(part) = answer.chunk().await? {
        if body.len() + part.len() > MAX_BODY_BYTES {
            return Ok(Outcome::Failed(format!("the answer is longer than {MAX_BODY_BYTES} bytes")));
        }
        body.extend_from_slice(&part);
    }
    Ok(judge(answer.status(), answer.headers(), &body, traffic, pick))
}

/// An error with its causes: reqwest's own text hides whether a connection was refused or reset.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
