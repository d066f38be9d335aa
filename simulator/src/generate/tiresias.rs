//! Training jobs like Tiresias' 60-job testbed trace: `job_id,num_gpu,submit_time,iterations,model_name,duration,interval`.
//!
//! Fitted to its 60 rows: one job about every 30 s (20 to 44); half on one GPU, the rest on 2, 4 and 8 alike; ten models
//! alike; run times from 121 s on, half of them under 127 s, the longest 1,800 s.

use std::io::{self, Write};

use super::draw::{Draw, whole};

/// Model and iterations per second on one GPU, as `iterations / duration` of the original's long one-GPU jobs.
const MODELS: [(&str, f64); 10] = [
    ("vgg19", 3.7),
    ("vgg16", 4.2),
    ("vgg11", 6.4),
    ("resnet152", 2.7),
    ("resnet101", 3.8),
    ("resnet50", 6.5),
    ("inception4", 2.1),
    ("inception3", 4.3),
    ("googlenet", 7.1),
    ("alexnet", 18.3),
];
const GPUS: [u32; 4] = [1, 2, 4, 8];
const GPU_WEIGHTS: [u32; 4] = [3, 1, 1, 1];

/// Writes `jobs` rows after the header.
pub fn write(jobs: u32, seed: u64, out: &mut dyn Write) -> io::Result<()> {
    let mut draw = Draw::new(seed, 4);
    writeln!(out, "job_id,num_gpu,submit_time,iterations,model_name,duration,interval")?;
    let mut time = 0;
    for id in 0..jobs {
        let gpus = GPUS.get(draw.pick(GPU_WEIGHTS)).copied().unwrap_or(1);
        let (model, rate) = MODELS.get(draw.below(10) as usize).copied().unwrap_or(MODELS[0]);
        let duration = whole((121.0 + (1.8 + 2.0 * draw.normal()).exp()).min(1800.0));
        let interval = whole(30.0 + 5.0 * draw.normal()).clamp(20, 44);
        let iterations = whole(rate * duration as f64);
        writeln!(out, "{id},{gpus},{time},{iterations},{model},{duration},{interval}")?;
        time += interval;
    }
    Ok(())
}
