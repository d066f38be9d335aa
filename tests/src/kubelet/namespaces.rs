//! Namespaces of a node: network, mounts and processes. Their first process holds on until its standard input ends: by
//! [`Namespaces::end`], or with this process, however that ends. Then the kernel ends every other process in them,
//! containers too, and takes their mounts and links away.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};

use super::block_until;
use crate::harness::until;

/// The first process. What the kubelet and containerd insist on (`/var/lib/kubelet`, `/var/log/containers`, `/run/containerd`)
/// lies in the node's folder; a node's address may not be loopback, so one end of a pair of links carries it. A shell that
/// waits for a command reaps orphans too, as a first process must; the last line keeps it from becoming that command.
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
cat
exit 0
"#;

/// The node's address, as [`INIT`] sets it.
pub const ADDRESS: &str = "10.99.0.1";

/// Seconds for a few system calls, on a busy machine.
const OPEN_WITHIN: Duration = Duration::from_secs(30);
/// The kernel waits for the end of each process and of each mount.
const ENDED_WITHIN: Duration = Duration::from_secs(30);

/// Open namespaces.
pub struct Namespaces {
    /// Waits for the first process, from outside of the namespace of processes.
    outer: Child,
}

impl Namespaces {
    /// Opens them over `folder`, which must lie neither below `/var/lib`, `/var/log` nor `/run`.
    pub async fn open(folder: &Path) -> Result<Self> {
        for name in ["lib", "log", "run"] {
            fs::create_dir(folder.join(name))?;
        }
        let log = folder.join("namespaces.log");
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", INIT, "init"]);
        command.arg(folder).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let mut namespaces = Self { outer: command.spawn().context("start unshare, of util-linux")? };
        let opened = until("namespaces", OPEN_WITHIN, || {
            let (open, ended) = (folder.join("open").exists(), namespaces.outer.try_wait());
            async move { Ok(if ended?.is_some() { Some(false) } else { open.then_some(true) }) }
        });
        let opened = opened.await?;
        ensure!(opened, "namespaces cannot be opened: {}", fs::read_to_string(log).unwrap_or_default().trim());
        Ok(namespaces)
    }

    /// A program in them. It sees itself as the first process would.
    pub fn command(&self, program: &Path) -> Command {
        // `ip netns exec` would hide the mounts of cgroups.
        let mut command = Command::new("nsenter");
        let of = format!("/proc/{}/ns", self.outer.id());
        command.args([format!("--net={of}/net"), format!("--mount={of}/mnt"), format!("--pid={of}/pid_for_children")]);
        command.arg(program);
        command
    }

    /// A program in their network alone: it may be stopped and killed by its own process id.
    pub fn on_network(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.outer.id())).arg(program);
        command
    }

    /// From now on what this thread opens is on their network.
    pub fn enter_network(&self) -> Result<()> {
        let network = File::open(format!("/proc/{}/ns/net", self.outer.id()))?;
        setns(network, CloneFlags::CLONE_NEWNET).context("enter the network of a test")
    }

    /// Ends every process in them, and returns when all have ended.
    pub fn end(&mut self) {
        drop(self.outer.stdin.take());
        block_until(ENDED_WITHIN, || !self.outer.try_wait().is_ok_and(|ended| ended.is_none()));
        drop(self.outer.kill());
        drop(self.outer.wait());
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        self.end();
    }
}
