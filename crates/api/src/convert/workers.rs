//! A job's workers: groups, how close together, how fast.

use tidegate_core::state::{Group, SpeedPoint, Spread};

use super::ask::worker;
use crate::kinds::{SpreadWish, TrainingJobSpec, WorkerGroup};

/// The groups of a job; one without a name where it does not tell its workers apart.
pub fn groups(spec: &TrainingJobSpec) -> Vec<Group> {
    if spec.groups.is_empty() {
        let workers = spec.workers.clone().unwrap_or_default();
        let ask = worker(&spec.gpu, spec.node_affinity.as_ref(), spec.cpu_milli, spec.memory_mib);
        let spread = spec.spread.as_ref().map(spread);
        return vec![Group { name: String::new(), min: workers.min, max: workers.max, ask, spread }];
    }
    let group = |group: &WorkerGroup| Group {
        name: group.name.clone(),
        min: group.min,
        max: group.max,
        ask: worker(
            group.gpu.as_ref().unwrap_or(&spec.gpu),
            group.node_affinity.as_ref().or(spec.node_affinity.as_ref()),
            group.cpu_milli.unwrap_or(spec.cpu_milli),
            group.memory_mib.unwrap_or(spec.memory_mib),
        ),
        spread: group.spread.as_ref().map(spread),
    };
    spec.groups.iter().map(group).collect()
}

/// Of which `DeviceClass` of Kubernetes the workers of each group claim their devices, if of one.
pub fn device_classes(spec: &TrainingJobSpec) -> Vec<Option<&str>> {
    let asks = spec.groups.iter().map(|group| group.gpu.as_ref().unwrap_or(&spec.gpu));
    let alike = spec.groups.is_empty().then_some(&spec.gpu);
    alike.into_iter().chain(asks).map(|gpu| gpu.device_class_name.as_deref()).collect()
}

/// How close the groups are to each other: a job of one group says it of its workers.
pub(super) fn between_groups(spec: &TrainingJobSpec) -> Option<Spread> {
    spec.spread.as_ref().filter(|_| !spec.groups.is_empty()).map(spread)
}

/// The curve, in the engine's order.
pub(super) fn speedup(spec: &TrainingJobSpec) -> Vec<SpeedPoint> {
    let points = spec.speedup.iter();
    let mut points: Vec<SpeedPoint> =
        points.map(|point| SpeedPoint { choice: point.choice, ..SpeedPoint::new(point.workers, point.speed_milli) }).collect();
    points.sort_unstable();
    points
}

fn spread(wish: &SpreadWish) -> Spread {
    Spread { level: wish.level.clone(), required: wish.required }
}
