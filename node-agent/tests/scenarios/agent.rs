//! An agent on a machine that a test can change.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use nvml_fake::{Script, install};
use serde_json::Value;
use tempfile::TempDir;
use tidegate_node_agent::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// On a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// Flags as on a command line.
pub fn args(flags: &[&str]) -> Args {
    Cli::parse_from(std::iter::once("x").chain(flags.iter().copied())).args
}

/// A running agent; [`Agent::end`] ends it.
pub struct Agent {
    _dir: TempDir,
    pub address: SocketAddr,
    script: PathBuf,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), tidegate_runtime::exit::Error>>,
}

impl Agent {
    /// Starts it with a reading every 50 ms.
    pub async fn start(script: &Script, flags: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let (library, path) = install(dir.path(), script).unwrap();
        Self::on(dir, &library, path, flags).await
    }

    /// Starts it on this library, which need not be there.
    pub async fn on(dir: TempDir, library: &Path, script: PathBuf, flags: &[&str]) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (listen, library) = (address.to_string(), library.display().to_string());
        let fixed = ["--listen", &listen, "--nvml-library", &library, "--interval-ms", "50", "--call-timeout-ms", "400"];
        let pods = if flags.contains(&"--pod-resources") { &[][..] } else { &["--pod-interval-ms", "0"] };
        let flags: Vec<&str> = fixed.iter().chain(pods).chain(flags).copied().collect();
        let shutdown = CancellationToken::new();
        let running = tokio::task::spawn_local(tidegate_node_agent::run(args(&flags), shutdown.clone()));
        let agent = Self { _dir: dir, address, script, shutdown, running };
        agent.until("the first answer", |gpus| gpus.is_object() && gpus["closed"]["category"] != "starting").await;
        agent
    }

    /// Changes the machine.
    pub fn becomes(&self, script: &Script) {
        script.write(&self.script).unwrap();
    }

    /// `GET path`: status and body.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.ok()?;
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        Some((status, if chunked { unchunk(body) } else { body.to_owned() }))
    }

    /// `/gpus`.
    pub async fn gpus(&self) -> Option<Value> {
        serde_json::from_str(&self.get("/gpus").await?.1).ok()
    }

    /// `/metrics`.
    pub async fn metrics(&self) -> String {
        self.get("/metrics").await.unwrap().1
    }

    /// The value of one series, written as Prometheus writes it.
    pub async fn value(&self, series: &str) -> Option<f64> {
        let text = self.metrics().await;
        let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Waits until `/gpus` is so; tells the last one if it never is.
    pub async fn until(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let gpus = self.gpus().await.unwrap_or_default();
            if is(&gpus) {
                return gpus;
            }
            assert!(Instant::now() < deadline, "waited for {what}; last: {gpus:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the GPU with this place in the list has this health; tells its findings' causes.
    pub async fn until_health(&self, gpu: usize, state: &str) -> Vec<String> {
        let gpus = self.until(&format!("GPU {gpu} to be {state}"), |gpus| gpus["gpus"][gpu]["health"]["state"] == state).await;
        let findings = gpus["gpus"][gpu]["health"]["findings"].as_array().unwrap();
        findings.iter().map(|finding| finding["cause"].as_str().unwrap().to_owned()).collect()
    }

    /// Ends it as SIGTERM does.
    pub async fn end(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }
}

/// Runs a test that holds an agent: its tasks are local, so that a failure of the agent fails the test.
pub fn with<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

fn unchunk(body: &str) -> String {
    let (mut rest, mut text) = (body, String::new());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        text.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    text
}
