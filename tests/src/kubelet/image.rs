//! A container image without a registry: busybox alone, as an OCI archive that `ctr images import` takes. It serves as
//! the pods' own image and as that of their sandboxes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// An archive of an image with this name; its command sleeps until it is killed.
pub fn archive(name: &str, busybox: &Path) -> Result<Vec<u8>> {
    let program = fs::read(busybox).with_context(|| format!("read {}", busybox.display()))?;
    ensure!(is_static(&program), "{} needs shared libraries: install the package busybox-static", busybox.display());
    let layer = layer(&program)?;
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": {"Cmd": ["/bin/busybox", "sleep", "2147483647"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    });
    let config = serde_json::to_vec(&config)?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    }))?;
    let mut listed = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    listed["annotations"] = json!({"io.containerd.image.name": name});
    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [listed]}))?;

    let mut archive = Builder::new(Vec::new());
    append(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut archive, "index.json", 0o644, &index)?;
    for blob in [&layer, &config, &manifest] {
        append(&mut archive, &format!("blobs/sha256/{}", hexadecimal(blob)), 0o644, blob)?;
    }
    Ok(archive.into_inner()?)
}

/// A program that needs the dynamic loader names it near its beginning.
fn is_static(program: &[u8]) -> bool {
    const LOADER: &[u8] = b"/ld-";
    !program.iter().take(4096).copied().collect::<Vec<_>>().windows(LOADER.len()).any(|window| window == LOADER)
}

fn layer(program: &[u8]) -> Result<Vec<u8>> {
    let mut layer = Builder::new(Vec::new());
    append(&mut layer, "bin/busybox", 0o755, program)?;
    let mut shell = Header::new_gnu();
    shell.set_entry_type(EntryType::Symlink);
    shell.set_size(0);
    shell.set_mode(0o777);
    layer.append_link(&mut shell, "bin/sh", "busybox")?;
    Ok(layer.into_inner()?)
}

fn append(archive: &mut Builder<Vec<u8>>, name: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    Ok(archive.append_data(&mut header, name, content)?)
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

fn digest(blob: &[u8]) -> String {
    format!("sha256:{}", hexadecimal(blob))
}

fn hexadecimal(blob: &[u8]) -> String {
    format!("{:x}", Sha256::digest(blob))
}

/// In the words of OCI, which are Go's.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
