//! Small lists for tests.

use std::io::Write;

use tempfile::NamedTempFile;

use super::Lists;

/// 10 GPUs.
pub(in crate::pack) const NODES: &str = "sn,cpu_milli,memory_mib,gpu,model\nn0,64000,262144,2,P100\nn1,96000,1000,8,T4\n";
pub(in crate::pack) const HEADER: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n";

pub(in crate::pack) fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// The nodes above and these rows of pods.
pub(in crate::pack) fn lists(pods: &str) -> Lists {
    Lists::read(file(NODES).path(), file(&format!("{HEADER}{pods}")).path(), false).unwrap()
}
