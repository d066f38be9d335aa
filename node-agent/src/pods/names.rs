//! Names of pods and containers by UID and id, from the kubelet's log folders, which any node has:
//!
//! ```text
//! LOGS/pods/NAMESPACE_POD_UID/                               one folder a pod
//! LOGS/containers/POD_NAMESPACE_CONTAINER-ID.log             one link a container
//! ```
//!
//! So no right to read pods from the API server is needed.

use std::collections::HashMap;
use std::path::Path;
use std::{fs, io};

use super::Container;

/// No node runs so many containers; more entries are not looked at.
const MOST: usize = 8192;

/// Names by UID and by container id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub pods: HashMap<String, (String, String)>,
    pub containers: HashMap<String, Container>,
}

/// Reads both folders below `logs`, usually `/var/log`.
pub fn read(logs: &Path) -> io::Result<Names> {
    let pods = names(&logs.join("pods"))?.iter().filter_map(|name| pod(name)).collect();
    let containers = names(&logs.join("containers"))?.iter().filter_map(|name| container(name)).collect();
    Ok(Names { pods, containers })
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    Ok(fs::read_dir(folder)?.take(MOST).flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn pod(name: &str) -> Option<(String, (String, String))> {
    let mut parts = name.splitn(3, '_');
    let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
    Some((uid.to_owned(), (namespace.to_owned(), pod.to_owned())))
}

fn container(name: &str) -> Option<(String, Container)> {
    let (name, id) = name.strip_suffix(".log")?.rsplit_once('-')?;
    let mut parts = name.splitn(3, '_');
    let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
    Some((id.to_owned(), Container { namespace: namespace.into(), pod: pod.into(), container: container.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_log_folders() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("pods/team-a_trainer-0_6f0c7a2e-1b3d-4e5f-8a9b-0c1d2e3f4a5b")).unwrap();
        fs::create_dir_all(dir.path().join("containers")).unwrap();
        fs::write(dir.path().join("containers/trainer-0_team-a_main-loop-3b1a.log"), "").unwrap();
        fs::write(dir.path().join("containers/other.txt"), "").unwrap();
        let names = read(dir.path()).unwrap();
        assert_eq!(names.pods["6f0c7a2e-1b3d-4e5f-8a9b-0c1d2e3f4a5b"], ("team-a".into(), "trainer-0".into()));
        let main = Container { namespace: "team-a".into(), pod: "trainer-0".into(), container: "main-loop".into() };
        assert_eq!(names.containers, HashMap::from([("3b1a".into(), main)]));
        assert!(read(&dir.path().join("none")).is_err());
    }
}
