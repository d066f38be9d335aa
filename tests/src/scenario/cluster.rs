//! The day of `tide` on a real cluster, installed and used by `kubectl apply` of manifests: operators, routers, agent, replicas and workers are
//! containers on a real kubelet, from our image.
//!
//! ```text
//! undisturbed training ──> final metrics to compare with                                  training
//! API server, kubelet, queues, operator, router, agent, models ──> all are there          installation, here
//! training begins and has every GPU; the day, stretched, open loop, seeded                tidegate_load::play
//!   beside it: pods as the API tells, processes as the machine shows, GPUs as the agent says  witness, watch, agent
//! training runs to its end, models sleep, the manifests are deleted ──> nothing left      here
//! the engine's own sums, its decisions, what workers wrote down ──> the same figures       report, diary
//! ```
//!
//! What differs from one box, and why: containers take seconds to start where processes take a tenth of one, so the day is stretched and a
//! cold start may take longer.

mod agent;
mod diary;
mod operator;
mod report;
mod stage;
mod witness;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use tidegate_api::kinds::{Model, TrainingJob, TrainingPhase};
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
use crate::installation::{self, Driver, NAMESPACE, PARTS, SOON};
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
const SIMULATED: &str = "tidegate.dev/simulated-gpus=true";

/// Plays it. Errors are those of the machinery; what did not hold is in the figures. The calling thread enters the cluster's network.
pub async fn run(settings: &Settings) -> Result<Figures> {
    let mut example = Example::read()?;
    example.relax(settings.slo_ms.unwrap_or(0), COLD_START_MS);
    eprintln!("training outside Tidegate, to compare with");
    let undisturbed = training::undisturbed(&example).await?;
    eprintln!("starting the cluster");
    let stage = Stage::set(&example)?;
    let driver = Driver::of(GPUS)?;
    let plane = ControlPlane::whole(&driver.uuids).await?;
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
    fn start(plane: &ControlPlane, stage: &Stage, agent: String) -> Self {
        let (stop, stopped) = signal::channel(false);
        let mut tasks = JoinSet::new();
        let (pods, stopped_too) = (Api::all(plane.client.clone()), stopped.clone());
        tasks.spawn(async move { Found::Pods(witness::watch(pods, stopped_too).await) });
        let (folder, stopped_too) = (stage.folder().to_owned(), stopped.clone());
        tasks.spawn(async move { Found::DoubleRuns(watch::double_runs(folder, stopped_too).await) });
        let (folder, stopped_too) = (stage.folder().to_owned(), stopped.clone());
        tasks.spawn(async move { Found::SharedGpus(watch::shared_gpus(folder, stopped_too).await) });
        tasks.spawn(async move { Found::AgentsWord(agent::shared_gpus(agent, stopped).await) });
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
    let watchers = Watchers::start(plane, stage, installation::agent(plane).await?);
    train(plane, stage, example).await?;
    eprintln!("training has every GPU; the day begins");
    let stretch = settings.stretch.unwrap_or(STRETCH);
    let before = operator::state(plane).await?;
    let client = day(&installation::router(plane).await?, example, settings.seed, stretch).await?;
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
    let mut orphans = take_away(plane, stage, driver, example).await?;
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
    plane.kubectl(&["label", "node", Node::NAME, SIMULATED], "").await?;
    installation::apply(plane, std::slice::from_ref(&example.pool), TEAM).await?;
    installation::apply(plane, &example.queues, TEAM).await?;
    installation::admit_replicas(plane).await?;
    installation::install(plane, driver, &stage.models()).await
}

/// Makes the models, and waits until a replica of each has told what its file says, so that clients can find it, and sleeps again.
async fn serve(plane: &ControlPlane, stage: &Stage, example: &Example) -> Result<()> {
    let models: Api<Model> = Api::namespaced(plane.client.clone(), TEAM);
    let all: Vec<Model> = example.models.values().map(|model| stage.model(model)).collect();
    installation::apply(plane, &all, TEAM).await?;
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
    let all: Vec<TrainingJob> = example.jobs.iter().map(|(name, job)| stage.job(name, job)).collect::<Result<_>>()?;
    installation::apply(plane, &all, TEAM).await?;
    let look = || async {
        let running = jobs.list(&ListParams::default()).await?.items.into_iter().filter_map(|job| job.status);
        let workers: u32 = running.filter(|status| status.phase == TrainingPhase::Running).map(|status| status.workers).sum();
        Ok((workers == GPUS).then_some(()))
    };
    until("training to have every GPU", SOON, look).await
}

async fn day(router: &str, example: &Example, seed: u64, stretch: f64) -> Result<Report> {
    let options = Options { duration_scale: stretch, phase_ends: example::phase_ends(), ..Options::new(router, seed) };
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
async fn take_away(plane: &ControlPlane, stage: &Stage, driver: &Driver, example: &Example) -> Result<Vec<String>> {
    let objects = example.models.keys().map(|name| format!("model/{name}"));
    let objects: Vec<String> = objects.chain(example.jobs.keys().map(|name| format!("trainingjob/{name}"))).collect();
    let delete = ["delete", "--namespace", TEAM].into_iter().chain(objects.iter().map(String::as_str));
    plane.kubectl(&delete.collect::<Vec<_>>(), "").await?;
    let pods: Api<Pod> = Api::all(plane.client.clone());
    let left = |namespace: &'static str| {
        let pods = pods.clone();
        async move {
            let all = pods.list(&ListParams::default()).await?.items;
            Ok(all.iter().all(|pod| pod.namespace().as_deref() != Some(namespace)).then_some(()))
        }
    };
    let gone = until("the pods of jobs and models to be gone", SOON, || left(TEAM)).await;
    installation::uninstall(plane, driver, &stage.models()).await?;
    if gone.is_err() | until("all pods to be gone", SOON, || left(NAMESPACE)).await.is_err() {
        eprintln!("not all pods are gone within {SOON:?}");
    }
    Ok(pods.list(&ListParams::default()).await?.iter().map(|pod| format!("pod {}", pod.name_any())).collect())
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
