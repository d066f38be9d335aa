//! A steady state at any size: a cluster that is as busy as its load says from the first second, and arrivals that keep it so.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidegate_core::names::QueueName;
use tidegate_core::quota::{NodeIx, QueueQuota, Quota};

use super::production::{classes, pick};
use super::settings::{ScaleSettings, Topology};
use super::{Ms, Scene, Setup, Workload, generate};
use crate::Error;

/// The setup for about `gpus` GPUs (whole racks are not needed: nodes are counted out exactly). Run times are exponential,
/// so what runs at the start ends at the same rate as what arrives: the load is the same all along.
///
/// # Errors
/// When a wish names a level that the topology does not have, or there is no size to draw.
pub fn scale(name: &str, settings: &ScaleSettings, gpus: u32) -> Result<Setup, Error> {
    let nodes = gpus.div_ceil(settings.gpus_per_node.max(1)).max(1);
    let topology = topology(settings, nodes);
    let classes = classes(&settings.sizes, &topology)?;
    let count = (gpus / settings.gpus_per_queue.max(1)).clamp(settings.queues_min.max(1), settings.queues_max.max(1));
    let queues = (0..count).map(|at| queue(at, gpus, count)).collect();
    let layout = generate::layout(&topology);
    let all = u64::from(layout.nodes()) * u64::from(settings.gpus_per_node);
    let workloads = workloads(settings, all, count)?;
    let scene = Scene { name: name.to_owned(), resources: vec!["gpu".to_owned()], queues, classes, layout: Some(layout) };
    Ok(Setup { scene, workloads })
}

/// Blocks and racks of equal size, as many as the nodes need: at least as many nodes as asked for.
fn topology(settings: &ScaleSettings, nodes: u32) -> Topology {
    let rack = settings.nodes_per_rack.clamp(1, nodes);
    let racks = nodes.div_ceil(rack);
    let block = settings.racks_per_block.clamp(1, racks);
    Topology {
        levels: vec![("block".into(), racks.div_ceil(block)), ("rack".into(), block), ("node".into(), rack)],
        node_milli: i64::from(settings.gpus_per_node) * 1000,
        pods_per_node: settings.gpus_per_node,
    }
}

fn queue(at: u32, gpus: u32, count: u32) -> QueueQuota {
    let quota = Quota { nominal: i64::from(gpus / count) * 1000, ..Quota::default() };
    QueueQuota { name: QueueName::from(format!("queue-{at}")), parent: None, weight_milli: 1000, quotas: vec![(0, quota)] }
}

fn workloads(settings: &ScaleSettings, gpus: u64, queues: u32) -> Result<Vec<Workload>, Error> {
    let mut random = StdRng::seed_from_u64(settings.seed ^ gpus);
    let often: u64 = settings.sizes.iter().map(|size| u64::from(size.often)).sum();
    let asked: u64 = settings.sizes.iter().map(|size| u64::from(size.often) * u64::from(size.gpus)).sum();
    let target = gpus * settings.load_milli / 1000;
    let mut workloads = Vec::new();
    let mut held = 0;
    while held < target {
        let (workload, size) = draw(settings, &mut random, 0, queues)?;
        held += u64::from(size);
        workloads.push(workload);
    }
    // So many arrive in a mean run time as run at a time.
    let running = target as f64 * often as f64 / (asked as f64).max(1.0);
    let gap = settings.mean_runtime_ms as f64 / running.max(1.0);
    let mut at = settings.settle_ms as f64;
    for _ in 0..settings.arrivals {
        at += gap * exponential(&mut random);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "times are positive and small")]
        let created_ms = at as Ms;
        workloads.push(draw(settings, &mut random, created_ms, queues)?.0);
    }
    Ok(workloads)
}

/// One workload and its GPUs.
fn draw(settings: &ScaleSettings, random: &mut StdRng, created_ms: Ms, queues: u32) -> Result<(Workload, u32), Error> {
    let nothing = || Error::Usage("simulator/settings/scale.yaml: sizes: there must be one that is often more than 0".into());
    let size = pick(random, settings.sizes.iter().map(|size| size.often)).ok_or_else(nothing)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "times are positive and small")]
    let runtime_ms = (settings.mean_runtime_ms as f64 * exponential(random)) as Ms;
    let queue = NodeIx(random.random_range(0..queues));
    let gpus = settings.sizes.get(size).map_or(1, |size| size.gpus);
    Ok((Workload { queue, class: u16::try_from(size).unwrap_or(u16::MAX), created_ms, runtime_ms: runtime_ms.max(1) }, gpus))
}

/// Exponential with mean 1.
fn exponential(random: &mut StdRng) -> f64 {
    -(1.0 - random.random::<f64>()).ln()
}
