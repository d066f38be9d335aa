//! Where nodes stand: domains of each level (block, rack, ...), from node labels.

use std::collections::BTreeMap;

use crate::node::Node;

/// A level of the topology: an index into the policy's label keys, or the node itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Label(usize),
    Node,
    /// Devices of one node that are joined by `NVLink`.
    Island,
}

/// A node outside every domain of a level.
pub const NOWHERE: u32 = u32::MAX;

/// Domains by level.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    keys: Vec<String>,
    levels: Vec<Domains>,
}

/// The domains of one level.
#[derive(Clone, Debug, Default)]
struct Domains {
    /// By the path of label values from the widest level down.
    ids: BTreeMap<Vec<String>, u32>,
    /// Nodes of a domain, ascending.
    nodes: Vec<Vec<u32>>,
    /// Domain by node.
    of: Vec<u32>,
}

impl Topology {
    /// No nodes yet.
    pub fn new(keys: &[String]) -> Self {
        Self { keys: keys.to_vec(), levels: keys.iter().map(|_| Domains::default()).collect() }
    }

    /// How many levels labels make.
    pub fn depth(&self) -> usize {
        self.levels.len()
    }

    /// What a user may name as a level.
    pub fn names(&self) -> Vec<&str> {
        self.keys.iter().map(String::as_str).chain(["node", "island"]).collect()
    }

    /// The level that a user names: a label key, `node` or `island`.
    pub fn level(&self, name: &str) -> Option<Level> {
        match name {
            "node" => Some(Level::Node),
            "island" => Some(Level::Island),
            key => self.keys.iter().position(|known| known == key).map(Level::Label),
        }
    }

    /// The domain of a node.
    pub fn domain(&self, level: usize, node: u32) -> u32 {
        self.levels.get(level).and_then(|domains| domains.of.get(node as usize)).copied().unwrap_or(NOWHERE)
    }

    /// Nodes of a domain.
    pub fn nodes(&self, level: usize, domain: u32) -> &[u32] {
        self.levels.get(level).and_then(|domains| domains.nodes.get(domain as usize)).map_or(&[], Vec::as_slice)
    }

    /// Domains of a level.
    pub fn domains(&self, level: usize) -> u32 {
        self.levels.get(level).map_or(0, |domains| u32::try_from(domains.nodes.len()).unwrap_or(NOWHERE))
    }

    /// Takes in a node's labels; true if it moved.
    pub fn set(&mut self, ix: u32, node: &Node) -> bool {
        let mut path = Vec::new();
        let mut moved = false;
        for (key, domains) in self.keys.iter().zip(&mut self.levels) {
            let value = node.spec.labels.get(key).cloned();
            path.push(value.clone().unwrap_or_default());
            moved |= domains.set(ix, value.is_some().then_some(&path));
        }
        moved
    }

    /// The node's place, for keeping neighbours together: its domain at each level.
    pub fn place(&self, node: u32) -> impl Iterator<Item = u32> {
        (0..self.levels.len()).map(move |level| self.domain(level, node))
    }
}

impl Domains {
    fn set(&mut self, ix: u32, path: Option<&Vec<String>>) -> bool {
        if self.of.len() <= ix as usize {
            self.of.resize(ix as usize + 1, NOWHERE);
        }
        let id = match path {
            None => NOWHERE,
            Some(path) => self.ids.get(path).copied().unwrap_or_else(|| {
                let id = u32::try_from(self.nodes.len()).unwrap_or(NOWHERE);
                self.nodes.push(Vec::new());
                self.ids.insert(path.clone(), id);
                id
            }),
        };
        let was = std::mem::replace(&mut self.of[ix as usize], id);
        if was == id {
            return false;
        }
        if let Some(nodes) = self.nodes.get_mut(was as usize) {
            nodes.retain(|node| *node != ix);
        }
        if let Some(nodes) = self.nodes.get_mut(id as usize) {
            let at = nodes.partition_point(|node| *node < ix);
            nodes.insert(at, ix);
        }
        true
    }
}
