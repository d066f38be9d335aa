//! Ports of the node that a pod holds.
//!
//! The engine does not know ports. It is told by a label of the node that one is taken, and pods that want it stay away from
//! such nodes by their affinity. No label of Kubernetes is like these: a colon is no character of theirs.

use std::fmt;

use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec};
use tidegate_core::ask::Term;
use tidegate_core::labels::{Requirement, Rule};

/// What an address says that means all of them.
const ANY: &str = "0.0.0.0";

/// One port, on one of the node's addresses or on all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    port: i32,
    protocol: Box<str>,
    /// `None`: all of the node's.
    address: Option<Box<str>>,
}

impl HostPort {
    /// All of a pod. Init containers' count if these stay; on the node's own network every port is the node's.
    pub fn all(spec: &PodSpec) -> Vec<Self> {
        let on_node = spec.host_network == Some(true);
        let stays = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(stays));
        let ports = containers.flat_map(|container| container.ports.iter().flatten());
        let mut all: Vec<Self> = ports.filter_map(|port| Self::of(port, on_node)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn of(port: &ContainerPort, on_node: bool) -> Option<Self> {
        let number = port.host_port.filter(|port| *port > 0).or(on_node.then_some(port.container_port))?;
        let protocol = port.protocol.as_deref().filter(|protocol| !protocol.is_empty()).unwrap_or("TCP");
        let address = port.host_ip.as_deref().filter(|address| !address.is_empty() && *address != ANY);
        Some(Self { port: number, protocol: Box::from(protocol), address: address.map(Box::from) })
    }

    /// Whether one node cannot have both.
    pub fn collides(&self, other: &Self) -> bool {
        let both = self.address.as_ref().zip(other.address.as_ref());
        self.port == other.port && self.protocol == other.protocol && both.is_none_or(|(one, other)| one == other)
    }

    /// The label of nodes where it is taken.
    pub fn mark(&self) -> String {
        format!("host-port:{self}")
    }

    /// Nodes where none of them is taken; `None`: all will do.
    pub fn term(all: &[Self]) -> Option<Term> {
        let free = |port: &Self| Requirement { key: port.mark(), rule: Rule::DoesNotExist };
        (!all.is_empty()).then(|| Term(all.iter().map(free).collect()))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { port, protocol, address } = self;
        match address {
            None => write!(f, "{port}/{protocol}"),
            Some(address) => write!(f, "{port}/{protocol} of {address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ports(spec: Value) -> Vec<String> {
        HostPort::all(&serde_json::from_value(spec).unwrap()).iter().map(ToString::to_string).collect()
    }

    #[expect(clippy::needless_pass_by_value, reason = "tests write JSON in place")]
    fn one(port: Value) -> HostPort {
        let spec = json!({"containers": [{"name": "c", "ports": [port]}]});
        HostPort::all(&serde_json::from_value(spec).unwrap()).remove(0)
    }

    #[test]
    fn ports_of_the_node_are_found_as_kubernetes_finds_them() {
        let web = json!({"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]});
        let udp = json!({"name": "d", "ports": [{"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "10.0.0.1"}]});
        assert_eq!(ports(json!({"containers": [web, udp]})), ["53/UDP of 10.0.0.1", "8080/TCP"]);
        assert_eq!(ports(json!({"containers": [web], "hostNetwork": true})), ["81/TCP", "8080/TCP"]);
        let mut stays = udp.clone();
        stays["restartPolicy"] = json!("Always");
        let init = json!({"containers": [{"name": "c"}], "initContainers": [web, stays]});
        assert_eq!(ports(init), ["53/UDP of 10.0.0.1"], "an init container that ends holds none beside the others");
        assert!(ports(json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 0}]}]})).is_empty());
    }

    #[test]
    fn a_port_collides_on_the_same_address_or_when_one_means_all() {
        let at = |ip: &str| one(json!({"containerPort": 1, "hostPort": 80, "hostIP": ip}));
        assert!(
            at("").collides(&at("10.0.0.1"))
                && at("10.0.0.1").collides(&at("0.0.0.0"))
                && at("10.0.0.1").collides(&at("10.0.0.1"))
        );
        assert!(!at("10.0.0.1").collides(&at("10.0.0.2")));
        assert!(!at("").collides(&one(json!({"containerPort": 1, "hostPort": 80, "protocol": "UDP"}))));
        assert!(!at("").collides(&one(json!({"containerPort": 1, "hostPort": 81}))));
    }
}
