//! The node of the tests: upstream programs, unchanged, built from Go modules whose versions `tests/controlplane` pins.
//!
//! The first build takes minutes and fills Go's own caches; one with nothing changed takes seconds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{cache, command};

/// Where Go's own installer puts it, when the path does not say so.
const GO: &str = "/usr/local/go/bin/go";
/// Drivers of disks that would need C libraries.
const CONTAINERD_TAGS: &str = "no_btrfs,no_devmapper,no_zfs";

/// Builds all of Kubernetes with etcd, `CoreDNS`, containerd with its shim and `ctr`, the device plug-in and the DRA driver of the tests, and KWOK. Their
/// folder.
pub fn build(cache: &Path) -> Result<PathBuf> {
    let go = go()?;
    let programs = cache.join("controlplane");
    fs::create_dir_all(&programs).with_context(|| format!("cannot make {}", programs.display()))?;
    let sources = cache::workspace().join("tests/controlplane");

    let linked = format!("-s -w {}", kubernetes_version(&go, &sources)?);
    let mut kubernetes = compile(&go, &sources, &programs);
    command::run(kubernetes.args(["-ldflags", &linked, "tool", "./deviceplugin", "./dradriver"]))?;
    command::run(compile(&go, &sources.join("coredns"), &programs).args(["-ldflags", "-s -w", "."]))?;
    let mut etcd = compile(&go, &sources.join("etcd"), &programs.join("etcd"));
    command::run(etcd.args(["-ldflags", "-s -w", "."]))?;
    let mut containerd = compile(&go, &sources.join("containerd"), &programs);
    command::run(containerd.args(["-ldflags", "-s -w", "-tags", CONTAINERD_TAGS, "tool"]))?;
    command::run(compile(&go, &sources.join("kwok"), &programs).args(["-ldflags", "-s -w", "tool"]))?;
    Ok(programs)
}

/// The folder of KWOK's stages: how it plays nodes and pods.
pub fn kwok_stages() -> Result<PathBuf> {
    let kwok = cache::workspace().join("tests/controlplane/kwok");
    let folder = told(Command::new(go()?).current_dir(kwok).args(["list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"]))?;
    Ok(PathBuf::from(folder).join("kustomize/stage"))
}

fn go() -> Result<PathBuf> {
    let go = command::find(&["go"]).or_else(|| Some(PathBuf::from(GO)).filter(|go| go.is_file()));
    go.context("go is not on PATH; install Go 1.26 or newer: https://go.dev/dl")
}

/// What a command prints.
fn told(command: &mut Command) -> Result<String> {
    let what = command::line(command);
    let output = command.output().with_context(|| format!("cannot run `{what}`"))?;
    ensure!(output.status.success(), "`{what}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// `go build` of programs that need no C library, into a folder.
fn compile(go: &Path, sources: &Path, programs: &Path) -> Command {
    let mut build = Command::new(go);
    build.current_dir(sources).env("CGO_ENABLED", "0").args(["build", "-trimpath", "-buildvcs=false", "-o"]).arg(programs);
    build
}

/// The linker's flags that tell Kubernetes' programs their version, which is that of the module.
fn kubernetes_version(go: &Path, sources: &Path) -> Result<String> {
    let mut list = Command::new(go);
    list.current_dir(sources).args(["list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes"]);
    version_flags(&told(&mut list)?)
}

fn version_flags(version: &str) -> Result<String> {
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = numbers.next().zip(numbers.next()).with_context(|| format!("`{version}` is not a version"))?;
    let set = |name: &str, value: &str| format!("-X k8s.io/component-base/version.{name}={value}");
    Ok([set("gitVersion", version), set("gitMajor", major), set("gitMinor", minor)].join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_the_version_of_their_module() {
        let flags = version_flags("v1.37.2").unwrap();
        assert!(flags.contains(".gitVersion=v1.37.2 ") && flags.ends_with(".gitMinor=37"), "{flags}");
        assert!(version_flags("v1").unwrap_err().to_string().contains("`v1`"));
    }
}
