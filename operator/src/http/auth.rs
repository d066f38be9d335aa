//! Who asks, by `TokenReview`, and whether they may, by `SubjectAccessReview`: `get` on the path, as a `nonResourceURL` of a role.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::time::timeout;

/// The API server answers reviews in milliseconds.
const REVIEW_WITHIN: Duration = Duration::from_secs(5);

/// Lets in whom Kubernetes lets.
pub struct Gate {
    tokens: Api<TokenReview>,
    rights: Api<SubjectAccessReview>,
}

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("send a token that Kubernetes knows: Authorization: Bearer TOKEN (kubectl create token SERVICEACCOUNT makes one)")]
    Unknown,
    #[error("{user} may not get the nonResourceURL {path}: bind a role that allows it")]
    Forbidden { user: String, path: String },
    #[error("Kubernetes cannot be asked who you are: {0}")]
    Unavailable(String),
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
    pub fn new(client: Client) -> Self {
        Self { tokens: Api::all(client.clone()), rights: Api::all(client) }
    }

    /// Whether the sender of these headers may get the path.
    pub async fn check(&self, headers: &HeaderMap, path: &str) -> Result<(), Refusal> {
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let token = token.map(str::trim).filter(|token| !token.is_empty()).ok_or(Refusal::Unknown)?;
        match timeout(REVIEW_WITHIN, self.review(token, path)).await {
            Ok(answer) => answer,
            Err(_) => Err(Refusal::Unavailable("no answer".to_owned())),
        }
    }

    async fn review(&self, token: &str, path: &str) -> Result<(), Refusal> {
        let failed = |error: kube::Error| Refusal::Unavailable(error.to_string());
        let asked = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() },
            ..TokenReview::default()
        };
        let status = self.tokens.create(&PostParams::default(), &asked).await.map_err(failed)?.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true)).ok_or(Refusal::Unknown)?;
        let name = user.username.clone().unwrap_or_default();
        let asked = SubjectAccessReview { spec: subject(user, path), ..SubjectAccessReview::default() };
        let answer = self.rights.create(&PostParams::default(), &asked).await.map_err(failed)?;
        if answer.status.is_some_and(|status| status.allowed) {
            return Ok(());
        }
        Err(Refusal::Forbidden { user: name, path: path.to_owned() })
    }
}

fn subject(user: UserInfo, path: &str) -> SubjectAccessReviewSpec {
    let extra: BTreeMap<String, Vec<String>> = user.extra.unwrap_or_default();
    SubjectAccessReviewSpec {
        user: user.username,
        groups: user.groups,
        uid: user.uid,
        extra: Some(extra),
        non_resource_attributes: Some(NonResourceAttributes { path: Some(path.to_owned()), verb: Some("get".to_owned()) }),
        ..SubjectAccessReviewSpec::default()
    }
}
