//! Who asks or connects, by `TokenReview`, and whether they may, by `SubjectAccessReview`: `get` or `post` on a path, as a
//! `nonResourceURL` of a role.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use tokio::time::timeout;

/// The API server answers reviews in milliseconds.
const REVIEW_WITHIN: Duration = Duration::from_secs(5);
/// Who was let in is let in again without a review for so long, as the API server itself does: a page asks every other second.
const LET_IN: Duration = Duration::from_secs(10);
/// Of whom that is remembered at most.
const REMEMBERED: usize = 256;

/// For whom the tokens of routers and replicas are made: who overhears one on the control port can do nothing with it at the API server.
pub const CONTROL_AUDIENCE: &str = "tidegate-control";

/// Lets in whom Kubernetes lets.
pub struct Gate {
    /// For whom tokens must be made; absent: for the API server.
    audience: Option<&'static str>,
    tokens: Api<TokenReview>,
    rights: Api<SubjectAccessReview>,
    let_in: Mutex<BTreeMap<Entry, Instant>>,
}

/// Token, verb and path.
type Entry = (String, &'static str, String);

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("send a token that Kubernetes knows: Authorization: Bearer TOKEN (kubectl create token SERVICEACCOUNT makes one)")]
    Unknown,
    #[error("{user} may not {verb} the nonResourceURL {path}: bind a role that allows it")]
    Forbidden { user: String, verb: &'static str, path: String },
    #[error("Kubernetes cannot be asked who you are: {0}")]
    Unavailable(String),
}

impl Refusal {
    /// Bounded word for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Forbidden { .. } => "forbidden",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Unknown => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, format!("{self}\n")).into_response()
    }
}

impl Gate {
    pub fn new(client: Client, audience: Option<&'static str>) -> Self {
        Self { audience, tokens: Api::all(client.clone()), rights: Api::all(client), let_in: Mutex::default() }
    }

    /// Whether the sender of these headers may ask that.
    pub async fn check(&self, headers: &HeaderMap, method: &Method, path: &str) -> Result<(), Refusal> {
        let (verb, right) = right(method, path);
        self.admit(headers, verb, right).await
    }

    /// Whether the sender of these headers has that right.
    pub async fn admit(&self, headers: &HeaderMap, verb: &'static str, right: &str) -> Result<(), Refusal> {
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let token = token.map(str::trim).filter(|token| !token.is_empty()).ok_or(Refusal::Unknown)?;
        let entry = (token.to_owned(), verb, right.to_owned());
        if self.let_in.lock().get(&entry).is_some_and(|until| *until > Instant::now()) {
            return Ok(());
        }
        match timeout(REVIEW_WITHIN, self.review(token, verb, right)).await {
            Ok(answer) => answer?,
            Err(_) => return Err(Refusal::Unavailable("no answer".to_owned())),
        }
        self.remember(entry);
        Ok(())
    }

    fn remember(&self, entry: Entry) {
        let now = Instant::now();
        let mut let_in = self.let_in.lock();
        let_in.retain(|_, until| *until > now);
        if let_in.len() < REMEMBERED {
            let_in.insert(entry, now + LET_IN);
        }
    }

    async fn review(&self, token: &str, verb: &'static str, path: &str) -> Result<(), Refusal> {
        let failed = |error: kube::Error| Refusal::Unavailable(error.to_string());
        let audiences = self.audience.map(|audience| vec![audience.to_owned()]);
        let asked = TokenReview { spec: TokenReviewSpec { token: token.to_owned(), audiences }, ..TokenReview::default() };
        let status = self.tokens.create(&PostParams::default(), &asked).await.map_err(failed)?.status.unwrap_or_default();
        // An API server that knows nothing of audiences would take any token.
        let meant = self.audience.is_none_or(|audience| status.audiences.iter().flatten().any(|known| known == audience));
        let user = status.user.filter(|_| status.authenticated == Some(true) && meant).ok_or(Refusal::Unknown)?;
        let name = user.username.clone().unwrap_or_default();
        let asked = SubjectAccessReview { spec: subject(user, verb, path), ..SubjectAccessReview::default() };
        let answer = self.rights.create(&PostParams::default(), &asked).await.map_err(failed)?;
        if answer.status.is_some_and(|status| status.allowed) {
            return Ok(());
        }
        Err(Refusal::Forbidden { user: name, verb, path: path.to_owned() })
    }
}

/// The verb and the path that a role must allow. In many clusters everybody who has a token may get what is below `/api`, as the API
/// server's own paths are: so the path without that is asked for.
fn right<'a>(method: &Method, path: &'a str) -> (&'static str, &'a str) {
    let verb = if method == Method::POST { "post" } else { "get" };
    (verb, path.strip_prefix("/api/v1").filter(|rest| rest.starts_with('/')).unwrap_or(path))
}

fn subject(user: UserInfo, verb: &str, path: &str) -> SubjectAccessReviewSpec {
    let extra: BTreeMap<String, Vec<String>> = user.extra.unwrap_or_default();
    SubjectAccessReviewSpec {
        user: user.username,
        groups: user.groups,
        uid: user.uid,
        extra: Some(extra),
        non_resource_attributes: Some(NonResourceAttributes { path: Some(path.to_owned()), verb: Some(verb.to_owned()) }),
        ..SubjectAccessReviewSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_api_is_asked_for_by_its_short_path() {
        assert_eq!(right(&Method::GET, "/api/v1/state"), ("get", "/state"));
        assert_eq!(right(&Method::GET, "/plans"), ("get", "/plans"));
        assert_eq!(right(&Method::POST, "/api/v1/what-if"), ("post", "/what-if"));
        assert_eq!(right(&Method::HEAD, "/api/v1"), ("get", "/api/v1"));
    }
}
