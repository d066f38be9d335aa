//! The example's files where containers see them, and its objects as a cluster runs them: the same specifications with paths, images and
//! volumes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tempfile::TempDir;
use tidegate_api::kinds::{Model, TrainingJob};

use crate::harness::workspace;
use crate::installation::{open_folder, pod_spec};
use crate::kubelet::BUSYBOX;
use crate::outside::installed;
use crate::scenario::example::Example;

/// From the root of the clone: one of the trainings learns its letters.
const READ: &str = "LICENSE";
/// Where the files of a model that must be prepared are named to be.
const PREPARED: &str = "prepared";
/// What a worker's container begins with, before its command. The shell hands on the signal: a first process of a container that has
/// not said yet what it makes of one is never ended by it.
const WORKER: &str = r#"
trap '[ -n "$worker" ] && kill -TERM "$worker"' TERM
"$@" 2>> "$TIDEGATE_CHECKPOINT_DIR/diary" &
worker=$!
wait "$worker"
code=$?
[ "$code" -gt 128 ] && { wait "$worker"; code=$?; }
exit "$code"
"#;

/// The machine's Python, for containers: a program, and folders in which it and its libraries are.
struct Python {
    program: String,
    folders: Vec<PathBuf>,
}

/// A folder that containers see under its own name; it goes with this.
pub struct Stage {
    folder: TempDir,
    python: Python,
}

impl Stage {
    /// Copies the example's files.
    pub fn set(example: &Example) -> Result<Self> {
        let stage = Self { folder: open_folder()?, python: Python::find()? };
        for folder in [stage.models(), stage.training()] {
            fs::create_dir_all(folder)?;
        }
        fs::copy(workspace().join(READ), stage.folder().join(READ))?;
        for entry in fs::read_dir(example.folder.join("train"))? {
            let file = entry?.path();
            if let Some(name) = file.file_name().filter(|name| Path::new(name).extension().is_some_and(|end| end == "py")) {
                fs::copy(&file, stage.training().join(name))?;
            }
        }
        for spec in example.models.values().map(|model| &model.spec) {
            let tokenizer = spec.embedding.as_ref().map(|embedding| &embedding.tokenizer);
            for file in [Some(&spec.source.onnx), tokenizer].into_iter().flatten() {
                let from = found(example, file)?;
                fs::copy(&from, stage.put(file)).with_context(|| format!("copy {}", from.display()))?;
            }
        }
        for job in example.jobs.keys() {
            // A worker may be anybody.
            fs::create_dir_all(stage.checkpoints(job))?;
            fs::set_permissions(stage.checkpoints(job), fs::Permissions::from_mode(0o777))?;
        }
        Ok(stage)
    }

    /// All of it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What replicas and routers read.
    pub fn models(&self) -> PathBuf {
        self.folder.path().join("models")
    }

    fn training(&self) -> PathBuf {
        self.folder.path().join("examples/tide/train")
    }

    fn checkpoints(&self, job: &str) -> PathBuf {
        self.folder.path().join("checkpoints").join(job)
    }

    /// Where a job's workers write what they do.
    pub fn diary(&self, job: &str) -> PathBuf {
        self.checkpoints(job).join("diary")
    }

    /// What a job's rank 0 left at its end.
    pub fn final_metrics(&self, job: &str) -> Result<BTreeMap<String, f64>> {
        #[derive(Deserialize)]
        struct Final {
            metrics: BTreeMap<String, f64>,
        }
        let text = fs::read_to_string(self.checkpoints(job).join("final.json"))?;
        Ok(serde_json::from_str::<Final>(&text)?.metrics)
    }

    /// Where containers find a file that the example names.
    fn put(&self, file: &str) -> PathBuf {
        self.models().join(Path::new(file).file_name().unwrap_or_default())
    }

    /// A model of the example.
    pub fn model(&self, model: &Model) -> Model {
        let mut model = model.clone();
        let moved = |file: &str| self.put(file).display().to_string();
        model.spec.source.onnx = moved(&model.spec.source.onnx);
        if let Some(embedding) = &mut model.spec.embedding {
            embedding.tokenizer = moved(&embedding.tokenizer);
        }
        model.spec.pod_spec = Some(pod_spec("replica", &[&self.models()]));
        model
    }

    /// A job of the example.
    pub fn job(&self, name: &str, job: &TrainingJob) -> Result<TrainingJob> {
        let mut job = job.clone();
        let template = &mut job.spec.template;
        let (program, rest) = template.command.split_first().context("the command is empty")?;
        ensure!(program == "python3", "{name} runs {program}, not python3");
        let (script, options) = rest.split_first().context("the command names no script")?;
        let words = ["/bin/sh", "-c", WORKER, "worker", &self.python.program];
        let script = self.training().join(script).display().to_string();
        template.command = words.map(str::to_owned).into_iter().chain([script]).chain(options.iter().cloned()).collect();
        template.image = Some(BUSYBOX.to_owned());
        template.working_dir = Some(self.training().display().to_string());
        let folders: Vec<&Path> = self.python.folders.iter().map(PathBuf::as_path).chain([self.folder()]).collect();
        template.pod_spec = Some(pod_spec("worker", &folders));
        job.spec.checkpoint.directory = Some(self.checkpoints(name).display().to_string());
        Ok(job)
    }
}

/// Where the machine has a file that the example names.
fn found(example: &Example, file: &str) -> Result<PathBuf> {
    match Path::new(file).strip_prefix(PREPARED) {
        Ok(prepared) => Ok(installed("TIDEGATE_TEST_MINILM")?.join(prepared)),
        Err(_) => Ok(example.folder.join(file)),
    }
}

impl Python {
    /// It links to libraries of the machine, so their folders come with it.
    fn find() -> Result<Self> {
        let ask = "import os, sys; print(os.path.realpath(sys.executable)); print(sys.base_prefix)";
        let output = Command::new("python3").args(["-c", ask]).output().context("run python3")?;
        ensure!(output.status.success(), "python3: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        let (program, prefix) = text.trim().split_once('\n').context("python3 does not say where it is")?;
        let libraries = ["/usr", "/lib", "/lib64"].map(PathBuf::from).into_iter().filter(|folder| folder.exists());
        let own = Some(PathBuf::from(prefix)).filter(|own| !own.starts_with("/usr"));
        Ok(Self { program: program.to_owned(), folders: libraries.chain(own).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage() -> Stage {
        let python = Python { program: "/py/bin/python3".into(), folders: vec!["/usr".into(), "/py".into()] };
        Stage { folder: tempfile::tempdir().unwrap(), python }
    }

    #[test]
    fn a_job_trains_by_the_same_command_in_a_container() {
        let (example, stage) = (Example::read().unwrap(), stage());
        let job = stage.job("spirals", &example.jobs["spirals"]).unwrap();
        let command = &job.spec.template.command;
        assert_eq!(&command[3..5], ["worker", "/py/bin/python3"]);
        assert_eq!(command[5], stage.training().join("spirals.py").display().to_string());
        assert_eq!(stage.training().ancestors().nth(3), Some(stage.folder()), "where a training finds what it reads");
        assert_eq!(command[6..], example.jobs["spirals"].spec.template.command[2..]);
        let volumes = job.spec.template.pod_spec.unwrap()["volumes"].as_array().unwrap().len();
        assert_eq!(volumes, 3);
    }

    #[test]
    fn models_are_found_where_they_were_put() {
        let (example, stage) = (Example::read().unwrap(), stage());
        let model = stage.model(&example.models["all-minilm-l6-v2"]);
        assert_eq!(model.spec.source.onnx, stage.models().join("minilm.onnx").display().to_string());
        assert_eq!(model.spec.embedding.unwrap().tokenizer, stage.models().join("tokenizer.json").display().to_string());
    }
}
