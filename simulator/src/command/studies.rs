//! `simulate study`: one published experiment, or all of them.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;

use super::line::{Line, word};
use super::{Ended, json, print, save};
use crate::Error;
use crate::generate::is_synthetic;
use crate::kueue::engine::EngineScheduler;
use crate::kueue::{QuotaScheduler, Scene};
use crate::report::Study;
use crate::report::html::Page;
use crate::studies::{fgd, kueue, lyra, philly, pollux, tide};

/// Flags of `simulate study`.
#[derive(clap::Args, Debug)]
pub struct Args {
    name: Name,
    /// The folder with the public traces. The studies `kueue-*`, `production-1300` and `scale` need none; `tidegate simulate
    /// generate all` writes synthetic ones.
    #[arg(long, value_name = "DIR", env = "TIDEGATE_DATA")]
    data: Option<PathBuf>,
    #[arg(long)]
    json: bool,
    /// The tables as a page that needs nothing else.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// A study's name.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    All,
    Fgd,
    KueueBaseline,
    KueueLarge,
    KueueTas,
    #[value(name = "production-1300")]
    Production,
    Scale,
    Pollux,
    Philly,
    Lyra,
    Tide,
}

/// A study that was to be run.
#[derive(Serialize)]
#[serde(untagged)]
enum Done {
    Study(Study),
    /// It did not come to an end; the others go on.
    Failed {
        name: String,
        error: String,
    },
}

/// Runs one study, or all of them: one that cannot be run is named and the others are not lost.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<Ended, Error> {
    if args.name != Name::All {
        check(args.name, args.data.as_deref())?;
        let study = study(args.name, args.data.as_deref())?;
        return report(args, &[Done::Study(study)], out);
    }
    let every = || Name::value_variants().iter().copied().filter(|name| *name != Name::All);
    let missing: Vec<Done> =
        every().filter_map(|name| check(name, args.data.as_deref()).err().map(|error| Done::failed(name, &error))).collect();
    if !args.json {
        missing.iter().try_for_each(|done| print(out, &done.to_string()))?;
    }
    let mut done = Vec::new();
    for name in every().filter(|name| check(*name, args.data.as_deref()).is_ok()) {
        let one = study(name, args.data.as_deref()).map_or_else(|error| Done::failed(name, &error), Done::Study);
        if !args.json {
            print(out, &one.to_string())?;
        }
        done.push(one);
    }
    done.extend(missing);
    report(args, &done, out)
}

impl Done {
    fn failed(name: Name, error: &Error) -> Self {
        Self::Failed { name: word(&name), error: error.to_string() }
    }

    fn passed(&self) -> bool {
        matches!(self, Self::Study(study) if study.passed())
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Study(study) => write!(f, "{study}"),
            Self::Failed { name, error } => writeln!(f, "study {name}\n  NOT RUN: {error}"),
        }
    }
}

/// Writes what was done, and judges it. In text, `study all` has printed each as it ended.
fn report(args: &Args, done: &[Done], out: &mut dyn Write) -> Result<Ended, Error> {
    if let Some(path) = &args.html {
        let studies: Vec<Study> =
            done.iter().filter_map(|done| if let Done::Study(study) = done { Some(study.clone()) } else { None }).collect();
        let command = args.line().to_string();
        let page = Page { title: "Studies", command: &command, facts: &[], studies: &studies, charts: &[] };
        save(path, |file| write!(file, "{page}"))?;
    }
    if args.json {
        print(out, &json(&done)?)?;
    } else if args.name != Name::All {
        done.iter().try_for_each(|done| print(out, &done.to_string()))?;
    }
    Ok(if done.iter().all(Done::passed) { Ended::Well } else { Ended::Missed })
}

impl Args {
    /// What prints this report again.
    fn line(&self) -> Line {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        Line::new(&["tidegate", "simulate", "study", &word(&self.name)])
            .with_some("data", path(&self.data))
            .with_switch("json", self.json)
            .with_some("html", path(&self.html))
    }
}

/// Whether all files that a study reads are there, before anything is computed.
fn check(name: Name, data: Option<&Path>) -> Result<(), Error> {
    let needs = needs(name, data)?;
    if needs.is_empty() {
        return Ok(());
    }
    let word = word(&name);
    let Some(data) = data else {
        return Err(Error::Usage(format!(
            "--data is missing: the study {word} needs the public traces, give --data DIR or TIDEGATE_DATA; `tidegate simulate \
             generate all --out DIR` writes synthetic ones"
        )));
    };
    let missing: Vec<String> = needs.into_iter().filter(|file| !data.join(file).exists()).collect();
    let Some(first) = missing.first() else { return Ok(()) };
    let more = if missing.len() > 1 { format!(" and {} more files", missing.len() - 1) } else { String::new() };
    Err(Error::Usage(format!(
        "--data {}: the study {word} needs {first}{more}, which is not there; docs/studies.md says where each trace comes from",
        data.display()
    )))
}

/// Files of the data folder that a study reads.
fn needs(name: Name, data: Option<&Path>) -> Result<Vec<String>, Error> {
    let files: &[&str] = match name {
        Name::Fgd => return fgd::needs(data),
        Name::Pollux => return pollux::needs(data),
        Name::Philly => &["philly/philly.csv.gz"],
        Name::Lyra => &["philly/philly.csv.gz", "servegen/derived_total_rate.csv"],
        Name::Tide => &[
            "philly/philly.csv.gz",
            "servegen/derived_total_rate.csv",
            "servegen/derived_length_hist.csv",
            "servegen/m-small-trace.tar.gz",
            "splitwise/perf_model.csv",
        ],
        Name::All | Name::KueueBaseline | Name::KueueLarge | Name::KueueTas | Name::Production | Name::Scale => &[],
    };
    Ok(files.iter().map(ToString::to_string).collect())
}

/// What `ours` is in a study.
fn ours(name: Name) -> &'static str {
    match name {
        Name::Fgd => "`ours` is the placement score of the engine (core::fragment), called alone: no queue, no quota",
        _ => "`ours` is the engine that ships (core::Engine), fed with events and carried out in virtual time",
    }
}

fn study(name: Name, data: Option<&Path>) -> Result<Study, Error> {
    // Studies that read nothing do not look at it.
    let needs_data = !needs(name, data)?.is_empty();
    let data = data.unwrap_or_else(|| Path::new(""));
    let study = match name {
        Name::KueueBaseline => engine("kueue-baseline"),
        Name::KueueLarge => engine("kueue-large"),
        Name::KueueTas => engine("kueue-tas"),
        Name::Production => engine("production-1300"),
        Name::Scale => engine("scale"),
        Name::All | Name::Fgd => fgd::run(data),
        Name::Pollux => pollux::run(data),
        Name::Philly => philly::run(data, philly::ours),
        Name::Lyra => lyra::run(data, &lyra::settings()?),
        Name::Tide => tide::run(data, &tide::settings()?),
    };
    // A study has no --skip-bad: it is done on all of its data or not at all.
    study.map_err(Error::without_skip_bad).map(|mut study| {
        study.assumptions.insert(0, ours(name).to_owned());
        // The others make their own data up and say so.
        if needs_data && is_synthetic(data) {
            study.mark_synthetic();
        }
        study
    })
}

/// The engine against Kueue's rule, or alone.
fn engine(name: &str) -> Result<Study, Error> {
    let mut ours = |scene: &Scene| Box::new(EngineScheduler::new(scene)) as Box<dyn QuotaScheduler>;
    kueue::run(name, &mut ours, &kueue::wall_clock())
}
