//! GPU facts of one machine, read through NVML (`libnvidia-ml.so.1`, loaded at run time).
//!
//! ```text
//! Inventory::open ──> devices() ──> [DeviceFacts { uuid: Fact, name: Fact, memory: Fact, .. }]
//!       │                                   │
//!     Error: why there are no GPUs        class(name, memory): "H100-80GB"
//! ```
//!
//! Facts only, never decisions. What the driver does not say is [`Fact::Unsupported`], what it failed to
//! say is [`Fact::Failed`]; neither is ever a zero.
//!
//! Assumes: calls block, and a wedged driver blocks them for good, so they belong on a thread of their
//! own, never on a tokio worker.

mod class;
mod device;
mod error;
mod fact;
mod inventory;

pub use class::class;
pub use device::{ComputeMode, DeviceFacts, GpuUuid};
pub use error::Error;
pub use fact::{Fact, Fault};
pub use inventory::Inventory;
