//! Text to token ids, off the async runtime and a bounded number of texts at a time.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use thiserror::Error;
use tokenizers::{Tokenizer, TruncationParams};
use tokio::sync::{Mutex, Semaphore};

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
        let permit = Arc::clone(&self.0).acquire_owned().await.map_err(|_| Error::Closed)?;
        // Work that nobody waits for any more goes on: until it ends it is one of those that run.
        let counted = move || {
            let _permit = permit;
            work()
        };
        tokio::task::spawn_blocking(counted).await.map_err(|e| Error::Encode(e.into()))?
    }
}

/// A model's tokenizer, loaded when it is first needed. A failed load is tried again by the next request.
#[derive(Debug)]
pub struct TokenizerSlot {
    spec: EmbeddingSpec,
    loaded: Arc<OnceLock<Arc<Tokenizer>>>,
    /// Held by whoever loads it.
    loading: Arc<Mutex<()>>,
}

impl TokenizerSlot {
    /// Not loaded yet.
    pub fn new(spec: &EmbeddingSpec) -> Self {
        Self { spec: spec.clone(), loaded: Arc::default(), loading: Arc::default() }
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
        if let Some(tokenizer) = self.loaded.get() {
            return Ok(Arc::clone(tokenizer));
        }
        let turn = Arc::clone(&self.loading).lock_owned().await;
        if let Some(tokenizer) = self.loaded.get() {
            return Ok(Arc::clone(tokenizer));
        }
        let (loaded, spec) = (Arc::clone(&self.loaded), self.spec.clone());
        // What has begun to load is loaded for all who wait, also when whoever asked first has left.
        let load = move || {
            let _turn = turn;
            let tokenizer = load(&spec)?;
            Ok(Arc::clone(loaded.get_or_init(|| tokenizer)))
        };
        pool.run(load).await
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use tokenizers::models::wordlevel::WordLevel;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn pool(size: usize) -> Pool {
        Pool(Arc::new(Semaphore::new(size)))
    }

    #[tokio::test]
    async fn a_tokenizer_is_loaded_though_who_asked_first_has_left() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokenizer.json");
        Tokenizer::new(WordLevel::default()).save(&file, false).unwrap();
        let slot = TokenizerSlot::new(&EmbeddingSpec { tokenizer: file, max_tokens: 8 });
        let pool = pool(1);
        tokio::select! {
            biased;
            _ = slot.vocabulary(&pool) => {}
            () = std::future::ready(()) => {}
        }
        tokio::time::timeout(SOON, async {
            while slot.loaded.get().is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_counts_until_it_ends() {
        let pool = pool(1);
        let (begun, begins) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel::<()>();
        let work = pool.run(move || {
            begun.send(()).ok();
            goes_on.recv().ok();
            Ok(())
        });
        let mut work = Box::pin(work);
        assert!(tokio::time::timeout(Duration::from_millis(1), &mut work).await.is_err());
        begins.recv_timeout(SOON).unwrap();
        drop(work);
        assert_eq!(pool.0.available_permits(), 0);
        go_on.send(()).unwrap();
        pool.run(|| Ok(())).await.unwrap();
    }
}
