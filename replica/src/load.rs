//! An ONNX file to a runnable plan.
//!
//! One plan serves all shapes: free dimensions stay symbols. A plan per shape would cost about 50 MB and 0.1 s each and
//! run only 7-15 % faster (measured on MiniLM).

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tract_onnx::Onnx;
use tract_onnx::pb::{GraphProto, ModelProto};
use tract_onnx::prelude::{
    Framework, InferenceModel, InferenceModelExt, IntoRunnable, IntoTValue, IntoTensor, OutletId, Tensor, ToDim, TractError,
    TractResult, TypedModel, TypedRunnableModel,
};
use tract_onnx::tract_hir::infer::{Factoid, InferenceFact};

use crate::signature::{Signature, TensorSpec};
use crate::tensor::datatype;

/// Why a file cannot be served. The texts name the file and the remedy.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    #[error("model file {}: cannot be read: {source}; give the path of an ONNX file", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("model file {}: is not an ONNX model ({reason}); export the model to ONNX", path.display())]
    NotOnnx { path: PathBuf, reason: String },
    #[error("model file {}: has operators that tract lacks: {}; export the model without them", path.display(), operators.join(", "))]
    Operators { path: PathBuf, operators: Vec<String> },
    #[error(
        "model file {}: `{name}` is a sequence or a map (scikit-learn's ZipMap makes such), which tract does not serve; \
         export plain tensors (skl2onnx: options={{'zipmap': False}})",
        path.display()
    )]
    NotTensor { path: PathBuf, name: String },
    #[error("model file {}: tensor `{name}` has the datatype {found}, which is not served; use numbers or booleans", path.display())]
    Datatype { path: PathBuf, name: String, found: String },
    #[error("model file {}: tract cannot run it: {reason}", path.display())]
    Prepare { path: PathBuf, reason: String },
}

/// A loaded model.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub signature: Signature,
    plan: Arc<TypedRunnableModel>,
}

/// Why a run gave no answer.
#[derive(Debug, Error)]
pub(crate) enum RunError {
    /// The plan refused the inputs, for instance an index outside a table.
    #[error("the model cannot run these inputs: {0}")]
    Refused(String),
    /// A defect of the runtime. It is caught, the plan keeps no state.
    #[error("the model's runtime failed: {0}")]
    Panicked(String),
}

impl Model {
    /// One run. Never panics.
    pub fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, RunError> {
        let run = || -> TractResult<Vec<Tensor>> {
            let outputs = self.plan.run(inputs.into_iter().map(IntoTValue::into_tvalue).collect())?;
            Ok(outputs.into_iter().map(IntoTensor::into_tensor).collect())
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(outputs) => outputs.map_err(|error| RunError::Refused(chain(&error))),
            Err(panic) => Err(RunError::Panicked(panic_text(&*panic))),
        }
    }
}

/// Loads and optimises. Takes from milliseconds to seconds of one core; never panics.
pub(crate) fn load(path: &Path) -> Result<Model, LoadError> {
    let file = File::open(path).and_then(|file| file.metadata());
    match file {
        Ok(facts) if facts.is_file() => {}
        Ok(_) => return Err(LoadError::Read { path: path.to_owned(), source: std::io::ErrorKind::IsADirectory.into() }),
        Err(source) => return Err(LoadError::Read { path: path.to_owned(), source }),
    }
    match catch_unwind(|| load_file(path)) {
        Ok(loaded) => loaded,
        Err(panic) => Err(LoadError::Prepare { path: path.to_owned(), reason: panic_text(&*panic) }),
    }
}

fn load_file(path: &Path) -> Result<Model, LoadError> {
    let unusable = |e: TractError| LoadError::Prepare { path: path.to_owned(), reason: chain(&e) };
    let onnx = tract_onnx::onnx();
    let proto = onnx.proto_model_for_path(path).map_err(|e| LoadError::NotOnnx { path: path.to_owned(), reason: chain(&e) })?;
    let names = Names::of(path, &onnx, &proto)?;
    let typed = typed(path, &onnx, &proto).map_err(unusable)?;
    let signature = names.signature(path, &typed)?;
    // The weights are held once: each step lets go of what the one before it made.
    drop(proto);
    let plan = typed.into_optimized().and_then(IntoRunnable::into_runnable).map_err(unusable)?;
    Ok(Model { signature, plan })
}

fn typed(path: &Path, onnx: &Onnx, proto: &ModelProto) -> TractResult<TypedModel> {
    // External weights are beside the file.
    let folder = path.parent().and_then(Path::to_str);
    let mut model = onnx.parse(proto, folder)?.model;
    name_free_dims(&mut model)?;
    model.into_typed()?.into_decluttered()
}

/// Gives each dimension that the file leaves without a name a symbol; unnamed first dimensions are one batch.
fn name_free_dims(model: &mut InferenceModel) -> TractResult<()> {
    for index in 0..model.input_outlets()?.len() {
        let fact = model.input_fact(index)?.clone();
        let dims = fact.shape.dims().enumerate().map(|(axis, dim)| {
            dim.concretize().unwrap_or_else(|| {
                let name = if axis == 0 { "unnamed_batch".to_owned() } else { format!("unnamed_{index}_{axis}") };
                model.symbols.sym(&name).to_dim()
            })
        });
        let shape: Vec<_> = dims.collect();
        if let (false, Some(datum)) = (fact.shape.is_open(), fact.datum_type.concretize()) {
            model.set_input_fact(index, InferenceFact::dt_shape(datum, &shape))?;
        }
    }
    Ok(())
}

/// Names as the file has them; tract keeps the order but may rename outputs.
struct Names {
    inputs: Vec<String>,
    outputs: Vec<String>,
}

impl Names {
    fn of(path: &Path, onnx: &Onnx, proto: &ModelProto) -> Result<Self, LoadError> {
        let path = || path.to_owned();
        let Some(graph) = proto.graph.as_ref().filter(|graph| !graph.output.is_empty()) else {
            return Err(LoadError::NotOnnx { path: path(), reason: "it holds no graph with an output".to_owned() });
        };
        for value in graph.input.iter().chain(&graph.output) {
            if value.r#type.as_ref().is_none_or(|kind| kind.value.is_none()) {
                return Err(LoadError::NotTensor { path: path(), name: value.name.clone() });
            }
        }
        let mut operators = Vec::new();
        missing_operators(onnx, graph, &mut operators);
        if !operators.is_empty() {
            operators.sort();
            operators.dedup();
            return Err(LoadError::Operators { path: path(), operators });
        }
        let weight = |name: &str| graph.initializer.iter().any(|weight| weight.name == name);
        let inputs = graph.input.iter().map(|value| value.name.clone()).filter(|name| !weight(name)).collect();
        let outputs = graph.output.iter().map(|value| value.name.clone()).collect();
        Ok(Self { inputs, outputs })
    }

    fn signature(self, path: &Path, model: &TypedModel) -> Result<Signature, LoadError> {
        let specs = |names: Vec<String>, outlets: &[OutletId]| {
            if names.len() != outlets.len() {
                let reason = format!("it has {} tensors where the file names {}", outlets.len(), names.len());
                return Err(LoadError::Prepare { path: path.to_owned(), reason });
            }
            names.into_iter().zip(outlets).map(|(name, outlet)| spec(path, name, model, *outlet)).collect::<Result<Vec<_>, _>>()
        };
        Ok(Signature::new(specs(self.inputs, &model.inputs)?, specs(self.outputs, &model.outputs)?))
    }
}

fn spec(path: &Path, name: String, model: &TypedModel, outlet: OutletId) -> Result<TensorSpec, LoadError> {
    let fact = model.outlet_fact(outlet).map_err(|e| LoadError::Prepare { path: path.to_owned(), reason: chain(&e) })?;
    let datum = fact.datum_type;
    match datatype(datum) {
        Some(datatype) => Ok(TensorSpec { name, datum, datatype, dims: fact.shape.iter().cloned().collect() }),
        None => Err(LoadError::Datatype { path: path.to_owned(), name, found: format!("{datum:?}") }),
    }
}

/// Also inside the branches and bodies of `If`, `Loop` and `Scan`.
fn missing_operators(onnx: &Onnx, graph: &GraphProto, missing: &mut Vec<String>) {
    for node in &graph.node {
        if !onnx.op_register.0.contains_key(&node.op_type) {
            let domain = if node.domain.is_empty() { String::new() } else { format!("{}.", node.domain) };
            missing.push(format!("{domain}{}", node.op_type));
        }
        for body in node.attribute.iter().filter_map(|attribute| attribute.g.as_ref()) {
            missing_operators(onnx, body, missing);
        }
    }
}

/// An error with its causes on one line, short enough for a log and an answer.
fn chain(error: &TractError) -> String {
    const LONGEST: usize = 400;
    let mut text = format!("{error:#}").replace('\n', " ");
    if let Some((cut, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(cut);
        text.push_str(" ...");
    }
    text
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("panicked").to_owned()
}

#[cfg(test)]
mod tests;
