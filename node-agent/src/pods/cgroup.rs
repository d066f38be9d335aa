//! Where a process runs, from `/proc/PID/cgroup`. Pure but for [`Reader`], which reads each process once.
//!
//! Shapes, of cgroup v1 (one line a controller) and v2 (one line, `0::`):
//!
//! ```text
//! cgroupfs  /kubepods/burstable/pod6f0c…/3b1a…                                       (guaranteed: no QoS part)
//! systemd   /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod6f0c_….slice/cri-containerd-3b1a….scope
//! cri-o     …/crio-3b1a….scope             docker  …/docker-3b1a….scope
//! nested    /kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod6f0c_….slice/cri-containerd-3b1a….scope   (kind)
//! static    pod UIDs of 32 hexadecimal digits without dashes
//! ```

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::Place;

/// Hexadecimal digits of a container id.
const CONTAINER_DIGITS: usize = 64;
/// Shortest UID: 32 digits.
const UID_DIGITS: usize = 32;

/// Where a process with this `cgroup` file runs.
pub fn place(cgroup: &str) -> Place {
    // Of v1 the lines agree, but for controllers that a container does not use.
    let mut paths = cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let found = paths.find_map(pod);
    found.map_or(Place::Host, |(uid, container)| Place::Pod { uid, container })
}

fn pod(path: &str) -> Option<(String, Option<String>)> {
    let parts: Vec<&str> = path.split('/').collect();
    let at = parts.iter().rposition(|part| uid(part).is_some())?;
    let container = parts.iter().skip(at + 1).find_map(|part| container(part));
    Some((uid(parts.get(at)?)?, container))
}

/// `pod<uid>` at the end of a part, before `.slice`.
fn uid(part: &str) -> Option<String> {
    let part = part.strip_suffix(".slice").unwrap_or(part);
    let (before, uid) = part.rsplit_once("pod")?;
    let uid = uid.replace('_', "-");
    let digits = uid.chars().filter(char::is_ascii_hexdigit).count();
    let only = uid.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    (only && digits == UID_DIGITS && (before.is_empty() || before.ends_with('-'))).then_some(uid)
}

fn container(part: &str) -> Option<String> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let id = part.rsplit('-').next()?;
    (id.len() == CONTAINER_DIGITS && id.chars().all(|c| c.is_ascii_hexdigit())).then(|| id.to_owned())
}

/// Reads processes and remembers them. A pid that is used again has another start time and is read again.
#[derive(Debug)]
pub struct Reader {
    proc: PathBuf,
    known: HashMap<u32, (u64, Place)>,
}

impl Reader {
    /// `proc` is usually `/proc`.
    pub fn new(proc: &Path) -> Self {
        Self { proc: proc.to_owned(), known: HashMap::new() }
    }

    /// Where each of these processes runs; forgets all others.
    pub fn read(&mut self, pids: impl Iterator<Item = u32>) -> HashMap<u32, Place> {
        let mut before = std::mem::take(&mut self.known);
        for pid in pids {
            let Some(started) = self.started(pid) else { continue };
            let known = before.remove(&pid).filter(|(known, _)| *known == started).map(|(_, place)| place);
            let place = known.unwrap_or_else(|| self.look(pid));
            self.known.insert(pid, (started, place));
        }
        self.known.iter().map(|(pid, (_, place))| (*pid, place.clone())).collect()
    }

    fn look(&self, pid: u32) -> Place {
        fs::read_to_string(self.proc.join(pid.to_string()).join("cgroup")).map_or(Place::Unknown, |text| place(&text))
    }

    /// Field 22 of proc(5)'s `stat`; the name before it may hold spaces.
    fn started(&self, pid: u32) -> Option<u64> {
        let text = fs::read_to_string(self.proc.join(pid.to_string()).join("stat")).ok()?;
        text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTAINER: &str = "3b1a5c7e9d0f2468ace13579bdf02468ace13579bdf02468ace13579bdf02468";

    fn in_pod(uid: &str, container: Option<&str>) -> Place {
        Place::Pod { uid: uid.into(), container: container.map(Into::into) }
    }

    #[test]
    fn every_shape_of_cgroup_is_understood() {
        let uid = "6f0c7a2e-1b3d-4e5f-8a9b-0c1d2e3f4a5b";
        let escaped = uid.replace('-', "_");
        let shapes = [
            format!("0::/kubepods/burstable/pod{uid}/{CONTAINER}"),
            format!("0::/kubepods/pod{uid}/{CONTAINER}"),
            format!("12:devices:/kubepods/besteffort/pod{uid}/{CONTAINER}\n0::/system.slice"),
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{escaped}.slice/cri-containerd-{CONTAINER}.scope"
            ),
            format!("0::/kubepods.slice/kubepods-pod{escaped}.slice/crio-{CONTAINER}.scope"),
            format!("0::/kubepods.slice/kubepods-pod{escaped}.slice/crio-{CONTAINER}.scope/container"),
            format!("0::/kubepods.slice/kubepods-pod{escaped}.slice/docker-{CONTAINER}.scope"),
            format!(
                "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{escaped}.slice/cri-containerd-{CONTAINER}.scope"
            ),
            format!("0::/../../pod{uid}/{CONTAINER}"),
        ];
        for shape in shapes {
            assert_eq!(place(&shape), in_pod(uid, Some(CONTAINER)), "{shape}");
        }
    }

    #[test]
    fn static_pods_have_uids_without_dashes() {
        let uid = "0123456789abcdef0123456789abcdef";
        assert_eq!(place(&format!("0::/kubepods/pod{uid}")), in_pod(uid, None));
    }

    #[test]
    fn what_is_in_no_pod_is_on_the_host() {
        for text in
            ["0::/user.slice/user-1000.slice", "0::/system.slice/podman.service", "", "0::/machine.slice/libpod-1234.scope"]
        {
            assert_eq!(place(text), Place::Host, "{text}");
        }
    }

    #[test]
    fn a_pid_that_is_used_again_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let write = |start: u64, cgroup: &str| {
            let at = dir.path().join("7");
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join("stat"), format!("7 (a b) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0")).unwrap();
            fs::write(at.join("cgroup"), cgroup).unwrap();
        };
        let mut reader = Reader::new(dir.path());
        write(100, "0::/user.slice");
        assert_eq!(reader.read([7, 8].into_iter()), HashMap::from([(7, Place::Host)]));
        let uid = "0123456789abcdef0123456789abcdef";
        write(200, &format!("0::/kubepods/pod{uid}"));
        assert_eq!(reader.read([7].into_iter())[&7], in_pod(uid, None));
    }
}
