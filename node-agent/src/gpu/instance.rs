//! One MIG instance: a device of its own to its users.

use tidegate_nvml::MigInstance;

use super::Busy;

/// A MIG instance with its totals since the agent first saw it.
#[derive(Clone, Debug)]
pub struct Instance {
    /// As it was last read.
    pub told: MigInstance,
    /// Of its GPU instance; compute instances that share one show the same.
    pub busy: Busy,
}

impl Instance {
    pub fn new(told: MigInstance) -> Self {
        Self { told, busy: Busy::default() }
    }

    /// A reading, `seconds` after the last.
    pub fn observe(&mut self, told: MigInstance, seconds: f64) {
        if let Some(activity) = &told.activity {
            self.busy.add(activity, seconds);
        }
        self.told = told;
    }
}
