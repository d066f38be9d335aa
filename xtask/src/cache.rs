//! Where everything that is downloaded or prepared lives: outside the clone, so that a second run is quick.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// `$TIDEGATE_CACHE`, else `$XDG_CACHE_HOME/tidegate`, else `~/.cache/tidegate`: the same rule as `tidegate up`.
pub fn folder() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("TIDEGATE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("tidegate")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/tidegate")))
        .context("no cache folder: set TIDEGATE_CACHE, XDG_CACHE_HOME or HOME")
}

/// The root of the clone.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}
