//! Rules that rate a node for a pod; the published ones here and below, ours in `ours`.
//!
//! Formulas: simulator of FGD's authors (hkust-adsl/kubernetes-scheduler-simulator, `pkg/simulator/plugin`). Scores are
//! cut to whole numbers 0 to 100 as there: the many ties, broken by the order of nodes, are part of the rules. `BestFit`
//! is then stretched to 0..100 over all nodes that fit, which keeps its order and so is left out here.

mod fgd;
mod simple;

use tidegate_core::fragment::Shape;

use super::openb::Lists;
use super::ours::Ours;
use super::world::State;
use super::{Experiment, PolicyName};

/// How good a node is for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rating {
    /// Greater is better.
    pub(super) key: (i64, i64),
    /// The GPU for a fraction.
    pub(super) device: Option<usize>,
}

/// What of the past a rule needs to see in a node's state; what it does not need makes more nodes equal.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    /// Which GPU has which rest, not only which rests there are.
    pub(super) order: bool,
    /// Which kinds of pods the node hosts.
    pub(super) hosts: bool,
}

/// A rule.
pub(super) trait Rule {
    /// A node's rating; nothing if the pod does not fit. Memory is looked after by the caller.
    fn rate(&self, node: &State, shape: &Shape) -> Option<Rating>;

    /// What must be kept in a node's state.
    fn keeps(&self) -> Taken {
        Taken::default()
    }

    /// The cluster is empty again. True: former ratings are void.
    fn start(&mut self) -> bool {
        false
    }

    /// A pod has come by. True: former ratings are void.
    fn saw(&mut self, _shape: &Shape) -> bool {
        false
    }
}

/// The rule of that name; none for `random`.
pub(super) fn rule<'a>(lists: &Lists, experiment: &Experiment<'_>) -> Option<Box<dyn Rule + 'a>> {
    match experiment.policy {
        PolicyName::Random => None,
        PolicyName::Fgd => Some(Box::new(fgd::Fgd::new(lists))),
        PolicyName::Bestfit => Some(Box::new(simple::BestFit)),
        PolicyName::Dotprod => Some(Box::new(simple::DotProduct)),
        PolicyName::Clustering => Some(Box::new(simple::Clustering)),
        PolicyName::Packing => Some(Box::new(simple::Packing)),
        PolicyName::Tidegate => Some(Box::new(Ours::new(lists, experiment.mix))),
    }
}
