//! A lean HTTP/1.1 client: one keep-alive connection a task, bytes that are made once. It must not eat the cores
//! that it measures; a general client would use several times the processor time of the router.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What a closed loop saw.
#[derive(Debug)]
pub struct Seen {
    pub elapsed: Duration,
    /// Of each request.
    pub latencies: Vec<Duration>,
}

/// A whole HTTP request in bytes.
pub fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// `concurrency` connections, each sends the next request when the last is answered, for `time`.
///
/// # Errors
/// Any answer but 200.
pub async fn closed_loop(address: SocketAddr, request: &[u8], concurrency: usize, time: Duration) -> Result<Seen> {
    let mut connections = Vec::new();
    for _ in 0..concurrency {
        connections.push(Connection::open(address).await?);
    }
    let began = Instant::now();
    let mut loops = JoinSet::new();
    for mut connection in connections {
        let request = request.to_vec();
        loops.spawn(async move {
            let mut latencies = Vec::new();
            while began.elapsed() < time {
                let sent = Instant::now();
                let status = connection.exchange(&request).await?;
                ensure!(status == 200, "the router answered {status}: {}", String::from_utf8_lossy(connection.body()));
                latencies.push(sent.elapsed());
            }
            Ok(latencies)
        });
    }
    let mut seen = Seen { elapsed: Duration::ZERO, latencies: Vec::new() };
    while let Some(done) = loops.join_next().await {
        let latencies: Result<Vec<Duration>> = done?;
        seen.latencies.extend(latencies?);
    }
    seen.elapsed = began.elapsed();
    Ok(seen)
}

/// One keep-alive connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    body: std::ops::Range<usize>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 * 1024), body: 0..0 })
    }

    /// Sends a request and reads its whole answer; its status.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<u16> {
        self.buffer.clear();
        self.stream.write_all(request).await?;
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the connection was closed before the answer was whole");
            }
            if let Some(head) = Head::parse(&self.buffer)? {
                let whole = head.length + head.body;
                while self.buffer.len() < head.length + head.body {
                    ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the connection was closed inside a body");
                }
                self.body = head.length..whole;
                return Ok(head.status);
            }
        }
    }

    /// Of the last answer.
    pub fn body(&self) -> &[u8] {
        self.buffer.get(self.body.clone()).unwrap_or_default()
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Bytes of the head itself and of the body behind it.
    length: usize,
    body: usize,
}

impl Head {
    /// `None` while it is not complete. Answers without a length are not for this client.
    fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let text = std::str::from_utf8(bytes.get(..end).unwrap_or_default()).context("the head is not text")?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let length = lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let body = length.and_then(|(_, value)| value.trim().parse().ok());
        match (status, body) {
            (Some(status), Some(body)) => Ok(Some(Self { status, length: end + 4, body })),
            _ => bail!("an answer without a status or a content-length: {text:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_it_is_complete() {
        assert_eq!(Head::parse(b"HTTP/1.1 200 OK\r\ncontent-le").unwrap(), None);
        let whole = b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(Head::parse(whole).unwrap(), Some(Head { status: 404, length: whole.len() - 3, body: 3 }));
        assert!(Head::parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }
}
