//! Runs the built `tidegate up` as a user does: a child process on a port of its own, with its own data folder,
//! and ends it whole, whatever a test did.

mod options;

pub use options::Options;

use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use tidegate_api::view;
use tokio::time::sleep;

use crate::processes;

/// From the start to `/readyz`, on a machine that is busy with other tests.
const READY_WITHIN: Duration = Duration::from_mins(1);
/// From SIGINT to the exit: grace periods of jobs, requests in flight.
const DRAINED_WITHIN: Duration = Duration::from_mins(1);
/// How often something is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A running `tidegate up`.
pub struct Up {
    options: Options,
    listen: String,
    child: Child,
    http: reqwest::Client,
}

impl Up {
    /// Starts it and waits until it is ready. An error carries what it said.
    pub async fn start(options: Options) -> Result<Self> {
        let listen = format!("127.0.0.1:{}", free_port()?);
        let child = spawn(&options, &listen)?;
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
        let mut up = Self { options, listen, child, http };
        up.ready().await?;
        Ok(up)
    }

    /// Waits for `/readyz`.
    pub async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        let url = self.url("/readyz");
        loop {
            if self.http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("up ended before it was ready: {status}\n{}", self.log());
            }
            if Instant::now() > deadline {
                bail!("up was not ready within {READY_WITHIN:?}\n{}", self.log());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// An address on it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listen)
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.options.data()
    }

    /// The process id of `up` itself.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(-1)
    }

    /// What it wrote to standard error, of all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(self.options.log()).unwrap_or_default()
    }

    /// `GET path` as JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.http.get(self.url(path)).send().await?.error_for_status()?;
        Ok(answer.json().await?)
    }

    /// `/api/v1/state`.
    pub async fn state(&self) -> Result<view::State> {
        self.get("/api/v1/state").await
    }

    /// A job's view.
    pub async fn job(&self, name: &str) -> Result<view::Job> {
        self.state().await?.jobs.into_iter().find(|job| job.name == name).with_context(|| format!("no job {name}"))
    }

    /// A client command (`apply`, `explain`, ...) against it.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary()?);
        command.args(arguments).env("TIDEGATE_SERVER", self.url("")).stdin(Stdio::null());
        command.output().with_context(|| format!("run tidegate {}", arguments.join(" ")))
    }

    /// `kill -9`, and waits for the end of this one process.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again with the same arguments; does not wait until it is ready.
    pub fn start_again(&mut self) -> Result<()> {
        self.child = spawn(&self.options, &self.listen)?;
        Ok(())
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Ctrl-C. Returns how it ended and which of its processes are left.
    pub async fn drain(mut self) -> Result<Drained> {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), Signal::SIGINT)?;
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if began.elapsed() > DRAINED_WITHIN {
                bail!("up did not end within {DRAINED_WITHIN:?} of SIGINT\n{}", self.log());
            }
            sleep(LOOK_EVERY).await;
        };
        let left = processes::of(&self.data())?.iter().map(|process| process.command.join(" ")).collect();
        Ok(Drained { status, took: began.elapsed(), left, log: self.log() })
    }
}

impl Drop for Up {
    /// Ends by id whatever a failed test left, children of children too.
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        let data = self.options.data();
        // A process may start another one while it is being ended, so look until nothing is left.
        for _ in 0..1000 {
            let Ok(left) = processes::of(&data) else { return };
            if left.is_empty() {
                return;
            }
            for process in &left {
                process.signal(Signal::SIGKILL);
            }
            std::thread::yield_now();
        }
    }
}

/// The end of an `up`.
#[derive(Debug)]
pub struct Drained {
    pub status: ExitStatus,
    pub took: Duration,
    /// Command lines of processes that outlived it.
    pub left: Vec<String>,
    pub log: String,
}

/// Looks until `look` finds something; an error says what was waited for.
pub async fn until<T, F: Future<Output = Result<Option<T>>>>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> F,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(Some(found)) => return Ok(found),
            Err(error) if Instant::now() > deadline => return Err(error.context(format!("waited {within:?} for {what}"))),
            Ok(None) if Instant::now() > deadline => return Err(anyhow!("waited {within:?} for {what}")),
            Ok(None) | Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}

/// The executable that `cargo build --release --workspace` made, beside or above the running one.
pub fn binary() -> Result<PathBuf> {
    binary_of("tidegate")
}

/// An executable of the workspace.
pub fn binary_of(name: &str) -> Result<PathBuf> {
    let here = env::current_exe()?;
    let found = here.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|file| file.is_file());
    found.with_context(|| format!("no {name} beside {}: run `cargo build --release --workspace`", here.display()))
}

/// The root of the clone.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// A port of 127.0.0.1 that nothing listens on.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn spawn(options: &Options, listen: &str) -> Result<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open(options.log())?;
    let mut command = Command::new(binary()?);
    command.args(options.arguments()).args(["--listen", listen, "--data"]).arg(options.data());
    command.envs(options.environment()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().context("start tidegate up")
}
