//! `bench cluster`: what it costs to place many pods on many nodes, beside kube-scheduler in the same run. A real API server with its
//! etcd; nodes and the running of pods are KWOK's.
//!
//! Pods are created first, then the scheduler is started. The clock stops when all pods run and no more events are written: who
//! binds first and writes later gains nothing.

use std::fmt::Write;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::scheduling::v1beta1::PodGroup;
use kube::api::{Api, ListParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event as Seen, watcher};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::figures::round;
use super::machine::{Machine, cpu_since};
use crate::control_plane::kwok::{AT_ONCE, GPUS, usual};
use crate::control_plane::{ControlPlane, POD_GROUPS, TEAM};

/// Pods of a gang.
const GANG: u32 = 8;
/// For everything to run; whoever needs longer has not done it.
const PATIENCE: Duration = Duration::from_mins(8);
/// Between two looks at whether events are still written.
const QUIET: Duration = Duration::from_secs(2);
const PORT: u16 = 9001;
/// As users have it: tests compare what is believed with a fresh list of all pods every second.
const FLAGS: [&str; 2] = ["--check-seconds=600", "--lease-seconds=15"];

/// Arguments.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Print exactly one JSON object.
    #[arg(long)]
    pub json: bool,
    #[arg(long, default_value_t = 500)]
    pub nodes: u32,
    /// Pods of one GPU, placed one by one.
    #[arg(long, default_value_t = 3_000)]
    pub pods: u32,
    /// Gangs of eight such pods.
    #[arg(long, default_value_t = 100)]
    pub gangs: u32,
    /// Only `tidegate` or only `kube-scheduler`.
    #[arg(long)]
    pub only: Option<String>,
}

/// Everything, as `--json` prints it.
#[derive(Serialize, Clone, Debug)]
pub struct Report {
    pub bench: &'static str,
    pub machine: Machine,
    pub nodes: u32,
    pub cases: Vec<Case>,
}

/// One scheduler and one load.
#[derive(Serialize, Clone, Debug)]
pub struct Case {
    pub scheduler: &'static str,
    pub load: &'static str,
    pub pods: u32,
    /// From the scheduler's start to the last binding, until all pods run, and until nothing is written any more.
    pub bound_s: f64,
    pub running_s: f64,
    pub settled_s: f64,
    /// By the time until all pods run and nothing is written any more.
    pub pods_per_s: f64,
    /// Processor time until nothing is written any more.
    pub scheduler_cpu_ms_per_pod: f64,
    pub api_server_cpu_ms_per_pod: f64,
    pub scheduler_peak_rss_mib: f64,
    pub events: u64,
}

/// Measures and renders.
pub async fn run(args: Args) -> Result<String> {
    let machine = Machine::look();
    let mut cases = Vec::new();
    for (load, gangs, pods) in [("single pods", 0, args.pods), ("gangs of 8", args.gangs, args.gangs * GANG)] {
        for scheduler in ["tidegate", "kube-scheduler"] {
            let wanted = args.only.as_ref().is_none_or(|only| only == scheduler) && pods > 0;
            if wanted {
                let one = measure(scheduler, load, args.nodes, pods, gangs).await;
                cases.push(one.with_context(|| format!("{scheduler}, {load}"))?);
            }
        }
    }
    let report = Report { bench: "cluster", machine, nodes: args.nodes, cases };
    if args.json { Ok(serde_json::to_string(&report)?) } else { Ok(render(&report)) }
}

async fn measure(scheduler: &'static str, load: &'static str, nodes: u32, pods: u32, gangs: u32) -> Result<Case> {
    let mut plane = ControlPlane::start_with(&POD_GROUPS).await?;
    plane.kwok("")?;
    plane.kwok_nodes(nodes, &usual(), |_| Vec::new()).await?;
    plane.queue("a", nodes * GPUS).await?;
    make_pods(&plane, scheduler, pods, gangs).await?;
    sleep(QUIET).await;

    let watch = watch(&plane);
    let mut watch = std::pin::pin!(watch);
    let server = plane.pid("kube-apiserver")?;
    let server_before = cpu_since(Duration::ZERO, &[server])?;
    let began = Instant::now();
    match scheduler {
        "tidegate" => plane.operator(scheduler, PORT, &FLAGS)?,
        _ => plane.kube_scheduler(scheduler)?,
    }
    let (mut bound, mut running) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    let mut bound_s = 0.0;
    let all = async {
        while running.len() < pods as usize {
            let Some((name, is_bound, runs)) = watch.next().await.transpose()? else { break };
            if is_bound && bound.insert(name.clone()) && bound.len() == pods as usize {
                bound_s = began.elapsed().as_secs_f64();
            }
            if runs {
                running.insert(name);
            }
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, all).await.with_context(|| format!("not all pods run after {PATIENCE:?}: {}", plane.said()))??;
    let running_s = began.elapsed().as_secs_f64();
    let (events, settled_s) = settled(&plane, began).await?;
    ensure!(running.len() == pods as usize, "the watch ended");
    // It was started by one that entered the namespaces first: by now it is the one that works.
    let own = plane.pid(scheduler)?;
    let (own_cpu, server_cpu) = (cpu_since(Duration::ZERO, &[own])?, cpu_since(server_before, &[server])?);
    plane.check_nodes(GPUS).await?;
    let per_pod = |cpu: Duration| round(cpu.as_secs_f64() * 1000.0 / f64::from(pods));
    Ok(Case {
        scheduler,
        load,
        pods,
        bound_s: round(bound_s),
        running_s: round(running_s),
        settled_s: round(settled_s),
        pods_per_s: round(f64::from(pods) / settled_s),
        scheduler_cpu_ms_per_pod: per_pod(own_cpu),
        api_server_cpu_ms_per_pod: per_pod(server_cpu),
        scheduler_peak_rss_mib: round(peak_rss_mib(own)?),
        events,
    })
}

/// Every change of a pod: its name, whether it is bound, whether it runs.
fn watch(plane: &ControlPlane) -> impl Stream<Item = Result<(String, bool, bool)>> + use<> {
    let says = |pod: Pod| {
        let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        let runs = pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
        (pod.metadata.name.unwrap_or_default(), bound, runs)
    };
    let pods = watcher(plane.pods(), Config::default()).default_backoff();
    pods.err_into().try_filter_map(move |seen| async move {
        Ok(match seen {
            Seen::Apply(pod) | Seen::InitApply(pod) => Some(says(pod)),
            Seen::Delete(_) | Seen::Init | Seen::InitDone => None,
        })
    })
}

/// Waits until no more events come; how many there are, and when the last look that found more was.
async fn settled(plane: &ControlPlane, began: Instant) -> Result<(u64, f64)> {
    let events: Api<Event> = Api::namespaced(plane.client.clone(), TEAM);
    let count = || async {
        let list = events.list_metadata(&ListParams::default().limit(1)).await?;
        let rest = list.metadata.remaining_item_count.unwrap_or(0);
        anyhow::Ok(list.items.len() as u64 + u64::try_from(rest).unwrap_or(0))
    };
    let (mut last, mut at) = (count().await?, began.elapsed().as_secs_f64());
    loop {
        sleep(QUIET).await;
        let now = count().await?;
        if now == last {
            return Ok((now, at));
        }
        (last, at) = (now, began.elapsed().as_secs_f64());
    }
}

async fn make_pods(plane: &ControlPlane, scheduler: &str, count: u32, gangs: u32) -> Result<()> {
    let groups: Api<PodGroup> = Api::namespaced(plane.client.clone(), TEAM);
    for number in 0..gangs {
        let group: PodGroup = serde_json::from_value(json!({
            "metadata": {"name": format!("g-{number}")}, "spec": {"schedulingPolicy": {"gang": {"minCount": GANG}}},
        }))?;
        groups.create(&PostParams::default(), &group).await?;
    }
    let named = if scheduler == "tidegate" { "tidegate" } else { "default-scheduler" };
    let pods = plane.pods();
    let make = |number: u32| {
        let pods = pods.clone();
        async move {
            let mut pod = json!({
                "metadata": {"name": format!("p-{number}"), "labels": {"tidegate.dev/queue": "a"}},
                "spec": {
                    "schedulerName": named,
                    "containers": [{
                        "name": "main", "image": "none",
                        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"nvidia.com/gpu": "1"}},
                    }],
                },
            });
            if gangs > 0 {
                pod["spec"]["schedulingGroup"] = json!({"podGroupName": format!("g-{}", number / GANG)});
            }
            pods.create(&PostParams::default(), &serde_json::from_value::<Pod>(Value::clone(&pod))?).await?;
            anyhow::Ok(())
        }
    };
    stream::iter(0..count).map(make).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    Ok(())
}

fn peak_rss_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = line.split_whitespace().next().context("no number in VmHWM")?.parse()?;
    Ok(kib / 1024.0)
}

fn render(report: &Report) -> String {
    let Machine { cpu, cores, load_before, .. } = &report.machine;
    let mut text = format!("{cpu} ({cores} cores, load {load_before} before); {} nodes of {GPUS} GPUs\n", report.nodes);
    text.push_str("scheduler       load          pods  bound s  running s  settled s  pods/s  CPU ms/pod  API server ms/pod  RSS MiB  events\n");
    for case in &report.cases {
        let Case { scheduler, load, pods, bound_s, running_s, settled_s, pods_per_s, .. } = case;
        let (own, server, rss) = (case.scheduler_cpu_ms_per_pod, case.api_server_cpu_ms_per_pod, case.scheduler_peak_rss_mib);
        // Writing to a text does not fail.
        let _ = writeln!(
            text,
            "{scheduler:<15} {load:<12} {pods:>5} {bound_s:>8} {running_s:>10} {settled_s:>10} {pods_per_s:>7} {own:>11} {server:>18} {rss:>8} {:>7}",
            case.events
        );
    }
    text
}
