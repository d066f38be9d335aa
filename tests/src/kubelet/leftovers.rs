//! What a killed test left behind: it is known by the process id in its name, and the next test takes it away.

use std::fs;
use std::path::{Path, PathBuf};

/// A name that no other process gives.
pub fn prefix(of: &str) -> String {
    format!("{of}{}-", std::process::id())
}

/// Entries of `folder` with a name of [`prefix`] whose process has ended.
pub fn find(folder: &Path, of: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| owner(path, of).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())).collect()
}

fn owner(path: &Path, of: &str) -> Option<u32> {
    let (pid, _) = path.file_name()?.to_str()?.strip_prefix(of)?.split_once('-')?;
    pid.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_ended_process_left_is_found() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ended = folder.path().join(format!("node-{}-0", child.id()));
        fs::create_dir(&ended).unwrap();
        for name in [&prefix("node-"), "node-mine", "other-1-0"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        assert_eq!(find(folder.path(), "node-"), [ended]);
    }
}
