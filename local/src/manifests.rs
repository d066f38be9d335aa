//! Manifest files to objects whose paths are absolute.

use std::path::{Path, PathBuf};

use tidegate_api::manifest::{self, Object, Problem, Problems};
use tidegate_runtime::exit::Error;

/// Largest manifest that is read: far above any real one.
const MAX_BYTES: u64 = 4 << 20;

/// An object and the folder of its manifest.
#[derive(Clone, Debug)]
pub struct Sourced {
    pub object: Object,
    pub dir: PathBuf,
    pub file: String,
}

/// Reads files and folders (their *.yaml and *.yml, by name). All problems of all files are told at once.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Sourced>, Error> {
    let mut objects = Vec::new();
    let mut problems = Vec::new();
    for path in paths {
        for file in files(path)? {
            let size = std::fs::metadata(&file).map_or(0, |meta| meta.len());
            if size > MAX_BYTES {
                let what = format!("has {size} bytes");
                problems.push(Problem::of_file(&file.display().to_string(), &what, "split it: a manifest has at most 4 MiB"));
                continue;
            }
            let text = std::fs::read_to_string(&file).map_err(|e| usage(&file, &e.to_string()))?;
            match parse(&text, &file) {
                Ok(found) => objects.extend(found),
                Err(found) => problems.extend(found.0),
            }
        }
    }
    if problems.is_empty() { Ok(objects) } else { Err(Error::Usage(Problems(problems).to_string())) }
}

/// The objects of one manifest's text. Relative paths in it are relative to the file's folder.
pub fn parse(text: &str, file: &Path) -> Result<Vec<Sourced>, Problems> {
    let name = file.display().to_string();
    let dir = std::path::absolute(file).ok().and_then(|path| path.parent().map(Path::to_owned)).unwrap_or_default();
    let sourced = |object| Sourced { object: resolved(object, &dir), dir: dir.clone(), file: name.clone() };
    Ok(manifest::parse(text, &name)?.into_iter().map(sourced).collect())
}

/// The object with absolute paths.
fn resolved(mut object: Object, dir: &Path) -> Object {
    let absolute = |path: &str| dir.join(path).display().to_string();
    match &mut object {
        Object::Model(model) => {
            model.spec.source.onnx = absolute(&model.spec.source.onnx);
            if let Some(embedding) = &mut model.spec.embedding {
                embedding.tokenizer = absolute(&embedding.tokenizer);
            }
        }
        Object::TrainingJob(job) => {
            let template = &mut job.spec.template;
            template.working_dir = Some(absolute(template.working_dir.as_deref().unwrap_or(".")));
        }
        Object::Pool(_) | Object::Queue(_) => {}
    }
    object
}

fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|e| usage(path, &e.to_string()))?;
    let yaml = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(yaml).collect();
    found.sort();
    if found.is_empty() { Err(usage(path, "holds no *.yaml or *.yml")) } else { Ok(found) }
}

fn usage(path: &Path, what: &str) -> Error {
    Error::Usage(format!("--file {}: {what}; name a manifest or a folder of manifests", path.display()))
}
