//! The agent's flags.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate_runtime::exit::Error;

/// Facts about the GPUs of this node.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Where metrics and JSON are served.
    #[arg(long, env = "TIDEGATE_NODE_AGENT_LISTEN", default_value = "0.0.0.0:9400", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// How often each GPU is read, in milliseconds.
    #[arg(long, env = "TIDEGATE_NODE_AGENT_INTERVAL_MS", default_value_t = 1000, value_name = "MS")]
    pub interval_ms: u64,
    /// A call to the driver that has not returned for so long hangs, in milliseconds.
    #[arg(long, env = "TIDEGATE_NODE_AGENT_CALL_TIMEOUT_MS", default_value_t = 5000, value_name = "MS")]
    pub call_timeout_ms: u64,
    /// NVML's library, when it is not where the loader looks.
    #[arg(long, env = "TIDEGATE_NVML_LIBRARY", value_name = "FILE")]
    pub nvml_library: Option<PathBuf>,
    /// The kubelet's socket that tells which pod holds which GPU.
    #[arg(long, env = "TIDEGATE_NODE_AGENT_POD_RESOURCES", default_value = KUBELET_SOCKET, value_name = "SOCKET")]
    pub pod_resources: PathBuf,
    /// How often the kubelet is asked, in milliseconds; 0: never, on a machine without Kubernetes.
    #[arg(long, env = "TIDEGATE_NODE_AGENT_POD_INTERVAL_MS", default_value_t = 5000, value_name = "MS")]
    pub pod_interval_ms: u64,
    /// The folder with the kubelet's logs of pods and containers, from whose names pods are known.
    #[arg(long, env = "TIDEGATE_NODE_AGENT_POD_LOGS", default_value = "/var/log", value_name = "FOLDER")]
    pub pod_logs: PathBuf,
    /// Where the kernel shows processes. Of the host, when the agent has a PID namespace of its own.
    #[arg(long, env = "TIDEGATE_NODE_AGENT_PROC", default_value = "/proc", value_name = "FOLDER")]
    pub proc: PathBuf,
    /// Name of this node: writes the facts to the status of the `GpuNode` of that name. Absent: writes nothing.
    #[arg(long, env = "TIDEGATE_NODE_AGENT_NODE_NAME", value_name = "NODE")]
    pub node_name: Option<String>,
    /// How often the `GpuNode` status is written, in seconds. A change of health is written at once.
    #[arg(long, env = "TIDEGATE_NODE_AGENT_STATUS_SECONDS", default_value_t = 60, value_name = "SECONDS")]
    pub status_seconds: u64,
    /// A file in which findings that only an event told, such as XIDs, survive a restart of the agent. Absent: they do not.
    #[arg(long, env = "TIDEGATE_NODE_AGENT_STATE", value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Adds the metrics of dcgm-exporter that existing dashboards use, by their names and in their units.
    #[arg(long, env = "TIDEGATE_NODE_AGENT_DCGM_NAMES")]
    pub dcgm_names: bool,
    /// Prints a table of the documentation and ends.
    #[arg(long, value_name = "WHICH")]
    pub table: Option<Table>,
}

/// A table of the documentation that is made from the code.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Of `docs/metrics.md`.
    Metrics,
    /// Of `docs/node-agent.md`.
    Health,
}

/// Where kubelets listen.
const KUBELET_SOCKET: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";
/// A driver answers in milliseconds; faster readings tell nothing new (NVML samples at most six times a second).
const INTERVAL_MS: std::ops::RangeInclusive<u64> = 50..=60_000;
const CALL_TIMEOUT_MS: std::ops::RangeInclusive<u64> = 100..=600_000;
/// The kubelet limits its clients to 100 questions a second, all together.
const POD_INTERVAL_MS: std::ops::RangeInclusive<u64> = 100..=600_000;
/// Each write wakes everybody who watches.
const STATUS_SECONDS: std::ops::RangeInclusive<u64> = 5..=3600;

/// Flags that make sense.
#[derive(Clone, Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    pub interval: Duration,
    pub call_timeout: Duration,
    pub nvml_library: Option<PathBuf>,
    pub pods: Option<Pods>,
    pub proc: PathBuf,
    pub status: Option<Status>,
    pub state: Option<PathBuf>,
    pub dcgm_names: bool,
}

/// Where pods are known from.
#[derive(Clone, Debug)]
pub struct Pods {
    pub socket: PathBuf,
    pub interval: Duration,
    pub logs: PathBuf,
}

/// Where the status is written.
#[derive(Clone, Debug)]
pub struct Status {
    pub node: String,
    pub every: Duration,
}

impl Args {
    /// Checks what clap cannot.
    pub fn validate(self) -> Result<Settings, Error> {
        let Self {
            listen,
            interval_ms,
            call_timeout_ms,
            nvml_library,
            pod_resources,
            pod_interval_ms,
            pod_logs,
            proc,
            node_name,
            status_seconds,
            state,
            dcgm_names,
            table: _,
        } = self;
        within("--interval-ms", interval_ms, INTERVAL_MS)?;
        within("--call-timeout-ms", call_timeout_ms, CALL_TIMEOUT_MS)?;
        within("--status-seconds", status_seconds, STATUS_SECONDS)?;
        if let Some(file) = &state {
            its_folder_is_there(file)?;
        }
        let interval = Duration::from_millis(pod_interval_ms);
        let pods = if interval.is_zero() {
            None
        } else {
            within("--pod-interval-ms", pod_interval_ms, POD_INTERVAL_MS)
                .map_err(|_| Error::Usage(format!("--pod-interval-ms {pod_interval_ms}: write 0, or 100 to 600000")))?;
            Some(Pods { socket: pod_resources, interval, logs: pod_logs })
        };
        let status = node_name.map(|node| node_name_is_valid(&node).map(|()| node)).transpose()?;
        Ok(Settings {
            listen,
            interval: Duration::from_millis(interval_ms),
            call_timeout: Duration::from_millis(call_timeout_ms),
            nvml_library,
            pods,
            proc,
            status: status.map(|node| Status { node, every: Duration::from_secs(status_seconds) }),
            state,
            dcgm_names,
        })
    }
}

fn within(flag: &str, value: u64, range: std::ops::RangeInclusive<u64>) -> Result<(), Error> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Error::Usage(format!("{flag} {value}: write {} to {}", range.start(), range.end())))
}

fn its_folder_is_there(file: &Path) -> Result<(), Error> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.is_dir() && !file.is_dir() {
        return Ok(());
    }
    Err(Error::Usage(format!("--state {}: write a file's path in a folder that is there", file.display())))
}

/// A node's name is a DNS subdomain.
fn node_name_is_valid(name: &str) -> Result<(), Error> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if name.len() <= 253 && name.chars().all(good) && ends(name.chars().next()) && ends(name.chars().last()) {
        return Ok(());
    }
    Err(Error::Usage(format!("--node-name {name:?}: write the name of a Kubernetes node, of a-z, 0-9, - and .")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn settings(words: &[&str]) -> Result<Settings, String> {
        let cli = Cli::try_parse_from(std::iter::once("x").chain(words.iter().copied())).map_err(|e| e.to_string())?;
        cli.args.validate().map_err(|e| e.to_string())
    }

    #[test]
    fn flags_have_defaults_that_make_sense() {
        let settings = settings(&[]).unwrap();
        assert_eq!(settings.interval, Duration::from_secs(1));
        assert!(settings.status.is_none() && settings.pods.is_some());
        assert!(super::tests::settings(&["--pod-interval-ms", "0"]).unwrap().pods.is_none());
    }

    #[test]
    fn a_value_out_of_range_is_named_with_what_to_write() {
        for (flag, value, text) in [
            ("--interval-ms", "1", "--interval-ms 1: write 50 to 60000"),
            ("--call-timeout-ms", "0", "--call-timeout-ms 0: write 100 to 600000"),
            ("--pod-interval-ms", "5", "--pod-interval-ms 5: write 0, or 100 to 600000"),
            ("--status-seconds", "1", "--status-seconds 1: write 5 to 3600"),
            ("--state", "/nonexistent/state", "--state /nonexistent/state: write a file's path in a folder that is there"),
            ("--state", "/", "--state /: write"),
            ("--node-name", "A B", "--node-name \"A B\": write the name of a Kubernetes node"),
        ] {
            let error = settings(&[flag, value]).unwrap_err();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
