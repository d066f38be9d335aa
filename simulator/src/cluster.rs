//! The shape of a cluster on the command line: `16x4`, `443x8:V100,520x8:T4`.

use std::fmt;
use std::str::FromStr;

/// Nodes of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeGroup {
    pub nodes: u32,
    /// GPUs on each node, at most 64.
    pub gpus: u32,
    /// GPU class, `GPU` when the shape names none.
    pub class: String,
}

/// Groups of alike nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape(pub Vec<NodeGroup>);

impl Shape {
    /// GPUs of all nodes.
    pub fn gpus(&self) -> u64 {
        self.0.iter().map(|group| u64::from(group.nodes) * u64::from(group.gpus)).sum()
    }
}

/// As it is written on the command line.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, NodeGroup { nodes, gpus, class }) in self.0.iter().enumerate() {
            write!(f, "{}{nodes}x{gpus}:{class}", if at > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let groups: Result<Vec<NodeGroup>, String> = text.split(',').map(group).collect();
        Ok(Self(groups?))
    }
}

fn group(text: &str) -> Result<NodeGroup, String> {
    let wrong =
        |what: &str| format!("cluster shape `{text}`: {what}; write NODESxGPUS or NODESxGPUS:CLASS, for instance 16x4:T4");
    let (shape, class) = text.split_once(':').unwrap_or((text, "GPU"));
    let (nodes, gpus) = shape.split_once('x').ok_or_else(|| wrong("there is no `x`"))?;
    let nodes: u32 = nodes.trim().parse().map_err(|_| wrong("the number of nodes is not a number"))?;
    let gpus: u32 = gpus.trim().parse().map_err(|_| wrong("the number of GPUs is not a number"))?;
    if nodes == 0 || nodes > 1_000_000 {
        return Err(wrong("nodes must be 1 to 1000000"));
    }
    if gpus > 64 {
        return Err(wrong("GPUs on a node must be 0 to 64"));
    }
    if class.is_empty() {
        return Err(wrong("the class is empty"));
    }
    Ok(NodeGroup { nodes, gpus, class: class.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_names_nodes_gpus_and_class() {
        let shape: Shape = "443x8:V100,520x8:T4".parse().unwrap();
        assert_eq!(shape.0.len(), 2);
        assert_eq!(shape.gpus(), (443 + 520) * 8);
        assert_eq!(shape.to_string().parse(), Ok(shape));
        assert_eq!("16x4".parse::<Shape>().unwrap().0[0].class, "GPU");
    }

    #[test]
    fn a_wrong_shape_says_what_is_wrong_and_what_to_write() {
        for (text, what) in
            [("16", "no `x`"), ("ax4", "nodes"), ("4xb", "GPUs"), ("0x8", "1 to"), ("1x65", "0 to 64"), ("1x8:", "class")]
        {
            let error = text.parse::<Shape>().unwrap_err();
            assert!(error.contains(what) && error.contains("16x4:T4"), "{error}");
        }
    }
}
