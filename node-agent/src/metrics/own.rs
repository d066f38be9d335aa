//! The agent's own metrics, read from the node.

use std::time::Duration;

use tidegate_nvml::{EventKind, Fact, ProcessKind, Reading};

use super::Sheet;
use super::table::{self as t, Def};
use crate::gpu::{Busy, Gpu, REASONS};
use crate::health::{CAUSES, State};
use crate::node::Node;
use crate::pods::{MismatchKind, kubelet};
use crate::view::facts;

const MHZ: f64 = 1e6;

pub(super) fn write(node: &Node, at: Duration, sheet: &mut Sheet) {
    let driver = node.driver.as_ref().and_then(|driver| driver.driver.known()).map_or("", String::as_str);
    for gpu in node.gpus.values() {
        let mut one = One { uuid: gpu.identity.uuid.as_str(), gpu, sheet };
        one.identity(driver);
        one.health();
        one.age(at);
        one.totals();
        one.events(node.began_unix);
        if let Some((reading, read)) = &gpu.reading
            && gpu.fault.is_none()
            && at.saturating_sub(*read) <= node.times.stale()
        {
            one.reading(reading);
        }
        one.instances();
        one.pods(node);
    }
    of_node(node, at, sheet);
}

/// One GPU's part of the sheet.
struct One<'a> {
    uuid: &'a str,
    gpu: &'a Gpu,
    sheet: &'a mut Sheet,
}

fn number<T: Copy + Into<f64>>(fact: &Fact<T>) -> Option<f64> {
    fact.known().map(|value| (*value).into())
}

fn flag(fact: &Fact<bool>) -> Option<f64> {
    fact.known().map(|value| f64::from(u8::from(*value)))
}

impl One<'_> {
    fn add(&mut self, def: &'static Def, value: Option<f64>) {
        self.sheet.add(def, &[self.uuid], value);
    }

    fn add2(&mut self, def: &'static Def, label: &str, value: Option<f64>) {
        self.sheet.add(def, &[self.uuid, label], value);
    }

    fn identity(&mut self, driver: &str) {
        let identity = &self.gpu.identity;
        let text = |fact: &Fact<String>| fact.known().cloned().unwrap_or_default();
        let word = |fact: &Fact<u32>| fact.known().map(ToString::to_string).unwrap_or_default();
        let mode = self
            .gpu
            .reading
            .as_ref()
            .and_then(|(reading, _)| reading.modes.compute.known())
            .map_or("", |mode| facts::compute(*mode));
        let labels = [
            self.uuid,
            &identity.index.to_string(),
            &word(&identity.minor),
            &text(&identity.name),
            &identity.class().unwrap_or_default(),
            &text(&identity.architecture),
            &text(&identity.pci_bus_id),
            &text(&identity.serial),
            driver,
            &word(&identity.numa_node),
            mode,
            self.gpu.activity_source().word(),
        ];
        self.sheet.add(&t::GPU_INFO, &labels, Some(1.0));
        self.add(&t::SM_CLOCK_MAX, number(&identity.max_sm_clock_mhz).map(|mhz| mhz * MHZ));
        self.add2(&t::TEMPERATURE_LIMIT, "slowdown", number(&identity.slowdown_celsius));
        self.add2(&t::TEMPERATURE_LIMIT, "shutdown", number(&identity.shutdown_celsius));
    }

    fn health(&mut self) {
        let now = self.gpu.health.state();
        for state in State::ALL {
            self.add2(&t::GPU_HEALTH, state.word(), Some(f64::from(u8::from(state == now))));
        }
        let found: Vec<_> = self.gpu.health.findings().map(|(cause, _)| cause).collect();
        for cause in CAUSES.into_iter().filter(|cause| found.contains(cause)) {
            self.add2(&t::GPU_FINDING, cause.rule().word, Some(1.0));
        }
    }

    fn age(&mut self, at: Duration) {
        let age = self.gpu.reading.as_ref().map(|(_, read)| at.saturating_sub(*read).as_secs_f64());
        self.add(&t::READING_AGE, age);
        self.add(&t::UNOBSERVED, Some(self.gpu.totals.pace.unobserved));
    }

    fn totals(&mut self) {
        let totals = &self.gpu.totals;
        let whole = |total: &crate::counter::Total| total.get().map(|total| total as f64);
        self.add2(&t::ACTIVE, "sm", totals.busy.sm.get());
        self.add2(&t::ACTIVE, "resident", totals.resident.get());
        self.add(&t::OCCUPANCY, totals.busy.occupancy.get());
        self.add(&t::TENSOR, totals.busy.tensor.get());
        self.add(&t::BANDWIDTH, totals.busy.memory_bandwidth.get());
        self.add(&t::MEMORY_ACTIVE, totals.memory_active.get());
        self.add2(&t::ENERGY, "counter", whole(&totals.energy).map(|millijoules| millijoules / 1000.0));
        self.add2(&t::ENERGY, "power", totals.sampled_joules);
        for (reason, seconds) in REASONS.iter().zip(totals.throttled) {
            self.add2(&t::THROTTLED, reason.word, seconds.get());
        }
        self.add2(&t::ECC, "corrected", whole(&totals.ecc_corrected));
        self.add2(&t::ECC, "uncorrected", whole(&totals.ecc_uncorrected));
        self.add2(&t::PCIE_BYTES, "tx", whole(&totals.pcie_tx));
        self.add2(&t::PCIE_BYTES, "rx", whole(&totals.pcie_rx));
        self.add(&t::PCIE_REPLAYS, whole(&totals.pcie_replays));
        for (kind, errors) in &totals.pcie_errors {
            self.add2(&t::PCIE_ERRORS, kind.word(), whole(errors));
        }
        self.add2(&t::NVLINK_BYTES, "tx", whole(&totals.nvlink_tx));
        self.add2(&t::NVLINK_BYTES, "rx", whole(&totals.nvlink_rx));
        for (link, errors) in &totals.link_errors {
            self.add2(&t::NVLINK_ERRORS, &link.to_string(), whole(errors));
        }
    }

    fn events(&mut self, began_unix: f64) {
        for (xid, count) in &self.gpu.xids {
            let xid = xid.to_string();
            self.add2(&t::XIDS, &xid, Some(count.count as f64));
            self.add2(&t::XID_LAST, &xid, Some(began_unix + count.last.as_secs_f64()));
        }
        for (kind, count) in &self.gpu.events {
            self.add2(&t::EVENTS, event_word(*kind), Some(*count as f64));
        }
    }

    fn reading(&mut self, reading: &Reading) {
        let memory = reading.memory.known();
        self.add(&t::MEMORY_TOTAL, memory.map(|memory| memory.total_bytes as f64));
        self.add(&t::MEMORY_USED, memory.map(|memory| memory.used_bytes as f64));
        self.add(&t::MEMORY_RESERVED, memory.map(|memory| memory.reserved_bytes as f64));
        self.add(&t::POWER, number(&reading.power.draw_milliwatts).map(|milliwatts| milliwatts / 1000.0));
        self.add(&t::POWER_LIMIT, number(&reading.power.limit_milliwatts).map(|milliwatts| milliwatts / 1000.0));
        self.add(&t::SM_CLOCK, number(&reading.clocks.sm_mhz).map(|mhz| mhz * MHZ));
        self.add(&t::MEMORY_CLOCK, number(&reading.clocks.memory_mhz).map(|mhz| mhz * MHZ));
        self.add(&t::PERFORMANCE_STATE, number(&reading.clocks.performance_state));
        self.add2(&t::TEMPERATURE, "gpu", number(&reading.temperatures.gpu_celsius));
        self.add2(&t::TEMPERATURE, "memory", number(&reading.temperatures.memory_celsius));
        self.add(&t::ECC_ENABLED, flag(&reading.ecc.enabled));
        let rows = reading.remapped_rows.known();
        self.add2(&t::REMAPPED, "corrected", rows.map(|rows| rows.corrected as f64));
        self.add2(&t::REMAPPED, "uncorrected", rows.map(|rows| rows.uncorrected as f64));
        let pending = rows.map(|rows| f64::from(u8::from(rows.pending))).or(flag(&reading.retirement_pending));
        self.add(&t::REMAP_PENDING, pending);
        self.add(&t::REMAP_FAILED, rows.map(|rows| f64::from(u8::from(rows.failed))));
        self.add(&t::RECOVERY_ACTION, number(&reading.recovery_action));
        self.add(&t::PCIE_GENERATION, number(&reading.pcie.generation));
        self.add(&t::PCIE_WIDTH, number(&reading.pcie.width));
        for link in &reading.nvlink.links {
            self.add2(&t::NVLINK_UP, &link.number.to_string(), flag(&link.up));
        }
        self.add(&t::PERSISTENCE, flag(&reading.modes.persistence));
        self.add(&t::MIG_ENABLED, flag(&reading.modes.mig));
        self.add(&t::MIG_PENDING, flag(&reading.modes.mig_pending));
        if let Fact::Known(processes) = &reading.processes {
            for kind in [ProcessKind::Compute, ProcessKind::Mps, ProcessKind::Graphics] {
                let count = processes.list.iter().filter(|process| process.kind == kind).count();
                self.add2(&t::PROCESSES, facts::process_kind(kind), Some(count as f64));
            }
        }
        let answers = facts::answers(reading);
        self.add(&t::UNSUPPORTED, Some(answers.unsupported as f64));
        for (fault, count) in &answers.failed {
            self.add2(&t::FACT_FAULTS, fault, Some(*count as f64));
        }
    }

    fn instances(&mut self) {
        for (mig, instance) in &self.gpu.instances {
            let told = &instance.told;
            let profile = told.profile.known().map_or("", String::as_str);
            let labels = [self.uuid, mig, &told.gpu_instance.to_string(), &told.compute_instance.to_string(), profile];
            self.sheet.add(&t::INSTANCE_INFO, &labels, Some(1.0));
            let bytes = |fact: &Fact<u64>| fact.known().map(|bytes| *bytes as f64);
            self.add2(&t::INSTANCE_MEMORY_TOTAL, mig, bytes(&told.memory_total_bytes));
            self.add2(&t::INSTANCE_MEMORY_USED, mig, bytes(&told.memory_used_bytes));
            let Busy { sm, occupancy, tensor, memory_bandwidth } = instance.busy;
            self.add2(&t::INSTANCE_ACTIVE, mig, sm.get());
            self.add2(&t::INSTANCE_OCCUPANCY, mig, occupancy.get());
            self.add2(&t::INSTANCE_TENSOR, mig, tensor.get());
            self.add2(&t::INSTANCE_BANDWIDTH, mig, memory_bandwidth.get());
        }
    }

    fn pods(&mut self, node: &Node) {
        let usage = &self.gpu.usage;
        self.add(&t::UNATTRIBUTED, Some(usage.unattributed));
        for (holder, user) in &usage.users {
            let mig = holder.mig.as_deref().unwrap_or("");
            let claim = user.claim.as_deref().unwrap_or("");
            let with_claim = [self.uuid, mig, &holder.namespace, &holder.pod, &holder.container, claim];
            // The others have the same labels but the claim.
            let [labels @ .., _claim] = &with_claim;
            self.sheet.add(&t::POD_ALLOCATED, &with_claim, Some(f64::from(u8::from(user.allocated))));
            self.sheet.add(&t::POD_ACTIVE, labels, Some(user.active));
            self.sheet.add(&t::POD_HELD, labels, Some(user.held));
            self.sheet.add(&t::POD_MEMORY, labels, Some(user.memory_bytes as f64));
            self.sheet.add(&t::POD_PROCESSES, labels, Some(user.processes as f64));
        }
        if node.owners.allocatable.is_some() {
            for kind in MismatchKind::ALL {
                let count = usage.mismatches.iter().filter(|mismatch| mismatch.kind == kind).count();
                self.add2(&t::MISMATCHES, kind.word(), Some(count as f64));
            }
        }
        let healthy = node.owners.plugin_healthy(&self.gpu.identity, !self.gpu.instances.is_empty());
        self.add(&t::GPU_PLUGIN_HEALTHY, healthy.map(|healthy| f64::from(u8::from(healthy))));
    }
}

fn of_node(node: &Node, at: Duration, sheet: &mut Sheet) {
    if let Some(driver) = &node.driver {
        let text = |fact: &Fact<String>| fact.known().cloned().unwrap_or_default();
        sheet.add(&t::DRIVER_INFO, &[&text(&driver.driver), &text(&driver.nvml), &text(&driver.cuda)], Some(1.0));
    }
    match &node.closed {
        None => sheet.add(&t::UP, &[""], Some(1.0)),
        Some((why, _)) => sheet.add(&t::UP, &[why], Some(0.0)),
    }
    let own = &node.own;
    sheet.add(&t::UNREADABLE, &[], Some(node.unreadable.len() as f64));
    sheet.add(&t::DEAF, &[], Some(node.deaf.len() as f64));
    sheet.add(&t::HUNG, &[], Some(node.hung(at) as f64));
    sheet.add(&t::OPENED, &[], Some(own.opened as f64));
    sheet.add(&t::READINGS, &[], Some(own.readings as f64));
    for (fault, count) in &own.failed {
        sheet.add(&t::FAILED, &[fault], Some(*count as f64));
    }
    sheet.add(&t::READING_SECONDS, &[], Some(own.reading_seconds));
    sheet.add(&t::KUBELET_ANSWERS, &[], Some(own.kubelet_answers as f64));
    for category in kubelet::CATEGORIES {
        let count = own.kubelet_errors.get(category).copied().unwrap_or(0);
        sheet.add(&t::KUBELET_ERRORS, &[category], Some(count as f64));
    }
    sheet.add(&t::KUBELET_AGE, &[], own.kubelet_answered.map(|answered| at.saturating_sub(answered).as_secs_f64()));
    sheet.add(&t::STATUS_WRITES, &[], Some(own.status_writes as f64));
    sheet.add(&t::STATUS_ERRORS, &[], Some(own.status_errors as f64));
}

/// What the agent itself costs.
pub(super) fn of_process(sheet: &mut Sheet) {
    let usage = crate::process::usage();
    sheet.add(&t::RSS, &[], usage.resident_bytes);
    sheet.add(&t::CPU, &[], usage.cpu_seconds);
}

fn event_word(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Xid => "xid",
        EventKind::UncorrectedEcc => "uncorrected_ecc",
        EventKind::CorrectedEccStorm => "corrected_ecc_storm",
        EventKind::PageRetired => "page_retired",
        EventKind::PoisonContained => "poison_contained",
        EventKind::MigChanged => "mig_changed",
        EventKind::Unavailable => "unavailable",
        EventKind::RecoveryAction => "recovery_action",
    }
}
