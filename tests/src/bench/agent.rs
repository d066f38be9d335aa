//! `bench agent`: what does the node agent cost? The real process `tidegate-node-agent` on a scripted driver that is busy,
//! with real processes on its GPUs, scraped as Prometheus does.
//!
//! The fake driver's own time is in the agent's processor time: it runs in the agent's process, as the real one does.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nvml_fake::{Instance, Link, Process, ProcessKind, Script, install};
use serde::Serialize;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::client::Connection;
use super::figures::{quantile_ms, round};
use super::machine::{Machine, cpu_since};

/// Between two scrapes.
const SCRAPE_EVERY: Duration = Duration::from_secs(5);
/// For the process to answer, and for its memory and caches to settle.
const PATIENCE: Duration = Duration::from_secs(30);
const WARM_UP: Duration = Duration::from_secs(3);
/// Scrapes without a pause, to see what one costs.
const MANY: u32 = 100;
const MIB: f64 = 1_048_576.0;

/// Arguments.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Print exactly one JSON object.
    #[arg(long)]
    pub json: bool,
    /// The executable to measure: `tidegate-node-agent`, or `tidegate`, of whose parts it is one. Default: the former beside this one.
    #[arg(long)]
    pub executable: Option<PathBuf>,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=86_400))]
    pub seconds: u32,
}

/// Everything, as `--json` prints it.
#[derive(Serialize, Clone, Debug)]
pub struct Report {
    pub bench: &'static str,
    pub machine: Machine,
    pub seconds: u32,
    pub cases: Vec<Case>,
    pub goals_met: bool,
}

/// One machine.
#[derive(Serialize, Clone, Debug)]
pub struct Case {
    pub case: &'static str,
    pub gpus: u32,
    pub processes: u32,
    pub mig_instances: u32,
    pub series: usize,
    pub scrape_bytes: usize,
    pub scrapes: usize,
    /// At the end, and the most there was.
    pub rss_mib: f64,
    pub rss_peak_mib: f64,
    pub goal_rss_mib: f64,
    pub cpu_percent_of_a_core: f64,
    pub goal_cpu_percent: Option<f64>,
    /// Processor time of the thread that answers, for one of many scrapes without a pause.
    pub scrape_cpu_ms: f64,
    pub scrape_p50_ms: f64,
    pub scrape_p99_ms: f64,
    pub goal_scrape_p99_ms: Option<f64>,
    /// What `/healthz` takes of the same process, asked between two scrapes: what the machine and the way cost.
    pub probe_p50_ms: f64,
    pub probe_p99_ms: f64,
    pub readings_per_second: f64,
    pub goals_met: bool,
}

/// What is measured and what it should cost.
struct Plan {
    case: &'static str,
    gpus: u32,
    processes: u32,
    instances: u32,
    goal_rss_mib: f64,
    goal_cpu_percent: Option<f64>,
    goal_scrape_p99_ms: Option<f64>,
}

const PLANS: [Plan; 2] = [
    Plan {
        case: "8 GPUs, 64 processes",
        gpus: 8,
        processes: 64,
        instances: 0,
        goal_rss_mib: 20.0,
        goal_cpu_percent: Some(1.0),
        goal_scrape_p99_ms: Some(5.0),
    },
    Plan {
        case: "16 GPUs of 7 MIG instances",
        gpus: 16,
        processes: 0,
        instances: 7,
        goal_rss_mib: 30.0,
        goal_cpu_percent: None,
        goal_scrape_p99_ms: None,
    },
];

/// Measures and renders.
pub async fn run(args: Args) -> Result<String> {
    let executable = args.executable.clone().map_or_else(|| crate::harness::binary_of("tidegate-node-agent"), Ok)?;
    let machine = Machine::look();
    let mut cases = Vec::new();
    for plan in &PLANS {
        cases.push(measure(plan, &executable, Duration::from_secs(args.seconds.into())).await?);
    }
    let goals_met = cases.iter().all(|case| case.goals_met);
    let report = Report { bench: "agent", machine, seconds: args.seconds, cases, goals_met };
    if args.json { Ok(serde_json::to_string(&report)?) } else { Ok(render(&report)) }
}

async fn measure(plan: &Plan, executable: &Path, time: Duration) -> Result<Case> {
    let dir = TempDir::new()?;
    let sleepers = Sleepers::start(plan.processes)?;
    let (library, _) = install(dir.path(), &script(plan, &sleepers.pids()))?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let agent = start(executable, &library, address)?;
    let pid = agent.id().context("the agent has ended")?;
    let mut connection = answers(address).await?;
    let request = get("/metrics");
    sleep(WARM_UP).await;
    let (cpu, began, before) = (cpu_since(Duration::ZERO, &[pid])?, Instant::now(), readings(address).await?);
    let (mut scrapes, mut probes) = (Vec::new(), Vec::new());
    let probe = get("/healthz");
    let mut ticks = interval(SCRAPE_EVERY / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while began.elapsed() < time {
        for (request, times) in [(&request, &mut scrapes), (&probe, &mut probes)] {
            ticks.tick().await;
            let sent = Instant::now();
            ensure!(connection.exchange(request).await? == 200, "a request failed");
            times.push(sent.elapsed());
        }
    }
    let (elapsed, cpu) = (began.elapsed().as_secs_f64(), cpu_since(cpu, &[pid])?);
    let scrape_cpu_ms = cpu_of_a_scrape(pid, &mut connection).await?;
    let text = scrape(address).await?;
    let read = readings(address).await? - before;
    scrapes.sort_unstable();
    probes.sort_unstable();
    let memory = |field: &str| status_mib(pid, field);
    let mut case = Case {
        case: plan.case,
        gpus: plan.gpus,
        processes: plan.processes,
        mig_instances: plan.gpus * plan.instances,
        series: text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count(),
        scrape_bytes: text.len(),
        scrapes: scrapes.len(),
        rss_mib: round(memory("VmRSS:")?),
        rss_peak_mib: round(memory("VmHWM:")?),
        goal_rss_mib: plan.goal_rss_mib,
        cpu_percent_of_a_core: round(cpu.as_secs_f64() / elapsed * 100.0),
        goal_cpu_percent: plan.goal_cpu_percent,
        scrape_cpu_ms,
        scrape_p50_ms: quantile_ms(&scrapes, 50),
        scrape_p99_ms: quantile_ms(&scrapes, 99),
        goal_scrape_p99_ms: plan.goal_scrape_p99_ms,
        probe_p50_ms: quantile_ms(&probes, 50),
        probe_p99_ms: quantile_ms(&probes, 99),
        readings_per_second: round(read / elapsed),
        goals_met: false,
    };
    let within = |value: f64, goal: Option<f64>| goal.is_none_or(|goal| value <= goal);
    case.goals_met = within(case.rss_peak_mib, Some(case.goal_rss_mib))
        && within(case.cpu_percent_of_a_core, case.goal_cpu_percent)
        && within(case.scrape_p99_ms, case.goal_scrape_p99_ms);
    Ok(case)
}

/// A machine that is busy, so that every counter moves.
fn script(plan: &Plan, pids: &[u32]) -> Script {
    let mut script = Script::of(plan.gpus, "NVIDIA H100 80GB HBM3", 81_559);
    for (i, gpu) in script.gpus.iter_mut().enumerate() {
        (gpu.sm_active, gpu.tensor_active, gpu.dram_active, gpu.sm_occupancy) = (0.7, 0.4, 0.5, 0.3);
        (gpu.utilization_percent, gpu.power_watts, gpu.throttle_bits) = (100, 600.0, 0x4);
        (gpu.pcie_tx_bytes_per_second, gpu.nvlink_tx_bytes_per_second) = (1e9, 1e11);
        gpu.links = vec![Link { peer: None, up: true, errors: 0 }; 18];
        gpu.mig_enabled = plan.instances > 0;
        gpu.instances = (0..plan.instances).map(|n| instance(i, n)).collect();
        let share = pids.len() / plan.gpus as usize;
        gpu.processes = pids.iter().skip(i * share).take(share).map(|pid| process(*pid)).collect();
    }
    script
}

fn process(pid: u32) -> Process {
    let kind = ProcessKind::Compute;
    Process { pid, memory_mib: Some(8_000), sm_percent: 10, kind, gpu_instance: None, compute_instance: None }
}

fn instance(gpu: usize, number: u32) -> Instance {
    Instance {
        uuid: format!("MIG-{gpu:08x}-{number:04x}-4000-8000-000000000000"),
        gpu_instance: number + 7,
        compute_instance: 0,
        profile: "1g.10gb".into(),
        slices: 1,
        memory_total_mib: 9_728,
        memory_used_mib: 4_000,
        sm_active: 0.6,
        tensor_active: 0.3,
        dram_active: 0.4,
        sm_occupancy: 0.2,
    }
}

/// Real processes, whose cgroups the agent looks at.
struct Sleepers(Vec<std::process::Child>);

impl Sleepers {
    fn start(count: u32) -> Result<Self> {
        let start = |_| std::process::Command::new("sleep").arg("infinity").stdin(Stdio::null()).spawn();
        Ok(Self((0..count).map(start).collect::<Result<_, _>>().context("start a process")?))
    }

    fn pids(&self) -> Vec<u32> {
        self.0.iter().map(std::process::Child::id).collect()
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn start(executable: &Path, library: &Path, address: SocketAddr) -> Result<Child> {
    let mut command = Command::new(executable);
    if executable.ends_with("tidegate") {
        command.arg("node-agent");
    }
    command.args(["--listen", &address.to_string(), "--pod-interval-ms", "0", "--nvml-library"]).arg(library);
    command.env("TIDEGATE_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command.spawn().context("start the node agent")
}

/// Waits for the first answer.
async fn answers(address: SocketAddr) -> Result<Connection> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let tried = match Connection::open(address).await {
            Ok(mut connection) => connection.exchange(&get("/readyz")).await.map(|status| (status, connection)),
            Err(error) => Err(error),
        };
        match tried {
            Ok((200, connection)) => return Ok(connection),
            other => ensure!(Instant::now() < deadline, "the agent did not answer in {PATIENCE:?}; last: {:?}", other.err()),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn scrape(address: SocketAddr) -> Result<String> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    Ok(client.get(format!("http://{address}/metrics")).send().await?.error_for_status()?.text().await?)
}

async fn readings(address: SocketAddr) -> Result<f64> {
    let text = scrape(address).await?;
    let line = text.lines().find_map(|line| line.strip_prefix("tidegate_node_agent_readings_total "));
    line.context("the agent counts no readings")?.parse().context("read the count of readings")
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: agent\r\n\r\n").into_bytes()
}

/// A field of proc(5)'s `status` that is in KiB.
fn status_mib(pid: u32, field: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = status.lines().find_map(|line| line.strip_prefix(field)).and_then(|value| value.split_whitespace().next());
    let kib: f64 = value.with_context(|| format!("no {field} of process {pid}"))?.parse()?;
    Ok(kib * 1024.0 / MIB)
}

async fn cpu_of_a_scrape(pid: u32, connection: &mut Connection) -> Result<f64> {
    let (before, request) = (main_thread(pid)?, get("/metrics"));
    for _ in 0..MANY {
        ensure!(connection.exchange(&request).await? == 200, "a scrape failed");
    }
    Ok(round((main_thread(pid)?.saturating_sub(before) / MANY).as_secs_f64() * 1000.0))
}

/// Processor time of the process's first thread, which has the runtime: the first number of proc(5)'s `schedstat`, in ns.
fn main_thread(pid: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/schedstat"))?;
    Ok(Duration::from_nanos(text.split(' ').next().context("an empty schedstat")?.parse()?))
}

fn render(report: &Report) -> String {
    let machine = &report.machine;
    let (cpu, cores, load, seconds) = (&machine.cpu, machine.cores, machine.load_before, report.seconds);
    let mut text = format!("{cpu} ({cores} cores, load {load} before); {seconds} s each\n");
    text.extend(report.cases.iter().map(one));
    text.push_str(if report.goals_met { "\nevery goal is met" } else { "\nnot every goal is met" });
    text
}

fn one(case: &Case) -> String {
    let goal = |goal: Option<f64>| goal.map_or(String::new(), |goal| format!(" (goal {goal})"));
    let Case { series, scrape_bytes, readings_per_second, rss_mib, rss_peak_mib, .. } = case;
    let memory = format!("RSS {rss_mib} MiB, at most {rss_peak_mib}{}", goal(Some(case.goal_rss_mib)));
    let cpu = format!("CPU {} % of a core{}", case.cpu_percent_of_a_core, goal(case.goal_cpu_percent));
    let Case { scrape_cpu_ms, scrape_p50_ms, scrape_p99_ms, probe_p50_ms, probe_p99_ms, .. } = case;
    let goal_ms = goal(case.goal_scrape_p99_ms);
    let scrapes = format!(
        "scrape p50 {scrape_p50_ms} ms, p99 {scrape_p99_ms} ms{goal_ms}, CPU {scrape_cpu_ms} ms; /healthz p50 {probe_p50_ms} ms, p99 {probe_p99_ms} ms"
    );
    let about = format!("{series} series, {scrape_bytes} bytes a scrape, {readings_per_second} readings/s");
    format!("\n{}: {about}\n  {memory}\n  {cpu}\n  {scrapes}\n", case.case)
}
