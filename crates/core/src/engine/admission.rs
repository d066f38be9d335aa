//! Who may submit where: a queue, and each above it, may take only work of the namespaces that it selects by their labels.
//! Work that runs already stays when a namespace or a queue changes.

use crate::names::{Namespace, QueueName};
use crate::state::State;

use super::desk::Desk;

/// Why work of a namespace may not be submitted to a queue; `None`: it may.
pub(super) fn refuses(state: &State, desk: &Desk, queue: &QueueName, namespace: &Namespace) -> Option<String> {
    let tree = &desk.books.tree;
    let node = tree.node(queue).filter(|node| desk.rules.selects_namespaces(*node))?;
    let mut path = tree.path(node).filter_map(|node| tree.queue(node)).map(|queue| &queue.name);
    path.find_map(|name| {
        let selector = state.queues.get(name)?.namespaces.as_ref()?;
        let Some(labels) = state.namespaces.get(namespace) else {
            return Some(format!(
                "queue {name} takes only work of namespaces that its `namespaceSelector` selects, and nothing is known of namespace `{namespace}`: create it, or submit to another queue"
            ));
        };
        selector.refuses(labels).map(|missing| {
            format!(
                "queue {name} does not take work of namespace `{namespace}`, which its `namespaceSelector` does not select (it asks for {missing}): label the namespace so, or submit to another queue"
            )
        })
    })
}
