//! What the driver reports by itself: XIDs above all. Asking for the "last XID" misses all but the last, so there is a queue.

use nvml_wrapper::Nvml;
use serde::{Deserialize, Serialize};

use crate::device::GpuUuid;
use crate::error::Error;
use crate::fact::Fault;
use crate::raw::{self, EventSet, RawEvent};

/// NVML's bits (`nvmlEventType*`), of those that matter here.
const KINDS: [(u64, EventKind); 9] = [
    (0x2, EventKind::UncorrectedEcc),
    (0x8, EventKind::Xid),
    (0x100, EventKind::MigChanged),
    (0x200, EventKind::CorrectedEccStorm),
    (0x400, EventKind::PageRetired),
    (0x800, EventKind::PageRetired),
    (0x1000, EventKind::PoisonContained),
    (0x4000, EventKind::Unavailable),
    (0x8000, EventKind::RecoveryAction),
];

/// What happened.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub enum EventKind {
    /// An error of the driver or the hardware, by its number.
    Xid,
    /// A memory error that ECC could not correct.
    UncorrectedEcc,
    /// So many corrected memory errors that something breaks.
    CorrectedEccStorm,
    /// A memory page or row was given up.
    PageRetired,
    /// Wrong data was found and its process ended.
    PoisonContained,
    /// MIG instances were made or destroyed.
    MigChanged,
    /// The GPU cannot be used.
    Unavailable,
    /// The driver changed its mind about what the GPU needs.
    RecoveryAction,
}

/// One report.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Of which GPU; absent when the driver names one that was not registered.
    pub gpu: Option<GpuUuid>,
    /// What happened.
    pub kind: EventKind,
    /// The XID; of other kinds what NVML gives.
    pub data: u64,
    /// The MIG GPU instance that it struck.
    pub gpu_instance: Option<u32>,
    /// The MIG compute instance that it struck.
    pub compute_instance: Option<u32>,
}

/// The open queue.
#[derive(Debug)]
pub struct Watch<'a> {
    set: EventSet<'a>,
    gpus: Vec<(usize, GpuUuid)>,
    deaf: Vec<(u32, Fault)>,
}

impl<'a> Watch<'a> {
    pub(crate) fn start(nvml: &'a Nvml, count: u32) -> Result<Self, Error> {
        let set = EventSet::new(nvml).map_err(|e| Error::of("make an event set", e))?;
        let mut watch = Self { set, gpus: Vec::new(), deaf: Vec::new() };
        for index in 0..count {
            if let Err(fault) = watch.register(nvml, index) {
                watch.deaf.push((index, fault));
            }
        }
        Ok(watch)
    }

    fn register(&mut self, nvml: &Nvml, index: u32) -> Result<(), Fault> {
        let device = nvml.device_by_index(index).map_err(|e| Fault::of(&e))?;
        let uuid = device.uuid().map_err(|e| Fault::of(&e))?;
        let wanted = KINDS.iter().fold(0, |all, (bit, _)| all | bit);
        let kinds = self.set.supported(&device).map_err(|e| Fault::of(&e))? & wanted;
        self.set.register(&device, kinds).map_err(|e| Fault::of(&e))?;
        self.gpus.push((raw::handle(&device), GpuUuid::from(uuid)));
        Ok(())
    }

    /// GPUs of which nothing will be heard, by index.
    pub fn deaf(&self) -> &[(u32, Fault)] {
        &self.deaf
    }

    /// Blocks until something is reported, or `timeout_ms` are over.
    pub fn next(&self, timeout_ms: u32) -> Result<Option<Event>, Fault> {
        let raw = self.set.wait(timeout_ms).map_err(|e| Fault::of(&e))?;
        Ok(raw.and_then(|raw| self.event(&raw)))
    }

    fn event(&self, raw: &RawEvent) -> Option<Event> {
        let kind = KINDS.iter().find(|(bit, _)| raw.kind & bit != 0).map(|(_, kind)| *kind)?;
        let instance = |number: u32| Some(number).filter(|number| *number != u32::MAX);
        Some(Event {
            gpu: self.gpus.iter().find(|(handle, _)| *handle == raw.device).map(|(_, uuid)| uuid.clone()),
            kind,
            data: raw.data,
            gpu_instance: instance(raw.gpu_instance),
            compute_instance: instance(raw.compute_instance),
        })
    }
}
