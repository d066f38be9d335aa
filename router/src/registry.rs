//! The models in use: a snapshot that handlers read without a lock and a new configuration replaces.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tidegate_api::control::{ModelConfig, ModelDemand};

use crate::model::Model;
use crate::model::spec::ModelSpec;
use crate::queue::{Handle, Shared};
use crate::tokenize::TokenizerSlot;

type Models = BTreeMap<String, Arc<Model>>;

/// Models by name.
#[derive(Debug)]
pub struct Registry {
    models: ArcSwap<Models>,
    /// Held while a configuration is applied, so that two never mix.
    applying: Mutex<()>,
    shared: Shared,
}

impl Registry {
    /// Without models.
    pub fn new(shared: Shared) -> Self {
        Self { models: ArcSwap::default(), applying: Mutex::new(()), shared }
    }

    /// A model by name.
    pub fn get(&self, name: &str) -> Option<Arc<Model>> {
        self.models.load().get(name).cloned()
    }

    /// All models in the order of their names.
    pub fn all(&self) -> Vec<Arc<Model>> {
        self.models.load().values().cloned().collect()
    }

    /// Replaces all models. One that is malformed is left out, or stays as it was.
    pub fn apply(&self, configs: Vec<ModelConfig>) {
        let _applying = self.applying.lock();
        let old = self.models.load_full();
        let mut new = Models::new();
        for config in configs {
            let name = config.name.clone();
            let known = old.get(&name);
            match ModelSpec::try_from(config) {
                Ok(spec) => drop(new.insert(name, Arc::new(self.model(Arc::new(spec), known)))),
                Err(e) => {
                    tracing::error!(model = name, "the model's configuration cannot be used: {e}");
                    new.extend(known.map(|model| (name, model.clone())));
                }
            }
        }
        for (name, model) in old.iter() {
            if new.get(name).is_none_or(|kept| !kept.queue.is(&model.queue)) {
                model.queue.close();
            }
        }
        self.models.store(Arc::new(new));
    }

    /// Removes all models: their owners finish what is in flight and end.
    pub fn clear(&self) {
        self.apply(Vec::new());
    }

    /// Every model's demand now.
    pub fn demand(&self) -> Vec<ModelDemand> {
        let now = self.shared.clock.now();
        self.models.load().values().map(|model| model.queue.stats.demand(now)).collect()
    }

    fn model(&self, spec: Arc<ModelSpec>, known: Option<&Arc<Model>>) -> Model {
        // Those who wait were checked against the old tensors: other tensors are another queue.
        let same = known.filter(|m| m.spec.inputs == spec.inputs && m.spec.outputs == spec.outputs);
        let queue = match same {
            Some(model) => {
                model.queue.configure(spec.clone());
                model.queue.clone()
            }
            None => Handle::start(spec.clone(), &self.shared),
        };
        let tokenizer = spec.embedding.as_ref().map(|embedding| {
            let kept = known.and_then(|m| m.tokenizer.clone()).filter(|slot| slot.is_for(embedding));
            kept.unwrap_or_else(|| Arc::new(TokenizerSlot::new(embedding)))
        });
        Model { spec, queue, tokenizer }
    }
}
