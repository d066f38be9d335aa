//! The models of the benchmark, prepared by the committed Python scripts, and the requests that are sent to them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tract_onnx::prelude::Tensor;

/// Tokens of each text: a short query. Of longer texts tract gains little by batching on a CPU.
const TOKENS: usize = 16;

/// One model of the benchmark.
#[derive(Clone, Debug)]
pub struct Subject {
    pub name: &'static str,
    pub about: String,
    pub onnx: PathBuf,
    inputs: Vec<Input>,
}

/// One row of one input.
#[derive(Clone, Debug)]
enum Input {
    Floats { name: &'static str, row: Vec<f32> },
    Integers { name: &'static str, row: Vec<i64> },
}

impl Subject {
    /// A request of one row, as JSON.
    pub fn request(&self) -> Value {
        let inputs: Vec<Value> = self.inputs.iter().map(Input::request).collect();
        json!({ "inputs": inputs })
    }

    /// The same row `rows` times, for the bare runtime.
    pub fn tensors(&self, rows: usize) -> Result<Vec<Tensor>> {
        self.inputs.iter().map(|input| input.tensor(rows)).collect()
    }
}

impl Input {
    fn request(&self) -> Value {
        match self {
            Self::Floats { name, row } => json!({ "name": name, "datatype": "FP32", "shape": [1, row.len()], "data": row }),
            Self::Integers { name, row } => json!({ "name": name, "datatype": "INT64", "shape": [1, row.len()], "data": row }),
        }
    }

    fn tensor(&self, rows: usize) -> Result<Tensor> {
        match self {
            Self::Floats { row, .. } => Tensor::from_shape(&[rows, row.len()], &row.repeat(rows)),
            Self::Integers { row, .. } => Tensor::from_shape(&[rows, row.len()], &row.repeat(rows)),
        }
    }
}

/// Runs the scripts (the second time they find their work done) and describes both models.
pub fn prepare(work: &Path) -> Result<Vec<Subject>> {
    std::fs::create_dir_all(work).with_context(|| format!("make {}", work.display()))?;
    let clone = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    // The same folders as `cargo xtask test`, so that the model is downloaded once.
    let (minilm, environment) = (work.join("models"), work.join("prepare-minilm"));
    let script = clone.join("examples/tide/models/prepare_minilm.py");
    python(Command::new("python3").arg(script).arg(&minilm).arg("--work").arg(&environment))?;
    let fat = work.join("fat.onnx");
    let partial = work.join("fat.onnx.partial");
    let script = clone.join("tests/python/make_fat_onnx.py");
    python(Command::new(environment.join("venv/bin/python")).arg(script).arg(&partial))?;
    std::fs::rename(&partial, &fat).context("move fat.onnx into place")?;
    Ok(vec![fat_subject(fat), minilm_subject(minilm.join("minilm.onnx"))])
}

fn python(command: &mut Command) -> Result<()> {
    // What it says is progress, and standard output is for the result.
    let status = command.stdout(Stdio::from(std::io::stderr())).status().with_context(|| format!("run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

fn fat_subject(onnx: PathBuf) -> Subject {
    let row = (0..16_u8).map(|i| f32::from(i) / 16.0).collect();
    let about = "fat.onnx: 16 -> 4 x [2048x2048 + ReLU] -> 4, 67 MB, bound by weight bandwidth".to_owned();
    Subject { name: "fat", about, onnx, inputs: vec![Input::Floats { name: "x", row }] }
}

fn minilm_subject(onnx: PathBuf) -> Subject {
    let integers = |name, row| Input::Integers { name, row };
    // Any word pieces but the padding and the specials; the work does not depend on which.
    let ids = (2000..).take(TOKENS).collect();
    let inputs = vec![
        integers("input_ids", ids),
        integers("attention_mask", vec![1; TOKENS]),
        integers("token_type_ids", vec![0; TOKENS]),
    ];
    Subject { name: "minilm", about: format!("all-MiniLM-L6-v2, {TOKENS} tokens a request"), onnx, inputs }
}
