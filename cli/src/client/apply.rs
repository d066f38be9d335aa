//! `apply`: sends manifests, one request for each file, with the file's place, so that `up` reads relative
//! paths inside it as the user means them.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tidegate_api::view::Applied;

use super::http::{Client, Error, Server};
use super::out;

/// The folder to which relative paths of a manifest belong.
const DIR: HeaderName = HeaderName::from_static("x-tidegate-manifest-dir");
/// What errors call the manifest.
const FILE: HeaderName = HeaderName::from_static("x-tidegate-manifest-file");

/// Arguments of `apply`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// A YAML file, a folder of them, or `-` for standard input. May be repeated.
    #[arg(short, long = "filename", value_name = "FILE|DIR", required = true)]
    filename: Vec<PathBuf>,
    #[command(flatten)]
    server: Server,
}

/// One file with its place.
#[derive(Debug, PartialEq, Eq)]
pub struct Manifest {
    pub dir: PathBuf,
    pub file: PathBuf,
    pub yaml: Vec<u8>,
}

pub async fn run(Args { filename, server }: Args) -> Result<(), Error> {
    let client = Client::new(&server)?;
    // Everything is read before anything is sent: a typo in the last name changes nothing.
    let mut manifests = Vec::new();
    for path in &filename {
        manifests.extend(read(path)?);
    }
    for manifest in manifests {
        let headers = headers(&manifest)?;
        let applied: Vec<Applied> = client.post_yaml("/api/v1/apply", headers, manifest.yaml).await?;
        out::print(&lines(&applied))?;
    }
    Ok(())
}

fn headers(manifest: &Manifest) -> Result<HeaderMap, Error> {
    let value = |path: &Path| {
        let bytes = HeaderValue::from_bytes(path.as_os_str().as_bytes());
        bytes.map_err(|_| Error::Input(format!("{}: a path with control characters cannot be sent", path.display())))
    };
    Ok(HeaderMap::from_iter([(DIR, value(&manifest.dir)?), (FILE, value(&manifest.file)?)]))
}

fn lines(applied: &[Applied]) -> String {
    let line = |a: &Applied| format!("{}/{} {}\n", a.kind.to_ascii_lowercase(), a.name, a.result);
    applied.iter().map(line).collect::<Vec<_>>().concat()
}

/// The manifests at a path: a file, a folder's, or standard input.
pub fn read(path: &Path) -> Result<Vec<Manifest>, Error> {
    let fail = |e: io::Error| Error::Input(format!("read {}: {e}", path.display()));
    if path == Path::new("-") {
        let mut yaml = Vec::new();
        io::stdin().lock().read_to_end(&mut yaml).map_err(fail)?;
        return Ok(vec![Manifest { dir: env::current_dir().map_err(fail)?, file: "-".into(), yaml }]);
    }
    let path = path.canonicalize().map_err(fail)?;
    if !path.is_dir() {
        return Ok(vec![read_file(&path).map_err(fail)?]);
    }
    let files = yaml_files(&path).map_err(fail)?;
    if files.is_empty() {
        return Err(Error::Input(format!("{}: no .yaml or .yml file in this folder", path.display())));
    }
    files.iter().map(|file| read_file(file).map_err(fail)).collect()
}

fn read_file(path: &Path) -> io::Result<Manifest> {
    let dir = path.parent().unwrap_or(Path::new("/")).to_path_buf();
    let file = path.file_name().unwrap_or_default().into();
    Ok(Manifest { dir, file, yaml: fs::read(path)? })
}

/// By name, so that the order does not depend on the file system.
fn yaml_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(dir)?.map(|entry| entry.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
    let is_yaml = |p: &PathBuf| p.is_file() && p.extension().is_some_and(|e| e == "yaml" || e == "yml");
    let mut files: Vec<_> = paths.into_iter().filter(is_yaml).collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_its_yaml_files_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("b.yaml", "b"), ("a.yml", "a"), ("notes.md", "n")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let manifests = read(dir.path()).unwrap();
        let names: Vec<_> = manifests.iter().map(|m| (m.file.to_str().unwrap(), m.yaml.as_slice())).collect();
        assert_eq!(names, [("a.yml", b"a".as_slice()), ("b.yaml", b"b".as_slice())]);
        assert_eq!(manifests[0].dir, dir.path().canonicalize().unwrap());
    }

    #[test]
    fn a_missing_file_and_an_empty_folder_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("no .yaml or .yml file") && error.contains(dir.path().to_str().unwrap()), "{error}");
        let error = read(&dir.path().join("x.yaml")).unwrap_err();
        assert!(error.to_string().contains("x.yaml"), "{error}");
        assert_eq!(error.code(), 64);
    }

    #[test]
    fn each_document_gets_a_line() {
        let applied = [Applied { kind: "TrainingJob".to_owned(), name: "night".to_owned(), result: "created".to_owned() }];
        assert_eq!(lines(&applied), "trainingjob/night created\n");
    }
}
