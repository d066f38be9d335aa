//! GPU facts of one machine, read through NVML (`libnvidia-ml.so.1`, loaded at run time).
//!
//! ```text
//! Inventory::open ──> devices() ──> [DeviceFacts]          what is there: enough to share it out
//!       │        ├──> gpu(index) ──> Gpu { identity } ──read()──> Reading, again and again
//!       │        ├──> watch() ─────> Watch ──next()──> Event: XIDs and what else the driver reports by itself
//!       │        └──> topology() ──> Topology: who reaches whom over what
//!     Error: why there are no GPUs
//! ```
//!
//! Facts only, never decisions. What the driver does not say is [`Fact::Unsupported`], what it failed to
//! say is [`Fact::Failed`]; neither is ever a zero.
//!
//! Assumes: calls block, and a wedged driver blocks them for good, so they belong on a thread of their
//! own, never on a tokio worker.

mod activity;
mod class;
mod device;
mod error;
mod event;
mod fact;
mod identity;
mod inventory;
mod mig;
mod pcie;
mod process;
mod raw;
mod reading;
mod topology;

pub use activity::Activity;
pub use class::class;
pub use device::{ComputeMode, DeviceFacts, GpuUuid};
pub use error::Error;
pub use event::{Event, EventKind, Watch};
pub use fact::{Fact, Fault};
pub use identity::Identity;
pub use inventory::{Driver, Inventory};
pub use mig::MigInstance;
pub use pcie::{Pcie, PcieError, PcieErrors};
pub use process::{Process, ProcessKind, Processes};
pub use reading::{
    Clocks, Ecc, Gpu, Link, Memory, Modes, NvLink, Power, Reading, RemappedRows, Temperatures, Throttle, Utilization,
};
pub use topology::{Path, Reach, Topology, TopologyGpu};
