//! What one worker or one replica asks of the devices of one node.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What one worker or one replica asks for. Empty: one whole device of any class.
///
/// At most one of `count`, `memoryMib`, `milli` and `mig` says how much. Shares are counted, not enforced: a process that
/// takes more than it asked for harms those beside it.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.count), has(self.memoryMib), has(self.milli), has(self.mig)].filter(given, given).size() <= 1").message("says more than once how much; keep one of count, memoryMib, milli and mig"))]
#[x_kube(validation = Rule::new("!has(self.classes) || !has(self.classSpeeds) || self.classSpeeds.all(s, !(s.class in self.classes))").message("names a class in classes and in classSpeeds; keep it in classSpeeds"))]
#[x_kube(validation = Rule::new("!has(self.classSpeeds) || self.classSpeeds.all(s, self.classSpeeds.exists_one(other, other.class == s.class))").message("names a class twice in classSpeeds; keep one"))]
#[x_kube(validation = Rule::new("!has(self.deviceClassName) || (!has(self.memoryMib) && !has(self.milli) && !has(self.mig))").message("names a deviceClassName beside a share of a device; whole devices of the class are claimed: say in count how many, or choose a class whose devices are parts"))]
pub struct GpuAsk {
    /// Whole devices, all on one node. 0: none, the work runs on CPU alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub count: Option<u32>,
    /// A share of one device's memory, in MiB; others may use the rest. Its compute is counted in proportion.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_194_304))]
    pub memory_mib: Option<u32>,
    /// A share of one device, of its compute and of its memory, in thousandths.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub milli: Option<u16>,
    /// One MIG instance of one device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig: Option<MigProfile>,
    /// Device classes that will do, for instance `H100-80GB`, all equally fast. Empty, with `classSpeeds` empty too: any class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)))]
    pub classes: Vec<String>,
    /// Device classes that will do, with how fast each is; faster ones are preferred. A class of `classes` has speed 1000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub class_speeds: Vec<ClassSpeed>,
    /// On Kubernetes, where a driver publishes its devices in a `ResourceSlice`: the `DeviceClass` of which they are claimed, by a
    /// `ResourceClaim` of each pod. Absent: the extended resource `nvidia.com/gpu`. `tidegate up` has no such classes and takes no notice.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')").message("is not the name of a DeviceClass; see `kubectl get deviceclasses`"))]
    pub device_class_name: Option<String>,
}

/// A device class that will do.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ClassSpeed {
    /// The class, for instance `A100-40GB`.
    #[schemars(length(min = 1, max = 63))]
    pub class: String,
    /// Throughput on it, in thousandths of a reference of your choice.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub speed_milli: u32,
}

/// A MIG instance of a device of the A100 or H100 family (8 memory slices, 7 compute slices).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigProfile {
    /// 1 compute slice and 1 memory slice (`1g.10gb` of 80 GB).
    #[serde(rename = "1g")]
    G1,
    /// 1 compute slice and 2 memory slices (`1g.20gb` of 80 GB).
    #[serde(rename = "1gDouble")]
    G1Double,
    /// 2 and 2.
    #[serde(rename = "2g")]
    G2,
    /// 3 and 4.
    #[serde(rename = "3g")]
    G3,
    /// 4 and 4.
    #[serde(rename = "4g")]
    G4,
    /// The whole device as one instance.
    #[serde(rename = "7g")]
    G7,
}
