//! The MIG instances of a GPU: each a device of its own to its users.

use std::collections::BTreeMap;

use nvml_wrapper::Device;
use serde::{Deserialize, Serialize};

use crate::activity::{Activity, Chain};
use crate::device::GpuUuid;
use crate::fact::{Fact, Fault};
use crate::raw;

/// One compute instance in its GPU instance.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MigInstance {
    /// Its lasting name, `MIG-…`; a new one whenever it is made.
    pub uuid: GpuUuid,
    /// Number of its GPU instance.
    pub gpu_instance: u32,
    /// Number of its compute instance.
    pub compute_instance: u32,
    /// For instance `1g.10gb`.
    pub profile: Fact<String>,
    /// Compute slices.
    pub slices: Fact<u32>,
    /// Memory in bytes.
    pub memory_total_bytes: Fact<u64>,
    /// Memory that processes hold, in bytes.
    pub memory_used_bytes: Fact<u64>,
    /// What was busy of its GPU instance since the last reading; absent the first time.
    pub activity: Option<Activity>,
}

/// The instances' chains of samples, by UUID: a number is used again for another instance.
#[derive(Debug, Default)]
pub(crate) struct Reader<'a> {
    chains: BTreeMap<String, Chain<'a>>,
}

impl<'a> Reader<'a> {
    /// The instances by place; empty while MIG is off.
    pub fn read(&mut self, device: &Device<'a>, enabled: bool) -> Fact<Vec<MigInstance>> {
        if !enabled {
            self.chains.clear();
            return Fact::Known(Vec::new());
        }
        let most = match Fact::read(device.mig_device_count()) {
            Fact::Known(most) => most,
            Fact::Unsupported => return Fact::Unsupported,
            Fact::Failed(fault) => return Fact::Failed(fault),
        };
        let mut before = std::mem::take(&mut self.chains);
        let mut found = Vec::new();
        for place in 0..most {
            let read = match Fact::read(device.mig_device_by_index(place)) {
                Fact::Known(mig) => self.instance(device, &mig, &mut before),
                // NVML counts the most that there could be, so most places may be empty.
                Fact::Unsupported | Fact::Failed(Fault::NotFound) => continue,
                Fact::Failed(fault) => Err(fault),
            };
            match read {
                Ok(instance) => found.push(instance),
                // It was destroyed between two calls.
                Err(Fault::NotFound) => {}
                Err(fault) => return Fact::Failed(fault),
            }
        }
        Fact::Known(found)
    }

    fn instance(
        &mut self,
        parent: &Device<'a>,
        mig: &Device<'a>,
        before: &mut BTreeMap<String, Chain<'a>>,
    ) -> Result<MigInstance, Fault> {
        let uuid = mig.uuid().map_err(|e| Fault::of(&e))?;
        let (gpu_instance, compute_instance) = raw::instance_numbers(mig).map_err(|e| Fault::of(&e))?;
        let mut chain = before.remove(&uuid).unwrap_or_default();
        let activity = chain.next(parent.nvml(), || parent.gpm_mig_sample(gpu_instance));
        self.chains.insert(uuid.clone(), chain);
        let memory = Fact::read(mig.memory_info());
        Ok(MigInstance {
            uuid: GpuUuid::from(uuid),
            gpu_instance,
            compute_instance,
            profile: Fact::read(mig.name()).map(|name| profile(&name)),
            slices: Fact::read(mig.attributes()).map(|attributes| attributes.compute_instance_slice_count),
            memory_total_bytes: memory.clone().map(|memory| memory.total),
            memory_used_bytes: memory.map(|memory| memory.used),
            activity,
        })
    }
}

/// `NVIDIA H100 80GB HBM3 MIG 1g.10gb` ends in the profile.
fn profile(name: &str) -> String {
    name.rsplit_once("MIG ").map_or(name, |(_, profile)| profile).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_the_end_of_the_name() {
        assert_eq!(profile("NVIDIA H100 80GB HBM3 MIG 1g.10gb"), "1g.10gb");
        assert_eq!(profile("NVIDIA H100 80GB HBM3 MIG 1c.3g.40gb"), "1c.3g.40gb");
    }
}
