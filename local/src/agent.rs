//! The node agent as a unit. On real GPUs `up` runs one, as it runs a router, and goes by the status that the operator goes
//! by on Kubernetes: what is sick is judged in one place, and a driver that hangs hangs a process that nobody waits for.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use tidegate_api::kinds::GpuNodeStatus;
use tidegate_runtime::exit::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::unit::{BadUnitId, Restart, UnitId, UnitSpec};
use crate::units::{UnitState, UnitStatus};
use crate::world::{Handle, Places};

/// Name of its unit.
pub const UNIT: &str = "node-agent";
/// Label of its unit: where it answers.
const ADDRESS: &str = "address";
/// Most bytes of its output that are kept.
const LOG_BYTES: u64 = 2 << 20;
/// As often as it reads the GPUs.
const ASK_EVERY: Duration = Duration::from_secs(1);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Far above 64 GPUs with every finding.
const MOST_BYTES: u64 = 1 << 20;
/// So many questions without an answer are worth a word: a restart takes one or two.
const MANY_FAILURES: u32 = 5;

/// The agent of this box.
#[derive(Debug)]
pub struct Agent {
    pub address: SocketAddr,
    /// For a new one; absent when one from before runs.
    pub listener: Option<TcpListener>,
}

impl Agent {
    /// The one that runs from before, or a place for a new one.
    pub fn find(found: &[UnitStatus]) -> Result<Self, Error> {
        let running =
            found.iter().find(|status| status.spec.id.as_str() == UNIT && matches!(status.state, UnitState::Running(_)));
        if let Some(address) = running.and_then(|status| status.spec.labels.get(ADDRESS)?.parse().ok()) {
            return Ok(Self { address, listener: None });
        }
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|bound| Ok((bound.local_addr()?, bound)));
        let (address, listener) = bound.map_err(|e| Error::failed("bind the node agent", e))?;
        Ok(Self { address, listener: Some(listener) })
    }
}

/// How it is run: on the socket that it gets, without Kubernetes.
pub fn spec(places: &Places, address: SocketAddr) -> Result<UnitSpec, BadUnitId> {
    let state = places.data.join("node-agent.json");
    let command = ["node-agent", "--listen", &address.to_string(), "--pod-interval-ms", "0", "--state", &state.to_string_lossy()];
    let exe = places.exe.display().to_string();
    Ok(UnitSpec {
        id: UnitId::new(UNIT)?,
        command: std::iter::once(exe).chain(command.into_iter().map(str::to_owned)).collect(),
        env: [("TIDEGATE_LOG".to_owned(), "info".to_owned())].into(),
        working_dir: places.data.clone(),
        log_max_bytes: LOG_BYTES,
        restart: Restart::Always,
        listen_fd: true,
        labels: [(ADDRESS.to_owned(), address.to_string())].into(),
    })
}

/// Asks the agent how the GPUs are until `shutdown`, and tells the world what changed.
pub async fn watch(address: SocketAddr, world: Handle, shutdown: CancellationToken) {
    let (mut told, mut failures) = (None, 0_u32);
    loop {
        match ask(address).await {
            Ok(status) => {
                if failures >= MANY_FAILURES {
                    tracing::info!("the node agent answers again");
                }
                failures = 0;
                // When it was observed is no news.
                let status = GpuNodeStatus { observed_at: String::new(), ..status };
                if told.as_ref() != Some(&status) {
                    world.gpus(status.clone()).await;
                    told = Some(status);
                }
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                if failures == MANY_FAILURES {
                    tracing::warn!(%error, "the node agent does not answer; the health of the GPUs stays what it was. See units/node-agent/log");
                }
            }
        }
        if shutdown.run_until_cancelled(sleep(ASK_EVERY)).await.is_none() {
            return;
        }
    }
}

async fn ask(address: SocketAddr) -> io::Result<GpuNodeStatus> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        // Of that version the answer ends with the connection.
        stream.write_all(b"GET /status HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.take(MOST_BYTES).read_to_string(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = timeout(ANSWER_WITHIN, exchange).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    if head.split(' ').nth(1) != Some("200") {
        return Err(io::Error::other(format!("it answers {}", head.lines().next().unwrap_or_default())));
    }
    serde_json::from_str(body).map_err(io::Error::from)
}
