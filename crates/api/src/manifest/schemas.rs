//! The schemas of the kinds with their rules compiled, made once: that takes far longer than to check a document.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use kube::CustomResourceExt;
use kube::core::cel::{CompiledSchema, compile_schema};
use serde_json::Value;

use crate::kinds;

/// What an API server checks of one kind.
pub struct Schema {
    /// Of `spec`.
    pub spec: Value,
    /// CEL rules of all fields.
    pub rules: CompiledSchema,
}

/// By the name of the definition.
static SCHEMAS: LazyLock<BTreeMap<String, Schema>> = LazyLock::new(|| {
    let schemas = kinds::definitions().into_iter().filter_map(|definition| {
        let name = definition.metadata.name.clone()?;
        let definition = serde_json::to_value(definition).ok()?;
        let mut schema = definition.pointer("/spec/versions/0/schema/openAPIV3Schema")?.clone();
        // Those of the object as a whole are about its name, which a reader of files checks by itself, and about what was before.
        schema.as_object_mut()?.remove("x-kubernetes-validations");
        let spec = schema.pointer("/properties/spec")?.clone();
        Some((name, Schema { spec, rules: compile_schema(&schema) }))
    });
    schemas.collect()
});

/// The schema of a kind; none only if it is missing in [`kinds::definitions`].
pub fn of<K: CustomResourceExt>() -> Option<&'static Schema> {
    SCHEMAS.get(K::crd_name())
}
