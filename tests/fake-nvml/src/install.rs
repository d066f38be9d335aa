//! Finds the C library that cargo built beside the running test, and puts a copy where a test wants it.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use crate::script::Script;

/// The file that cargo built, in the folder of the running executable or in the one above it
/// (`target/release/deps` and `target/release`). The newest wins.
pub fn built_library() -> io::Result<PathBuf> {
    let exe = env::current_exe()?;
    let folders = exe.ancestors().skip(1).take(2).flat_map(|dir| [dir.to_path_buf(), dir.join("deps")]);
    let found = folders.filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten().map(|e| e.path()).filter(|p| is_library(p));
    found
        .max_by_key(|p| p.metadata().and_then(|m| m.modified()).ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no libnvml_fake*.so beside {}", exe.display())))
}

fn is_library(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    name.starts_with("libnvml_fake") && path.extension().is_some_and(|e| e == "so")
}

/// Makes `dir/libnvidia-ml.so.1` with its script beside it. Returns the library's and the script's path.
///
/// Each copy is a library of its own to the loader, so tests in one process do not share a machine.
pub fn install(dir: &Path, script: &Script) -> io::Result<(PathBuf, PathBuf)> {
    let library = dir.join("libnvidia-ml.so.1");
    fs::copy(built_library()?, &library)?;
    let path = dir.join("libnvidia-ml.so.1.json");
    script.write(&path)?;
    Ok((library, path))
}
