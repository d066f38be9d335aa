//! Reading a request's body: bounded in size and time.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::error::ApiError;

/// How long, and how many times the largest body, is read of a body that is too large.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BODIES: usize = 4;

/// How much, and how long.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    pub max_bytes: usize,
    pub timeout: Duration,
}

/// The whole body: 413 if it is too large, 408 if it is too slow, 415 if it is compressed.
pub async fn read(request: Request, limits: BodyLimits) -> Result<(HeaderMap, Bytes), ApiError> {
    let (parts, body) = request.into_parts();
    refuse_compressed(&parts.headers)?;
    let declared = parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > limits.max_bytes) {
        linger(&parts.headers, body, limits).await;
        return Err(too_large(limits.max_bytes));
    }
    let bytes = collect(body, limits).await?;
    Ok((parts.headers, bytes))
}

/// Reads on and forgets: a client that is still sending when its connection is closed never sees the answer.
/// One that asks before it sends (`Expect: 100-continue`) is answered at once.
async fn linger(headers: &HeaderMap, body: Body, limits: BodyLimits) {
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let mut rest = Limited::new(body, limits.max_bytes.saturating_mul(LINGER_BODIES));
    let all = async { while let Some(Ok(_)) = rest.frame().await {} };
    drop(tokio::time::timeout(limits.timeout.min(LINGER), all).await);
}

async fn collect(body: Body, limits: BodyLimits) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(limits.timeout, Limited::new(body, limits.max_bytes).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(too_large(limits.max_bytes)),
        Ok(Err(e)) => Err(ApiError::bad_request(format!("the request body cannot be read: {e}"))),
        Err(_) => {
            let text = format!("the request body was not complete after {} ms", limits.timeout.as_millis());
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, text))
        }
    }
}

fn refuse_compressed(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(header::CONTENT_ENCODING) {
        None => Ok(()),
        Some(encoding) if encoding.as_bytes().eq_ignore_ascii_case(b"identity") => Ok(()),
        Some(encoding) => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("Content-Encoding {encoding:?} is not supported; send the body as it is"),
        )),
    }
}

fn too_large(max: usize) -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the request body is larger than {max} bytes"))
}
