//! The last build that passed all tests: what the next one is to replace under load (`tests/tests/upgrade.rs`).

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{cache, cargo};

/// Which build an upgrade begins with, for the tests.
pub const VARIABLE: &str = "TIDEGATE_PREVIOUS";

fn place() -> Result<PathBuf> {
    Ok(cache::folder()?.join("previous/tidegate"))
}

/// Where it is, if there is one.
pub fn build() -> Option<PathBuf> {
    place().ok().filter(|build| build.is_file())
}

/// Keeps the present build.
pub fn keep() -> Result<()> {
    let place = place()?;
    let folder = place.parent().context("no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // Whole or not at all.
    let part = place.with_extension("part");
    let copied = fs::copy(cargo::built("tidegate")?, &part).and_then(|_| fs::rename(&part, &place));
    copied.with_context(|| format!("cannot keep the build in {}", place.display()))
}
