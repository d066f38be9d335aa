//! Nodes that two schedulers have filled at the same moment: told to the engine, counted, and said in the log.

use tidegate_core::state::Overcommit;

use super::World;

impl World {
    /// Nodes of which too much is asked are told to the engine, with who is to go.
    pub(super) fn repair_overcommits(&mut self) {
        let now = self.now();
        for repair in self.index.look_at_overcommits(now, &self.engine) {
            let (node, scarce, vain) = (&repair.node, repair.over.scarce, repair.is_vain());
            if vain {
                tracing::warn!(
                    node,
                    scarce = scarce.word(),
                    "more is asked of the node than it has, and nothing of ours can mend it"
                );
            } else {
                let Overcommit { jobs, replicas, .. } = &repair.over;
                tracing::warn!(node, scarce = scarce.word(), ?jobs, ?replicas, "more is asked of the node than it has: these go");
            }
            self.metrics.overcommitted(scarce, vain);
            if !vain {
                self.tell(vec![repair.event()]);
            }
        }
    }
}
