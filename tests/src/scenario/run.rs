//! Plays a scenario from the start of `up` to its end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tidegate_load::{Options as LoadOptions, play};
use tokio::sync::watch as signal;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::chaos::{self, Kill};
use super::cluster;
use super::example::{Example, phase_ends};
use super::figures::{self, Figures, GPUS, Observed};
use super::{stalls, training, watch};
use crate::browser::Browser;
use crate::harness::{Options, Up};

/// After the day, with all devices: the rest of two trainings of 480 device-seconds each, and restarts under chaos.
const TRAINING_WITHIN: Duration = Duration::from_mins(10);
/// `up` is away for a second after each kill; a reader waits that out.
const UP_IS_BACK_WITHIN: Duration = Duration::from_mins(1);

/// Of the day: both peaks are over, and training has its devices back.
const PICTURE_AT: Duration = Duration::from_secs(160);

/// Which scenario.
#[derive(clap::ValueEnum, serde::Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Name {
    /// The day, undisturbed, on one box.
    #[default]
    Tide,
    /// The same with kills.
    Crash,
    /// The day on a real cluster; needs what `cargo xtask scenario cluster` prepares.
    Cluster,
}

/// What to play and how.
#[derive(Clone, Debug)]
pub struct Settings {
    pub name: Name,
    /// Of arrivals and of kills.
    pub seed: u64,
    /// Where the page's picture goes, if one is wanted; it needs Chromium.
    pub picture: Option<PathBuf>,
    /// On a cluster: no model promises to answer sooner than this.
    pub slo_ms: Option<u32>,
    /// On a cluster: how much longer the day is than its script.
    pub stretch: Option<f64>,
}

/// Plays it. Errors are those of the machinery; what did not hold is in the figures.
pub async fn run(settings: &Settings) -> Result<Figures> {
    let machine = stalls::Watch::start();
    let mut figures = match settings.name {
        Name::Tide | Name::Crash => on_one_box(settings).await,
        Name::Cluster => cluster::run(settings).await,
    }?;
    figures.note_stalls(machine.end()?);
    Ok(figures)
}

async fn on_one_box(settings: &Settings) -> Result<Figures> {
    let example = Example::read()?;
    eprintln!("training outside Tidegate, to compare with");
    let undisturbed = training::undisturbed(&example).await?;
    let options = Options::new()?.argument("--example").argument("tide").argument("--no-load");
    let options = options.argument("--simulate-gpus").argument(format!("{GPUS}xH100-80GB"));
    eprintln!("starting up");
    let up = Up::start(options).await?;
    let observed = observe(up, settings, &example, undisturbed).await?;
    figures::figures(&observed, &example)
}

async fn observe(mut up: Up, settings: &Settings, example: &Example, undisturbed: figures::PerJob<f64>) -> Result<Observed> {
    let (stop, stopped) = signal::channel(false);
    let mut sampler = JoinSet::new();
    sampler.spawn(watch::double_runs(up.data(), stopped));
    let (client, kills) = day(&mut up, settings, example).await?;
    eprint!("{client}");
    let (day, state_after_day) = (patiently(&up, "/api/v1/report").await?, patiently(&up, "/api/v1/state").await?);
    eprintln!("the day is over; training goes on to its end");
    training_ends(&up).await?;
    let (end, state_at_end) = (patiently(&up, "/api/v1/report").await?, patiently(&up, "/api/v1/state").await?);
    let drained = up.drain().await?;
    stop.send_replace(true);
    let double_runs = sampler.join_next().await.context("the sampler is gone")??;
    Ok(Observed {
        name: settings.name,
        seed: settings.seed,
        client,
        day,
        state_after_day,
        end,
        state_at_end,
        undisturbed,
        double_runs,
        kills,
        orphans: drained.left,
        exit_code: drained.status.code(),
        drain_ms: u64::try_from(drained.took.as_millis()).unwrap_or(u64::MAX),
        cluster: None,
    })
}

async fn day(up: &mut Up, settings: &Settings, example: &Example) -> Result<(tidegate_load::Report, Vec<Kill>)> {
    let cancel = CancellationToken::new();
    let options = LoadOptions { phase_ends: phase_ends(), ..LoadOptions::new(up.url(""), settings.seed) };
    let load = play(&example.script, options, &cancel);
    match settings.name {
        Name::Tide | Name::Cluster => {
            let (client, taken) = tokio::join!(load, picture(up, settings.picture.as_deref()));
            taken?;
            Ok((client?, Vec::new()))
        }
        Name::Crash => {
            let (client, kills) = tokio::join!(load, chaos::kill_all(up, settings.seed));
            Ok((client?, kills?))
        }
    }
}

/// Takes the page's picture when most of the day can be seen on it.
async fn picture(up: &Up, file: Option<&Path>) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    // Open all day: its charts begin when it is opened.
    let mut page = Browser::open(Path::new("chromium"), &up.url("/"))?;
    sleep(PICTURE_AT).await;
    std::fs::write(file, page.picture()?).with_context(|| format!("write {}", file.display()))
}

async fn training_ends(up: &Up) -> Result<()> {
    let deadline = Instant::now() + TRAINING_WITHIN;
    while Instant::now() < deadline {
        let state: tidegate_api::view::State = patiently(up, "/api/v1/state").await?;
        if state.jobs.iter().all(|job| job.finished_ms.is_some()) {
            return Ok(());
        }
        sleep(Duration::from_secs(1)).await;
    }
    eprintln!("training has not ended within {TRAINING_WITHIN:?}");
    Ok(())
}

/// Reads what `up` says, also when it has just been started again.
async fn patiently<T: serde::de::DeserializeOwned>(up: &Up, path: &str) -> Result<T> {
    let deadline = Instant::now() + UP_IS_BACK_WITHIN;
    loop {
        match up.get(path).await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => return Err(error.context(format!("read {path}\n{}", up.log()))),
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}
