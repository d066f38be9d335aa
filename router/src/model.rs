//! A model as the router sees it: what it takes and gives, its limits, and the way to its queue.

mod burst;
pub mod spec;
pub mod stats;

use std::sync::Arc;

use crate::queue::Handle;
use crate::tokenize::TokenizerSlot;
use spec::ModelSpec;

/// One served model. Replaced as a whole when its configuration changes; the queue lives on.
#[derive(Debug)]
pub struct Model {
    pub spec: Arc<ModelSpec>,
    pub queue: Handle,
    /// Set for embedding models.
    pub tokenizer: Option<Arc<TokenizerSlot>>,
}
