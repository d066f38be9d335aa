//! What a model takes and gives, and whether a request fits it.

use tidegate_api::inference::ModelInferRequest;
use tidegate_api::inference::model_infer_request::InferInputTensor;
use tidegate_api::model_info::{ModelInfo, TensorInfo};
use tract_onnx::prelude::{DatumType, Symbol, SymbolValues, TDim, Tensor, TractResult};

use crate::tensor::{self, Elements};

/// A model's tensors in the order of its plan.
#[derive(Clone, Debug)]
pub(crate) struct Signature {
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    /// The first dimension of every input and output is one and the same free dimension.
    pub batched: bool,
}

/// One tensor: fixed dimensions are numbers, free ones symbols, some are expressions of symbols.
#[derive(Clone, Debug)]
pub(crate) struct TensorSpec {
    pub name: String,
    pub datum: DatumType,
    pub datatype: &'static str,
    pub dims: Vec<TDim>,
}

/// A request that fits: tensors in the plan's order.
#[derive(Debug)]
pub(crate) struct Batch {
    pub inputs: Vec<Tensor>,
    pub rows: usize,
    /// Indices of the wanted outputs.
    pub outputs: Vec<usize>,
}

impl Signature {
    pub fn new(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> Self {
        let batch = inputs.first().and_then(|first| first.dims.first()).cloned();
        let leads = |spec: &TensorSpec| spec.dims.first() == batch.as_ref();
        let batched = matches!(batch, Some(TDim::Sym(_))) && inputs.iter().chain(&outputs).all(leads);
        Self { inputs, outputs, batched }
    }

    /// As `--inspect` prints it.
    pub fn info(&self) -> ModelInfo {
        let describe = |specs: &[TensorSpec]| {
            specs
                .iter()
                .map(|spec| TensorInfo {
                    name: spec.name.clone(),
                    datatype: spec.datatype.to_owned(),
                    shape: spec.shape(),
                    batched: self.batched,
                })
                .collect()
        };
        ModelInfo { platform: "onnx".to_owned(), inputs: describe(&self.inputs), outputs: describe(&self.outputs) }
    }

    /// Zeros of the smallest shape, for a first run.
    pub fn smallest(&self) -> TractResult<Vec<Tensor>> {
        self.inputs
            .iter()
            .map(|spec| {
                let ones = spec.dims.iter().flat_map(TDim::symbols).fold(SymbolValues::default(), |values, s| values.with(&s, 1));
                let shape =
                    spec.dims.iter().map(|dim| Ok(usize::try_from(dim.eval_to_i64(&ones)?)?)).collect::<TractResult<Vec<_>>>()?;
                Tensor::zero_dt(spec.datum, &shape)
            })
            .collect()
    }

    /// Checks names, datatypes, shapes and sizes, and makes the tensors.
    ///
    /// # Errors
    /// A sentence for the client.
    pub fn read(&self, request: &ModelInferRequest, max_rows: usize) -> Result<Batch, String> {
        let model = &request.model_name;
        if request.inputs.len() != self.inputs.len() {
            return Err(format!(
                "expected {} inputs but got {} inputs for model '{model}'",
                self.inputs.len(),
                request.inputs.len()
            ));
        }
        let raw = &request.raw_input_contents;
        if !raw.is_empty() && raw.len() != request.inputs.len() {
            return Err(format!("expected {} raw inputs but got {} for model '{model}'", request.inputs.len(), raw.len()));
        }
        let mut free = FreeDims::default();
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for spec in &self.inputs {
            let position = request.inputs.iter().position(|given| given.name == spec.name);
            let (at, given) = position
                .and_then(|at| Some((at, request.inputs.get(at)?)))
                .ok_or_else(|| format!("inference input '{}' is missing for model '{model}'", spec.name))?;
            let shape = spec.checked_shape(given, model, &mut free)?;
            let elements = match (raw.get(at), &given.contents) {
                (Some(_), Some(_)) => Err("has its elements twice, raw and typed".to_owned()),
                (Some(bytes), None) => Ok(Elements::Raw(bytes)),
                (None, Some(contents)) => Ok(Elements::Typed(contents)),
                (None, None) => Err("has no elements".to_owned()),
            };
            let tensor = elements.and_then(|elements| tensor::decode(spec.datum, &shape, elements));
            inputs.push(tensor.map_err(|why| format!("inference input '{}' {why}", spec.name))?);
        }
        let rows = if self.batched { inputs.first().and_then(|t| t.shape().first().copied()).unwrap_or(1) } else { 1 };
        if rows == 0 || rows > max_rows {
            return Err(format!("batch size must be from 1 to {max_rows} for model '{model}', got {rows}"));
        }
        Ok(Batch { inputs, rows, outputs: self.wanted_outputs(request)? })
    }

    fn wanted_outputs(&self, request: &ModelInferRequest) -> Result<Vec<usize>, String> {
        if request.outputs.is_empty() {
            return Ok((0..self.outputs.len()).collect());
        }
        let find = |name: &str| {
            let found = self.outputs.iter().position(|spec| spec.name == name);
            found.ok_or_else(|| format!("unexpected inference output '{name}' for model '{}'", request.model_name))
        };
        request.outputs.iter().map(|wanted| find(&wanted.name)).collect()
    }
}

impl TensorSpec {
    /// -1 for a dimension that is not fixed.
    pub fn shape(&self) -> Vec<i64> {
        self.dims.iter().map(|dim| dim.as_i64().unwrap_or(-1)).collect()
    }

    fn checked_shape(&self, given: &InferInputTensor, model: &str, free: &mut FreeDims) -> Result<Vec<usize>, String> {
        if given.datatype != self.datatype {
            let (name, found, wanted) = (&self.name, &given.datatype, self.datatype);
            return Err(format!("inference input '{name}' data-type is '{found}', but model '{model}' expects '{wanted}'"));
        }
        let unexpected = || {
            format!(
                "unexpected shape for input '{}' for model '{model}'. Expected {:?}, got {:?}",
                self.name,
                self.shape(),
                given.shape
            )
        };
        if given.shape.len() != self.dims.len() {
            return Err(unexpected());
        }
        let mut shape = Vec::with_capacity(self.dims.len());
        for (dim, given) in self.dims.iter().zip(&given.shape) {
            let size = usize::try_from(*given).map_err(|_| unexpected())?;
            match dim {
                TDim::Sym(symbol) => free.agree(symbol, size).map_err(|other| {
                    format!("inference input '{}' has {size} where another input of the request has {other}", self.name)
                })?,
                // Expressions of symbols are checked by the plan itself.
                _ if dim.as_i64().is_some_and(|fixed| fixed != *given) => return Err(unexpected()),
                _ => {}
            }
            shape.push(size);
        }
        Ok(shape)
    }
}

/// Free dimensions that the request has settled so far.
#[derive(Default)]
struct FreeDims(Vec<(Symbol, usize)>);

impl FreeDims {
    /// `Err` with the earlier size when it differs.
    fn agree(&mut self, symbol: &Symbol, size: usize) -> Result<(), usize> {
        match self.0.iter().find(|(known, _)| known == symbol) {
            Some((_, earlier)) if *earlier != size => Err(*earlier),
            Some(_) => Ok(()),
            None => {
                self.0.push((symbol.clone(), size));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::prelude::{SymbolScope, ToDim};

    fn spec(name: &str, dims: Vec<TDim>) -> TensorSpec {
        TensorSpec { name: name.to_owned(), datum: DatumType::F32, datatype: "FP32", dims }
    }

    fn two_inputs(scope: &SymbolScope) -> Signature {
        let (batch, seq) = (scope.sym("batch"), scope.sym("seq"));
        let input = |name| spec(name, vec![batch.to_dim(), seq.to_dim()]);
        Signature::new(vec![input("a"), input("b")], vec![spec("y", vec![batch.to_dim(), 2.to_dim()])])
    }

    fn request(inputs: &[(&str, &str, &[i64])]) -> ModelInferRequest {
        let mut request = ModelInferRequest { model_name: "m".to_owned(), ..Default::default() };
        for (name, datatype, shape) in inputs {
            let bytes = usize::try_from(shape.iter().product::<i64>().max(0)).unwrap() * 4;
            request.raw_input_contents.push(vec![0; bytes].into());
            request.inputs.push(InferInputTensor {
                name: (*name).to_owned(),
                datatype: (*datatype).to_owned(),
                shape: shape.to_vec(),
                ..Default::default()
            });
        }
        request
    }

    #[test]
    fn inputs_in_any_order_reach_the_plan_in_its_own() {
        let scope = SymbolScope::default();
        let batch = two_inputs(&scope).read(&request(&[("b", "FP32", &[3, 5]), ("a", "FP32", &[3, 5])]), 8).unwrap();
        assert_eq!((batch.rows, batch.inputs.len(), batch.outputs), (3, 2, vec![0]));
    }

    #[test]
    fn what_does_not_fit_is_refused_in_words() {
        let scope = SymbolScope::default();
        let signature = two_inputs(&scope);
        let refusal = |inputs: &[(&str, &str, &[i64])]| signature.read(&request(inputs), 8).unwrap_err();
        let good: (&str, &str, &[i64]) = ("a", "FP32", &[3, 5]);
        assert_eq!(refusal(&[good]), "expected 2 inputs but got 1 inputs for model 'm'");
        assert_eq!(refusal(&[good, ("c", "FP32", &[3, 5])]), "inference input 'b' is missing for model 'm'");
        assert_eq!(
            refusal(&[good, ("b", "INT64", &[3, 5])]),
            "inference input 'b' data-type is 'INT64', but model 'm' expects 'FP32'"
        );
        assert_eq!(
            refusal(&[good, ("b", "FP32", &[3])]),
            "unexpected shape for input 'b' for model 'm'. Expected [-1, -1], got [3]"
        );
        assert_eq!(
            refusal(&[good, ("b", "FP32", &[3, 4])]),
            "inference input 'b' has 4 where another input of the request has 5"
        );
        assert_eq!(
            refusal(&[("a", "FP32", &[9, 1]), ("b", "FP32", &[9, 1])]),
            "batch size must be from 1 to 8 for model 'm', got 9"
        );
        assert_eq!(
            refusal(&[("a", "FP32", &[0, 1]), ("b", "FP32", &[0, 1])]),
            "batch size must be from 1 to 8 for model 'm', got 0"
        );
        assert!(refusal(&[("a", "FP32", &[-1, 5]), good]).contains("got [-1, 5]"));
    }

    #[test]
    fn an_unknown_output_is_refused() {
        let scope = SymbolScope::default();
        let mut request = request(&[("a", "FP32", &[1, 1]), ("b", "FP32", &[1, 1])]);
        request.outputs.push(tidegate_api::inference::model_infer_request::InferRequestedOutputTensor {
            name: "z".to_owned(),
            ..Default::default()
        });
        assert_eq!(two_inputs(&scope).read(&request, 8).unwrap_err(), "unexpected inference output 'z' for model 'm'");
    }

    #[test]
    fn a_fixed_first_dimension_or_an_output_without_the_batch_makes_a_model_unbatched() {
        let scope = SymbolScope::default();
        let batch = scope.sym("batch").to_dim();
        assert!(two_inputs(&scope).batched);
        assert!(!Signature::new(vec![spec("x", vec![1.to_dim()])], vec![spec("y", vec![1.to_dim()])]).batched);
        let pooled = Signature::new(vec![spec("x", vec![batch])], vec![spec("y", vec![2.to_dim()])]);
        assert!(!pooled.batched);
        assert_eq!(pooled.info().inputs[0].shape, [-1]);
    }
}
