//! Classes of priority: Kubernetes' and Kueue's, which both are a name for a number.

use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::ResourceExt;
use kube::api::DynamicObject;

use super::beside;

/// A class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriorityFacts {
    pub name: String,
    pub value: i32,
    /// Of pods that name none.
    pub is_default: bool,
}

impl PriorityFacts {
    /// What the object says.
    pub fn of(class: &PriorityClass) -> Self {
        Self { name: class.name_any(), value: class.value.unwrap_or(0), is_default: class.global_default == Some(true) }
    }

    /// What a `WorkloadPriorityClass` of Kueue's says.
    pub fn of_kueue(class: &DynamicObject) -> Self {
        let value = class.data.get("value").and_then(serde_json::Value::as_i64).and_then(|value| i32::try_from(value).ok());
        Self { name: class.name_any(), value: value.unwrap_or(0), is_default: false }
    }
}

/// A `LocalQueue` of Kueue's: which ClusterQueue stands behind a name in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalQueueFacts {
    pub key: String,
    pub cluster_queue: String,
}

impl LocalQueueFacts {
    /// What the object says.
    pub fn of(queue: &DynamicObject) -> Self {
        let named = queue.data.pointer("/spec/clusterQueue").and_then(serde_json::Value::as_str).unwrap_or_default();
        Self { key: beside::key(&queue.namespace().unwrap_or_default(), &queue.name_any()), cluster_queue: named.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes_and_queues_say_what_stands_behind_a_name() {
        let class = PriorityFacts::of(
            &serde_json::from_value(json!({"metadata": {"name": "high"}, "value": 10, "globalDefault": true})).unwrap(),
        );
        assert_eq!(class, PriorityFacts { name: "high".to_owned(), value: 10, is_default: true });
        let kueue = json!({"metadata": {"name": "high"}, "value": 7});
        assert_eq!(PriorityFacts::of_kueue(&serde_json::from_value(kueue).unwrap()).value, 7);
        let queue = json!({"metadata": {"namespace": "team", "name": "main"}, "spec": {"clusterQueue": "team.a"}});
        let queue = LocalQueueFacts::of(&serde_json::from_value(queue).unwrap());
        assert_eq!((queue.key.as_str(), queue.cluster_queue.as_str()), ("team/main", "team.a"));
    }
}
