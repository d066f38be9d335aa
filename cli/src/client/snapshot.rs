//! `snapshot`: the engine's whole state, to be asked later or elsewhere; and where an answer comes from, a running `up` or
//! such a file.

use std::fs;
use std::path::{Path, PathBuf};

use tidegate_core::Engine;

use super::http::{Client, Error, Server};
use super::out;

/// Arguments of `snapshot`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    server: Server,
}

/// Whom to ask.
#[derive(clap::Args, Debug)]
pub struct Source {
    /// Asks this file, which `tidegate snapshot > FILE` wrote, instead of a running `up`. Its moment is then now.
    #[arg(long, value_name = "FILE")]
    pub snapshot: Option<PathBuf>,
    #[command(flatten)]
    pub server: Server,
}

pub async fn run(Args { server }: Args) -> Result<(), Error> {
    out::print(&Client::new(&server)?.text("/api/v1/snapshot").await?)
}

/// The engine of a snapshot's file.
pub fn read(path: &Path) -> Result<Engine, Error> {
    let wrong =
        |why: String| Error::Input(format!("--snapshot {}: {why}; write one with `tidegate snapshot > FILE`", path.display()));
    let text = fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    Engine::restore(&text).map_err(|e| wrong(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_read_and_anything_else_is_refused_with_the_remedy() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), Engine::default().snapshot().unwrap()).unwrap();
        assert!(read(file.path()).unwrap() == Engine::default());
        for text in ["", "{}", "[1]"] {
            fs::write(file.path(), text).unwrap();
            let error = read(file.path()).unwrap_err();
            assert!(error.to_string().ends_with("; write one with `tidegate snapshot > FILE`"), "{error}");
            assert_eq!(error.code(), 64);
        }
        assert!(read(Path::new("/nonexistent/x.json")).unwrap_err().to_string().starts_with("--snapshot /nonexistent/x.json: "));
    }
}
