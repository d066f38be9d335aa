//! The objects that were applied, by kind and name.

use std::collections::BTreeMap;

use tidegate_api::kinds::{ModelSpec, PoolSpec, TrainingJobSpec};
use tidegate_api::manifest::{self, Object};
use tidegate_runtime::ledger::ObjectRow;

use crate::manifests::Sourced;

/// An object as it is kept.
#[derive(Clone, Debug)]
pub struct Stored {
    pub object: Object,
    pub dir: String,
    pub generation: u64,
    /// As JSON: two applications of the same text are one.
    pub document: String,
}

/// All objects.
#[derive(Clone, Debug, Default)]
pub struct Objects(BTreeMap<(String, String), Stored>);

/// What applying an object changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Created,
    Configured,
    Unchanged,
}

impl Change {
    /// As the command line says it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        }
    }
}

impl Objects {
    /// The objects of the ledger; those that this version cannot read any more are told by name.
    pub fn load(rows: &[ObjectRow]) -> (Self, Vec<String>) {
        let mut objects = Self::default();
        let mut unreadable = Vec::new();
        for row in rows {
            let Some(object) = manifest::parse(&row.document, "ledger").ok().and_then(|mut all| all.pop()) else {
                unreadable.push(format!("{}/{}", row.kind, row.name));
                continue;
            };
            let stored =
                Stored { object, dir: row.manifest_dir.clone(), generation: row.generation, document: row.document.clone() };
            objects.0.insert((row.kind.clone(), row.name.clone()), stored);
        }
        (objects, unreadable)
    }

    /// Puts an object; what changed, and the row to keep if anything did.
    pub fn put(&mut self, sourced: &Sourced, at_ms: u64) -> Result<(Change, Option<ObjectRow>), serde_json::Error> {
        let (kind, name) = (sourced.object.kind().to_owned(), sourced.object.name().to_owned());
        let document = sourced.object.to_json()?;
        let key = (kind.clone(), name.clone());
        let known = self.0.get(&key);
        if known.is_some_and(|known| known.document == document) {
            return Ok((Change::Unchanged, None));
        }
        let change = if known.is_some() { Change::Configured } else { Change::Created };
        let generation = known.map_or(0, |known| known.generation) + 1;
        let dir = sourced.dir.display().to_string();
        let row = ObjectRow { kind, name, manifest_dir: dir.clone(), document: document.clone(), generation, applied_ms: at_ms };
        self.0.insert(key, Stored { object: sourced.object.clone(), dir, generation, document });
        Ok((change, Some(row)))
    }

    /// Removes an object, if it is there.
    pub fn remove(&mut self, kind: &str, name: &str) -> Option<Stored> {
        self.0.remove(&(kind.to_owned(), name.to_owned()))
    }

    /// Whether there is such an object.
    pub fn contains(&self, kind: &str, name: &str) -> bool {
        self.0.contains_key(&(kind.to_owned(), name.to_owned()))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Stored> {
        self.0.values()
    }

    /// The pool's specification; the defaults if there is none.
    pub fn pool(&self) -> PoolSpec {
        let pool =
            self.iter().find_map(|stored| if let Object::Pool(pool) = &stored.object { Some(pool.spec.clone()) } else { None });
        pool.unwrap_or_default()
    }

    /// A job's specification.
    pub fn job(&self, name: &str) -> Option<&TrainingJobSpec> {
        match &self.0.get(&("TrainingJob".to_owned(), name.to_owned()))?.object {
            Object::TrainingJob(job) => Some(&job.spec),
            Object::Pool(_) | Object::Queue(_) | Object::Model(_) => None,
        }
    }

    /// A model's specification and generation.
    pub fn model(&self, name: &str) -> Option<(&ModelSpec, u64)> {
        let stored = self.0.get(&("Model".to_owned(), name.to_owned()))?;
        match &stored.object {
            Object::Model(model) => Some((&model.spec, stored.generation)),
            Object::Pool(_) | Object::Queue(_) | Object::TrainingJob(_) => None,
        }
    }
}
