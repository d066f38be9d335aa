//! The body of an inference request: JSON, possibly followed by binary tensors.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::http::HeaderMap;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::check::{self, Claim};
use super::data;
use crate::error::ApiError;
use crate::model::spec::{ModelSpec, TensorSpec};
use crate::queue::Request;
use crate::tensor::Tensor;

/// Says how long the JSON is when binary tensors follow.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

type Parameters = BTreeMap<String, Value>;

#[derive(Deserialize)]
struct Body<'a> {
    id: Option<String>,
    parameters: Option<Parameters>,
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
    outputs: Option<Vec<Wanted>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    shape: Vec<i64>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    parameters: Option<Parameters>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Wanted {
    name: String,
    parameters: Option<Parameters>,
}

/// How the answer is to be given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    pub id: Option<String>,
    /// The outputs wanted, and whether as binary; empty: all of them.
    pub outputs: Vec<(String, bool)>,
    /// Whether all of them come as binary.
    pub binary: bool,
}

/// A request that fits its model.
#[derive(Debug)]
pub struct Parsed {
    pub request: Request,
    pub wishes: Wishes,
}

/// The length of the JSON part, if the client says so.
pub fn header_length(headers: &HeaderMap) -> Result<Option<usize>, ApiError> {
    let Some(value) = headers.get(HEADER_LENGTH) else { return Ok(None) };
    match value.to_str().ok().and_then(|v| v.trim().parse().ok()) {
        Some(length) => Ok(Some(length)),
        None => Err(ApiError::bad_request(format!("Inference-Header-Content-Length must be a number of bytes, got {value:?}"))),
    }
}

/// Reads and checks a whole body.
pub fn parse(spec: &ModelSpec, body: &Bytes, header_length: Option<usize>) -> Result<Parsed, ApiError> {
    if header_length == Some(0) {
        return raw(spec, body);
    }
    let split = header_length.unwrap_or(body.len());
    let Some((json, _)) = body.split_at_checked(split) else {
        let text = format!("Inference-Header-Content-Length is {split}, but the body has {} bytes", body.len());
        return Err(ApiError::bad_request(text));
    };
    let parsed: Body<'_> = serde_json::from_slice(json)
        .map_err(|e| ApiError::bad_request(format!("failed to parse the request JSON buffer: {e}")))?;
    let binary = Binary { rest: body.slice(split..), allowed: header_length.is_some() };
    let tensors = tensors(spec, &parsed.inputs, binary)?;
    let timeout = timeout(parsed.parameters.as_ref())?;
    let request = check::request(spec, tensors, timeout)?;
    let wishes = wishes(spec, parsed.id, parsed.parameters.as_ref(), parsed.outputs)?;
    Ok(Parsed { request, wishes })
}

/// A body that is nothing but the bytes of the model's one input, one row.
fn raw(spec: &ModelSpec, body: &Bytes) -> Result<Parsed, ApiError> {
    let [input] = spec.inputs.as_slice() else {
        let text = format!("a raw binary request needs a model with one input, '{}' has {}", spec.name, spec.inputs.len());
        return Err(ApiError::bad_request(text));
    };
    let mut shape = input.shape.clone();
    if let (true, Some(first)) = (input.batched, shape.first_mut()) {
        *first = 1;
    }
    let claim = Claim { name: &input.name, datatype: input.datatype.name(), shape: &shape };
    let (datatype, count) = check::check_input(spec, input, claim)?;
    check::check_bytes(spec, &input.name, datatype, count, body)?;
    let request = check::request(spec, vec![Tensor { shape, data: body.clone() }], None)?;
    Ok(Parsed { request, wishes: Wishes { binary: true, ..Wishes::default() } })
}

/// The part of the body after the JSON, eaten from the front in the order of the inputs.
struct Binary {
    rest: Bytes,
    allowed: bool,
}

impl Binary {
    fn take(&mut self, name: &str, size: usize) -> Result<Bytes, ApiError> {
        if !self.allowed {
            let text = format!("input '{name}' has binary_data_size, but the header Inference-Header-Content-Length is missing");
            return Err(ApiError::bad_request(text));
        }
        if size > self.rest.len() {
            let text = format!("unexpected size for input '{name}', expecting {} additional bytes", size - self.rest.len());
            return Err(ApiError::bad_request(text));
        }
        Ok(self.rest.split_to(size))
    }
}

fn tensors(spec: &ModelSpec, inputs: &[Input<'_>], mut binary: Binary) -> Result<Vec<Tensor>, ApiError> {
    let claims: Vec<Claim<'_>> = inputs.iter().map(|i| Claim { name: &i.name, datatype: &i.datatype, shape: &i.shape }).collect();
    let places = check::match_inputs(spec, &claims)?;
    // Binary data lies in the order of the request, tensors go in the order of the model.
    let mut found: Vec<Option<Tensor>> = vec![None; spec.inputs.len()];
    for (at, input) in inputs.iter().enumerate() {
        let Some(slot) = places.iter().position(|place| *place == at) else { continue };
        let (Some(tensor_spec), Some(claim), Some(place)) = (spec.inputs.get(slot), claims.get(at), found.get_mut(slot)) else {
            continue;
        };
        *place = Some(tensor(spec, tensor_spec, *claim, input, &mut binary)?);
    }
    if binary.rest.is_empty() {
        Ok(found.into_iter().flatten().collect())
    } else {
        Err(ApiError::bad_request(format!("unexpected additional input data: {} bytes", binary.rest.len())))
    }
}

fn tensor(
    spec: &ModelSpec,
    wanted: &TensorSpec,
    claim: Claim<'_>,
    input: &Input<'_>,
    binary: &mut Binary,
) -> Result<Tensor, ApiError> {
    let (datatype, count) = check::check_input(spec, wanted, claim)?;
    let size = input.parameters.as_ref().and_then(|p| p.get("binary_data_size"));
    let data = match (size, input.data) {
        (Some(size), None) => {
            let size = size.as_u64().and_then(|s| usize::try_from(s).ok()).ok_or_else(|| {
                ApiError::bad_request(format!("binary_data_size of input '{}' must be a number of bytes", claim.name))
            })?;
            let data = binary.take(claim.name, size)?;
            check::check_bytes(spec, claim.name, datatype, count, &data)?;
            data
        }
        (None, Some(data)) => data::parse(data.get(), datatype, count)
            .map_err(|e| ApiError::bad_request(format!("Unable to parse 'data': input '{}': {e}", claim.name)))?
            .into(),
        (Some(_), Some(_)) => {
            let text = format!("must not specify 'data' for input '{}' that has binary_data_size", claim.name);
            return Err(ApiError::bad_request(text));
        }
        (None, None) => {
            let text = format!("must specify 'data' or 'binary_data_size' for input '{}'", claim.name);
            return Err(ApiError::bad_request(text));
        }
    };
    Ok(Tensor { shape: input.shape.clone(), data })
}

/// `parameters.timeout`, in microseconds; 0 means none.
fn timeout(parameters: Option<&Parameters>) -> Result<Option<u64>, ApiError> {
    match parameters.and_then(|p| p.get("timeout")) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(micros) => Ok((micros > 0).then_some(micros)),
            None => Err(ApiError::bad_request(format!("parameter 'timeout' must be a number of microseconds, got {value}"))),
        },
    }
}

fn flag(parameters: Option<&Parameters>, name: &str) -> Option<bool> {
    parameters.and_then(|p| p.get(name)).and_then(Value::as_bool)
}

fn wishes(
    spec: &ModelSpec,
    id: Option<String>,
    parameters: Option<&Parameters>,
    outputs: Option<Vec<Wanted>>,
) -> Result<Wishes, ApiError> {
    let binary = flag(parameters, "binary_data_output").unwrap_or(false);
    let mut wanted = Vec::new();
    for output in outputs.unwrap_or_default() {
        if !spec.outputs.iter().any(|o| o.name == output.name) {
            let text = format!("unexpected inference output '{}' for model '{}'", output.name, spec.name);
            return Err(ApiError::bad_request(text));
        }
        if output.parameters.as_ref().is_some_and(|p| p.contains_key("classification")) {
            return Err(ApiError::bad_request("the classification extension is not supported"));
        }
        let as_binary = flag(output.parameters.as_ref(), "binary_data").unwrap_or(binary);
        wanted.push((output.name, as_binary));
    }
    Ok(Wishes { id, outputs: wanted, binary })
}
