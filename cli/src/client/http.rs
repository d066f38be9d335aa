//! One conversation with a running `up`: where it is, how it answers, what its refusals mean to a shell.

use std::io;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_api::view::Failure;

/// Longer than any answer takes while `up` is well; a hung one must not hang a script.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where `up` listens.
#[derive(clap::Args, Debug, Clone)]
pub struct Server {
    /// Address of a running `tidegate up`.
    #[arg(long = "server", value_name = "URL", env = "TIDEGATE_SERVER", default_value = "http://127.0.0.1:8080")]
    url: String,
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there. Exit 69 (sysexits: service unavailable).
    #[error("no tidegate up answers at {url}; start one with `tidegate up` or give --server")]
    Unreachable {
        /// The address that was tried.
        url: String,
    },
    /// `up` says no. Exit 64 when the request is at fault, else 1.
    #[error("{error}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// The server's sentence.
        error: String,
    },
    /// Something answers, but not as `up` does. Exit 1.
    #[error("{url} does not answer as tidegate up does: {source}")]
    Odd {
        /// What was asked.
        url: String,
        /// What went wrong with the answer.
        #[source]
        source: reqwest::Error,
    },
    /// The user's own input cannot be used. Exit 64.
    #[error("{0}")]
    Input(String),
    /// Standard output or the terminal went away. Exit 1.
    #[error("write to the terminal: {0}")]
    Output(#[source] io::Error),
}

impl Error {
    /// The process exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Unreachable { .. } => 69,
            Self::Input(_) => 64,
            Self::Refused { status, .. } if matches!(status.as_u16(), 400 | 404 | 409 | 422) => 64,
            Self::Refused { .. } | Self::Odd { .. } | Self::Output(_) => 1,
        }
    }

    /// The reader of our output has seen enough, as `head` does: no failure.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// A client of one `up`.
#[derive(Debug, Clone)]
pub struct Client {
    url: String,
    http: reqwest::Client,
}

impl Client {
    /// For the server that the user named.
    pub fn new(server: &Server) -> Result<Self, Error> {
        let url = server.url.trim_end_matches('/').to_owned();
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Error::Input(format!("--server {url:?} is not an address; write it as http://HOST:PORT")));
        }
        // No proxy: the address is where `up` is, most often this machine.
        let http = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build();
        http.map(|http| Self { url, http }).map_err(|e| Error::Input(format!("make an HTTP client: {e}")))
    }

    /// The address, as given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `GET path` as JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.json(self.request(Method::GET, path)).await
    }

    /// `GET path` as text.
    pub async fn text(&self, path: &str) -> Result<String, Error> {
        let response = self.send(self.request(Method::GET, path)).await?;
        response.text().await.map_err(|e| self.odd(e))
    }

    /// A request without a body, as JSON.
    pub async fn call<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, Error> {
        self.json(self.request(method, path)).await
    }

    /// `POST path` with a YAML body, as JSON.
    pub async fn post_yaml<T: DeserializeOwned>(&self, path: &str, mut headers: HeaderMap, yaml: Vec<u8>) -> Result<T, Error> {
        headers.insert(reqwest::header::CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
        self.json(self.request(Method::POST, path).headers(headers).body(yaml)).await
    }

    /// `POST path` with a JSON body, as JSON.
    pub async fn post_json<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        self.json(self.request(Method::POST, path).json(body)).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Error> {
        self.send(request).await?.json().await.map_err(|e| self.odd(e))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let response = request.send().await.map_err(|e| self.unsent(e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let error = match response.json::<Failure>().await {
            Ok(failure) => failure.error,
            Err(_) => format!("{} answers {status} and no reason; is it tidegate up?", self.url),
        };
        Err(Error::Refused { status, error })
    }

    fn unsent(&self, error: reqwest::Error) -> Error {
        if error.is_connect() { Error::Unreachable { url: self.url.clone() } } else { self.odd(error) }
    }

    fn odd(&self, source: reqwest::Error) -> Error {
        Error::Odd { url: self.url.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: StatusCode) -> u8 {
        Error::Refused { status, error: "no".to_owned() }.code()
    }

    #[test]
    fn exit_codes_tell_a_wrong_request_from_a_broken_server() {
        assert_eq!(refused(StatusCode::BAD_REQUEST), 64);
        assert_eq!(refused(StatusCode::NOT_FOUND), 64);
        assert_eq!(refused(StatusCode::CONFLICT), 64);
        assert_eq!(refused(StatusCode::UNPROCESSABLE_ENTITY), 64);
        assert_eq!(refused(StatusCode::SERVICE_UNAVAILABLE), 1);
    }

    #[test]
    fn an_address_without_a_scheme_is_refused_with_the_remedy() {
        let error = Client::new(&Server { url: "localhost:8080".to_owned() }).unwrap_err();
        assert!(error.to_string().contains("http://HOST:PORT"), "{error}");
        assert_eq!(error.code(), 64);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_said_with_the_remedy() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = Client::new(&Server { url: format!("http://127.0.0.1:{port}/") }).unwrap();
        let error = client.text("/api/v1/state").await.unwrap_err();
        assert_eq!(error.code(), 69);
        let expected =
            format!("no tidegate up answers at http://127.0.0.1:{port}; start one with `tidegate up` or give --server");
        assert_eq!(error.to_string(), expected);
    }
}
