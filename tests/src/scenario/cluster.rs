//! The day of `tide` on a real cluster: operator, router, agent, replicas and workers are containers on a real kubelet, from our image.
//!
//! ```text
//! undisturbed training ──> final metrics to compare with                                  training
//! API server, kubelet, queues, operator, router, agent, models ──> all are there          installation, here
//! training begins and has every GPU; the day, stretched, open loop, seeded                tidegate_load::play
//!   beside it: pods as the API tells, processes as the machine shows, GPUs as the agent says  witness, watch, agent
//! training runs to its end, models sleep, our pods are told to end ──> nothing left       here
//! the engine's own sums, its decisions, what workers wrote down ──> the same figures       report, diary
//! ```
//!
//! What differs from one box, and why: containers take seconds to start where processes take a tenth of one, so the day is stretched and a
//! cold start may take longer. There is no DNS here, so workers are on the node's network and are told where rank 0 is.

mod agent;
mod diary;
mod operator;
mod report;
mod stage;
mod witness;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node as NodeObject, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tidegate_api::kinds::{Model, Pool, Queue, TrainingJob, TrainingPhase};
use tidegate_load::{Options, Report, play};
use tokio::sync::watch as signal;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::example::{self, Example};
use super::figures::{self, Cluster, Figures, GPUS, Observed, PerJob};
use super::run::Settings;
use super::{training, watch};
use crate::control_plane::{ControlPlane, TEAM};
use crate::harness::until;
use crate::installation::{self, Driver, PARTS, ROUTER, SOON};
use crate::kubelet::Node;
use diary::Attempt;
use stage::Stage;
use witness::Seen;

/// How much longer the day is than on one box, unless it is said: a GPU changes hands in some six seconds, not in one tenth of one.
const STRETCH: f64 = 2.0;
/// Held requests wait for a worker's last checkpoint, the end of its pod, a container's start, the model's load and the kubelet's probe.
const COLD_START_MS: u32 = 20_000;
/// After the day, with all GPUs: what is left of two trainings, on a machine that is busy.
const TRAINING_WITHIN: Duration = Duration::from_mins(10);
/// By this label of a node the operator lets replicas keep the pace of a simulated GPU.
const SIMULATED: &str = "tidegate.dev/simulated-gpus";

/// Plays it. Errors are those of the machinery; what did not hold is in the figures. The calling thread enters the cluster's network.
pub async fn run(settings: &Settings) -> Result<Figures> {
    let mut example = Example::read()?;
    example.relax(settings.slo_ms.unwrap_or(0), COLD_START_MS);
    eprintln!("training outside Tidegate, to compare with");
    let undisturbed = training::undisturbed(&example).await?;
    eprintln!("starting the cluster");
    let stage = Stage::set(&example)?;
    let driver = Driver::of(GPUS)?;
    let mut plane = ControlPlane::start().await?;
    plane.real_node_with_pod_network(&driver.uuids).await?;
    let observed = observe(&plane, &stage, &driver, settings, &example, undisturbed).await;
    figures::figures(&observed.with_context(|| plane.said())?, &example)
}

/// Whom is asked while the day goes on, until the flag is set.
struct Watchers {
    stop: signal::Sender<bool>,
    tasks: JoinSet<Found>,
}

/// What one of them has found.
enum Found {
    Pods(Seen),
    DoubleRuns(Vec<String>),
    SharedGpus(Vec<String>),
    AgentsWord(Vec<String>),
}

impl Watchers {
    fn start(plane: &ControlPlane, stage: &Stage) -> Self {
        let (stop, stopped) = signal::channel(false);
        let mut tasks = JoinSet::new();
        let (pods, stopped_too) = (plane.pods(), stopped.clone());
        tasks.spawn(async move { Found::Pods(witness::watch(pods, stopped_too).await) });
        let (folder, stopped_too) = (stage.folder().to_owned(), stopped.clone());
        tasks.spawn(async move { Found::DoubleRuns(watch::double_runs(folder, stopped_too).await) });
        let (folder, stopped_too) = (stage.folder().to_owned(), stopped.clone());
        tasks.spawn(async move { Found::SharedGpus(watch::shared_gpus(folder, stopped_too).await) });
        tasks.spawn(async move { Found::AgentsWord(agent::shared_gpus(stopped).await) });
        Self { stop, tasks }
    }

    /// Pods, double runs, and GPUs that two had at once, by the machine's and by the agent's word.
    async fn end(mut self) -> Result<(Seen, Vec<String>, Vec<String>)> {
        self.stop.send_replace(true);
        let (mut seen, mut double_runs, mut shared) = (Seen::default(), Vec::new(), Vec::new());
        while let Some(found) = self.tasks.join_next().await {
            match found.context("a watcher is gone")? {
                Found::Pods(pods) => seen = pods,
                Found::DoubleRuns(found) => double_runs = found,
                Found::SharedGpus(found) | Found::AgentsWord(found) => shared.extend(found),
            }
        }
        shared.extend(seen.too_many.iter().cloned());
        Ok((seen, double_runs, shared))
    }
}

async fn observe(
    plane: &ControlPlane,
    stage: &Stage,
    driver: &Driver,
    settings: &Settings,
    example: &Example,
    undisturbed: PerJob<f64>,
) -> Result<Observed> {
    install(plane, stage, driver, example).await?;
    serve(plane, stage, example).await?;
    let watchers = Watchers::start(plane, stage);
    train(plane, stage, example).await?;
    eprintln!("training has every GPU; the day begins");
    let stretch = settings.stretch.unwrap_or(STRETCH);
    let before = operator::state(plane).await?;
    let client = day(example, settings.seed, stretch).await?;
    let after = operator::state(plane).await?;
    let mut decisions = operator::decisions(plane).await?;
    let state_after_day = operator::view(plane).await?;
    eprint!("{client}");
    eprintln!("the day is over; training goes on to its end");
    all_end(plane, example).await?;
    let at_end = operator::state(plane).await?;
    decisions.extend(operator::decisions(plane).await?);
    let jobs = jobs(plane, stage, example).await?;
    let began = Instant::now();
    let mut orphans = take_away(plane, example).await?;
    let drain_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (seen, double_runs, shared_gpus) = watchers.end().await?;
    orphans.extend(crate::processes::of(stage.folder())?.iter().map(|process| process.command.join(" ")));
    let attempts: PerJob<Vec<Attempt>> =
        example.jobs.keys().map(|job| Ok((job.clone(), diary::read(&stage.diary(job))?))).collect::<Result<_>>()?;
    let days_end = now_ms();
    let sums = report::Sums { decisions: &decisions, seen: &seen, attempts: &attempts };
    let cluster = Cluster {
        stretch,
        training_gpus: report::training_gpus(&seen, client.started_unix_ms, stretch),
        sizes: attempts.iter().map(|(job, all)| (job.clone(), all.iter().map(|one| one.workers).collect())).collect(),
        most_gpus_held: seen.most_held,
        shared_gpus,
    };
    Ok(Observed {
        name: settings.name,
        seed: settings.seed,
        day: report::of(&before, &after, client.started_unix_ms + client.elapsed_ms, &sums),
        client,
        state_after_day,
        end: report::of(&before, &at_end, days_end, &sums),
        state_at_end: tidegate_api::view::State { jobs, ..Default::default() },
        undisturbed,
        double_runs,
        kills: Vec::new(),
        orphans,
        exit_code: seen.worst_exit_code(&PARTS),
        drain_ms,
        cluster: Some(cluster),
    })
}

/// The policy of the example, and our pods.
async fn install(plane: &ControlPlane, stage: &Stage, driver: &Driver, example: &Example) -> Result<()> {
    let nodes: Api<NodeObject> = Api::all(plane.client.clone());
    let label = json!({"metadata": {"labels": {SIMULATED: "true"}}});
    nodes.patch(Node::NAME, &PatchParams::default(), &Patch::Merge(label)).await?;
    let pools: Api<Pool> = Api::all(plane.client.clone());
    pools.create(&PostParams::default(), &example.pool).await?;
    let queues: Api<Queue> = Api::all(plane.client.clone());
    for queue in &example.queues {
        queues.create(&PostParams::default(), queue).await?;
    }
    installation::operator(plane).await?;
    installation::router(plane, &[&stage.models()]).await?;
    installation::agent(plane, driver).await
}

/// Makes the models, and waits until a replica of each has told what its file says, so that clients can find it, and sleeps again.
async fn serve(plane: &ControlPlane, stage: &Stage, example: &Example) -> Result<()> {
    let models: Api<Model> = Api::namespaced(plane.client.clone(), TEAM);
    for model in example.models.values() {
        models.create(&PostParams::default(), &stage.model(model)).await?;
    }
    for name in example.models.keys() {
        let look = || async { Ok(models.get(name).await?.status.filter(|status| status.tensors.is_some()).map(drop)) };
        until(&format!("a replica to tell what {name} takes"), SOON, look).await?;
    }
    asleep(&models, example).await
}

async fn asleep(models: &Api<Model>, example: &Example) -> Result<()> {
    for name in example.models.keys() {
        let look = || async {
            let status = models.get(name).await?.status.unwrap_or_default();
            Ok((status.ready + status.starting == 0).then_some(()))
        };
        until(&format!("{name} to sleep"), SOON, look).await?;
    }
    Ok(())
}

/// Makes the jobs, and waits until they have every GPU.
async fn train(plane: &ControlPlane, stage: &Stage, example: &Example) -> Result<()> {
    let jobs: Api<TrainingJob> = Api::namespaced(plane.client.clone(), TEAM);
    for (number, (name, job)) in (0u16..).zip(&example.jobs) {
        jobs.create(&PostParams::default(), &stage.job(name, job, number)?).await?;
    }
    let look = || async {
        let running = jobs.list(&ListParams::default()).await?.items.into_iter().filter_map(|job| job.status);
        let workers: u32 = running.filter(|status| status.phase == TrainingPhase::Running).map(|status| status.workers).sum();
        Ok((workers == GPUS).then_some(()))
    };
    until("training to have every GPU", SOON, look).await
}

async fn day(example: &Example, seed: u64, stretch: f64) -> Result<Report> {
    let options = Options { duration_scale: stretch, phase_ends: example::phase_ends(), ..Options::new(ROUTER, seed) };
    Ok(play(&example.script, options, &CancellationToken::new()).await?)
}

/// Waits until training has ended and models sleep. What has not is seen in the figures.
async fn all_end(plane: &ControlPlane, example: &Example) -> Result<()> {
    let jobs: Api<TrainingJob> = Api::namespaced(plane.client.clone(), TEAM);
    let over = |job: &TrainingJob| {
        job.status.as_ref().is_some_and(|status| matches!(status.phase, TrainingPhase::Succeeded | TrainingPhase::Failed))
    };
    let look = || async { Ok(jobs.list(&ListParams::default()).await?.items.iter().all(over).then_some(())) };
    if until("training to end", TRAINING_WITHIN, look).await.is_err() {
        eprintln!("training has not ended within {TRAINING_WITHIN:?}");
    }
    asleep(&Api::namespaced(plane.client.clone(), TEAM), example).await
}

/// How the jobs ended, in the words of `up`.
async fn jobs(plane: &ControlPlane, stage: &Stage, example: &Example) -> Result<Vec<tidegate_api::view::Job>> {
    let jobs: Api<TrainingJob> = Api::namespaced(plane.client.clone(), TEAM);
    let mut ended = Vec::new();
    for name in example.jobs.keys() {
        let status = jobs.get(name).await?.status.unwrap_or_default();
        ended.push(tidegate_api::view::Job {
            name: name.clone(),
            phase: format!("{:?}", status.phase).to_lowercase(),
            reason: status.message,
            metrics: stage.final_metrics(name).unwrap_or_default(),
            ..Default::default()
        });
    }
    Ok(ended)
}

/// Deletes everything, as a person would. Pods that do not go.
async fn take_away(plane: &ControlPlane, example: &Example) -> Result<Vec<String>> {
    let (models, jobs): (Api<Model>, Api<TrainingJob>) =
        (Api::namespaced(plane.client.clone(), TEAM), Api::namespaced(plane.client.clone(), TEAM));
    for name in example.models.keys() {
        models.delete(name, &DeleteParams::default()).await?;
    }
    for name in example.jobs.keys() {
        jobs.delete(name, &DeleteParams::default()).await?;
    }
    let others = || async {
        let pods = plane.list().await?;
        // Those that have ended are the garbage collector's, of which there is none here.
        for pod in pods.iter().filter(|pod| has_ended(pod)) {
            plane.end(&pod.name_any()).await?;
        }
        Ok(pods.iter().all(|pod| PARTS.contains(&pod.name_any().as_str())).then_some(()))
    };
    let gone = until("the pods of jobs and models to be gone", SOON, others).await;
    for part in PARTS {
        plane.pods().delete(part, &DeleteParams::default()).await?;
    }
    let none = || async { Ok(plane.list().await?.is_empty().then_some(())) };
    if gone.is_err() | until("all pods to be gone", SOON, none).await.is_err() {
        eprintln!("not all pods are gone within {SOON:?}");
    }
    Ok(plane.list().await?.iter().map(|pod| format!("pod {}", pod.name_any())).collect())
}

fn has_ended(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
