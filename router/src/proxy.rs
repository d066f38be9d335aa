//! Forwards what is not the router's own to the world, streaming both ways.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::uri::{Authority, Scheme};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use futures_util::StreamExt;
use http_body_util::Limited;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;

/// The world is on the same box or in the same cluster.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Until the head of an answer. Explanations and reports take milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Headers that belong to one connection (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The way to the world.
#[derive(Clone, Debug)]
pub struct Proxy {
    authority: Authority,
    client: Client<HttpConnector, Body>,
    max_body_bytes: usize,
    /// Ends event streams, which never end by themselves, when the router drains.
    stop: CancellationToken,
}

impl Proxy {
    /// Forwards to `url`, of which scheme and authority count. Tells what is wrong with another.
    pub fn new(url: &str, max_body_bytes: usize, stop: CancellationToken) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|e| format!("{e}"))?;
        let authority = match (uri.scheme(), uri.authority()) {
            (Some(scheme), Some(authority)) if *scheme == Scheme::HTTP => authority.clone(),
            _ => return Err("it must look like http://host:port".to_owned()),
        };
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { authority, client, max_body_bytes, stop })
    }

    /// The world's answer, or 503 when it is not there.
    pub async fn forward(&self, request: Request) -> Response {
        let request = match self.readdress(request) {
            Ok(request) => request,
            Err(e) => return e.into_oip(),
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, self.client.request(request)).await {
            Ok(Ok(response)) => self.hand_back(response),
            Ok(Err(e)) => away(&format!("the control plane does not answer ({e}); inference goes on")),
            Err(_) => away("the control plane does not answer in time; inference goes on"),
        }
    }

    fn readdress(&self, request: Request) -> Result<Request, ApiError> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
        let uri = Uri::builder().scheme(Scheme::HTTP).authority(self.authority.clone()).path_and_query(path).build();
        parts.uri = uri.map_err(|e| ApiError::bad_request(format!("the path cannot be forwarded: {e}")))?;
        strip(&mut parts.headers);
        if let Some(host) = parts.headers.remove(header::HOST) {
            parts.headers.insert(HeaderName::from_static("x-forwarded-host"), host);
        }
        parts.version = axum::http::Version::HTTP_11;
        Ok(Request::from_parts(parts, Body::new(Limited::new(body, self.max_body_bytes))))
    }

    fn hand_back(&self, response: axum::http::Response<hyper::body::Incoming>) -> Response {
        let (mut parts, body) = response.into_parts();
        strip(&mut parts.headers);
        let events = parts.headers.get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"text/event-stream"));
        let body = Body::new(body);
        let body = if events {
            Body::from_stream(body.into_data_stream().take_until(self.stop.clone().cancelled_owned()))
        } else {
            body
        };
        Response::from_parts(parts, body)
    }
}

fn strip(headers: &mut HeaderMap<HeaderValue>) {
    // Headers that the connection header names belong to the connection as well.
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

fn away(text: &str) -> Response {
    let mut error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text);
    error.retry_after_s = Some(1);
    error.into_oip()
}
