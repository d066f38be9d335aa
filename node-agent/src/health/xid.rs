//! What an XID means for its GPU. Source: NVIDIA's Xid catalog ("Analyzing Xid errors with the Xid catalog") and Xid
//! errors guide; where the catalog distinguishes architectures, the more careful reading. The driver's own verdict
//! (field 230, XID 154) is a cause beside these and is right where this table is not.

use super::Cause;

/// What is known of an XID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// In words.
    pub name: &'static str,
    /// What it says about the GPU; nothing when it is a program's fault or only news.
    pub cause: Option<Cause>,
}

/// A program's fault, or nothing that a reading does not tell better.
const fn news(name: &'static str) -> Meaning {
    Meaning { name, cause: None }
}

const fn fatal(name: &'static str) -> Meaning {
    Meaning { name, cause: Some(Cause::FatalXid) }
}

const fn link(name: &'static str) -> Meaning {
    Meaning { name, cause: Some(Cause::LinkXid) }
}

/// The table, by number.
pub const XIDS: [(u64, Meaning); 48] = [
    (13, news("graphics engine exception")),
    (31, news("memory page fault of a program")),
    (32, news("invalid or corrupted push buffer stream")),
    (38, fatal("driver firmware error")),
    (43, news("a program stopped")),
    (44, fatal("graphics engine fault during context switch")),
    (45, news("preemptive cleanup after an earlier error")),
    (46, fatal("GPU stopped processing")),
    (48, fatal("double-bit ECC error")),
    (54, fatal("auxiliary power is not connected")),
    (56, news("display engine error")),
    (57, fatal("error programming the video memory interface")),
    (58, fatal("unstable video memory interface detected")),
    (61, fatal("internal micro-controller breakpoint or warning")),
    (62, fatal("internal micro-controller halt")),
    (63, news("a row remapping or page retirement was recorded")),
    (64, fatal("a row remapping or page retirement failed to be recorded")),
    (65, news("video processor exception")),
    (66, news("illegal access by driver")),
    (68, news("video decoder exception")),
    (69, news("graphics engine class error")),
    (73, news("video encoder 2 error")),
    (74, link("NVLink error")),
    (79, Meaning { name: "fell off the bus", cause: Some(Cause::OffTheBus) }),
    (92, Meaning { name: "high rate of single-bit ECC errors", cause: Some(Cause::CorrectedEccStorm) }),
    (94, Meaning { name: "contained memory error", cause: Some(Cause::ContainedXid) }),
    (95, fatal("uncontained memory error")),
    (109, news("context switch time-out of a program")),
    (110, fatal("security fault")),
    (119, fatal("time-out of a call to the GPU system processor")),
    (120, fatal("error of the GPU system processor")),
    (121, news("corrected error of the chip-to-chip link")),
    (122, fatal("SPI error of the power management unit: read")),
    (123, fatal("SPI error of the power management unit: write")),
    (136, link("link training failed")),
    (137, news("NVLink privilege error of a program")),
    (140, fatal("unrecovered ECC error")),
    (143, fatal("GPU initialisation failed")),
    (144, link("NVLink SAW error")),
    (145, link("NVLink RLW error")),
    (146, link("NVLink TLW error")),
    (147, link("NVLink TREX error")),
    (148, link("NVLink NVLPW_CTRL error")),
    (149, link("NVLink NETIR error")),
    (150, link("NVLink MSE error")),
    (154, news("the recovery action changed")),
    (156, news("a resource was retired")),
    (157, fatal("a resource retirement failed")),
];

/// What an XID means. One that the table does not have is news that somebody should look at.
pub fn meaning(xid: u64) -> Meaning {
    let known = XIDS.iter().find(|(number, _)| *number == xid).map(|(_, meaning)| *meaning);
    known.unwrap_or(Meaning { name: "not in the table", cause: Some(Cause::UnknownXid) })
}
