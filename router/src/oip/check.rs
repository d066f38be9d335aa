//! Whether a request fits its model, told in Triton's words where its clients know them.

use crate::error::ApiError;
use crate::model::spec::{ModelSpec, TensorSpec};
use crate::queue::Request;
use crate::tensor::{Datatype, Tensor, elements, split_bytes};

/// The name, datatype and shape that a client gave an input.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    pub name: &'a str,
    pub datatype: &'a str,
    pub shape: &'a [i64],
}

/// For each of the model's inputs the place of the claim for it.
pub fn match_inputs(spec: &ModelSpec, claims: &[Claim<'_>]) -> Result<Vec<usize>, ApiError> {
    for (at, claim) in claims.iter().enumerate() {
        if !spec.inputs.iter().any(|input| input.name == claim.name) {
            let text = format!("unexpected inference input '{}' for model '{}'", claim.name, spec.name);
            return Err(ApiError::bad_request(text));
        }
        if claims.iter().take(at).any(|other| other.name == claim.name) {
            let text = format!("input '{}' already exists in request", claim.name);
            return Err(ApiError::bad_request(text));
        }
    }
    let place = |input: &TensorSpec| claims.iter().position(|claim| claim.name == input.name);
    let missing: Vec<&str> = spec.inputs.iter().filter(|i| place(i).is_none()).map(|i| i.name.as_str()).collect();
    if !missing.is_empty() {
        let got: Vec<&str> = claims.iter().map(|c| c.name).collect();
        return Err(ApiError::bad_request(format!(
            "expected {} inputs but got {} inputs for model '{}'. Got input(s) ['{}'], but missing required input(s) ['{}']. \
             Please provide all required input(s).",
            spec.inputs.len(),
            claims.len(),
            spec.name,
            got.join("','"),
            missing.join("','"),
        )));
    }
    Ok(spec.inputs.iter().filter_map(place).collect())
}

/// Checks datatype and shape of one input; gives the datatype and the number of elements.
pub fn check_input(spec: &ModelSpec, input: &TensorSpec, claim: Claim<'_>) -> Result<(Datatype, usize), ApiError> {
    if claim.datatype != input.datatype.name() {
        return Err(ApiError::bad_request(format!(
            "inference input '{}' data-type is '{}', but model '{}' expects '{}'",
            input.name,
            claim.datatype,
            spec.name,
            input.datatype.name()
        )));
    }
    let agrees = |(given, wanted): (&i64, &i64)| *given >= 0 && (*wanted < 0 || given == wanted);
    let same = claim.shape.len() == input.shape.len() && claim.shape.iter().zip(&input.shape).all(agrees);
    let free = |shape: &[i64]| shape.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
    if !same {
        return Err(ApiError::bad_request(format!(
            "unexpected shape for input '{}' for model '{}'. Expected [{}], got [{}].",
            input.name,
            spec.name,
            free(&input.shape),
            free(claim.shape)
        )));
    }
    let rows = if input.batched { claim.shape.first().copied().unwrap_or(1) } else { 1 };
    if rows < 1 {
        return Err(ApiError::bad_request(format!("input '{}' has no rows for '{}'", input.name, spec.name)));
    }
    if rows > i64::from(spec.limits.max_rows) {
        let text = format!("inference request batch-size must be <= {} for '{}'", spec.limits.max_rows, spec.name);
        return Err(ApiError::bad_request(text));
    }
    let count = elements(claim.shape)
        .filter(|count| count.checked_mul(input.datatype.size().unwrap_or(4)).is_some())
        .ok_or_else(|| ApiError::bad_request(format!("input '{}' is larger than anything", input.name)))?;
    Ok((input.datatype, count))
}

/// Binary data must be exactly its elements.
pub fn check_bytes(spec: &ModelSpec, name: &str, datatype: Datatype, count: usize, data: &[u8]) -> Result<(), ApiError> {
    let text = match datatype.size() {
        Some(size) if data.len() == count.saturating_mul(size) => return Ok(()),
        Some(size) => format!(
            "input byte size mismatch for input '{name}' for model '{}'. Expected {}, got {}",
            spec.name,
            count.saturating_mul(size),
            data.len()
        ),
        None => match split_bytes(data) {
            Some(found) if found.len() == count => return Ok(()),
            Some(found) => {
                format!("unexpected number of string elements {} for inference input '{name}', expecting {count}", found.len())
            }
            None => format!("incomplete string length indicator or string for inference input '{name}'"),
        },
    };
    Err(ApiError::bad_request(text))
}

/// A request of tensors that were checked one by one, in the order of the model's inputs.
pub fn request(spec: &ModelSpec, tensors: Vec<Tensor>, timeout: Option<u64>) -> Result<Request, ApiError> {
    let batched = || spec.inputs.iter().zip(&tensors).filter(|(input, _)| input.batched);
    let rows = batched().next().and_then(|(_, t)| t.shape.first().copied()).unwrap_or(1);
    if let Some((input, _)) = batched().find(|(_, t)| t.shape.first() != Some(&rows)) {
        let text = format!("input '{}' batch size does not match other inputs for '{}'", input.name, spec.name);
        return Err(ApiError::bad_request(text));
    }
    let (length, shape) =
        if spec.pads() { (sequence_length(spec, &tensors)?, vec![]) } else { (1, free_dimensions(spec, &tensors)) };
    let alone = !spec.batches();
    Ok(Request { rows: u32::try_from(rows).unwrap_or(u32::MAX), length, shape, alone, timeout, tensors })
}

/// The common length of all inputs of a model that pads.
fn sequence_length(spec: &ModelSpec, tensors: &[Tensor]) -> Result<u32, ApiError> {
    let lengths = || tensors.iter().map(|t| t.shape.get(1).copied().unwrap_or(0));
    let length = lengths().next().unwrap_or(0);
    if lengths().any(|other| other != length) {
        let text = format!("the inputs of model '{}' must all have the same sequence length", spec.name);
        return Err(ApiError::bad_request(text));
    }
    match u32::try_from(length) {
        Ok(length) if length > 0 => Ok(length),
        _ => {
            Err(ApiError::bad_request(format!("the sequence length for model '{}' must be at least 1, got {length}", spec.name)))
        }
    }
}

/// What the model leaves open and a batch must agree on.
fn free_dimensions(spec: &ModelSpec, tensors: &[Tensor]) -> Vec<i64> {
    let mut free = Vec::new();
    for (input, tensor) in spec.inputs.iter().zip(tensors) {
        let dims = input.shape.iter().zip(&tensor.shape).skip(usize::from(input.batched));
        free.extend(dims.filter(|(wanted, _)| **wanted < 0).map(|(_, given)| *given));
    }
    free
}
