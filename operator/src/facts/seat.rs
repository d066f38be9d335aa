//! Seats: places of an object that was suspended and was started. Its pods take them as they come.
//!
//! The object says where its seats are ([`Seats`]), each of its pods whose seat it takes ([`SeatOf`]): so whoever leads next knows
//! both, and the template of the pods is the same at every start.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use tidegate_api::labels;
use tidegate_core::names::NodeName;
use tidegate_core::plan::Placed;
use tidegate_core::time::At;

use super::gang::MOST_GANG;

/// By which others mean a single node.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// Bytes of the annotation: the API server takes 256 KiB of all annotations of an object.
const MOST_BYTES: usize = 128 * 1024;

/// Whose seat a pod takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatOf {
    /// `KIND.GROUP/NAMESPACE/NAME`.
    pub object: String,
    pub uid: String,
    /// Its template, by number.
    pub group: u16,
    /// It waits to be told its node.
    pub gated: bool,
    /// Where it was told to go.
    pub hostname: Option<String>,
}

impl SeatOf {
    /// What the pod says; without sense in it, it is a pod like any other.
    pub fn of(pod: &Pod, spec: &PodSpec) -> Option<Box<Self>> {
        let said = |name: &str| pod.metadata.annotations.as_ref()?.get(name).map(String::as_str);
        let mut parts = said(labels::SEAT_OF)?.splitn(3, '/');
        let (kind, name, uid) = (parts.next()?, parts.next()?, parts.next()?);
        let gated = spec.scheduling_gates.iter().flatten().any(|gate| gate.name == labels::SEAT_GATE);
        let hostname = spec.node_selector.as_ref().and_then(|all| all.get(HOSTNAME)).filter(|_| !gated);
        Some(Box::new(Self {
            object: format!("{kind}/{}/{name}", pod.namespace().unwrap_or_default()),
            uid: uid.to_owned(),
            group: said(labels::GROUP)?.parse().ok()?,
            gated,
            hostname: hostname.cloned(),
        }))
    }
}

/// Where the seats of one start are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seats {
    pub attempt: u32,
    /// In milliseconds since 1970.
    pub since: u64,
    /// By node the seats of each group.
    nodes: BTreeMap<String, Vec<u32>>,
}

impl Seats {
    /// Of these workers.
    pub fn of<'a>(attempt: u32, since: At, workers: impl Iterator<Item = &'a Placed>) -> Self {
        let mut nodes = BTreeMap::<String, Vec<u32>>::new();
        for worker in workers {
            let counts = nodes.entry(worker.node.to_string()).or_default();
            let group = usize::from(worker.group);
            counts.resize(counts.len().max(group + 1), 0);
            if let Some(count) = counts.get_mut(group) {
                *count += 1;
            }
        }
        Self { attempt, since: since.0, nodes }
    }

    /// As the object has them, if that makes sense.
    pub fn read(text: &str) -> Option<Self> {
        let seats: Self = serde_json::from_str(text).ok()?;
        let count: u64 = seats.nodes.values().flatten().map(|count| u64::from(*count)).sum();
        let groups = seats.nodes.values().map(Vec::len).max().unwrap_or(0);
        (count <= u64::from(MOST_GANG) && u16::try_from(groups).is_ok()).then_some(seats)
    }

    /// As they are written on the object, if it can hold them.
    pub fn text(&self) -> Result<String, String> {
        // A plain structure, which JSON can say.
        let text = serde_json::to_string(self).unwrap_or_default();
        let (long, nodes) = (text.len(), self.nodes.len());
        if long > MOST_BYTES {
            return Err(format!(
                "its seats on {nodes} nodes are {long} bytes of text, and an object can hold {MOST_BYTES}: divide it into several"
            ));
        }
        Ok(text)
    }

    /// One by one.
    pub fn placed(&self) -> Vec<Placed> {
        let mut all = Vec::new();
        for (node, counts) in &self.nodes {
            for (group, count) in (0_u16..).zip(counts) {
                let seat = Placed { group, node: NodeName::from(node.as_str()), devices: Vec::new(), slices: 0 };
                all.extend(std::iter::repeat_n(seat, *count as usize));
            }
        }
        all
    }

    /// For people.
    pub fn words(&self) -> String {
        let of = |(node, counts): (&String, &Vec<u32>)| format!("{node} ({})", counts.iter().sum::<u32>());
        self.nodes.iter().map(of).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn worker(node: &str, group: u16) -> Placed {
        Placed { group, node: node.into(), devices: Vec::new(), slices: 0 }
    }

    #[test]
    fn seats_are_read_as_they_were_written() {
        let workers = [worker("n1", 0), worker("n1", 0), worker("n1", 1), worker("n2", 1)];
        let seats = Seats::of(3, At(7), workers.iter());
        assert_eq!(seats.text().unwrap(), r#"{"attempt":3,"since":7,"nodes":{"n1":[2,1],"n2":[0,1]}}"#);
        assert_eq!(Seats::read(&seats.text().unwrap()), Some(seats.clone()));
        assert_eq!((seats.placed(), seats.words().as_str()), (workers.to_vec(), "n1 (3), n2 (1)"));
    }

    #[test]
    fn seats_without_sense_or_bound_are_none() {
        assert_eq!(Seats::read("n1=2"), None);
        assert_eq!(Seats::read(r#"{"attempt":1,"since":1,"nodes":{"n1":[4000000000]}}"#), None);
        let many: Vec<Placed> = (0..10_000).map(|number| worker(&format!("node-{number:09}"), 0)).collect();
        assert!(Seats::of(1, At(1), many.iter()).text().unwrap_err().contains("10000 nodes"));
    }

    #[test]
    fn a_pod_says_whose_seat_it_takes() {
        let of = |pod: Value| {
            let pod: Pod = serde_json::from_value(pod).unwrap();
            SeatOf::of(&pod, pod.spec.as_ref().unwrap())
        };
        let annotations = json!({labels::SEAT_OF: "Job.batch/night/u-1", labels::GROUP: "2"});
        let spec = json!({"containers": [], "schedulingGates": [{"name": labels::SEAT_GATE}], "nodeSelector": {HOSTNAME: "n1"}});
        let seat = of(json!({"metadata": {"namespace": "team", "name": "p", "annotations": annotations}, "spec": spec})).unwrap();
        assert_eq!((seat.object.as_str(), seat.uid.as_str(), seat.group), ("Job.batch/team/night", "u-1", 2));
        assert_eq!((seat.gated, seat.hostname), (true, None), "its own wish is no order");
        let told = json!({"containers": [], "nodeSelector": {HOSTNAME: "n1"}});
        let seat = of(json!({"metadata": {"name": "p", "annotations": annotations}, "spec": told})).unwrap();
        assert_eq!((seat.gated, seat.hostname.as_deref()), (false, Some("n1")));
        for wrong in [json!({}), json!({labels::SEAT_OF: "night"}), json!({labels::SEAT_OF: "a/b/c", labels::GROUP: "x"})] {
            assert_eq!(of(json!({"metadata": {"annotations": wrong}, "spec": {"containers": []}})), None);
        }
    }
}
