//! Short sentences over `OpenAI` embeddings. The same sentence must always get the same vector, so an
//! answer that belongs to another row of the batch does not pass.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::Deserialize;

/// Batched answers differ from single ones in the last bits (padding changes the order of sums);
/// different sentences of this generator are much further apart.
const SAME_COSINE: f32 = 0.9999;

const WHO: [&str; 8] = [
    "the harbour master",
    "a young sailor",
    "my neighbour",
    "the captain",
    "our teacher",
    "an old friend",
    "the cook",
    "a visitor",
];
const DOES: [&str; 8] = ["watches", "paints", "forgets", "repairs", "sells", "follows", "describes", "carries"];
const WHAT: [&str; 8] = [
    "the wooden boat",
    "a red lantern",
    "the morning tide",
    "two empty baskets",
    "the lighthouse",
    "a torn map",
    "the iron gate",
    "fresh bread",
];
const WHERE: [&str; 8] = [
    "at dawn",
    "near the quay",
    "in heavy rain",
    "after lunch",
    "without a word",
    "by the river",
    "every winter",
    "for the children",
];

/// `count` sentences of 7 to 12 words: about 8 to 14 tokens.
pub(crate) fn sentences(count: usize, seed: u64) -> Vec<String> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count).map(|_| sentence(&mut random)).collect()
}

fn sentence(random: &mut impl Rng) -> String {
    [&WHO, &DOES, &WHAT, &WHERE].map(|words| words.choose(random).copied().unwrap_or_default()).join(" ")
}

/// A request for one embedding, in base64 as the official client asks for it.
pub(crate) fn body(model: &str, text: &str) -> Bytes {
    serde_json::json!({"model": model, "input": text, "encoding_format": "base64"}).to_string().into()
}

#[derive(Deserialize)]
struct Response {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    embedding: String,
}

/// What right answers look like, and the first vector of each sentence.
pub(crate) struct Answers {
    dimensions: usize,
    first: Mutex<Vec<Option<Vec<f32>>>>,
}

impl Answers {
    pub(crate) fn new(dimensions: usize, sentences: usize) -> Self {
        Self { dimensions, first: Mutex::new(vec![None; sentences]) }
    }

    pub(crate) fn check(&self, pick: usize, body: &[u8]) -> Result<(), String> {
        let vector = decode(body)?;
        if vector.len() != self.dimensions {
            return Err(format!("{} dimensions, not {}", vector.len(), self.dimensions));
        }
        let norm = dot(&vector, &vector).sqrt();
        if (norm - 1.0).abs() > 1e-3 {
            return Err(format!("length {norm}, not 1"));
        }
        match self.first.lock().get_mut(pick) {
            Some(Some(first)) if dot(first, &vector) < SAME_COSINE => {
                Err(format!("another vector than before for the same text (cosine {})", dot(first, &vector)))
            }
            Some(empty @ None) => {
                *empty = Some(vector);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn decode(body: &[u8]) -> Result<Vec<f32>, String> {
    let response: Response = serde_json::from_slice(body).map_err(|e| format!("not an embeddings response: {e}"))?;
    let [item] = response.data.as_slice() else {
        return Err(format!("{} embeddings for one text", response.data.len()));
    };
    let bytes = STANDARD.decode(&item.embedding).map_err(|e| format!("not base64: {e}"))?;
    let (numbers, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(format!("{} bytes are no 32-bit numbers", bytes.len()));
    }
    Ok(numbers.iter().map(|number| f32::from_le_bytes(*number)).collect())
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(vector: &[f32]) -> Vec<u8> {
        let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
        serde_json::json!({"object": "list", "data": [{"index": 0, "embedding": STANDARD.encode(bytes)}]})
            .to_string()
            .into_bytes()
    }

    #[test]
    fn sentences_are_short_seeded_and_different() {
        let texts = sentences(64, 7);
        assert_eq!(texts, sentences(64, 7));
        assert_ne!(texts, sentences(64, 8));
        assert!(texts.iter().all(|text| (6..=12).contains(&text.split(' ').count())), "{texts:?}");
        assert!(texts.iter().collect::<std::collections::BTreeSet<_>>().len() > 60);
    }

    #[test]
    fn a_vector_of_length_one_passes_and_passes_again() {
        let answers = Answers::new(2, 3);
        assert_eq!(answers.check(0, &response(&[0.6, 0.8])), Ok(()));
        assert_eq!(answers.check(0, &response(&[0.6, 0.8])), Ok(()));
    }

    #[test]
    fn the_vector_of_another_sentence_does_not() {
        let answers = Answers::new(2, 3);
        assert_eq!(answers.check(0, &response(&[0.6, 0.8])), Ok(()));
        assert_eq!(answers.check(1, &response(&[0.8, 0.6])), Ok(()));
        assert!(answers.check(0, &response(&[0.8, 0.6])).unwrap_err().contains("another vector"));
    }

    #[test]
    fn wrong_lengths_dimensions_and_bodies_do_not() {
        let answers = Answers::new(2, 3);
        assert!(answers.check(0, &response(&[0.6, 0.6])).unwrap_err().contains("length"));
        assert!(answers.check(0, &response(&[1.0])).unwrap_err().contains("dimensions"));
        assert!(answers.check(0, br#"{"data":[]}"#).is_err());
        assert!(answers.check(0, br#"{"data":[{"embedding":"AAA="}]}"#).is_err());
        assert!(answers.check(0, b"<html>").is_err());
    }
}
