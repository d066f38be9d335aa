//! What must hold of the engine at any moment, whatever it has just decided.

use std::collections::BTreeMap;

use tidegate_core::claims::{self, StateClaim};
use tidegate_core::names::NodeName;
use tidegate_core::plan::Placed;
use tidegate_core::{Engine, State};

use super::real::{Taken, by_node, check_devices, check_nodes, fall, taken};

/// Asserts equality but for one part, naming only the parts that differ.
pub fn same_state(one: &Engine, other: &Engine, but: &str, what: &str) {
    if one == other {
        return;
    }
    let parts = |engine: &Engine| serde_json::to_value(engine.state()).unwrap();
    let (one, other) = (parts(one), parts(other));
    let differing: Vec<String> = one
        .as_object()
        .unwrap()
        .iter()
        .filter(|(key, value)| *key != but && other[key.as_str()] != **value)
        .map(|(key, value)| format!("{key}: {value} != {}", other[key.as_str()]))
        .collect();
    assert!(differing.is_empty(), "{what}: {}", differing.join("; "));
}

/// The engine is what its snapshot says, and its desk what its state says.
pub fn engine(engine: &Engine) {
    if let Err(difference) = engine.is_consistent() {
        panic!("the desk drifted from the state: {difference}");
    }
    let restored = Engine::restore(&engine.snapshot().unwrap()).unwrap();
    same_state(&restored, engine, "", "a restored snapshot is the engine");
}

/// What the state promises firmly, or all that it counts on.
pub fn promised(state: &State, firm: bool) -> Vec<Taken> {
    let mut all = Vec::new();
    claims::each(state, |claim: StateClaim<'_>| {
        if firm && claim.releasing.is_some() {
            return;
        }
        let place = Placed {
            group: claim.seat.group,
            node: state.nodes.name(claim.seat.node).unwrap().clone(),
            devices: state.devices_of(claim.seat).map(|device| device.id.clone()).collect(),
            slices: claim.seat.slices,
        };
        all.push(taken(state, claim.ask, &place));
    });
    all
}

/// No device is promised twice, no node promises more than it has.
pub fn promises(state: &State, excess: &mut BTreeMap<NodeName, (u64, u64)>) {
    let firm = promised(state, true);
    check_devices(state, &firm, "in promises");
    check_nodes(state, &by_node(&firm), excess, "in promises");
    fall(excess, &by_node(&firm));
}
