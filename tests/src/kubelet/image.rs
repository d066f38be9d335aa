//! Container images without a registry, as OCI archives that `ctr images import` takes: busybox alone, which serves as the pods' own image and as
//! that of their sandboxes, and Tidegate's, with what the `Dockerfile` puts in its last stage.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// Whom a client of TLS trusts; without any it does not begin.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A file of an image.
struct File {
    path: String,
    mode: u32,
    content: Vec<u8>,
}

impl File {
    fn program(path: &str, from: &Path) -> Result<Self> {
        let content = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        Ok(Self { path: path.trim_start_matches('/').to_owned(), mode: 0o755, content })
    }
}

/// An image of this name with busybox; its command sleeps until it is killed.
pub fn busybox(name: &str, busybox: &Path) -> Result<Vec<u8>> {
    let program = File::program("/bin/busybox", busybox)?;
    ensure!(is_static(&program.content), "{} needs shared libraries: install the package busybox-static", busybox.display());
    archive(name, &[program], &[("bin/sh", "busybox")], &json!({"Cmd": ["/bin/busybox", "sleep", "2147483647"]}))
}

/// An image of this name with executables of Tidegate, where the `Dockerfile` has them, and the libraries that they load.
pub fn tidegate(name: &str, executables: &[&Path]) -> Result<Vec<u8>> {
    let mut files = BTreeMap::new();
    for executable in executables {
        let program = executable.file_name().and_then(|name| name.to_str()).context("an executable has a name")?;
        let path = format!("/usr/bin/{program}");
        files.insert(path.clone(), File::program(&path, executable)?);
        for library in libraries(executable)? {
            files.insert(library.clone(), File::program(&library, Path::new(&library))?);
        }
    }
    files.insert(AUTHORITIES.to_owned(), File::program(AUTHORITIES, Path::new(AUTHORITIES)).context("install ca-certificates")?);
    let files: Vec<File> = files.into_values().collect();
    archive(name, &files, &[], &json!({"Entrypoint": ["/usr/bin/tidegate"], "Env": ["PATH=/usr/bin"], "User": "65532:65532"}))
}

/// Where the dynamic loader finds what an executable needs, itself included.
fn libraries(executable: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(executable).output().context("run ldd")?;
    ensure!(output.status.success(), "ldd: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    Ok(text.lines().filter_map(path).collect())
}

/// An archive of an image with this name, of one layer.
fn archive(name: &str, files: &[File], links: &[(&str, &str)], settings: &Value) -> Result<Vec<u8>> {
    let layer = layer(files, links)?;
    let config = json!({
        "architecture": architecture(), "os": "linux", "config": settings,
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

fn layer(files: &[File], links: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut layer = Builder::new(Vec::new());
    for file in files {
        append(&mut layer, &file.path, file.mode, &file.content)?;
    }
    for (path, to) in links {
        let mut link = Header::new_gnu();
        link.set_entry_type(EntryType::Symlink);
        link.set_size(0);
        link.set_mode(0o777);
        layer.append_link(&mut link, path, to)?;
    }
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
