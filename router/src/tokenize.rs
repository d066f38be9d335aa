//! Text to token ids, off the async runtime and a bounded number of texts at a time.

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use tokenizers::{Tokenizer, TruncationParams};
use tokio::sync::{OnceCell, Semaphore};

use crate::model::spec::EmbeddingSpec;

/// Why there are no tokens.
#[derive(Debug, Error)]
pub enum Error {
    #[error("load the tokenizer {path}: {source}")]
    Load { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("tokenize: {0}")]
    Encode(Box<dyn std::error::Error + Send + Sync>),
    #[error("the tokenizer pool is closed")]
    Closed,
}

/// How many tokenizers may run at once.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Semaphore>);

impl Default for Pool {
    /// One for each core: tokenizing is pure computation.
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))))
    }
}

impl Pool {
    async fn run<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, Error> + Send + 'static,
    {
        let _permit = self.0.acquire().await.map_err(|_| Error::Closed)?;
        tokio::task::spawn_blocking(work).await.map_err(|e| Error::Encode(e.into()))?
    }
}

/// A model's tokenizer, loaded when it is first needed. A failed load is tried again by the next request.
#[derive(Debug)]
pub struct TokenizerSlot {
    spec: EmbeddingSpec,
    loaded: OnceCell<Arc<Tokenizer>>,
}

impl TokenizerSlot {
    /// Not loaded yet.
    pub fn new(spec: &EmbeddingSpec) -> Self {
        Self { spec: spec.clone(), loaded: OnceCell::new() }
    }

    /// Whether this is the tokenizer that `spec` asks for.
    pub fn is_for(&self, spec: &EmbeddingSpec) -> bool {
        self.spec == *spec
    }

    /// Longest row in tokens.
    pub fn max_tokens(&self) -> usize {
        self.spec.max_tokens
    }

    /// Ids for each text with the special tokens, cut to the model's length.
    pub async fn encode(&self, pool: &Pool, texts: Vec<String>) -> Result<Vec<Vec<u32>>, Error> {
        let tokenizer = self.tokenizer(pool).await?;
        let encode = move || {
            let ids = |text: String| Ok(tokenizer.encode_fast(text, true).map_err(Error::Encode)?.get_ids().to_vec());
            texts.into_iter().map(ids).collect()
        };
        pool.run(encode).await
    }

    /// Ids from 0 to below this are known.
    pub async fn vocabulary(&self, pool: &Pool) -> Result<usize, Error> {
        Ok(self.tokenizer(pool).await?.get_vocab_size(true))
    }

    async fn tokenizer(&self, pool: &Pool) -> Result<Arc<Tokenizer>, Error> {
        let load = || async {
            let spec = self.spec.clone();
            pool.run(move || load(&spec)).await
        };
        self.loaded.get_or_try_init(load).await.cloned()
    }
}

fn load(spec: &EmbeddingSpec) -> Result<Arc<Tokenizer>, Error> {
    let failed = |source| Error::Load { path: spec.tokenizer.clone(), source };
    let mut tokenizer = Tokenizer::from_file(&spec.tokenizer).map_err(failed)?;
    // The batcher pads, and only to the longest row of a batch.
    tokenizer.with_padding(None);
    let truncation = TruncationParams { max_length: spec.max_tokens, ..TruncationParams::default() };
    tokenizer.with_truncation(Some(truncation)).map_err(failed)?;
    Ok(Arc::new(tokenizer))
}
