//! The answer to an inference request: JSON, possibly followed by binary tensors.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::request::{HEADER_LENGTH, Wishes};
use super::{VERSION, data, explain};
use crate::error::ApiError;
use crate::model::spec::ModelSpec;
use crate::queue::Answer;
use crate::tensor::Output;

/// Renders `answer` as the client wishes.
pub fn render(spec: &ModelSpec, wishes: &Wishes, answer: &Answer) -> Result<Response, ApiError> {
    let chosen = choose(spec, wishes, answer)?;
    let mut json = Vec::with_capacity(256);
    json.extend_from_slice(b"{");
    if let Some(id) = &wishes.id {
        field(&mut json, "id", id);
        json.push(b',');
    }
    field(&mut json, "model_name", &spec.name);
    json.push(b',');
    field(&mut json, "model_version", VERSION);
    json.extend_from_slice(b",\"outputs\":[");
    for (at, (output, binary)) in chosen.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        one(&mut json, output, *binary)?;
    }
    json.extend_from_slice(b"]}");
    let mut response = if chosen.iter().any(|(_, binary)| *binary) { mixed(json, &chosen) } else { plain(json) };
    explain(&mut response, &answer.replica, answer.batch_rows, answer.queue_us, answer.woken);
    Ok(response)
}

fn choose<'a>(spec: &ModelSpec, wishes: &Wishes, answer: &'a Answer) -> Result<Vec<(&'a Output, bool)>, ApiError> {
    if wishes.outputs.is_empty() {
        return Ok(answer.outputs.iter().map(|output| (output, wishes.binary)).collect());
    }
    let find = |(name, binary): &(String, bool)| match answer.outputs.iter().find(|o| o.name == *name) {
        Some(output) => Ok((output, *binary)),
        None => Err(broken(format!("model '{}' gave no output '{name}'", spec.name))),
    };
    wishes.outputs.iter().map(find).collect()
}

fn one(json: &mut Vec<u8>, output: &Output, binary: bool) -> Result<(), ApiError> {
    json.push(b'{');
    field(json, "name", &output.name);
    json.push(b',');
    field(json, "datatype", output.datatype.name());
    json.extend_from_slice(b",\"shape\":");
    value(json, &output.shape);
    if binary {
        json.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
        value(json, &output.data.len());
        json.extend_from_slice(b"}");
    } else {
        json.extend_from_slice(b",\"data\":");
        data::write(json, output.datatype, &output.data)
            .ok_or_else(|| broken(format!("the data of output '{}' does not fit its datatype", output.name)))?;
    }
    json.push(b'}');
    Ok(())
}

fn broken(text: String) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, text)
}

fn field(json: &mut Vec<u8>, name: &str, text: &str) {
    value(json, name);
    json.push(b':');
    value(json, text);
}

/// Writing a string or numbers to memory cannot fail.
fn value<V: serde::Serialize + ?Sized>(json: &mut Vec<u8>, of: &V) {
    drop(serde_json::to_writer(json, of));
}

fn plain(json: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], json).into_response()
}

fn mixed(mut json: Vec<u8>, chosen: &[(&Output, bool)]) -> Response {
    let length = json.len();
    for (output, _) in chosen.iter().filter(|(_, binary)| *binary) {
        json.extend_from_slice(&output.data);
    }
    let mut response = Response::new(Body::from(json));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(HeaderName::from_static(HEADER_LENGTH), HeaderValue::from(length));
    response
}
