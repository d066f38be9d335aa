//! `what-if`: what would be different, asked of a running `up` or of a snapshot's file. Nothing is changed.

use std::path::PathBuf;

use clap::ArgGroup;
use tidegate_api::manifest;
use tidegate_api::what_if::{self, MAX_HOURS, Request};
use tidegate_core::what_if::{Change, Difference};

use super::apply;
use super::http::{Client, Error};
use super::out;
use super::snapshot::{self, Source};

/// Arguments of `what-if`.
#[derive(clap::Args, Debug)]
#[command(group(ArgGroup::new("what").required(true).multiple(true).args(["change", "filename"])))]
pub struct Args {
    /// `queue/NAME:RESOURCE=+N` (also `-N`, or `N` for to N), `node/NAME=+N` (N more like it), `node/NAME=drained`,
    /// `node/NAME=removed`, `nodes=+NxGPUSxCLASS`, `job/NAME:priority=N`, `job/NAME=removed`, `policy:FIELD=VALUE`.
    #[arg(value_name = "CHANGE", value_parser = what_if::parse)]
    change: Vec<Change>,
    /// `TrainingJob`s that would be submitted: a YAML file, a folder of them, or `-`. May be repeated.
    #[arg(short, long = "filename", value_name = "FILE|DIR")]
    filename: Vec<PathBuf>,
    /// How far to look, in hours: averages are over this time.
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=MAX_HOURS))]
    hours: u64,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

pub async fn run(Args { change, filename, hours, json, source }: Args) -> Result<(), Error> {
    let mut changes = change;
    for path in &filename {
        changes.extend(submitted(path)?);
    }
    let request = Request { changes, horizon_ms: hours * 3_600_000 };
    request.check().map_err(Error::Input)?;
    let difference = ask(&request, &source).await?;
    if json { out::json(&difference) } else { out::print(&difference.to_string()) }
}

/// The jobs of a manifest as changes.
fn submitted(path: &std::path::Path) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::new();
    for read in apply::read(path)? {
        let file = read.dir.join(&read.file).display().to_string();
        let text =
            String::from_utf8(read.yaml).map_err(|e| Error::Input(format!("{file}: is not text: {e}; write YAML in UTF-8")))?;
        let objects = manifest::parse(&text, &file).map_err(|problems| Error::Input(problems.to_string()))?;
        changes.extend(what_if::jobs(&objects, &file).map_err(|e| Error::Input(e.to_string()))?);
    }
    Ok(changes)
}

async fn ask(request: &Request, source: &Source) -> Result<Difference, Error> {
    let Some(path) = &source.snapshot else {
        return Client::new(&source.server)?.post_json("/api/v1/what-if", request).await;
    };
    let engine = snapshot::read(path)?;
    let answer = tidegate_core::what_if::run(&engine, &request.changes, engine.state().now, request.horizon_ms);
    answer.map_err(|e| Error::Input(e.to_string()))
}
