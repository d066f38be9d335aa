//! Every metric: its name, labels, meaning and where it comes from. `tidegate node-agent --table metrics` prints it for
//! `docs/metrics.md`, and a test compares.

use std::fmt::Write;

/// Counters never go back while the agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
}

impl Kind {
    /// As Prometheus' format has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// One metric.
#[derive(Debug)]
pub struct Def {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
    /// NVML's function or field, or where else it comes from.
    pub source: &'static str,
}

macro_rules! table {
    ($all:ident; $($id:ident $kind:ident $name:literal $labels:tt $help:literal <- $source:literal;)*) => {
        $(pub static $id: Def = Def { name: $name, kind: Kind::$kind, labels: &$labels, help: $help, source: $source };)*
        /// All of them.
        pub static $all: &[&Def] = &[$(&$id),*];
    };
}

table! { OWN;
    GPU_INFO Gauge "tidegate_node_agent_gpu_info" ["gpu", "index", "minor", "name", "class", "architecture", "pci_bus_id", "serial", "driver", "numa_node", "compute_mode", "activity_source"] "1; what a GPU is. Join with it by gpu." <- "identity functions";
    GPU_HEALTH Gauge "tidegate_node_agent_gpu_health" ["gpu", "state"] "1 for the state that the GPU is in, 0 for the others." <- "docs/node-agent.md";
    GPU_FINDING Gauge "tidegate_node_agent_gpu_finding" ["gpu", "cause"] "1 for each thing that is wrong." <- "docs/node-agent.md";
    GPU_PLUGIN_HEALTHY Gauge "tidegate_node_agent_gpu_plugin_healthy" ["gpu"] "1 if the device plugin calls the GPU healthy." <- "PodResources GetAllocatableResources";
    READING_AGE Gauge "tidegate_node_agent_gpu_reading_age_seconds" ["gpu"] "Age of the last reading." <- "this agent";
    UNOBSERVED Counter "tidegate_node_agent_gpu_unobserved_seconds_total" ["gpu"] "Time that no sample stands for: the GPU could not be read." <- "this agent";
    MEMORY_TOTAL Gauge "tidegate_node_agent_gpu_memory_total_bytes" ["gpu"] "Memory." <- "nvmlDeviceGetMemoryInfo_v2";
    MEMORY_USED Gauge "tidegate_node_agent_gpu_memory_used_bytes" ["gpu"] "Memory held by processes." <- "nvmlDeviceGetMemoryInfo_v2";
    MEMORY_RESERVED Gauge "tidegate_node_agent_gpu_memory_reserved_bytes" ["gpu"] "Memory kept by the driver." <- "nvmlDeviceGetMemoryInfo_v2";
    ACTIVE Counter "tidegate_node_agent_gpu_active_seconds_total" ["gpu", "source"] "Busy time. source sm: multiprocessors with a warp, measured; resident: any kernel was there, sampled." <- "GPM SM_UTIL; nvmlDeviceGetUtilizationRates";
    OCCUPANCY Counter "tidegate_node_agent_gpu_sm_occupancy_seconds_total" ["gpu"] "Warps in flight over those possible, over time." <- "GPM SM_OCCUPANCY";
    TENSOR Counter "tidegate_node_agent_gpu_tensor_active_seconds_total" ["gpu"] "Tensor cores computing." <- "GPM ANY_TENSOR_UTIL";
    BANDWIDTH Counter "tidegate_node_agent_gpu_memory_bandwidth_seconds_total" ["gpu"] "Memory bandwidth used over that possible, over time." <- "GPM DRAM_BW_UTIL";
    MEMORY_ACTIVE Counter "tidegate_node_agent_gpu_memory_active_seconds_total" ["gpu"] "Memory was read or written, sampled." <- "nvmlDeviceGetUtilizationRates";
    ENERGY Counter "tidegate_node_agent_gpu_energy_joules_total" ["gpu", "source"] "Energy. source counter: the driver's; power: sampled power over time." <- "nvmlDeviceGetTotalEnergyConsumption; nvmlDeviceGetPowerUsage";
    POWER Gauge "tidegate_node_agent_gpu_power_watts" ["gpu"] "Power drawn." <- "nvmlDeviceGetPowerUsage";
    POWER_LIMIT Gauge "tidegate_node_agent_gpu_power_limit_watts" ["gpu"] "Power limit in force." <- "nvmlDeviceGetEnforcedPowerLimit";
    SM_CLOCK Gauge "tidegate_node_agent_gpu_sm_clock_hertz" ["gpu"] "Clock of the multiprocessors." <- "nvmlDeviceGetClockInfo";
    SM_CLOCK_MAX Gauge "tidegate_node_agent_gpu_sm_clock_max_hertz" ["gpu"] "Highest clock of the multiprocessors." <- "nvmlDeviceGetMaxClockInfo";
    MEMORY_CLOCK Gauge "tidegate_node_agent_gpu_memory_clock_hertz" ["gpu"] "Clock of the memory." <- "nvmlDeviceGetClockInfo";
    PERFORMANCE_STATE Gauge "tidegate_node_agent_gpu_performance_state" ["gpu"] "0 is the highest, 15 the lowest." <- "nvmlDeviceGetPerformanceState";
    THROTTLED Counter "tidegate_node_agent_gpu_throttled_seconds_total" ["gpu", "reason"] "Time with clocks lowered for a reason; several at once." <- "nvmlDeviceGetCurrentClocksThrottleReasons";
    TEMPERATURE Gauge "tidegate_node_agent_gpu_temperature_celsius" ["gpu", "sensor"] "Temperature of chip and memory." <- "nvmlDeviceGetTemperature; field 82";
    TEMPERATURE_LIMIT Gauge "tidegate_node_agent_gpu_temperature_limit_celsius" ["gpu", "limit"] "Where the chip slows down and shuts down." <- "nvmlDeviceGetTemperatureThreshold";
    ECC_ENABLED Gauge "tidegate_node_agent_gpu_ecc_enabled" ["gpu"] "1 if memory errors are corrected." <- "nvmlDeviceGetEccMode";
    ECC Counter "tidegate_node_agent_gpu_ecc_errors_total" ["gpu", "kind"] "Memory errors, corrected and uncorrected." <- "nvmlDeviceGetTotalEccErrors";
    REMAPPED Gauge "tidegate_node_agent_gpu_remapped_rows" ["gpu", "cause"] "Memory rows replaced, after corrected and uncorrected errors." <- "fields 142, 143";
    REMAP_PENDING Gauge "tidegate_node_agent_gpu_remap_pending" ["gpu"] "1 while a row (before Ampere: a page) waits for a reset." <- "field 144; nvmlDeviceGetRetiredPagesPendingStatus";
    REMAP_FAILED Gauge "tidegate_node_agent_gpu_remap_failed" ["gpu"] "1 if a row could not be replaced." <- "field 145";
    RECOVERY_ACTION Gauge "tidegate_node_agent_gpu_recovery_action" ["gpu"] "What the driver says that the GPU needs: 0 nothing, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset." <- "field 230";
    XIDS Counter "tidegate_node_agent_gpu_xid_events_total" ["gpu", "xid"] "XIDs since the agent's start." <- "nvmlEventSetWait_v2";
    XID_LAST Gauge "tidegate_node_agent_gpu_xid_last_seconds" ["gpu", "xid"] "Unix time of the last one; alert on it, since increase() misses the first event of a series." <- "nvmlEventSetWait_v2";
    EVENTS Counter "tidegate_node_agent_gpu_driver_events_total" ["gpu", "kind"] "Other events that the driver reported." <- "nvmlEventSetWait_v2";
    PCIE_BYTES Counter "tidegate_node_agent_gpu_pcie_bytes_total" ["gpu", "direction"] "Bytes between GPU and host. Hopper and later." <- "fields 197, 198";
    PCIE_REPLAYS Counter "tidegate_node_agent_gpu_pcie_replays_total" ["gpu"] "Transfers that were repeated." <- "nvmlDeviceGetPcieReplayCounter";
    PCIE_ERRORS Counter "tidegate_node_agent_gpu_pcie_errors_total" ["gpu", "kind"] "PCIe errors; correctable ones were repaired by the link itself." <- "fields 173 to 183";
    PCIE_GENERATION Gauge "tidegate_node_agent_gpu_pcie_generation" ["gpu"] "PCIe generation in use; lower while idle." <- "nvmlDeviceGetCurrPcieLinkGeneration";
    PCIE_WIDTH Gauge "tidegate_node_agent_gpu_pcie_lanes" ["gpu"] "PCIe lanes in use." <- "nvmlDeviceGetCurrPcieLinkWidth";
    NVLINK_BYTES Counter "tidegate_node_agent_gpu_nvlink_bytes_total" ["gpu", "direction"] "Payload over all NVLinks." <- "fields 138, 139";
    NVLINK_UP Gauge "tidegate_node_agent_gpu_nvlink_up" ["gpu", "link"] "1 if the NVLink is up." <- "nvmlDeviceGetNvLinkState";
    NVLINK_ERRORS Counter "tidegate_node_agent_gpu_nvlink_errors_total" ["gpu", "link"] "Replays, recoveries and CRC errors." <- "nvmlDeviceGetNvLinkErrorCounter";
    PERSISTENCE Gauge "tidegate_node_agent_gpu_persistence_mode" ["gpu"] "1 if the driver stays loaded without clients." <- "nvmlDeviceGetPersistenceMode";
    MIG_ENABLED Gauge "tidegate_node_agent_gpu_mig_enabled" ["gpu"] "1 if MIG is on." <- "nvmlDeviceGetMigMode";
    MIG_PENDING Gauge "tidegate_node_agent_gpu_mig_pending" ["gpu"] "1 if MIG will be on after a reset." <- "nvmlDeviceGetMigMode";
    PROCESSES Gauge "tidegate_node_agent_gpu_processes" ["gpu", "kind"] "Processes: compute, mps, graphics." <- "nvmlDeviceGet{Compute,MPSCompute,Graphics}RunningProcesses_v3";
    UNATTRIBUTED Counter "tidegate_node_agent_gpu_unattributed_active_seconds_total" ["gpu"] "Busy time that no pod can be named for, that of pods that are gone included." <- "this agent";
    INSTANCE_INFO Gauge "tidegate_node_agent_mig_info" ["gpu", "mig", "gpu_instance", "compute_instance", "profile"] "1; what a MIG instance is." <- "MIG functions";
    INSTANCE_MEMORY_TOTAL Gauge "tidegate_node_agent_mig_memory_total_bytes" ["gpu", "mig"] "Memory of the instance." <- "nvmlDeviceGetMemoryInfo_v2";
    INSTANCE_MEMORY_USED Gauge "tidegate_node_agent_mig_memory_used_bytes" ["gpu", "mig"] "Memory held by its processes." <- "nvmlDeviceGetMemoryInfo_v2";
    INSTANCE_ACTIVE Counter "tidegate_node_agent_mig_active_seconds_total" ["gpu", "mig"] "Multiprocessors of the GPU instance with a warp. Hopper and later." <- "GPM SM_UTIL of the instance";
    INSTANCE_OCCUPANCY Counter "tidegate_node_agent_mig_sm_occupancy_seconds_total" ["gpu", "mig"] "As of a GPU." <- "GPM SM_OCCUPANCY";
    INSTANCE_TENSOR Counter "tidegate_node_agent_mig_tensor_active_seconds_total" ["gpu", "mig"] "As of a GPU." <- "GPM ANY_TENSOR_UTIL";
    INSTANCE_BANDWIDTH Counter "tidegate_node_agent_mig_memory_bandwidth_seconds_total" ["gpu", "mig"] "As of a GPU." <- "GPM DRAM_BW_UTIL";
    POD_ALLOCATED Gauge "tidegate_node_agent_pod_allocated" ["gpu", "mig", "workload_namespace", "workload_pod", "workload_container", "claim"] "1 if the kubelet gave the device to the container, 0 if it only uses it." <- "PodResources List";
    POD_ACTIVE Counter "tidegate_node_agent_pod_active_seconds_total" ["gpu", "mig", "workload_namespace", "workload_pod", "workload_container"] "Busy time of its own. All of them and the unattributed are the GPU's active seconds." <- "nvmlDeviceGetProcessUtilization shares of the active seconds";
    POD_HELD Counter "tidegate_node_agent_pod_held_seconds_total" ["gpu", "mig", "workload_namespace", "workload_pod", "workload_container"] "Time that the device was allocated to it." <- "PodResources List";
    POD_MEMORY Gauge "tidegate_node_agent_pod_memory_used_bytes" ["gpu", "mig", "workload_namespace", "workload_pod", "workload_container"] "Memory held by its processes." <- "nvmlDeviceGetComputeRunningProcesses_v3";
    POD_PROCESSES Gauge "tidegate_node_agent_pod_processes" ["gpu", "mig", "workload_namespace", "workload_pod", "workload_container"] "Its processes on the device." <- "nvmlDeviceGetComputeRunningProcesses_v3, /proc/PID/cgroup";
    MISMATCHES Gauge "tidegate_node_agent_gpu_pod_mismatches" ["gpu", "kind"] "Holders of whom kubelet and cgroups disagree." <- "PodResources List, /proc/PID/cgroup";
    DRIVER_INFO Gauge "tidegate_node_agent_driver_info" ["driver", "nvml", "cuda"] "1; versions of what answers." <- "nvmlSystemGet*";
    UP Gauge "tidegate_node_agent_nvml_open" ["why"] "1 while NVML is open; else 0 with the reason." <- "this agent";
    UNREADABLE Gauge "tidegate_node_agent_gpus_unreadable" [] "GPUs that do not even tell their UUID." <- "nvmlDeviceGetHandleByIndex_v2";
    DEAF Gauge "tidegate_node_agent_gpus_without_events" [] "GPUs whose XIDs cannot be heard." <- "nvmlDeviceRegisterEvents";
    HUNG Gauge "tidegate_node_agent_hung_calls" [] "Calls to the driver that have not returned in time." <- "this agent";
    OPENED Counter "tidegate_node_agent_nvml_opened_total" [] "Times that NVML was opened." <- "this agent";
    READINGS Counter "tidegate_node_agent_readings_total" [] "Readings of GPUs that succeeded." <- "this agent";
    FAILED Counter "tidegate_node_agent_readings_failed_total" ["fault"] "Readings that failed." <- "this agent";
    READING_SECONDS Counter "tidegate_node_agent_reading_seconds_total" [] "Time spent in readings, all threads together." <- "this agent";
    UNSUPPORTED Gauge "tidegate_node_agent_gpu_unsupported_facts" ["gpu"] "Facts that this GPU or driver does not offer." <- "NVML_ERROR_NOT_SUPPORTED";
    FACT_FAULTS Gauge "tidegate_node_agent_gpu_failed_facts" ["gpu", "fault"] "Facts of the last reading that could not be read." <- "nvmlReturn_t";
    KUBELET_ANSWERS Counter "tidegate_node_agent_kubelet_answers_total" [] "Answers of the kubelet." <- "PodResources List";
    KUBELET_ERRORS Counter "tidegate_node_agent_kubelet_errors_total" ["category"] "Failures to hear of the kubelet: connect, slow, answer." <- "PodResources List";
    KUBELET_AGE Gauge "tidegate_node_agent_kubelet_answer_age_seconds" [] "Age of the last answer." <- "PodResources List";
    STATUS_WRITES Counter "tidegate_node_agent_status_writes_total" [] "Writes of the GpuNode status." <- "this agent";
    STATUS_ERRORS Counter "tidegate_node_agent_status_errors_total" [] "Writes of the GpuNode status that failed." <- "this agent";
    RSS Gauge "tidegate_node_agent_resident_memory_bytes" [] "Memory of this process." <- "/proc/self/status";
    CPU Counter "tidegate_node_agent_cpu_seconds_total" [] "Processor time of this process." <- "/proc/self/stat";
}

/// dcgm-exporter's labels, in its spelling.
const DCGM_LABELS: [&str; 10] =
    ["gpu", "UUID", "pci_bus_id", "device", "modelName", "Hostname", "DCGM_FI_DRIVER_VERSION", "namespace", "pod", "container"];

table! { DCGM;
    D_SM_CLOCK Gauge "DCGM_FI_DEV_SM_CLOCK" DCGM_LABELS "SM clock frequency (in MHz)." <- "tidegate_node_agent_gpu_sm_clock_hertz";
    D_MEM_CLOCK Gauge "DCGM_FI_DEV_MEM_CLOCK" DCGM_LABELS "Memory clock frequency (in MHz)." <- "tidegate_node_agent_gpu_memory_clock_hertz";
    D_GPU_TEMP Gauge "DCGM_FI_DEV_GPU_TEMP" DCGM_LABELS "GPU temperature (in C)." <- "tidegate_node_agent_gpu_temperature_celsius";
    D_MEMORY_TEMP Gauge "DCGM_FI_DEV_MEMORY_TEMP" DCGM_LABELS "Memory temperature (in C)." <- "tidegate_node_agent_gpu_temperature_celsius";
    D_POWER Gauge "DCGM_FI_DEV_POWER_USAGE" DCGM_LABELS "Power draw (in W)." <- "tidegate_node_agent_gpu_power_watts";
    D_ENERGY Counter "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION" DCGM_LABELS "Total energy consumption since boot (in mJ)." <- "tidegate_node_agent_gpu_energy_joules_total";
    D_REPLAYS Counter "DCGM_FI_DEV_PCIE_REPLAY_COUNTER" DCGM_LABELS "Total number of PCIe retries." <- "tidegate_node_agent_gpu_pcie_replays_total";
    D_UTIL Gauge "DCGM_FI_DEV_GPU_UTIL" DCGM_LABELS "GPU utilization (in %)." <- "last sample of residency";
    D_MEM_UTIL Gauge "DCGM_FI_DEV_MEM_COPY_UTIL" DCGM_LABELS "Memory utilization (in %)." <- "last sample of memory activity";
    D_XID Gauge "DCGM_FI_DEV_XID_ERRORS" DCGM_LABELS "Value of the last XID error encountered." <- "tidegate_node_agent_gpu_xid_last_seconds";
    D_FB_FREE Gauge "DCGM_FI_DEV_FB_FREE" DCGM_LABELS "Frame buffer memory free (in MB)." <- "nvmlDeviceGetMemoryInfo_v2";
    D_FB_USED Gauge "DCGM_FI_DEV_FB_USED" DCGM_LABELS "Frame buffer memory used (in MB)." <- "nvmlDeviceGetMemoryInfo_v2";
    D_FB_RESERVED Gauge "DCGM_FI_DEV_FB_RESERVED" DCGM_LABELS "Frame buffer memory reserved (in MB)." <- "nvmlDeviceGetMemoryInfo_v2";
    D_REMAP_UNC Counter "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS" DCGM_LABELS "Number of remapped rows for uncorrectable errors." <- "field 143";
    D_REMAP_COR Counter "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS" DCGM_LABELS "Number of remapped rows for correctable errors." <- "field 142";
    D_REMAP_FAILURE Gauge "DCGM_FI_DEV_ROW_REMAP_FAILURE" DCGM_LABELS "Whether remapping of rows has failed." <- "field 145";
    D_SM_ACTIVE Gauge "DCGM_FI_PROF_SM_ACTIVE" DCGM_LABELS "The ratio of cycles an SM has at least 1 warp assigned." <- "GPM SM_UTIL of the last step";
    D_SM_OCCUPANCY Gauge "DCGM_FI_PROF_SM_OCCUPANCY" DCGM_LABELS "The ratio of number of warps resident on an SM." <- "GPM SM_OCCUPANCY of the last step";
    D_TENSOR Gauge "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE" DCGM_LABELS "Ratio of cycles the tensor (HMMA) pipe is active." <- "GPM ANY_TENSOR_UTIL of the last step";
    D_DRAM Gauge "DCGM_FI_PROF_DRAM_ACTIVE" DCGM_LABELS "Ratio of cycles the device memory interface is active sending or receiving data." <- "GPM DRAM_BW_UTIL of the last step";
}

/// The tables of `docs/metrics.md`, in Markdown.
pub fn markdown() -> String {
    let mut text = String::from("| name | labels | meaning | source |\n|---|---|---|---|\n");
    rows(&mut text, OWN);
    text.push_str(
        "\nWith `--dcgm-names` also those of dcgm-exporter that existing dashboards use, in its units, with the labels ",
    );
    text.push_str(&labels(&DCGM_LABELS));
    text.push_str(
        " (the last three empty unless exactly one container holds the GPU):\n\n| name | meaning | made of |\n|---|---|---|\n",
    );
    for def in DCGM {
        let _strings_take_all = writeln!(text, "| `{}` | {} | {} |", def.name, def.help, def.source);
    }
    text
}

fn rows(text: &mut String, defs: &[&Def]) {
    for def in defs {
        let _strings_take_all = writeln!(text, "| `{}` | {} | {} | {} |", def.name, labels(def.labels), def.help, def.source);
    }
}

fn labels(labels: &[&str]) -> String {
    labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ")
}
