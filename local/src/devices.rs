//! The devices of one box: simulated ones from `--simulate-gpus`, or real ones through NVML.

use std::path::Path;

use tidegate_core::ask::Ask;
use tidegate_core::node::{self, MAX_DEVICES};
use tidegate_nvml::{DeviceFacts, Inventory};
use tidegate_runtime::exit;

/// Names NVML's library when it is not where the loader looks.
pub const LIBRARY_ENV: &str = "TIDEGATE_NVML_LIBRARY";

/// Most simulated devices: a box is one node of the engine.
const MAX_SIMULATED: usize = MAX_DEVICES;
/// Families that MIG can divide into 8 memory slices (NVIDIA MIG User Guide, "Supported MIG profiles").
const MIG_FAMILIES: [&str; 6] = ["A100", "H100", "H200", "GH200", "B200", "GB200"];
/// Most memory of a simulated device. Keeps a typing error from passing as a device.
const MAX_MEMORY_GB: u64 = 1024;

/// One device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Lasting name: the UUID of a real device, `gpu-0` and so on of a simulated one.
    pub id: String,
    /// Model and memory, for instance `H100-80GB`.
    pub class: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Answers are computed on the CPU, at the device's pace.
    pub simulated: bool,
    /// What `CUDA_VISIBLE_DEVICES` says to name it. A simulated device's value names no real one, so that nothing real is touched.
    pub visible: String,
}

impl Device {
    /// As the engine sees it. Only a simulated device is divided into MIG instances: on a real one that is an
    /// administrator's work, which nobody here does.
    pub fn as_core(&self) -> node::Device {
        let family = self.class.split('-').next().unwrap_or_default();
        let mig = self.simulated && MIG_FAMILIES.contains(&family);
        node::Device { mig, ..node::Device::new(self.id.as_str(), crate::machine::NODE, self.class.as_str(), self.memory_mib) }
    }
}

/// What `CUDA_VISIBLE_DEVICES` says of these devices; nothing hides all from a process without devices.
pub fn visible(devices: &[&Device]) -> String {
    devices.iter().map(|device| device.visible.as_str()).collect::<Vec<_>>().join(",")
}

/// Thousandths of its one device that such an ask shares with others; `None` if its devices are its own.
pub fn share(ask: &Ask, devices: &[&Device]) -> Option<u16> {
    devices.first().filter(|_| !ask.is_exclusive()).map(|device| ask.milli_on(&device.as_core()))
}

/// Why there are no devices.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The value of `--simulate-gpus` is not understood.
    #[error("--simulate-gpus {value:?}: {why}; write COUNTxCLASS-MEMORYGB, for instance 4xH100-80GB or 2xA100-40GB,1xL4-24GB")]
    Simulated {
        /// The whole value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing is simulated, and nothing real was found.
    #[error(
        "no GPU found ({source}); install the NVIDIA driver ({LIBRARY_ENV} names its libnvidia-ml.so.1 if it is not on the loader's path), \
         or simulate devices with --simulate-gpus 4xH100-80GB"
    )]
    NoGpu {
        /// What NVML says.
        #[source]
        source: tidegate_nvml::Error,
    },
    /// GPUs are there, and none can be read.
    #[error("none of the {0} GPUs can be read; look at nvidia-smi, or simulate devices with --simulate-gpus 4xH100-80GB")]
    Unreadable(usize),
}

impl Error {
    /// Bounded word for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Simulated { .. } => "simulated",
            Self::NoGpu { .. } => "no_gpu",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

impl From<Error> for exit::Error {
    fn from(error: Error) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Finds the devices. `simulate` is the value of `--simulate-gpus`; with it nothing real is looked at.
/// Without it this asks the driver, which may block: call it off the runtime's workers.
pub fn find(simulate: Option<&str>) -> Result<Vec<Device>, Error> {
    match simulate {
        Some(value) => parse(value).map_err(|why| Error::Simulated { value: value.to_owned(), why }),
        None => real(std::env::var_os(LIBRARY_ENV).as_deref().map(Path::new)),
    }
}

fn parse(value: &str) -> Result<Vec<Device>, String> {
    let mut devices: Vec<Device> = Vec::new();
    for group in value.split(',') {
        let (count, class, memory_mib) = parse_group(group.trim())?;
        if devices.len() + count > MAX_SIMULATED {
            return Err(format!("more than {MAX_SIMULATED} devices"));
        }
        let next = devices.len();
        devices.extend((next..next + count).map(|n| simulated(n, class, memory_mib)));
    }
    Ok(devices)
}

fn parse_group(group: &str) -> Result<(usize, &str, u64), String> {
    let (count, class) = group.split_once('x').ok_or_else(|| format!("no count in {group:?}"))?;
    let in_range = |count: &usize| (1..=MAX_SIMULATED).contains(count);
    let count =
        count.parse().ok().filter(in_range).ok_or_else(|| format!("the count {count:?} is not from 1 to {MAX_SIMULATED}"))?;
    let (model, memory) = class.rsplit_once('-').ok_or_else(|| format!("no memory in the class {class:?}"))?;
    let gb: Option<u64> = memory.strip_suffix("GB").and_then(|digits| digits.parse().ok());
    let in_range = |gb: &u64| (1..=MAX_MEMORY_GB).contains(gb);
    let gb = gb.filter(in_range).ok_or_else(|| format!("the memory {memory:?} is not from 1GB to {MAX_MEMORY_GB}GB"))?;
    // A class must be able to be a Kubernetes label value.
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if !model.starts_with(|c: char| c.is_ascii_alphanumeric()) || !model.chars().all(is_word) || class.len() > 63 {
        return Err(format!("the class {class:?} is not of letters, digits, '-' and '.', at most 63 of them"));
    }
    Ok((count, class, gb * 1024))
}

fn simulated(number: usize, class: &str, memory_mib: u64) -> Device {
    let id = format!("gpu-{number}");
    Device { visible: id.clone(), id, class: class.to_owned(), memory_mib, simulated: true }
}

fn real(library: Option<&Path>) -> Result<Vec<Device>, Error> {
    let facts = Inventory::open(library).and_then(|i| i.devices()).map_err(|source| Error::NoGpu { source })?;
    let devices: Vec<Device> = facts.iter().filter_map(of_facts).collect();
    if devices.len() > MAX_DEVICES {
        tracing::warn!(found = devices.len(), used = MAX_DEVICES, "more GPUs than a node can have; the rest is left out");
    }
    let devices: Vec<Device> = devices.into_iter().take(MAX_DEVICES).collect();
    if devices.is_empty() { Err(Error::Unreadable(facts.len())) } else { Ok(devices) }
}

/// A device that does not tell its UUID, name and memory cannot be given to anyone.
fn of_facts(facts: &DeviceFacts) -> Option<Device> {
    let known = || {
        let uuid = facts.uuid.known()?.to_string();
        let memory_mib = facts.memory_total_bytes.known()? >> 20;
        Some(Device { visible: uuid.clone(), id: uuid, class: facts.class()?, memory_mib, simulated: false })
    };
    let device = known();
    if device.is_none() {
        tracing::warn!(index = facts.index, ?facts, "a GPU cannot be read and is left out");
    }
    device
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_numbered_through() {
        let devices = find(Some("2xA100-40GB, 1xRTX-4090-24GB")).unwrap();
        let told: Vec<_> = devices.iter().map(|d| (d.id.as_str(), d.class.as_str(), d.memory_mib)).collect();
        assert_eq!(told, [("gpu-0", "A100-40GB", 40_960), ("gpu-1", "A100-40GB", 40_960), ("gpu-2", "RTX-4090-24GB", 24_576)]);
        assert!(devices.iter().all(|d| d.simulated));
    }

    #[test]
    fn a_process_sees_all_its_devices_and_no_other() {
        let devices = find(Some("3xL4-24GB")).unwrap();
        assert_eq!(visible(&[&devices[0], &devices[2]]), "gpu-0,gpu-2");
        assert_eq!(visible(&[]), "");
    }

    #[test]
    fn only_simulated_devices_of_the_right_family_are_divided() {
        let mig = |device: &Device| device.as_core().mig;
        let devices = find(Some("1xH100-80GB,1xA100-40GB,1xL4-24GB")).unwrap();
        assert_eq!(devices.iter().map(mig).collect::<Vec<_>>(), [true, true, false]);
        assert!(!mig(&Device { simulated: false, ..devices[0].clone() }));
    }

    #[test]
    fn a_bad_value_is_named_with_what_is_wrong_and_what_to_write() {
        let cases = [
            ("", "no count in \"\""),
            ("4", "no count in \"4\""),
            ("4xfoo", "no memory in the class \"foo\""),
            ("0xH100-80GB", "the count \"0\" is not from 1 to 64"),
            ("65xH100-80GB", "the count \"65\""),
            ("-1xH100-80GB", "the count \"-1\""),
            ("64xH100-80GB,1xL4-24GB", "more than 64 devices"),
            ("4xH100-0GB", "the memory \"0GB\""),
            ("4xH100-80", "the memory \"80\""),
            ("4xH100-99999999999999999999GB", "the memory"),
            ("4xH 100-80GB", "the class \"H 100-80GB\""),
            ("4x-80GB", "the class \"-80GB\""),
            ("4xH100-80GB,", "no count in \"\""),
        ];
        for (value, why) in cases {
            let text = find(Some(value)).unwrap_err().to_string();
            assert!(text.starts_with(&format!("--simulate-gpus {value:?}: ")), "{text}");
            assert!(text.contains(why) && text.contains("for instance 4xH100-80GB"), "{value}: {text}");
        }
    }

    #[test]
    fn without_a_driver_both_remedies_are_named() {
        let error = real(Some(Path::new("/nonexistent/libnvidia-ml.so.1"))).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("install the NVIDIA driver") && text.contains("--simulate-gpus 4xH100-80GB"), "{text}");
        assert_eq!(exit::Error::from(error).code(), 64);
    }
}
