//! Nodes and pods like Alibaba's openb lists, by their published marginals.
//!
//! Nodes: kinds in the shares of the 1,213 GPU nodes (for 1,213 exactly theirs: 6,212 GPUs). Pods: none, share, 1, 2, 4, 8
//! GPUs in the shares of the default list (13.3 %, 37.8 %, 48.0 %, 0.2 %, 0.2 %, 0.5 %), in each group the joint shapes of
//! GPU share, CPU and memory. Both by apportionment, in random order. Creation, life and wait are drawn from the list's
//! quantiles, each on its own. `gpu_spec` stays empty as in the default list.

mod fit;

use std::io::{self, Write};

use super::draw::{Draw, apportion, whole};
use fit::{CREATED, LIVES, NODES, PHASES, PODS, QOS, Shape, WAITS};

/// Writes `nodes` rows after the header.
pub fn write_nodes(nodes: u32, seed: u64, out: &mut dyn Write) -> io::Result<()> {
    let parts = apportion(nodes, &NODES.map(|node| node.4));
    let mut kinds: Vec<_> = NODES.iter().zip(parts).flat_map(|(kind, part)| (0..part).map(move |_| kind)).collect();
    Draw::new(seed, 5).shuffle(&mut kinds);
    writeln!(out, "sn,cpu_milli,memory_mib,gpu,model")?;
    for (index, (model, gpus, cpu, memory, _)) in kinds.into_iter().enumerate() {
        writeln!(out, "openb-node-{index:04},{cpu},{memory},{gpus},{model}")?;
    }
    Ok(())
}

/// Writes `pods` rows after the header, by creation.
pub fn write_pods(pods: u32, seed: u64, out: &mut dyn Write) -> io::Result<()> {
    let mut draw = Draw::new(seed, 6);
    let mut all = shapes(pods);
    draw.shuffle(&mut all);
    let mut created: Vec<u64> = all.iter().map(|_| whole(quantile(&CREATED, draw.unit()))).collect();
    created.sort_unstable();
    writeln!(
        out,
        "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time"
    )?;
    for (index, ((gpus, milli, cpu, memory, _), created)) in all.into_iter().zip(created).enumerate() {
        let life = whole(10_f64.powf(quantile(&LIVES, draw.unit())));
        let (qos, phase) = (named(&mut draw, &QOS), named(&mut draw, &PHASES));
        let wait = whole(quantile(&WAITS, draw.unit())).min(life);
        let scheduled = if phase == "Pending" { String::new() } else { (created + wait).to_string() };
        let deleted = created + life;
        writeln!(out, "openb-pod-{index:04},{cpu},{memory},{gpus},{milli},,{qos},{phase},{created},{deleted},{scheduled}")?;
    }
    Ok(())
}

fn shapes(pods: u32) -> Vec<Shape> {
    let groups = apportion(pods, &PODS.map(|group| group.0));
    let mut all = Vec::new();
    for ((_, shapes), group) in PODS.iter().zip(groups) {
        let weights: Vec<u32> = shapes.iter().map(|shape| shape.4).collect();
        for (shape, part) in shapes.iter().zip(apportion(group, &weights)) {
            all.extend((0..part).map(|_| *shape));
        }
    }
    all
}

fn named(draw: &mut Draw, weighted: &[(&'static str, u32)]) -> &'static str {
    let at = draw.pick(weighted.iter().map(|one| one.1));
    weighted.get(at).map_or("", |one| one.0)
}

/// The value at a quantile, on straight lines between the known ones.
fn quantile(known: &[(f64, f64)], at: f64) -> f64 {
    let next = known.partition_point(|(quantile, _)| *quantile <= at).clamp(1, known.len().max(2) - 1);
    match (known.get(next - 1), known.get(next)) {
        (Some((from, low)), Some((to, high))) => low + (high - low) * ((at - from) / (to - from)).clamp(0.0, 1.0),
        _ => 0.0,
    }
}
