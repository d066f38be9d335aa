//! What `top` says of each device, model, job and queue, in words and figures; the screen and the plain text
//! share it.

use tidegate_api::view::{Device, Holder, Job, Model, Queue, State};

use crate::client::explain::span;
use crate::client::table::{Lean, lay_out};

/// Headings of a table.
pub type Columns = &'static [(&'static str, Lean)];

pub const DEVICES: Columns =
    &[("GPU", Lean::Left), ("CLASS", Lean::Left), ("GIB", Lean::Right), ("HEALTH", Lean::Left), ("HELD BY", Lean::Left)];

pub const MODELS: Columns = &[
    ("MODEL", Lean::Left),
    ("PHASE", Lean::Left),
    ("REQ/S", Lean::Right),
    ("P99 MS", Lean::Right),
    ("SLO MS", Lean::Right),
    ("READY", Lean::Right),
    ("WANTED", Lean::Right),
    ("QUEUED", Lean::Right),
    ("WHY", Lean::Left),
];

pub const JOBS: Columns = &[
    ("JOB", Lean::Left),
    ("QUEUE", Lean::Left),
    ("PHASE", Lean::Left),
    ("WORKERS", Lean::Right),
    ("STEP", Lean::Right),
    ("METRICS", Lean::Left),
    ("WHY", Lean::Left),
];

const QUEUES: Columns = &[("QUEUE", Lean::Left), ("USED", Lean::Right), ("OWN", Lean::Right), ("LENT", Lean::Right)];

/// Everything as text.
pub fn text(state: &State, url: &str) -> String {
    let tables = [
        (DEVICES, state.devices.iter().map(device).collect::<Vec<_>>()),
        (MODELS, state.models.iter().map(model).collect()),
        (JOBS, state.jobs.iter().map(job).collect()),
        (QUEUES, state.queues.iter().map(queue).collect()),
    ];
    let tables = tables.into_iter().filter(|(_, rows)| !rows.is_empty()).map(|(columns, rows)| lay_out(columns, &rows));
    std::iter::once(format!("{}\n", heading(state, url))).chain(tables).collect::<Vec<_>>().join("\n")
}

pub fn heading(state: &State, url: &str) -> String {
    let up = span(state.now_ms.saturating_sub(state.started_ms));
    let idle = state.devices.iter().filter(|d| d.holders.is_empty()).count();
    let cap = if state.eviction_cap_reached { "; the cap on evictions holds work back" } else { "" };
    format!("tidegate at {url}, up {up}: {} GPUs, {idle} idle{cap}", state.devices.len())
}

pub fn device(device: &Device) -> Vec<String> {
    let class = if device.simulated { format!("{} (simulated)", device.class) } else { device.class.clone() };
    vec![device.id.clone(), class, (device.memory_mib / 1024).to_string(), device.health.clone(), holders(device)]
}

pub fn holders(device: &Device) -> String {
    if device.holders.is_empty() {
        return "idle".to_owned();
    }
    device.holders.iter().map(holder).collect::<Vec<_>>().join(", ")
}

fn holder(holder: &Holder) -> String {
    let Holder { kind, name, phase, lent } = holder;
    let notes: Vec<&str> =
        [(*lent, "lent"), (phase != "running", phase.as_str())].iter().filter(|(on, _)| *on).map(|(_, note)| *note).collect();
    if notes.is_empty() { format!("{kind}/{name}") } else { format!("{kind}/{name} ({})", notes.join(", ")) }
}

pub fn model(model: &Model) -> Vec<String> {
    let moving = [('+', model.starting), ('-', model.draining)]
        .iter()
        .filter(|(_, n)| *n > 0)
        .fold(model.ready.to_string(), |text, (sign, n)| format!("{text}{sign}{n}"));
    vec![
        model.name.clone(),
        model.phase.clone(),
        format!("{:.1}", model.arrival_per_s),
        format!("{:.0}", model.p99_ms),
        model.slo_ms.to_string(),
        moving,
        model.wanted.to_string(),
        (model.queued + model.held).to_string(),
        model.reason.clone(),
    ]
}

pub fn job(job: &Job) -> Vec<String> {
    let metrics = job.metrics.iter().map(|(name, value)| format!("{name} {value:.4}")).collect::<Vec<_>>().join(", ");
    vec![
        job.name.clone(),
        job.queue.clone(),
        job.phase.clone(),
        format!("{} of {}..{}", job.workers, job.min, job.max),
        job.done.map_or_else(|| job.step.to_string(), |done| format!("{} ({:.0} %)", job.step, done * 100.0)),
        metrics,
        why(job),
    ]
}

/// The reason, and when it is expected to start if it waits.
fn why(Job { reason, eta, .. }: &Job) -> String {
    eta.as_ref().map_or_else(|| reason.clone(), |eta| format!("{reason}; expected to start {}", eta.text))
}

fn queue(queue: &Queue) -> Vec<String> {
    vec![queue.name.clone(), queue.used.to_string(), queue.nominal.to_string(), queue.lent.to_string()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_api::eta::Eta;

    fn sample() -> State {
        let holder = |kind: &str, name: &str, phase: &str, lent| Holder {
            kind: kind.to_owned(),
            name: name.to_owned(),
            phase: phase.to_owned(),
            lent,
        };
        let device = |id: &str, holders| Device {
            id: id.to_owned(),
            class: "H100-80GB".to_owned(),
            memory_mib: 81_920,
            simulated: true,
            health: "ok".to_owned(),
            why: String::new(),
            holders,
        };
        State {
            now_ms: 100_000,
            started_ms: 40_000,
            devices: vec![
                device("gpu0", vec![holder("job", "night", "running", true), holder("model", "digits", "starting", false)]),
                device("gpu1", vec![]),
            ],
            models: vec![Model {
                name: "digits".to_owned(),
                phase: "waking".to_owned(),
                reason: "a request came".to_owned(),
                slo_ms: 250,
                wanted: 1,
                ready: 2,
                starting: 1,
                arrival_per_s: 12.34,
                p99_ms: 88.4,
                queued: 3,
                held: 4,
                ..Model::default()
            }],
            jobs: vec![Job {
                name: "night".to_owned(),
                queue: "research".to_owned(),
                phase: "running".to_owned(),
                reason: "uses a lent device".to_owned(),
                workers: 1,
                min: 1,
                max: 4,
                step: 120,
                metrics: [("loss".to_owned(), 0.41)].into(),
                ..Job::default()
            }],
            queues: vec![Queue {
                name: "research".to_owned(),
                parent: None,
                nominal: 0,
                borrowing_limit: None,
                used: 1,
                lent: 1,
            }],
            eviction_cap_reached: false,
        }
    }

    #[test]
    fn the_text_says_everything_once() {
        let expected = "\
tidegate at http://127.0.0.1:8080, up 60 s: 2 GPUs, 1 idle

GPU   CLASS                  GIB  HEALTH  HELD BY
gpu0  H100-80GB (simulated)   80  ok      job/night (lent), model/digits (starting)
gpu1  H100-80GB (simulated)   80  ok      idle

MODEL   PHASE   REQ/S  P99 MS  SLO MS  READY  WANTED  QUEUED  WHY
digits  waking   12.3      88     250    2+1       1       7  a request came

JOB    QUEUE     PHASE      WORKERS  STEP  METRICS      WHY
night  research  running  1 of 1..4   120  loss 0.4100  uses a lent device

QUEUE     USED  OWN  LENT
research     1    0     1
";
        assert_eq!(text(&sample(), "http://127.0.0.1:8080"), expected);
    }

    #[test]
    fn who_waits_is_shown_with_its_expected_start() {
        let eta = Some(Eta { text: "14:20 UTC (in 2 h)".to_owned(), ..Eta::default() });
        let waiting = Job { reason: "no device is free".to_owned(), eta, ..Job::default() };
        assert_eq!(job(&waiting).pop().unwrap(), "no device is free; expected to start 14:20 UTC (in 2 h)");
    }

    #[test]
    fn a_box_without_work_shows_its_devices_alone() {
        let state = State { devices: sample().devices.split_off(1), eviction_cap_reached: true, ..State::default() };
        let text = text(&state, "URL");
        assert!(text.starts_with("tidegate at URL, up 0 s: 1 GPUs, 1 idle; the cap on evictions holds work back\n"), "{text}");
        assert!(!text.contains("MODEL") && !text.contains("JOB"), "{text}");
    }
}
