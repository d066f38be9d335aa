//! Programs that run in namespaces of their own, each with a log of its name, in one folder. Dropped, all of them end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::leftovers;
use super::namespaces::Namespaces;
use crate::harness::until;

/// Each part, on a machine that is busy with other tests.
pub const READY_WITHIN: Duration = Duration::from_mins(3);
/// How much of each log a failed test shows.
const LOG_LINES: usize = 40;

/// See the module.
pub struct Parts {
    // Ended in this order: processes, then their files.
    pub namespaces: Namespaces,
    children: Vec<(String, Child)>,
    folder: TempDir,
}

impl Parts {
    /// Opens namespaces over a new folder whose name begins so; what killed tests left is taken away.
    pub async fn open(prefix: &str) -> Result<Self> {
        for left in leftovers::find(&std::env::temp_dir(), prefix) {
            drop(fs::remove_dir_all(left));
        }
        let folder = tempfile::Builder::new().prefix(&leftovers::prefix(prefix)).tempdir()?;
        let namespaces = Namespaces::open(folder.path()).await?;
        Ok(Self { namespaces, children: Vec::new(), folder })
    }

    /// A program in the namespaces.
    pub fn command(&self, program: &Path) -> Command {
        self.namespaces.command(program)
    }

    /// A path in the folder.
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a part and waits until it is ready, or has ended.
    pub async fn start(&mut self, name: &str, command: Command, is_ready: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        self.spawn(name, command)?;
        let ended = until(name, READY_WITHIN, || {
            let ended = self.children.last_mut().and_then(|(_, child)| child.try_wait().ok().flatten());
            let ready = is_ready(self);
            async move { Ok(if ended.is_some() { Some(ended) } else { ready?.then_some(None) }) }
        });
        let ended = ended.await?;
        ensure!(ended.is_none(), "{name} ended before it was ready");
        Ok(())
    }

    /// Starts a part whose output goes to a file of its name.
    pub fn spawn(&mut self, name: &str, mut command: Command) -> Result<()> {
        let log = File::create(self.at(&format!("{name}.log")))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.children.push((name.to_owned(), command.spawn().with_context(|| format!("start {name}"))?));
        Ok(())
    }

    /// A part that was started.
    pub fn child(&mut self, name: &str) -> Result<&mut Child> {
        let found = self.children.iter_mut().rfind(|(known, _)| known == name);
        found.map(|(_, child)| child).with_context(|| format!("{name} was not started"))
    }

    /// What a part has said.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.at(&format!("{name}.log"))).unwrap_or_default()
    }

    /// The ends of all logs.
    pub fn said(&self) -> String {
        let end = |(name, _): &(String, Child)| {
            let text = self.log(name);
            let lines: Vec<&str> = text.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
        };
        self.children.iter().map(end).collect()
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
        self.namespaces.end();
        for (_, child) in &mut self.children {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
