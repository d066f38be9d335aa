//! Elastic training jobs like Pollux's workloads: `name,time,application,num_replicas,batch_size`, sorted, over 8 hours.
//!
//! The mix of applications, each application's GPUs and batch size, and the share of each hour are those of the eight
//! published workloads together (1,280 jobs); times within an hour are uniform. Jobs fall on applications by their shares,
//! not by chance, so that two seeds are about equally heavy.

use std::io::{self, Write};

use super::draw::{Draw, apportion, whole};

/// Jobs of the eight workloads by hour of submission.
const HOURS: [u32; 8] = [144, 142, 92, 146, 197, 287, 148, 124];

/// `(name, jobs, [(GPUs, batch size, jobs)])`.
type Application = (&'static str, u32, &'static [(u32, u32, u32)]);

const APPLICATIONS: [Application; 6] = [
    ("ncf", 503, &[(1, 32_768, 503)]),
    ("cifar10", 495, &[(6, 2048, 134), (12, 4096, 133), (8, 2048, 119), (16, 4096, 109)]),
    ("deepspeech2", 111, &[(12, 640, 43), (6, 320, 34), (8, 320, 34)]),
    ("bert", 86, &[(16, 384, 25), (6, 384, 23), (12, 384, 20), (8, 384, 18)]),
    ("yolov3", 59, &[(4, 64, 59)]),
    ("imagenet", 26, &[(32, 6400, 9), (24, 3200, 9), (48, 6400, 8)]),
];

/// Writes `jobs` rows after the header.
pub fn write(jobs: u32, seed: u64, out: &mut dyn Write) -> io::Result<()> {
    let mut draw = Draw::new(seed, 3);
    let shares = apportion(jobs, &APPLICATIONS.map(|(_, jobs, _)| jobs));
    let mut kinds: Vec<&Application> =
        APPLICATIONS.iter().zip(shares).flat_map(|(application, share)| (0..share).map(move |_| application)).collect();
    draw.shuffle(&mut kinds);
    let mut times: Vec<u64> = kinds.iter().map(|_| 3600 * draw.pick(HOURS) as u64 + whole(draw.unit() * 3599.0)).collect();
    times.sort_unstable();
    writeln!(out, "name,time,application,num_replicas,batch_size")?;
    for (index, ((name, _, sizes), time)) in kinds.into_iter().zip(times).enumerate() {
        let (gpus, batch, _) = sizes.get(draw.pick(sizes.iter().map(|size| size.2))).copied().unwrap_or((1, 1, 0));
        writeln!(out, "{name}-{index},{time},{name},{gpus},{batch}")?;
    }
    Ok(())
}
