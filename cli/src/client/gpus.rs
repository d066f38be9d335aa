//! `gpus`: the GPUs of this machine as a table, or everything that is known of them as JSON.

use tidegate_node_agent::gpus::{Args, look};
use tidegate_node_agent::view::{Finding, Gpu, Gpus};

use super::table::{Lean, lay_out};
use super::{Error, out};

const COLUMNS: [(&str, Lean); 9] = [
    ("GPU", Lean::Right),
    ("CLASS", Lean::Left),
    ("HEALTH", Lean::Left),
    ("BUSY", Lean::Right),
    ("MEMORY", Lean::Right),
    ("POWER", Lean::Right),
    ("TEMP", Lean::Right),
    ("PROCESSES", Lean::Right),
    ("UUID", Lean::Left),
];
/// What is not known. Never a zero.
const UNKNOWN: &str = "-";

pub fn run(args: &Args) -> Result<(), Error> {
    let gpus = look(args);
    if args.json {
        let mut text = serde_json::to_string(&gpus).map_err(|e| Error::Input(format!("write the GPUs: {e}")))?;
        text.push('\n');
        return out::print(&text);
    }
    out::print(&render(&gpus))
}

/// The table, what is wrong below it, or why there is none.
fn render(gpus: &Gpus) -> String {
    let mut text = match &gpus.closed {
        Some(closed) => format!("no GPU can be seen: {}\n", closed.why),
        None => lay_out(&COLUMNS, &gpus.gpus.iter().map(row).collect::<Vec<_>>()),
    };
    let wrong = gpus.gpus.iter().flat_map(|gpu| {
        let line = |finding: &Finding| format!("GPU {}: {}\n", gpu.identity.index, finding.evidence);
        gpu.health.findings.iter().map(line)
    });
    text.extend(wrong);
    text.extend(gpus.unreadable.iter().map(|gpu| format!("GPU {} cannot be read: {}\n", gpu.index, gpu.fault.category())));
    text
}

fn row(gpu: &Gpu) -> Vec<String> {
    let known = |value: Option<String>| value.unwrap_or_else(|| UNKNOWN.to_owned());
    let reading = gpu.reading.as_ref();
    let memory = reading.and_then(|reading| reading.memory.known());
    let power = reading.and_then(|reading| reading.power.draw_milliwatts.known());
    let celsius = reading.and_then(|reading| reading.temperatures.gpu_celsius.known());
    let processes = reading.and_then(|reading| reading.processes.known()).map(|_| gpu.processes.len().to_string());
    vec![
        gpu.identity.index.to_string(),
        known(gpu.class.clone()),
        gpu.health.state.word().to_owned(),
        known(busy(gpu)),
        known(memory.map(|memory| format!("{}/{} MiB", memory.used_bytes >> 20, memory.total_bytes >> 20))),
        known(power.map(|milliwatts| format!("{} W", milliwatts / 1000))),
        known(celsius.map(|celsius| format!("{celsius} °C"))),
        known(processes),
        gpu.identity.uuid.to_string(),
    ]
}

/// Multiprocessors with a warp where the hardware measures it; else residency, which says so.
fn busy(gpu: &Gpu) -> Option<String> {
    let reading = gpu.reading.as_ref()?;
    let measured = reading.activity.as_ref().and_then(|activity| activity.sm.known());
    let resident = || reading.utilization.known().map(|utilization| format!("{} % resident", utilization.resident_permille / 10));
    measured.map(|share| format!("{:.0} %", share * 100.0)).or_else(resident)
}
