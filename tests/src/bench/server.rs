//! This server as it ships: `tidegate router` and `tidegate replica` as processes, unpaced.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tidegate_api::model_info::ModelInfo;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::client::{Connection, closed_loop, post};
use super::figures::Sample;
use super::machine::cpu_since;
use super::models::Subject;
use super::world::{MAX_BATCH_ROWS, World};

/// For the router to hear of the replica, and for a process to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for allocators, connections and the router's fitted service time to settle.
const WARM_UP: Duration = Duration::from_millis(700);

/// A router with one replica behind it. Its processes end with it.
#[derive(Debug)]
pub struct Server {
    world: World,
    router: Child,
    replica: Child,
    address: SocketAddr,
    request: Vec<u8>,
}

impl Server {
    pub async fn start(tidegate: &Path, subject: &Subject) -> Result<Self> {
        let info = inspect(tidegate, &subject.onnx).await?;
        let mut world = World::start(subject.name, &info).await?;
        let control = world.url();
        let mut replica = part(tidegate, "replica");
        replica.args(["--model", subject.name, "--control", &control]).arg("--onnx").arg(&subject.onnx);
        replica.args(["--max-batch-rows", &MAX_BATCH_ROWS.to_string()]);
        let replica = replica.spawn().context("start the replica")?;
        // Free now; taken again a moment later by the router.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut router = part(tidegate, "router");
        router.args(["--listen", &address.to_string(), "--control", &control, "--router-id", "r1"]);
        let router = router.spawn().context("start the router")?;
        world.ready().await?;
        let request = post(&format!("/v2/models/{}/infer", subject.name), &subject.request().to_string());
        let mut server = Self { world, router, replica, address, request };
        server.answers().await?;
        Ok(server)
    }

    /// Waits for the first answer.
    async fn answers(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let tried = match Connection::open(self.address).await {
                Ok(mut connection) => connection.exchange(&self.request).await,
                Err(error) => Err(error),
            };
            let last = match tried {
                Ok(200) => return Ok(()),
                Ok(status) => format!("status {status}"),
                Err(error) => format!("{error:#}"),
            };
            if let Some(status) = self.router.try_wait()? {
                bail!("the router ended with {status}");
            }
            ensure!(Instant::now() < deadline, "the router did not answer in {PATIENCE:?}; last: {last}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// A closed loop of `concurrency` clients for `time`.
    pub async fn measure(&mut self, concurrency: usize, time: Duration) -> Result<Sample> {
        closed_loop(self.address, &self.request, concurrency, WARM_UP).await?;
        let before = self.world.counted().await?;
        let cpu = cpu_since(Duration::ZERO, &self.pids())?;
        let seen = closed_loop(self.address, &self.request, concurrency, time).await?;
        let cpu = cpu_since(cpu, &self.pids())?;
        let after = self.world.counted().await?;
        Ok(Sample {
            requests: u64::try_from(seen.latencies.len())?,
            elapsed: seen.elapsed,
            cpu,
            busy: Duration::from_micros(after.busy_us - before.busy_us),
            batches: after.batches - before.batches,
            rows: after.rows - before.rows,
            latencies: seen.latencies,
        })
    }

    fn pids(&self) -> Vec<u32> {
        [&self.router, &self.replica].into_iter().filter_map(Child::id).collect()
    }

    /// Ends both as a supervisor does; each must drain and exit 0.
    pub async fn stop(mut self) -> Result<()> {
        for (name, child) in [("router", &mut self.router), ("replica", &mut self.replica)] {
            let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).with_context(|| format!("the {name} has ended"))?;
            kill(Pid::from_raw(pid), Signal::SIGTERM)?;
            let status = timeout(PATIENCE, child.wait()).await.with_context(|| format!("the {name} did not end"))??;
            ensure!(status.success(), "the {name} ended with {status}");
        }
        Ok(())
    }
}

fn part(tidegate: &Path, name: &str) -> Command {
    let mut command = Command::new(tidegate);
    command.arg(name).env("TIDEGATE_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command
}

async fn inspect(tidegate: &Path, onnx: &Path) -> Result<ModelInfo> {
    let output = Command::new(tidegate).args(["replica", "--inspect", "--onnx"]).arg(onnx).output().await;
    let output = output.with_context(|| format!("run {}", tidegate.display()))?;
    ensure!(output.status.success(), "cannot inspect {}: {}", onnx.display(), String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("read what --inspect printed")
}
