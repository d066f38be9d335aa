//! What pods ask of their nodes after every change, from the objects alone, and how long any node was asked for too much: where the end of
//! what is ours would mend it, and where not, since others ask for too much among themselves.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use tidegate_api::quantity;

/// Amounts of one node: GPUs, thousandths of a core, MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts(pub [u64; 3]);

/// In the order of [`Amounts`].
pub const RESOURCES: [&str; 3] = ["nvidia.com/gpu", "cpu", "memory"];

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub node: Option<String>,
    pub ours: bool,
    pub ended: bool,
    pub asks: Amounts,
}

/// Times that a node was asked for more of something than it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overs {
    pub count: u64,
    pub longest: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Seen {
    /// What each node has.
    has: Amounts,
    pub pods: BTreeMap<String, Known>,
    /// What ours could mend, and what others do among themselves.
    ours: Episodes,
    others: Episodes,
    /// Pods that were seen bound: ours, and the others'.
    pub bound: [u64; 2],
    /// Pods that went since somebody asked.
    gone: Vec<String>,
}

/// Of one cause, by resource.
#[derive(Debug, Default)]
struct Episodes {
    /// Since when a node is asked for too much of a resource.
    open: BTreeMap<(String, usize), Instant>,
    closed: [Overs; 3],
}

impl Episodes {
    fn look(&mut self, node: &str, index: usize, over: bool, at: Instant) {
        let key = (node.to_owned(), index);
        if over {
            self.open.entry(key).or_insert(at);
        } else if let Some(since) = self.open.remove(&key) {
            let Some(overs) = self.closed.get_mut(index) else { return };
            overs.count += 1;
            overs.longest = overs.longest.max(at.duration_since(since));
        }
    }

    /// Those that are not over counted as if they ended now.
    fn until(&self, at: Instant) -> [Overs; 3] {
        let mut all = self.closed;
        for ((_, index), since) in &self.open {
            if let Some(overs) = all.get_mut(*index) {
                overs.count += 1;
                overs.longest = overs.longest.max(at.duration_since(*since));
            }
        }
        all
    }
}

impl Seen {
    pub fn new(has: Amounts) -> Self {
        let (ours, others) = (Episodes::default(), Episodes::default());
        Self { has, pods: BTreeMap::new(), ours, others, bound: [0; 2], gone: Vec::new() }
    }

    /// A pod as it is now.
    pub fn is(&mut self, pod: &Pod, at: Instant) {
        let known = known(pod);
        let was = self.pods.insert(pod.name_any(), known.clone());
        let was_bound = was.as_ref().is_some_and(|was| was.node.is_some());
        if known.node.is_some() && !was_bound {
            self.bound[usize::from(!known.ours)] += 1;
        }
        self.look(was.and_then(|was| was.node), known.node, at);
    }

    /// A pod is gone.
    pub fn gone(&mut self, name: &str, at: Instant) {
        let was = self.pods.remove(name);
        self.gone.extend(was.as_ref().map(|_| name.to_owned()));
        self.look(was.and_then(|was| was.node), None, at);
    }

    /// Pods that went since this was last asked.
    pub fn take_gone(&mut self) -> Vec<String> {
        std::mem::take(&mut self.gone)
    }

    fn look(&mut self, one: Option<String>, other: Option<String>, at: Instant) {
        for node in one.into_iter().chain(other) {
            let (asked, ours) = (self.asked(&node), self.asked_by_ours(&node));
            for (index, ((asked, ours), has)) in asked.0.into_iter().zip(ours.0).zip(self.has.0).enumerate() {
                let over = asked.saturating_sub(has);
                self.ours.look(&node, index, over > 0 && over <= ours, at);
                self.others.look(&node, index, over > ours, at);
            }
        }
    }

    /// What pods that are bound to the node and have not ended ask for.
    pub fn asked(&self, node: &str) -> Amounts {
        self.on(node).fold(Amounts::default(), |sum, pod| sum.plus(pod.asks))
    }

    /// The same of ours.
    pub fn asked_by_ours(&self, node: &str) -> Amounts {
        self.on(node).filter(|pod| pod.ours).fold(Amounts::default(), |sum, pod| sum.plus(pod.asks))
    }

    /// Pods that are bound to the node and have not ended.
    pub fn on(&self, node: &str) -> impl Iterator<Item = &Known> {
        self.pods.values().filter(move |pod| !pod.ended && pod.node.as_deref() == Some(node))
    }

    /// By resource, what the end of ours could mend.
    pub fn overs(&self, at: Instant) -> [Overs; 3] {
        self.ours.until(at)
    }

    /// By resource, what others do among themselves.
    pub fn of_others(&self, at: Instant) -> [Overs; 3] {
        self.others.until(at)
    }

    /// Nodes that are asked for too much now, which ours could mend.
    pub fn still(&self) -> usize {
        self.ours.open.len()
    }
}

impl Amounts {
    pub fn plus(self, other: Self) -> Self {
        let mut sum = self.0.into_iter().zip(other.0).map(|(one, other)| one + other);
        Self(std::array::from_fn(|_| sum.next().unwrap_or_default()))
    }
}

fn known(pod: &Pod) -> Known {
    let spec = pod.spec.as_ref();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let containers = spec.map_or(&[][..], |spec| &spec.containers);
    let asks = containers.iter().map(|container| {
        let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let of = |name: &str, read: fn(&Quantity) -> u64| requests.and_then(|all| all.get(name)).map_or(0, read);
        let [gpu, cpu, memory] = RESOURCES;
        Amounts([of(gpu, quantity::whole), of(cpu, quantity::milli), of(memory, quantity::mib)])
    });
    Known {
        node: spec.and_then(|spec| spec.node_name.clone()),
        ours: spec.and_then(|spec| spec.scheduler_name.as_deref()) == Some("tidegate"),
        ended: matches!(phase, Some("Succeeded" | "Failed")),
        asks: asks.fold(Amounts::default(), Amounts::plus),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, cpu: &str, phase: &str) -> Pod {
        let scheduler = if name == "theirs" { "default-scheduler" } else { "tidegate" };
        let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu, "nvidia.com/gpu": "1"}}});
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"schedulerName": scheduler, "nodeName": "n", "containers": [container]},
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    #[test]
    fn too_much_lasts_from_the_change_that_made_it_to_the_one_that_mends_it() {
        let began = Instant::now();
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        let mut seen = Seen::new(Amounts([2, 4_000, 1_024]));
        seen.is(&pod("a", "3", "Running"), at(0));
        seen.is(&pod("b", "2", "Pending"), at(1));
        seen.is(&pod("b", "2", "Running"), at(2));
        assert_eq!(seen.overs(at(3))[1], Overs { count: 1, longest: Duration::from_secs(2) }, "it is not over");
        seen.is(&pod("a", "3", "Succeeded"), at(4));
        assert_eq!(seen.overs(at(9))[1], Overs { count: 1, longest: Duration::from_secs(3) });
        assert_eq!((seen.overs(at(9))[0], seen.still(), seen.bound), (Overs::default(), 0, [2, 0]));
        seen.is(&pod("c", "3", "Pending"), at(10));
        seen.gone("b", at(11));
        assert_eq!(seen.overs(at(20))[1], Overs { count: 2, longest: Duration::from_secs(3) });
    }

    #[test]
    fn what_others_do_among_themselves_is_not_what_ours_could_mend() {
        let began = Instant::now();
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        let mut seen = Seen::new(Amounts([9, 4_000, 1_024]));
        seen.is(&pod("a", "1", "Running"), at(0));
        seen.is(&pod("theirs", "6", "Running"), at(1));
        assert_eq!((seen.overs(at(2))[1].count, seen.of_others(at(2))[1].count, seen.still()), (0, 1, 0));
        seen.is(&pod("theirs", "4", "Running"), at(3));
        assert_eq!(seen.of_others(at(9))[1], Overs { count: 1, longest: Duration::from_secs(2) });
        assert_eq!(seen.overs(at(9))[1], Overs { count: 1, longest: Duration::from_secs(6) }, "one of ours is enough now");
    }
}
