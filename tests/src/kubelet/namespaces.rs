//! Namespaces of a node: network, mounts and processes. When their first process ends, the kernel ends every other one in
//! them, containers too, and takes their mounts and links away; that first process ends with this one, even by SIGKILL.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::harness::until;

/// The first process. What the kubelet and containerd insist on (`/var/lib/kubelet`, `/var/log/containers`, `/run/containerd`)
/// lies in the node's folder; a node's address may not be loopback, so one end of a pair of links carries it. Then it
/// reaps orphans, as a first process must.
const INIT: &str = r#"
set -e
mount --bind "$1/lib" /var/lib
mount --bind "$1/log" /var/log
mount --bind "$1/run" /run
ip link set lo up
ip link add node0 type veth peer name node1
ip address add 10.99.0.1/24 dev node0
ip link set node0 up
ip link set node1 up
: > "$1/open"
sleep infinity &
wait
"#;

/// Seconds for a few system calls, on a busy machine.
const OPEN_WITHIN: Duration = Duration::from_secs(20);

/// Open namespaces.
pub struct Namespaces {
    first: Child,
}

impl Namespaces {
    /// Opens them over `folder`, which must lie neither below `/var/lib`, `/var/log` nor `/run`.
    pub async fn open(folder: &Path) -> Result<Self> {
        for name in ["lib", "log", "run"] {
            fs::create_dir(folder.join(name))?;
        }
        let log = fs::File::create(folder.join("namespaces.log"))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", INIT, "init"]).arg(folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let first = command.spawn().context("start setpriv, of util-linux")?;
        let mut open = Self { first };
        let marker = folder.join("open");
        let opened = until("namespaces", OPEN_WITHIN, || async { Ok(marker.exists().then_some(())) }).await;
        if opened.is_err() {
            open.end();
        }
        opened.with_context(|| fs::read_to_string(folder.join("namespaces.log")).unwrap_or_default())?;
        Ok(open)
    }

    /// A program in them. It sees itself as the first process would.
    pub fn command(&self, program: &Path) -> Command {
        // `ip netns exec` would hide the mounts of cgroups.
        let mut command = Command::new("nsenter");
        let of = format!("/proc/{}/ns", self.first.id());
        command.args([format!("--net={of}/net"), format!("--mount={of}/mnt"), format!("--pid={of}/pid_for_children")]);
        command.arg(program);
        command
    }

    /// Ends every process in them.
    pub fn end(&mut self) {
        drop(self.first.kill());
        drop(self.first.wait());
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        self.end();
    }
}
