//! What an XID means for its GPU: NVIDIA's word for what to do at once, and what finding follows from that word.
//!
//! Source: "Analyzing Xid Errors with the Xid Catalog" of NVIDIA's *Xid Errors*, table 1, columns *Description* and
//! *Resolution Bucket (Immediate Action)*, as published for Ampere and later in October 2025. Numbers that the catalog
//! calls unused, and those for which it gives no action, are not here: they are [`Cause::UnknownXid`]. The driver's own
//! verdict (field 230, XID 154) is a cause beside these and is right where the catalog is not.

use super::Cause;

/// The catalog's buckets of immediate actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Ignore,
    RestartApp,
    ResetGpu,
    /// `BM` is bare metal: the machine.
    RestartMachine,
    RestartVm,
    CheckMechanicals,
    CheckUvm,
    UpdateSoftware,
    ContactSupport,
    /// Of the links up to Hopper: the registers in the message tell more.
    Nvlink,
    /// Of the links since Blackwell; likewise.
    Nvlink5,
    /// It follows another XID.
    Xid45,
    /// Alone: reset the GPU. With 63 or 64: drain, then reset.
    Xid48,
    /// The verdict itself, which field 230 tells too.
    Xid154,
}

impl Action {
    /// As the catalog spells it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ignore => "IGNORE",
            Self::RestartApp => "RESTART_APP",
            Self::ResetGpu => "RESET_GPU",
            Self::RestartMachine => "RESTART_BM",
            Self::RestartVm => "RESTART_VM",
            Self::CheckMechanicals => "CHECK_MECHANICALS",
            Self::CheckUvm => "CHECK_UVM",
            Self::UpdateSoftware => "UPDATE_SWFW",
            Self::ContactSupport => "CONTACT_SUPPORT",
            Self::Nvlink => "WORKFLOW_NVLINK_ERR",
            Self::Nvlink5 => "WORKFLOW_NVLINK5_ERR",
            Self::Xid45 => "WORKFLOW_XID_45",
            Self::Xid48 => "WORKFLOW_XID_48",
            Self::Xid154 => "XID_154",
        }
    }

    /// What it says about the GPU; nothing when a program is to blame, or another XID or a reading tells it better.
    fn cause(self) -> Option<Cause> {
        match self {
            Self::Ignore | Self::RestartApp | Self::Xid45 | Self::Xid154 => None,
            Self::ResetGpu | Self::RestartMachine | Self::RestartVm | Self::CheckMechanicals | Self::Xid48 => {
                Some(Cause::FatalXid)
            }
            Self::Nvlink | Self::Nvlink5 => Some(Cause::LinkXid),
            Self::CheckUvm | Self::UpdateSoftware | Self::ContactSupport => Some(Cause::UnknownXid),
        }
    }
}

/// One line of the catalog, or several that say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub first: u64,
    pub last: u64,
    /// In words.
    pub name: &'static str,
    pub action: Action,
}

impl Row {
    /// What is found of the GPU. Three numbers mean more than their action says: 79 is the loss of the GPU itself; 92 and 94
    /// ask for nothing at once and yet tell of memory that fails.
    pub fn cause(&self) -> Option<Cause> {
        match self.first {
            79 => Some(Cause::OffTheBus),
            92 => Some(Cause::CorrectedEccStorm),
            94 => Some(Cause::ContainedXid),
            _ => self.action.cause(),
        }
    }
}

const fn one(number: u64, name: &'static str, action: Action) -> Row {
    many(number, number, name, action)
}

const fn many(first: u64, last: u64, name: &'static str, action: Action) -> Row {
    Row { first, last, name, action }
}

use Action::{
    CheckMechanicals, CheckUvm, ContactSupport, Ignore, Nvlink, Nvlink5, ResetGpu, RestartApp, RestartMachine, RestartVm,
    UpdateSoftware,
};

/// The table, by number.
pub const XIDS: &[Row] = &[
    one(8, "GPU stopped processing", RestartApp),
    one(11, "invalid push buffer stream", RestartApp),
    one(13, "graphics engine exception", RestartApp),
    one(25, "illegal push buffer stream", RestartApp),
    one(31, "page fault of GPU memory", RestartApp),
    one(32, "invalid push buffer stream", RestartApp),
    many(37, 38, "driver firmware error", Ignore),
    many(39, 41, "copy engine exception", RestartApp),
    one(43, "GPU stopped processing a program", Ignore),
    one(44, "graphics engine fault during a context switch", Ignore),
    one(45, "preemptive cleanup after an earlier error", Action::Xid45),
    one(46, "GPU stopped processing", ResetGpu),
    one(48, "double-bit ECC error", Action::Xid48),
    one(54, "auxiliary power is not connected", CheckMechanicals),
    one(60, "video processor exception", RestartApp),
    one(62, "internal micro-controller halt", ResetGpu),
    one(63, "a memory row is to be remapped", Ignore),
    one(64, "remapping of a memory row failed", ResetGpu),
    many(66, 67, "illegal access by the driver", Ignore),
    one(68, "video decoder exception", RestartApp),
    one(69, "graphics engine class error", RestartApp),
    many(70, 72, "copy engine error", RestartApp),
    one(74, "NVLink error", Nvlink),
    many(75, 77, "copy engine error", RestartApp),
    one(78, "vGPU start error", UpdateSoftware),
    one(79, "GPU fell off the bus", RestartMachine),
    one(80, "corrupted data sent to the GPU", RestartApp),
    one(82, "JPEG engine error", RestartApp),
    many(83, 84, "video decoder error", RestartApp),
    one(85, "copy engine error", RestartApp),
    one(86, "optical flow engine exception", RestartApp),
    many(88, 89, "video decoder error", RestartApp),
    one(92, "high rate of single-bit ECC errors", Ignore),
    one(93, "InfoROM is written too often", Ignore),
    one(94, "contained memory error", RestartApp),
    one(95, "uncontained memory error", ResetGpu),
    many(96, 98, "video decoder error", RestartApp),
    many(99, 105, "JPEG engine error", RestartApp),
    many(106, 107, "test message of the management bus", Ignore),
    one(109, "context switch time-out", ResetGpu),
    one(110, "security fault", ResetGpu),
    one(119, "time-out of a call to the GPU system processor", ResetGpu),
    one(120, "error of the GPU system processor", ResetGpu),
    one(121, "chip-to-chip link error", Ignore),
    many(126, 135, "copy engine error", RestartApp),
    one(136, "link training failed", ResetGpu),
    one(137, "NVLink privilege error", Ignore),
    one(139, "optical flow engine error", RestartApp),
    one(140, "unrecovered ECC error", ResetGpu),
    one(141, "CUDA fast path error", Ignore),
    one(142, "video encoder error", ContactSupport),
    one(143, "GPU initialisation error", ResetGpu),
    one(144, "NVLink SAW error", Nvlink5),
    one(145, "NVLink RLW error", Nvlink5),
    one(146, "NVLink TLW error", Nvlink5),
    one(147, "NVLink TREX error", Nvlink5),
    one(148, "NVLink NVLPW_CTRL error", Nvlink5),
    one(149, "NVLink NETIR error", Nvlink5),
    one(150, "NVLink MSE error", Nvlink5),
    one(151, "key rotation error", RestartVm),
    many(152, 153, "deep-learning accelerator error", Ignore),
    one(154, "the recovery action changed", Action::Xid154),
    one(155, "NVLink error defined by software", ResetGpu),
    one(156, "a resource is to be retired", ResetGpu),
    one(157, "a resource could not be retired", Ignore),
    one(158, "fatal time-out of the GPU", ResetGpu),
    one(159, "CHI non-data error", CheckUvm),
    many(160, 161, "channel retirement", Ignore),
];

/// In words, and what it says about the GPU. One that the table does not have is news that somebody should look at.
pub fn meaning(xid: u64) -> (&'static str, Option<Cause>) {
    let known = XIDS.iter().find(|row| (row.first..=row.last).contains(&xid));
    known.map_or(("not in the table", Some(Cause::UnknownXid)), |row| (row.name, row.cause()))
}
