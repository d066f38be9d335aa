//! Instructions of a cycle, counted by valgrind's callgrind on this same program.

use std::path::Path;
use std::process::{Command, Stdio};

/// Instructions executed per `decide` in `cycles` cycles, or why they cannot be counted.
pub fn per_cycle(gpus: u32, seed: u64, cycles: u32) -> Result<f64, String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let folder = tempfile::tempdir().map_err(|error| format!("cannot make a folder: {error}"))?;
    let counts = folder.path().join("callgrind.out");
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--quiet", "--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*decide_counted*"])
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(program)
        .args(["--counted", "--gpus", &gpus.to_string(), "--seed", &seed.to_string(), "--cycles", &cycles.to_string()])
        .stdout(Stdio::null());
    match valgrind.status() {
        Err(error) => Err(format!("valgrind cannot be run ({error}); it is Debian's package valgrind")),
        Ok(status) if !status.success() => Err(format!("valgrind ended with {status}")),
        Ok(_) => Ok(total(&counts)? as f64 / f64::from(cycles)),
    }
}

/// The file's total, from its line `totals: COUNT` (`summary:` in older versions).
fn total(counts: &Path) -> Result<u64, String> {
    let text = std::fs::read_to_string(counts).map_err(|error| format!("callgrind wrote no counts: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:")));
    let total = line.and_then(|rest| rest.trim().parse().ok()).filter(|total| *total > 0);
    total.ok_or_else(|| "callgrind counted nothing: is `decide_counted` inlined?".to_owned())
}
