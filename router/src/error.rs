//! What a client hears when something is wrong, in the words of its protocol.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tidegate_core::serving::Micros;

use crate::queue::Failure;

/// An answer that is not the one wished for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
    /// When trying again may help, in seconds.
    pub retry_after_s: Option<u64>,
}

impl ApiError {
    /// Without a hint to try again.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after_s: None }
    }

    /// The client's request is wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// In Triton's words.
    pub fn unknown_model(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("Request for unknown model: '{name}' is not found"))
    }

    /// Not now: try again after so long.
    /// No configuration has come yet.
    pub fn unconfigured() -> Self {
        Self::later(StatusCode::SERVICE_UNAVAILABLE, "the router has no configuration yet".to_owned(), 1_000_000)
    }

    fn later(status: StatusCode, message: String, after: Micros) -> Self {
        // At least a second, the header's unit; at most half a minute, for nobody knows further ahead.
        Self { status, message, retry_after_s: Some(after.div_ceil(1_000_000).clamp(1, 30)) }
    }

    /// Why the queue gave no answer for `model`.
    pub fn of_failure(failure: &Failure, model: &str) -> Self {
        let text = format!("model '{model}': {failure}");
        match failure {
            Failure::QueueFull { retry_after } => Self::later(StatusCode::TOO_MANY_REQUESTS, text, *retry_after),
            Failure::Deadline { retry_after } => Self::later(StatusCode::SERVICE_UNAVAILABLE, text, *retry_after),
            Failure::Paused | Failure::Gone | Failure::Unavailable(_) => {
                Self::later(StatusCode::SERVICE_UNAVAILABLE, text, 1_000_000)
            }
            Failure::TooLarge | Failure::Rejected(_) => Self::bad_request(text),
            Failure::Model(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, text),
        }
    }

    /// `{"error": "..."}`, as the Open Inference Protocol has it.
    pub fn into_oip(self) -> Response {
        let body = json!({ "error": self.message });
        self.with(&body)
    }

    /// The error object of OpenAI.
    pub fn into_openai(self) -> Response {
        let (kind, code) = match self.status {
            StatusCode::NOT_FOUND => ("invalid_request_error", Some("model_not_found")),
            StatusCode::TOO_MANY_REQUESTS => ("rate_limit_error", Some("rate_limit_exceeded")),
            status if status.is_client_error() => ("invalid_request_error", None),
            StatusCode::SERVICE_UNAVAILABLE => ("server_error", Some("unavailable")),
            _ => ("server_error", None),
        };
        let body = json!({ "error": { "message": self.message, "type": kind, "param": null, "code": code } });
        self.with(&body)
    }

    fn with(&self, body: &serde_json::Value) -> Response {
        let mut response = (self.status, axum::Json(body)).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.into_oip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let error = ApiError::of_failure(&Failure::QueueFull { retry_after: 2_100_000 }, "m");
        assert_eq!((error.status, error.retry_after_s), (StatusCode::TOO_MANY_REQUESTS, Some(3)));
        let response = error.into_oip();
        assert_eq!(response.headers()[header::RETRY_AFTER], "3");
    }

    #[test]
    fn a_client_s_mistake_is_not_to_be_tried_again() {
        let error = ApiError::of_failure(&Failure::Rejected("no".to_owned()), "m");
        assert_eq!((error.status, error.retry_after_s), (StatusCode::BAD_REQUEST, None));
    }
}
