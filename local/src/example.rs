//! A built-in example: its manifests, what it must prepare, and its client.

mod prepare;
mod summary;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate_api::manifest::Object;
use tidegate_load::{ModelScript, Options, Script, play};
use tidegate_runtime::exit::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::manifests::{self, Sourced};
use crate::world::{Handle, World};

/// The devices that the examples are written for.
const DEVICES: &str = "4xH100-80GB";
/// Of the client's arrivals: the same day each time.
const SEED: u64 = 7;
/// How often the client says how it goes.
const SAY_EVERY: Duration = Duration::from_secs(15);
/// How long training may go on after the day before the summary is printed without its end.
const AFTER_THE_DAY: Duration = Duration::from_mins(4);

/// An example in this checkout.
#[derive(Clone, Debug)]
pub struct Example {
    name: String,
    dir: PathBuf,
}

impl Example {
    /// The example `name`, in `examples/` here or where this program was built.
    pub fn find(name: &str) -> Result<Self, Error> {
        let built = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples"));
        let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        let dirs = [Path::new("examples"), built].into_iter().map(|dir| dir.join(name)).filter(|dir| plain && dir.is_dir());
        match dirs.map(|dir| dir.canonicalize()).find_map(Result::ok) {
            Some(dir) => Ok(Self { name: name.to_owned(), dir }),
            None => Err(Error::Usage(format!(
                "--example {name}: there is none of this name in examples/; try `--example tide` in a clone of the project"
            ))),
        }
    }

    /// What `--simulate-gpus` is unless it is given.
    pub fn devices(&self) -> &'static str {
        DEVICES
    }

    /// A new data directory: an example begins anew each time.
    pub fn data(&self) -> PathBuf {
        std::env::temp_dir().join(format!("tidegate-{}-{}", self.name, crate::world::now_ms()))
    }

    /// Its manifests, with what can be prepared here. A model that cannot be is left out, and that is said.
    pub async fn manifests(&self, shutdown: &CancellationToken) -> Result<Vec<Sourced>, Error> {
        let mut all = manifests::read(std::slice::from_ref(&self.dir))?;
        let prepared = self.dir.join("prepared");
        let needs = |sourced: &Sourced| matches!(&sourced.object, Object::Model(model) if Path::new(&model.spec.source.onnx).starts_with(&prepared));
        if !all.iter().any(needs) {
            return Ok(all);
        }
        match prepare::minilm(&self.dir, shutdown).await {
            Ok(folder) => {
                for sourced in &mut all {
                    relocate(&mut sourced.object, &prepared, &folder);
                }
            }
            Err(why) => {
                eprintln!("  all-MiniLM-L6-v2 cannot be prepared: {why}");
                eprintln!("  going on with the committed model alone");
                all.retain(|sourced| !needs(sourced));
            }
        }
        Ok(all)
    }

    /// Plays the day, waits for training to end, and says what happened. Ends early with `shutdown`.
    pub async fn play(self, listen: SocketAddr, world: Handle, shutdown: CancellationToken) -> Result<(), Error> {
        let file = self.dir.join("load").join("day.yaml");
        let script = Script::read(&file).map_err(|e| Error::failed(format!("read {}", file.display()), e))?;
        let target = format!("http://{listen}");
        let (live, seen) = watch::channel(tidegate_load::Report::default());
        let options = Options { live: Some(live), ..Options::new(target, SEED) };
        wait_for(&shutdown, Duration::from_mins(1), || async { world.read(World::is_routed).await.unwrap_or(true) }).await;
        eprintln!("  a client now plays a day of three minutes; open the page to see the tide");
        let mut progress = JoinSet::new();
        progress.spawn(say_progress(seen, world.clone()));
        let report = play(&script, options, &shutdown).await;
        progress.shutdown().await;
        let report = match report {
            Ok(report) => report,
            Err(e) => {
                eprintln!("  the client cannot play: {e}");
                return Ok(());
            }
        };
        let day = world.read(World::report).await;
        if shutdown.is_cancelled() {
            return Ok(());
        }
        eprintln!("  the day is over; waiting for the training jobs to end");
        wait_for_jobs(&world, &shutdown).await;
        if shutdown.is_cancelled() {
            return Ok(());
        }
        let peaks: Vec<(String, u64)> = script.models.iter().map(|model| (model.name.clone(), peak(model))).collect();
        let needed = move |world: &World| peaks.iter().map(|(model, rate)| world.needed_at(model, *rate)).sum();
        let seen = (day, world.read(World::report).await, world.read(World::state).await, world.read(needed).await);
        if let (Ok(day), Ok(end), Ok(state), Ok(peak_devices)) = seen {
            summary::say(&report, &summary::Seen { day, end, state, peak_devices });
        }
        Ok(())
    }
}

/// The highest scripted rate, in rows per 1000 s; a request of the examples is one row.
fn peak(model: &ModelScript) -> u64 {
    let highest = model.requests_per_second.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a scripted rate is far below 2^53")]
    let milli = (highest * 1000.0).round() as u64;
    milli
}

/// Paths under `from` become paths under `to`.
fn relocate(object: &mut Object, from: &Path, to: &Path) {
    let moved = |path: &str| match Path::new(path).strip_prefix(from) {
        Ok(rest) => to.join(rest).display().to_string(),
        Err(_) => path.to_owned(),
    };
    if let Object::Model(model) = object {
        model.spec.source.onnx = moved(&model.spec.source.onnx);
        if let Some(embedding) = &mut model.spec.embedding {
            embedding.tokenizer = moved(&embedding.tokenizer);
        }
    }
}

async fn say_progress(seen: watch::Receiver<tidegate_load::Report>, world: Handle) {
    let mut every = tokio::time::interval(SAY_EVERY);
    every.tick().await;
    loop {
        every.tick().await;
        let report = seen.borrow().clone();
        if let Ok(state) = world.read(World::state).await {
            eprintln!("  {}", summary::line(&report, &state));
        }
    }
}

async fn wait_for_jobs(world: &Handle, shutdown: &CancellationToken) {
    let over = || async {
        let state = world.read(World::state).await;
        state.map_or(true, |state| state.jobs.iter().all(|job| job.finished_ms.is_some() || job.phase == "paused"))
    };
    wait_for(shutdown, AFTER_THE_DAY, over).await;
}

/// Waits until `holds`, `shutdown`, or `limit`.
async fn wait_for<F: Future<Output = bool>>(shutdown: &CancellationToken, limit: Duration, holds: impl Fn() -> F) {
    let polled = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = tokio::time::sleep(limit) => {}
        () = polled => {}
    }
}
