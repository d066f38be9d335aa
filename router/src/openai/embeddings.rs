//! `POST /v1/embeddings`. Each text is a request of its own, one row of its own length: the batcher
//! decides which of them, of this client and of others, share a batch.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::unknown;
use crate::app::App;
use crate::body;
use crate::error::ApiError;
use crate::metrics::Outcome;
use crate::model::Model;
use crate::oip::{check, explain};
use crate::queue::Answer;
use crate::tensor::{Datatype, Tensor};
use crate::tokenize::TokenizerSlot;

/// OpenAI's own limit.
const MAX_INPUTS: usize = 2048;

#[derive(Deserialize)]
struct Body {
    model: String,
    input: Input,
    encoding_format: Option<String>,
    dimensions: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "input must be a string, a list of strings, a list of token ids, or a list of lists of token ids")]
enum Input {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

#[derive(Serialize)]
struct Reply<'a> {
    object: &'static str,
    data: Vec<Embedding>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    #[serde(rename = "embedding")]
    vector: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// The handler.
pub async fn handle(State(app): State<Arc<App>>, request: Request) -> Response {
    answer(&app, request).await.unwrap_or_else(ApiError::into_openai)
}

async fn answer(app: &App, request: Request) -> Result<Response, ApiError> {
    let (_, bytes) = body::read(request, app.body_limits).await?;
    let body: Body = serde_json::from_slice(&bytes)
        .map_err(|e| ApiError::bad_request(format!("the request body is not a valid embeddings request: {e}")))?;
    let model = app.model(&body.model).map_err(|_| unknown(&body.model))?;
    let invalid = |e: ApiError| {
        model.queue.metrics.ended(Outcome::Invalid);
        e
    };
    let base64 = base64_wanted(&body).map_err(invalid)?;
    let Some(tokenizer) = &model.tokenizer else {
        return Err(invalid(ApiError::bad_request(format!("the model '{}' does not give embeddings", body.model))));
    };
    let rows = tokens(app, tokenizer, body.input).await.map_err(invalid)?;
    let requests = rows.iter().map(|ids| row(&model, ids)).collect::<Result<Vec<_>, _>>().map_err(invalid)?;
    let failed = |failure| ApiError::of_failure(&failure, &model.spec.name);
    let answers = try_join_all(requests.into_iter().map(|request| model.queue.infer(request))).await.map_err(failed)?;
    render(&model, &answers, rows.iter().map(Vec::len).sum(), base64)
}

fn base64_wanted(body: &Body) -> Result<bool, ApiError> {
    if body.dimensions.as_ref().is_some_and(|d| !d.is_null()) {
        return Err(ApiError::bad_request("the parameter 'dimensions' is not supported by this model"));
    }
    match body.encoding_format.as_deref() {
        None | Some("float") => Ok(false),
        Some("base64") => Ok(true),
        Some(other) => Err(ApiError::bad_request(format!("encoding_format must be 'float' or 'base64', got '{other}'"))),
    }
}

/// Token ids of each row. Ids from the client are used as they are, cut to the model's length.
async fn tokens(app: &App, tokenizer: &TokenizerSlot, input: Input) -> Result<Vec<Vec<u32>>, ApiError> {
    let broken = |e: crate::tokenize::Error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string());
    let rows = match input {
        Input::Text(text) => texts(app, tokenizer, vec![text]).await?,
        Input::Texts(list) => texts(app, tokenizer, list).await?,
        Input::Tokens(ids) => vec![ids],
        Input::TokenLists(lists) => lists,
    };
    if rows.is_empty() || rows.iter().any(Vec::is_empty) {
        return Err(ApiError::bad_request("input must not be empty"));
    }
    too_many(rows.len())?;
    let known = tokenizer.vocabulary(&app.tokenizers).await.map_err(broken)?;
    if let Some(id) = rows.iter().flatten().find(|id| **id as usize >= known) {
        return Err(ApiError::bad_request(format!("token id {id} is not in the model's vocabulary of {known}")));
    }
    Ok(rows
        .into_iter()
        .map(|mut ids| {
            ids.truncate(tokenizer.max_tokens());
            ids
        })
        .collect())
}

fn too_many(inputs: usize) -> Result<(), ApiError> {
    if inputs > MAX_INPUTS {
        return Err(ApiError::bad_request(format!("input may have {MAX_INPUTS} entries at most, got {inputs}")));
    }
    Ok(())
}

async fn texts(app: &App, tokenizer: &TokenizerSlot, texts: Vec<String>) -> Result<Vec<Vec<u32>>, ApiError> {
    too_many(texts.len())?;
    if texts.iter().any(String::is_empty) {
        return Err(ApiError::bad_request("input must not be an empty string"));
    }
    let broken = |e: crate::tokenize::Error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string());
    tokenizer.encode(&app.tokenizers, texts).await.map_err(broken)
}

/// One row for the model: ids, a mask of ones, and zeros as token types, whichever it takes.
fn row(model: &Model, ids: &[u32]) -> Result<crate::queue::Request, ApiError> {
    let shape = vec![1, i64::try_from(ids.len()).unwrap_or(i64::MAX)];
    let fill = |value: i64| filled(ids.len(), |_| value);
    let mut tensors = Vec::with_capacity(model.spec.inputs.len());
    for input in &model.spec.inputs {
        let data = match input.name.as_str() {
            "input_ids" => filled(ids.len(), |at| ids.get(at).copied().map_or(0, i64::from)),
            crate::model::spec::ATTENTION_MASK => fill(1),
            "token_type_ids" => fill(0),
            other => {
                let text = format!("the model '{}' takes the input '{other}', which text does not give", model.spec.name);
                return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, text));
            }
        };
        tensors.push(Tensor { shape: shape.clone(), data });
    }
    check::request(&model.spec, tensors, None)
}

fn filled(length: usize, value: impl Fn(usize) -> i64) -> Bytes {
    let mut data = BytesMut::with_capacity(length * 8);
    (0..length).for_each(|at| data.put_i64_le(value(at)));
    data.freeze()
}

fn render(model: &Model, answers: &[Answer], tokens: usize, base64: bool) -> Result<Response, ApiError> {
    let mut data = Vec::with_capacity(answers.len());
    for (index, answer) in answers.iter().enumerate() {
        let vector = match answer.outputs.as_slice() {
            [output] if output.datatype == Datatype::Fp32 => &output.data,
            _ => {
                let text = format!("the model '{}' did not give one FP32 output", model.spec.name);
                return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, text));
            }
        };
        let vector = if base64 { Vector::Base64(STANDARD.encode(vector)) } else { Vector::Float(floats(vector)) };
        data.push(Embedding { object: "embedding", index, vector });
    }
    let usage = Usage { prompt_tokens: tokens, total_tokens: tokens };
    let reply = Reply { object: "list", data, model: &model.spec.name, usage };
    let body = serde_json::to_vec(&reply)
        .map_err(|e| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("write the answer: {e}")))?;
    let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    if let Some(first) = answers.first() {
        let rows = answers.iter().map(|a| a.batch_rows).max().unwrap_or(0);
        let queue_us = answers.iter().map(|a| a.queue_us).max().unwrap_or(0);
        explain(&mut response, &first.replica, rows, queue_us, answers.iter().any(|a| a.woken));
    }
    Ok(response)
}

fn floats(data: &[u8]) -> Vec<f32> {
    data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}
