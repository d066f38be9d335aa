//! One GPU at one moment: everything that this project asks about it while it runs.

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{Clock, EccCounter, MemoryError, PerformanceState, TemperatureSensor};
use nvml_wrapper::enum_wrappers::nv_link::ErrorCounter;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::field_id as id;
use serde::{Deserialize, Serialize};

use crate::activity::{Activity, Chain};
use crate::device::{ComputeMode, GpuUuid, compute_mode, permille};
use crate::fact::{Fact, Fault};
use crate::identity::Identity;
use crate::mig::{self, MigInstance};
use crate::pcie::Pcie;
use crate::process::{self, Processes};
use crate::raw;

/// `NVML_NVLINK_MAX_LINKS`.
const MAX_LINKS: u32 = 18;
/// The scope that means all NVLinks of a device together.
const ALL_LINKS: u32 = u32::MAX;
const KIB: u64 = 1024;

/// A GPU that is read again and again. Keeps what must be kept between readings.
#[derive(Debug)]
pub struct Gpu<'a> {
    identity: Identity,
    device: Device<'a>,
    links: Vec<u32>,
    chain: Chain<'a>,
    processes: process::Reader,
    mig: mig::Reader<'a>,
}

/// Everything at one moment. Counters count since the driver was loaded.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Reading {
    /// Memory.
    pub memory: Fact<Memory>,
    /// The driver's samples of how long anything ran.
    pub utilization: Fact<Utilization>,
    /// What was busy since the last reading; absent at the first.
    pub activity: Option<Activity>,
    /// Power and energy.
    pub power: Power,
    /// Clocks.
    pub clocks: Clocks,
    /// Why clocks are lower than they could be.
    pub throttle: Fact<Throttle>,
    /// Temperatures.
    pub temperatures: Temperatures,
    /// Memory errors.
    pub ecc: Ecc,
    /// Memory rows that were replaced. Ampere and later.
    pub remapped_rows: Fact<RemappedRows>,
    /// Memory pages wait for a reset to be retired. Before Ampere.
    pub retirement_pending: Fact<bool>,
    /// What the driver says that the GPU needs: 0 nothing, 1 a reset, 2 a reboot, 3 P2P drained, 4 drain and reset, above: more.
    pub recovery_action: Fact<u32>,
    /// Traffic with the host.
    pub pcie: Pcie,
    /// Traffic with other GPUs.
    pub nvlink: NvLink,
    /// How it may be used.
    pub modes: Modes,
    /// Its MIG instances; empty while MIG is off.
    pub instances: Fact<Vec<MigInstance>>,
    /// Who uses it.
    pub processes: Fact<Processes>,
}

/// Memory in bytes.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// All of it.
    pub total_bytes: u64,
    /// Held by processes.
    pub used_bytes: u64,
    /// Kept by the driver for itself.
    pub reserved_bytes: u64,
}

/// Shares of the driver's last sample period (1/6 s to 1 s), in thousandths.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Utilization {
    /// Time in which any kernel was resident, however little of the chip it used.
    pub resident_permille: u16,
    /// Time in which memory was read or written, however little of its bandwidth was used.
    pub memory_permille: u16,
}

/// Power and energy.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Power {
    /// Drawn, in milliwatts: the driver's average over about a second.
    pub draw_milliwatts: Fact<u32>,
    /// The limit in force.
    pub limit_milliwatts: Fact<u32>,
    /// Energy counter in millijoules. Volta and later.
    pub energy_millijoules: Fact<u64>,
}

/// Clocks in MHz.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Clocks {
    /// Of the multiprocessors.
    pub sm_mhz: Fact<u32>,
    /// Of the memory.
    pub memory_mhz: Fact<u32>,
    /// Performance state: 0 is the highest.
    pub performance_state: Fact<u8>,
}

/// Why clocks are lower than they could be; several at a time.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// NVML's bits (`nvmlClocksEventReason*`).
    pub bits: u64,
}

/// Temperatures in °C.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Temperatures {
    /// Of the chip.
    pub gpu_celsius: Fact<u32>,
    /// Of the memory.
    pub memory_celsius: Fact<u32>,
}

/// Memory errors since the driver was loaded.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Ecc {
    /// ECC is on.
    pub enabled: Fact<bool>,
    /// Corrected.
    pub corrected: Fact<u64>,
    /// Not correctable.
    pub uncorrected: Fact<u64>,
}

/// Memory rows that were replaced by spare ones.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RemappedRows {
    /// After correctable errors.
    pub corrected: u64,
    /// After uncorrectable errors.
    pub uncorrected: u64,
    /// A row waits for a reset to be replaced.
    pub pending: bool,
    /// A row could not be replaced: no spare is left.
    pub failed: bool,
}

/// Traffic with other GPUs.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NvLink {
    /// Payload sent over all links, in bytes (the driver counts KiB).
    pub tx_bytes: Fact<u64>,
    /// Payload received over all links, in bytes.
    pub rx_bytes: Fact<u64>,
    /// The links that the board has.
    pub links: Vec<Link>,
}

/// One NVLink.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// Its number.
    pub number: u32,
    /// It is up.
    pub up: Fact<bool>,
    /// Replays, recoveries and CRC errors together.
    pub errors: Fact<u64>,
}

/// How it may be used.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Modes {
    /// Who may open contexts.
    pub compute: Fact<ComputeMode>,
    /// The driver stays loaded without clients.
    pub persistence: Fact<bool>,
    /// MIG is on.
    pub mig: Fact<bool>,
    /// MIG will be on after the next reset.
    pub mig_pending: Fact<bool>,
}

/// What NVML gives by number.
struct Fields {
    memory_celsius: Fact<u64>,
    nvlink_tx: Fact<u64>,
    nvlink_rx: Fact<u64>,
    recovery_action: Fact<u64>,
    remapped_rows: Fact<RemappedRows>,
}

impl<'a> Gpu<'a> {
    pub(crate) fn open(index: u32, device: Device<'a>) -> Result<Self, Fault> {
        let uuid = device.uuid().map(GpuUuid::from).map_err(|e| Fault::of(&e))?;
        // Links are numbered without gaps, so the first that is not there ends them; an old board is asked once.
        let links = (0..MAX_LINKS).take_while(|link| device.link_wrapper_for(*link).is_active().is_ok()).collect();
        let identity = Identity::read(index, uuid, &device);
        Ok(Self {
            identity,
            device,
            links,
            chain: Chain::default(),
            processes: process::Reader::default(),
            mig: mig::Reader::default(),
        })
    }

    /// What it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Reads everything. A GPU that is lost, or whose driver went away, is a fault as a whole.
    pub fn read(&mut self) -> Result<Reading, Fault> {
        let memory = Fact::read(self.device.memory_info());
        if let Fact::Failed(fault) = &memory
            && (fault.is_of_the_driver() || *fault == Fault::Lost)
        {
            return Err(fault.clone());
        }
        let fields = self.fields();
        let modes = self.modes();
        let device = &self.device;
        let activity = self.chain.next(device.nvml(), || device.gpm_sample());
        Ok(Reading {
            memory: memory.map(|m| Memory { total_bytes: m.total, used_bytes: m.used, reserved_bytes: m.reserved }),
            utilization: Fact::read(device.utilization_rates())
                .map(|u| Utilization { resident_permille: permille(u.gpu), memory_permille: permille(u.memory) }),
            activity,
            power: self.power(),
            clocks: self.clocks(),
            throttle: Fact::read(device.current_throttle_reasons()).map(|reasons| Throttle { bits: reasons.bits() }),
            temperatures: Temperatures {
                gpu_celsius: Fact::read(device.temperature(TemperatureSensor::Gpu)),
                memory_celsius: fields.memory_celsius.map(small),
            },
            ecc: self.ecc(),
            remapped_rows: fields.remapped_rows,
            retirement_pending: Fact::read(device.are_pages_pending_retired()),
            recovery_action: fields.recovery_action.map(small),
            pcie: Pcie::read(device),
            nvlink: self.nvlink(fields.nvlink_tx, fields.nvlink_rx),
            instances: self.mig.read(device, modes.mig == Fact::Known(true)),
            processes: self.processes.read(device),
            modes,
        })
    }

    /// What NVML gives by number, in one call; but PCIe.
    fn fields(&self) -> Fields {
        let wanted = [
            (id::NVML_FI_DEV_MEMORY_TEMP, 0),
            (id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, ALL_LINKS),
            (id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, ALL_LINKS),
            (id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, 0),
            (id::NVML_FI_DEV_REMAPPED_COR, 0),
            (id::NVML_FI_DEV_REMAPPED_UNC, 0),
            (id::NVML_FI_DEV_REMAPPED_PENDING, 0),
            (id::NVML_FI_DEV_REMAPPED_FAILURE, 0),
        ];
        let [memory_celsius, nvlink_tx, nvlink_rx, recovery_action, corrected, uncorrected, pending, failed] =
            raw::facts(&self.device, wanted);
        let remapped_rows = match (corrected, uncorrected, pending, failed) {
            (Fact::Known(corrected), Fact::Known(uncorrected), Fact::Known(pending), Fact::Known(failed)) => {
                Fact::Known(RemappedRows { corrected, uncorrected, pending: pending != 0, failed: failed != 0 })
            }
            (Fact::Failed(fault), ..)
            | (_, Fact::Failed(fault), ..)
            | (_, _, Fact::Failed(fault), _)
            | (.., Fact::Failed(fault)) => Fact::Failed(fault),
            _ => Fact::Unsupported,
        };
        Fields { memory_celsius, nvlink_tx, nvlink_rx, recovery_action, remapped_rows }
    }

    fn power(&self) -> Power {
        Power {
            draw_milliwatts: Fact::read(self.device.power_usage()),
            limit_milliwatts: Fact::read(self.device.enforced_power_limit()),
            energy_millijoules: Fact::read(self.device.total_energy_consumption()),
        }
    }

    fn clocks(&self) -> Clocks {
        Clocks {
            sm_mhz: Fact::read(self.device.clock_info(Clock::SM)),
            memory_mhz: Fact::read(self.device.clock_info(Clock::Memory)),
            performance_state: Fact::read(self.device.performance_state().and_then(state_number)),
        }
    }

    fn ecc(&self) -> Ecc {
        let count = |kind| Fact::read(self.device.total_ecc_errors(kind, EccCounter::Volatile));
        Ecc {
            enabled: Fact::read(self.device.is_ecc_enabled()).map(|mode| mode.currently_enabled),
            corrected: count(MemoryError::Corrected),
            uncorrected: count(MemoryError::Uncorrected),
        }
    }

    fn nvlink(&self, tx_kib: Fact<u64>, rx_kib: Fact<u64>) -> NvLink {
        let bytes = |kib: Fact<u64>| kib.map(|kib| kib.saturating_mul(KIB));
        let links = self.links.iter().map(|number| self.link(*number)).collect();
        NvLink { tx_bytes: bytes(tx_kib), rx_bytes: bytes(rx_kib), links }
    }

    fn link(&self, number: u32) -> Link {
        let link = self.device.link_wrapper_for(number);
        let count = |kind| link.error_counter(kind);
        let errors = || {
            let kinds = [ErrorCounter::DlReplay, ErrorCounter::DlRecovery, ErrorCounter::DlCrcFlit];
            kinds.into_iter().map(count).sum::<Result<u64, _>>()
        };
        Link { number, up: Fact::read(link.is_active()), errors: Fact::read(errors()) }
    }

    fn modes(&self) -> Modes {
        let mig = Fact::read(self.device.mig_mode());
        Modes {
            compute: Fact::read(self.device.compute_mode()).map(compute_mode),
            persistence: Fact::read(self.device.is_in_persistent_mode()),
            mig: mig.clone().map(|mode| mode.current == 1),
            mig_pending: mig.map(|mode| mode.pending == 1),
        }
    }
}

fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn state_number(state: PerformanceState) -> Result<u8, NvmlError> {
    u8::try_from(state.as_c()).ok().filter(|number| *number <= 15).ok_or(NvmlError::NoData)
}
