//! With what an `up` of a test is started.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Arguments and a folder of its own, which goes with it.
pub struct Options {
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Options {
    /// Nothing but `up` itself.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tidegate-test-").tempdir().context("make a folder for the test")?;
        Ok(Self { folder, arguments: vec!["up".into()], environment: Vec::new() })
    }

    /// With the manifest `yaml` and `gpus` simulated devices.
    pub fn with_manifest(yaml: &str, gpus: u32) -> Result<Self> {
        let mut options = Self::new()?;
        let file = options.write("manifest.yaml", yaml)?;
        options.arguments.extend(["-f".into(), file.to_string_lossy().into_owned()]);
        Ok(options.argument("--simulate-gpus").argument(format!("{gpus}xH100-80GB")))
    }

    /// With one more argument.
    #[must_use]
    pub fn argument(mut self, word: impl Into<String>) -> Self {
        self.arguments.push(word.into());
        self
    }

    /// With an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Writes a file beside the manifest. Its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// The folder of the manifest.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `--data`.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Where its output goes.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("up.log")
    }

    /// Words after `tidegate`.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    pub(super) fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}
