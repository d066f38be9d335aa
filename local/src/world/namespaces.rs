//! Namespaces of one box: nobody makes them. One is there while an object names it, with the one label that Kubernetes
//! gives every namespace: its name.

use tidegate_api::manifest::Object;
use tidegate_core::Event;
use tidegate_core::labels;
use tidegate_core::names::Namespace;

use super::World;

impl World {
    /// Tells the engine of the namespace of an object that submits work.
    pub(super) fn tell_namespace(&mut self, object: &Object) {
        let name = Namespace::from(object.namespace());
        let labels = labels::of_namespace(&name);
        self.tell(Event::NamespaceSeen { name, labels });
    }

    /// Forgets a namespace in which nothing is left.
    pub(super) fn retire_namespace(&mut self, name: &str) {
        if !self.objects.iter().any(|stored| stored.object.is_work() && stored.object.namespace() == name) {
            self.tell(Event::NamespaceGone(Namespace::from(name)));
        }
    }
}
