//! OpenAI embeddings with a real tokenizer.

#![expect(clippy::unwrap_used, reason = "tests")]

use base64::Engine;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::{Front, Replica, World, encoder, floats};

/// Words are tokens: `[CLS]` 1, `[SEP]` 2, then `one`, `two`, ... from 3.
fn tokenizer(folder: &TempDir) -> std::path::PathBuf {
    let words = ["[UNK]", "[CLS]", "[SEP]", "one", "two", "three", "four", "five", "six", "seven"];
    let vocab: serde_json::Map<String, Value> = words.iter().enumerate().map(|(id, w)| ((*w).to_owned(), json!(id))).collect();
    let special = |token: &str, id: u32| json!({ "id": token, "ids": [id], "tokens": [token] });
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "[CLS]", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } },
                       { "SpecialToken": { "id": "[SEP]", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": { "[CLS]": special("[CLS]", 1), "[SEP]": special("[SEP]", 2) },
        },
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]" },
    });
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    path
}

async fn front() -> (Front, World, Replica, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let replica = Replica::open("r1");
    let world = World::start(vec![encoder(vec![replica.endpoint()], &tokenizer(&folder))]);
    (Front::start(&world, &[]).await, world, replica, folder)
}

#[tokio::test]
async fn every_form_of_input_gives_its_vectors_in_order() {
    let (front, _world, _replica, _folder) = front().await;
    // The double answers (sum of ids, number of tokens).
    let cases = [
        (json!("one"), vec![vec![6.0, 3.0]], 3),
        (json!(["one two", "three"]), vec![vec![10.0, 4.0], vec![8.0, 3.0]], 7),
        (json!([3, 4]), vec![vec![7.0, 2.0]], 2),
        (json!([[3], [4, 5, 6]]), vec![vec![3.0, 1.0], vec![15.0, 3.0]], 4),
        // Cut to six tokens, the last of which is [SEP].
        (json!("one one one one one one one one"), vec![vec![15.0, 6.0]], 6),
    ];
    for (input, vectors, tokens) in cases {
        let body = json!({ "model": "encoder", "input": input, "encoding_format": "float" });
        let answer = front.post("/v1/embeddings", body.to_string().into()).await;
        assert_eq!(answer.status, 200, "{input}: {answer:?}");
        let data: Vec<Value> = answer.body["data"].as_array().unwrap().iter().map(|d| d["embedding"].clone()).collect();
        assert_eq!(data, vectors.into_iter().map(|v| json!(v)).collect::<Vec<_>>(), "{input}");
        assert_eq!(answer.body["usage"], json!({ "prompt_tokens": tokens, "total_tokens": tokens }));
        assert!(answer.header("x-tidegate-batch-rows").is_some());
    }
}

#[tokio::test]
async fn base64_is_little_endian_floats() {
    let (front, _world, _replica, _folder) = front().await;
    let body = json!({ "model": "encoder", "input": "one", "encoding_format": "base64" });
    let answer = front.post("/v1/embeddings", body.to_string().into()).await;
    let text = answer.body["data"][0]["embedding"].as_str().unwrap();
    assert_eq!(floats(&base64::engine::general_purpose::STANDARD.decode(text).unwrap()), [6.0, 3.0]);
}

#[tokio::test]
async fn texts_of_one_request_share_a_padded_batch() {
    let (front, world, replica, _folder) = {
        let folder = tempfile::tempdir().unwrap();
        let replica = Replica::gated("r1");
        let world = World::start(vec![encoder(vec![replica.endpoint()], &tokenizer(&folder))]);
        (Front::start(&world, &[]).await, world, replica, folder)
    };
    let ask = |input: Value| {
        let body = json!({ "model": "encoder", "input": input });
        front.post("/v1/embeddings", body.to_string().into())
    };
    let mut asked = tokio::task::JoinSet::new();
    asked.spawn(ask(json!("one")));
    replica.saw(1).await;
    asked.spawn(ask(json!(["one", "one two three", "one two"])));
    world.demand("encoder", |d| d.queued == 3).await;
    replica.permits.add_permits(2);
    assert!(asked.join_all().await.iter().all(|answer| answer.status == 200));
    assert_eq!(*replica.shapes.lock(), [[1, 3], [3, 5]]);
}

#[tokio::test]
async fn mistakes_get_openai_s_error_object() {
    let (front, _world, replica, folder) = front().await;
    let cases = [
        (json!({ "model": "encoder" }), 400),
        (json!({ "model": "encoder", "input": 7 }), 400),
        (json!({ "model": "encoder", "input": [] }), 400),
        (json!({ "model": "encoder", "input": "" }), 400),
        (json!({ "model": "encoder", "input": [[]] }), 400),
        (json!({ "model": "encoder", "input": [99] }), 400),
        (json!({ "model": "encoder", "input": [-1] }), 400),
        (json!({ "model": "encoder", "input": "one", "dimensions": 1 }), 400),
        (json!({ "model": "encoder", "input": "one", "encoding_format": "hex" }), 400),
        (json!({ "model": "encoder", "input": vec!["one"; 2049] }), 400),
        (json!({ "model": "nope", "input": "one" }), 404),
    ];
    for (body, status) in cases {
        let answer = front.post("/v1/embeddings", body.to_string().into()).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert!(answer.body["error"]["message"].is_string() && answer.body["error"]["type"] == "invalid_request_error");
    }
    assert!(replica.batches.lock().is_empty());
    drop(folder);
}

#[tokio::test]
async fn a_tokenizer_that_cannot_be_read_is_named_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let replica = Replica::open("r1");
    let world = World::start(vec![encoder(vec![replica.endpoint()], &folder.path().join("tokenizer.json"))]);
    let front = Front::start(&world, &[]).await;
    let ask = || front.post("/v1/embeddings", json!({ "model": "encoder", "input": "one" }).to_string().into());
    let answer = ask().await;
    assert_eq!(answer.status, 500);
    assert!(answer.error().contains("tokenizer.json"), "{answer:?}");
    tokenizer(&folder);
    assert_eq!(ask().await.status, 200);
}
