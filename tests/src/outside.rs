//! Outside programs that `cargo xtask test` installs for the tests of the feature `outside`.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// An installed thing, by the variable in which `cargo xtask test` tells where it is.
pub fn installed(variable: &str) -> Result<PathBuf> {
    let found = env::var_os(variable).filter(|value| !value.is_empty());
    found
        .map(PathBuf::from)
        .with_context(|| format!("{variable} is not set: run `cargo xtask test`, which installs what it names"))
}
