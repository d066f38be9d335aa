//! `simulate study`: one published experiment, or all of them.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::{Ended, json, print, save};
use crate::Error;
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
    /// generate all` writes synthetic ones for some of the others.
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

/// What `ours` is, for studies whose rule is not the engine's yet.
const OUTSIDE: &str = "`ours` is a pure rule of the simulator that is to move into the engine, not the engine itself";

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<Ended, Error> {
    let every = Name::value_variants().iter().copied().filter(|name| *name != Name::All);
    let names: Vec<Name> = if args.name == Name::All { every.collect() } else { vec![args.name] };
    let mut studies = Vec::new();
    for name in names {
        let study = study(name, args.data.as_deref())?;
        if !args.json {
            print(out, &study.to_string())?;
        }
        studies.push(study);
    }
    if args.json {
        print(out, &json(&studies)?)?;
    }
    if let Some(path) = &args.html {
        let page = Page { title: "Studies", command: "tidegate simulate study", facts: &[], studies: &studies, charts: &[] };
        save(path, |file| write!(file, "{page}"))?;
    }
    Ok(if studies.iter().all(Study::passed) { Ended::Well } else { Ended::Missed })
}

fn study(name: Name, data: Option<&Path>) -> Result<Study, Error> {
    let data = || {
        let missing = "this study needs the public traces: give --data DIR or TIDEGATE_DATA; without them, `tidegate simulate generate all --out DIR` writes synthetic ones";
        data.ok_or_else(|| Error::Usage(missing.to_owned()))
    };
    match name {
        Name::KueueBaseline => engine("kueue-baseline"),
        Name::KueueLarge => engine("kueue-large"),
        Name::KueueTas => engine("kueue-tas"),
        Name::Production => engine("production-1300"),
        Name::Scale => engine("scale"),
        Name::All | Name::Fgd => fgd::run(data()?),
        Name::Pollux => pollux::run(data()?).map(outside),
        Name::Philly => philly::run(data()?, philly::ours),
        Name::Lyra => lyra::run(data()?, &lyra::settings()?).map(outside),
        Name::Tide => tide::run(data()?, &tide::settings()?).map(outside),
    }
}

/// The engine against Kueue's rule, or alone.
fn engine(name: &str) -> Result<Study, Error> {
    let mut ours = |scene: &Scene| Box::new(EngineScheduler::new(scene)) as Box<dyn QuotaScheduler>;
    kueue::run(name, &mut ours, &kueue::wall_clock())
}

fn outside(mut study: Study) -> Study {
    study.assumptions.insert(0, OUTSIDE.to_owned());
    study
}
