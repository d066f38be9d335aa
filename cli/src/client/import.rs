//! `import`: other schedulers' manifests as ours on standard output, and what was lost on standard error.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use tidegate_api::import::kueue::{self, File, Imported};

use super::apply;
use super::http::Error;
use super::out;

/// Arguments of `import`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    from: From,
}

/// Whose manifests they are.
#[derive(Subcommand, Debug)]
enum From {
    /// Kueue's ClusterQueues, Cohorts, LocalQueues, ResourceFlavors and WorkloadPriorityClasses as Queues.
    Kueue(Files),
}

#[derive(clap::Args, Debug)]
struct Files {
    /// A YAML file, a folder of them, or `-` for standard input. May be repeated.
    #[arg(short, long = "filename", value_name = "FILE|DIR", default_value = "-")]
    filename: Vec<PathBuf>,
}

pub fn run(Args { from: From::Kueue(Files { filename }) }: Args) -> Result<(), Error> {
    let mut files = Vec::new();
    for path in &filename {
        files.extend(read(path)?);
    }
    let Imported { yaml, told } = kueue::import(&files).map_err(|problems| Error::Input(problems.to_string()))?;
    let mut lines = io::stderr().lock();
    for line in told {
        writeln!(lines, "{line}").map_err(Error::Output)?;
    }
    out::print(&yaml)
}

fn read(path: &Path) -> Result<Vec<File>, Error> {
    let file = |manifest: apply::Manifest| {
        let stdin = manifest.file == Path::new("-");
        let name = if stdin { "standard input".to_owned() } else { manifest.dir.join(&manifest.file).display().to_string() };
        let text = String::from_utf8(manifest.yaml);
        let text = text.map_err(|e| Error::Input(format!("{name}: is not text: {e}; write YAML in UTF-8")))?;
        Ok(File { name, text })
    };
    apply::read(path)?.into_iter().map(file).collect()
}
