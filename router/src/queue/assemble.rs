//! Requests to one batch, and a batch's answer back to its requests.
//!
//! Rows go one after the other along the first dimension. Rows of different lengths are padded with
//! zeros to the longest. Answers are slices of the batch's answer, not copies.

use bytes::{BufMut, Bytes, BytesMut};
use tidegate_api::inference::model_infer_request::InferInputTensor;
use tidegate_api::inference::{ModelInferRequest, ModelInferResponse};

use super::Request;
use crate::model::spec::{ModelSpec, TensorSpec};
use crate::tensor::{Datatype, Output, elements};

/// One gRPC request for all of `requests`, which are of compatible shapes.
pub fn assemble(spec: &ModelSpec, requests: &[&Request]) -> ModelInferRequest {
    let mut inputs = Vec::with_capacity(spec.inputs.len());
    let mut contents = Vec::with_capacity(spec.inputs.len());
    for (at, input) in spec.inputs.iter().enumerate() {
        let (shape, data) = input_of(spec, input, at, requests);
        inputs.push(InferInputTensor {
            name: input.name.clone(),
            datatype: input.datatype.name().to_owned(),
            shape,
            ..InferInputTensor::default()
        });
        contents.push(data);
    }
    ModelInferRequest { model_name: spec.name.clone(), inputs, raw_input_contents: contents, ..ModelInferRequest::default() }
}

fn input_of(spec: &ModelSpec, input: &TensorSpec, at: usize, requests: &[&Request]) -> (Vec<i64>, Bytes) {
    let tensors = || requests.iter().filter_map(|r| r.tensors.get(at));
    if requests.len() == 1
        && let Some(tensor) = tensors().next()
    {
        return (tensor.shape.clone(), tensor.data.clone());
    }
    let mut shape = tensors().next().map(|t| t.shape.clone()).unwrap_or_default();
    if let Some(first) = shape.first_mut() {
        *first = requests.iter().map(|r| i64::from(r.rows)).sum();
    }
    if !spec.pads() {
        let mut data = BytesMut::with_capacity(tensors().map(|t| t.data.len()).sum());
        tensors().for_each(|t| data.put_slice(&t.data));
        return (shape, data.freeze());
    }
    let longest = requests.iter().map(|r| r.length).max().unwrap_or(0);
    if let Some(length) = shape.get_mut(1) {
        *length = i64::from(longest);
    }
    (shape, padded(input.datatype.size().unwrap_or(1), at, longest, requests))
}

/// Rows of one input, each filled up with zeros to `longest` elements.
fn padded(element: usize, at: usize, longest: u32, requests: &[&Request]) -> Bytes {
    let width = longest as usize * element;
    let rows: usize = requests.iter().map(|r| r.rows as usize).sum();
    let mut data = BytesMut::with_capacity(width * rows);
    for request in requests {
        let Some(tensor) = request.tensors.get(at) else { continue };
        for row in tensor.data.chunks((request.length as usize * element).max(1)) {
            data.put_slice(row);
            data.put_bytes(0, width - row.len().min(width));
        }
    }
    data.freeze()
}

/// The outputs of each request, in their order. Fails with the replica's mistake if the answer does not fit.
pub fn split(spec: &ModelSpec, response: ModelInferResponse, rows: &[u32]) -> Result<Vec<Vec<Output>>, String> {
    if response.outputs.len() != response.raw_output_contents.len() {
        return Err("the replica answered without raw_output_contents".to_owned());
    }
    let mut answers: Vec<Vec<Output>> = rows.iter().map(|_| Vec::with_capacity(response.outputs.len())).collect();
    for (output, data) in response.outputs.into_iter().zip(response.raw_output_contents) {
        let Some(datatype) = Datatype::parse(&output.datatype) else {
            return Err(format!("the replica answered output '{}' with the unknown datatype '{}'", output.name, output.datatype));
        };
        let whole = Output { name: output.name, datatype, shape: output.shape, data };
        let batched = spec.outputs.iter().find(|t| t.name == whole.name).is_none_or(|t| t.batched);
        if rows.len() == 1 || !batched {
            for answer in &mut answers {
                answer.push(whole.clone());
            }
            continue;
        }
        let parts = split_rows(&whole, rows).ok_or_else(|| wrong_size(&whole, rows))?;
        for (answer, part) in answers.iter_mut().zip(parts) {
            answer.push(part);
        }
    }
    Ok(answers)
}

fn wrong_size(output: &Output, rows: &[u32]) -> String {
    let wanted: u32 = rows.iter().sum();
    format!("the replica answered output '{}' with shape {:?} for {wanted} rows", output.name, output.shape)
}

/// The output cut along its first dimension. Nothing if it has other rows or bytes than it should.
fn split_rows(output: &Output, rows: &[u32]) -> Option<Vec<Output>> {
    let total: u32 = rows.iter().sum();
    let (first, inner) = output.shape.split_first()?;
    let per_row = elements(inner)?;
    if *first != i64::from(total) {
        return None;
    }
    let mut from = 0usize;
    let mut parts = Vec::with_capacity(rows.len());
    for count in rows {
        let until = match output.datatype.size() {
            Some(size) => from.checked_add((*count as usize).checked_mul(per_row)?.checked_mul(size)?)?,
            None => end_of_bytes(&output.data, from, (*count as usize).checked_mul(per_row)?)?,
        };
        if until > output.data.len() {
            return None;
        }
        let mut shape = output.shape.clone();
        *shape.first_mut()? = i64::from(*count);
        parts.push(Output { name: output.name.clone(), datatype: output.datatype, shape, data: output.data.slice(from..until) });
        from = until;
    }
    (from == output.data.len()).then_some(parts)
}

/// Where `count` BYTES elements from `from` end.
fn end_of_bytes(data: &[u8], from: usize, count: usize) -> Option<usize> {
    let mut at = from;
    for _ in 0..count {
        let len = data.get(at..)?.first_chunk::<4>()?;
        at = at.checked_add(4)?.checked_add(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use tidegate_api::control;
    use tidegate_api::inference::model_infer_response::InferOutputTensor;

    use super::*;
    use crate::tensor::Tensor;

    fn encoder() -> ModelSpec {
        let sequence = |name: &str| control::TensorSpec {
            name: name.to_owned(),
            datatype: "INT64".to_owned(),
            shape: vec![-1, -1],
            batched: true,
        };
        let embedding =
            control::TensorSpec { name: "embedding".to_owned(), datatype: "FP32".to_owned(), shape: vec![-1, 2], batched: true };
        let config = control::ModelConfig {
            name: "encoder".to_owned(),
            inputs: vec![sequence("input_ids"), sequence("attention_mask")],
            outputs: vec![embedding],
            embedding: Some(control::Embedding { tokenizer_path: "t.json".to_owned(), max_tokens: 8 }),
            ..control::ModelConfig::default()
        };
        ModelSpec::try_from(config).unwrap()
    }

    fn ids(values: &[i64]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Tensor { shape: vec![1, i64::try_from(values.len()).unwrap()], data: data.into() }
    }

    fn request(values: &[i64]) -> Request {
        let mask = vec![1; values.len()];
        let length = u32::try_from(values.len()).unwrap();
        Request { tensors: vec![ids(values), ids(&mask)], rows: 1, length, shape: vec![], alone: false, timeout: None }
    }

    #[test]
    fn rows_of_different_lengths_are_padded_to_the_longest() {
        let (short, long) = (request(&[7]), request(&[1, 2, 3]));
        let batch = assemble(&encoder(), &[&short, &long]);
        assert_eq!(batch.inputs[0].shape, [2, 3]);
        let flat = |values: &[i64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        assert_eq!(batch.raw_input_contents[0], flat(&[7, 0, 0, 1, 2, 3]));
        assert_eq!(batch.raw_input_contents[1], flat(&[1, 0, 0, 1, 1, 1]));
    }

    fn answer(datatype: &str, shape: Vec<i64>, data: &[u8]) -> ModelInferResponse {
        let output =
            InferOutputTensor { name: "embedding".to_owned(), datatype: datatype.to_owned(), shape, ..Default::default() };
        ModelInferResponse {
            outputs: vec![output],
            raw_output_contents: vec![Bytes::copy_from_slice(data)],
            ..ModelInferResponse::default()
        }
    }

    #[test]
    fn an_answer_is_cut_by_the_rows_of_its_requests() {
        let parts = split(&encoder(), answer("INT8", vec![3, 2], &[1, 2, 3, 4, 5, 6]), &[1, 2]).unwrap();
        assert_eq!((parts[0][0].shape.as_slice(), &parts[0][0].data[..]), (&[1, 2][..], &[1, 2][..]));
        assert_eq!((parts[1][0].shape.as_slice(), &parts[1][0].data[..]), (&[2, 2][..], &[3, 4, 5, 6][..]));
    }

    #[test]
    fn strings_are_cut_by_their_own_lengths() {
        let data = [1, 0, 0, 0, b'a', 0, 0, 0, 0, 2, 0, 0, 0, b'b', b'c'];
        let parts = split(&encoder(), answer("BYTES", vec![3], &data), &[2, 1]).unwrap();
        assert_eq!((&parts[0][0].data[..], &parts[1][0].data[..]), (&data[..9], &data[9..]));
    }

    #[test]
    fn an_answer_of_the_wrong_size_is_the_replica_s_mistake() {
        for bad in
            [answer("INT8", vec![2, 2], &[1, 2, 3, 4]), answer("INT8", vec![3, 2], &[1, 2, 3]), answer("X", vec![3, 2], &[])]
        {
            assert!(split(&encoder(), bad, &[1, 2]).is_err());
        }
    }
}
