//! Training curves like Pollux's: how long a step takes by placement and batch, and what a step is worth by epoch and batch.
//!
//! Time of a step = `a + b * batch per GPU` of computing + an exchange of gradients that is linear in GPUs, on one node and over
//! several. Worth: every epoch is as long in iterations at the smallest batch; the gradient's noise (variance over squared norm)
//! grows from its first to its last value geometrically and is the same at all batches. All constants are least squares or medians
//! over the measured files of the same application. Not modelled: that nodes differ in shape, memory limits, noise between runs.

use std::fmt::Write as _;

/// One application.
pub struct Curve {
    pub name: &'static str,
    pub epochs: u32,
    /// Smallest and largest batch per GPU, and in all; doubled in between.
    local: (u32, u32),
    global: (u32, u32),
    /// Seconds of computing: fixed, and per sample.
    compute_s: (f64, f64),
    /// Seconds of exchange on one node: with two GPUs, and per GPU more; over several nodes likewise.
    near_s: (f64, f64),
    far_s: (f64, f64),
    /// Iterations of an epoch at the smallest batch.
    iterations: f64,
    /// Noise in the first and in the last epoch.
    noise: (f64, f64),
}

/// Of each application that the study `pollux` names.
pub const CURVES: [Curve; 6] = [
    Curve {
        name: "bert",
        epochs: 2,
        local: (4, 12),
        global: (12, 384),
        compute_s: (0.213, 0.05784),
        near_s: (0.0555, 0.02201),
        far_s: (0.93, 0.007_233),
        iterations: 7387.0,
        noise: (35.25, 93.69),
    },
    Curve {
        name: "cifar10",
        epochs: 100,
        local: (32, 1024),
        global: (128, 4096),
        compute_s: (0.01723, 0.000_664_2),
        near_s: (0.00533, 0.01183),
        far_s: (0.053, 0.002_304),
        iterations: 390.6,
        noise: (10.21, 192.9),
    },
    Curve {
        name: "deepspeech2",
        epochs: 80,
        local: (10, 80),
        global: (20, 640),
        compute_s: (0.09128, 0.02905),
        near_s: (0.05645, 0.0193),
        far_s: (0.2751, 0.006_011),
        iterations: 356.7,
        noise: (24.78, 41_100.0),
    },
    Curve {
        name: "imagenet",
        epochs: 90,
        local: (20, 200),
        global: (200, 12_800),
        compute_s: (0.07844, 0.004_208),
        near_s: (0.00435, 0.000_627_5),
        far_s: (0.0867, 0.004_026),
        iterations: 6405.8,
        noise: (27.75, 71.37),
    },
    Curve {
        name: "ncf",
        epochs: 10,
        local: (32, 32_768),
        global: (256, 32_768),
        compute_s: (0.007_353, 4.317e-7),
        near_s: (0.00352, 0.000_671_1),
        far_s: (0.01446, 0.000_590_3),
        iterations: 19_417.4,
        noise: (15_020.0, 192_200.0),
    },
    Curve {
        name: "yolov3",
        epochs: 50,
        local: (4, 16),
        global: (8, 512),
        compute_s: (0.2164, 0.0243),
        near_s: (0.01973, 0.03199),
        far_s: (0.7036, 0.00817),
        iterations: 2068.9,
        noise: (38.33, 302.5),
    },
];

/// GPUs of a node, and nodes, in the study.
const NODE_GPUS: u32 = 4;
const NODES: u32 = 16;

impl Curve {
    /// Its files: name and text. Nothing is drawn, so seeds do not matter.
    pub fn files(&self) -> Vec<(String, String)> {
        let mut placements = "placement,local_bsz,step_time,sync_time\n".to_owned();
        for gpus in 1..=NODE_GPUS {
            self.steps(&mut placements, &gpus.to_string(), 1, gpus);
        }
        let mut scalability = "num_nodes,num_replicas,local_bsz,step_time,sync_time\n".to_owned();
        for nodes in 2..=NODES {
            for gpus in (nodes..=nodes * NODE_GPUS).step_by(nodes as usize) {
                self.steps(&mut scalability, &format!("{nodes},{gpus}"), nodes, gpus);
            }
        }
        let validation = doubled(self.global).into_iter().map(|batch| (format!("validation-{batch}.csv"), self.epochs()));
        [("placements.csv".to_owned(), placements), ("scalability.csv".to_owned(), scalability)]
            .into_iter()
            .chain(validation)
            .collect()
    }

    fn steps(&self, text: &mut String, place: &str, nodes: u32, gpus: u32) {
        let more = f64::from(gpus.saturating_sub(2));
        let sync_s = match (nodes, gpus) {
            (_, 1) => 0.0,
            (1, _) => self.near_s.0 + self.near_s.1 * more,
            _ => self.far_s.0 + self.far_s.1 * more,
        };
        for local in doubled(self.local) {
            let step_s = self.compute_s.0 + self.compute_s.1 * f64::from(local) + sync_s;
            let _ = writeln!(text, "{place},{local},{step_s:.6},{sync_s:.6}");
        }
    }

    fn epochs(&self) -> String {
        let mut text = "progress,iteration,metric,grad_sqr,grad_var\n".to_owned();
        let last = f64::from(self.epochs.saturating_sub(1).max(1));
        for epoch in 0..self.epochs {
            let done = self.iterations * f64::from(epoch + 1);
            let noise = self.noise.0 * (self.noise.1 / self.noise.0).powf(f64::from(epoch) / last);
            let _ = writeln!(text, "{done:.1},{done:.0},0,1,{noise:.4}");
        }
        text
    }
}

/// From the first to the last, doubled in between.
fn doubled((first, last): (u32, u32)) -> Vec<u32> {
    let mut all: Vec<u32> =
        std::iter::successors(Some(first), |batch| batch.checked_mul(2)).take_while(|batch| *batch < last).collect();
    all.push(last);
    all
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::pollux::application::Application;
    use crate::studies::pollux;

    /// Seconds that a job takes on one node of four GPUs at four times the smallest batch.
    fn seconds(application: &Application) -> f64 {
        let batch = application.batches.0 * 4;
        let mut from = 0.0;
        let epoch = |epoch: usize| {
            let end = application.end_of(epoch);
            let took = (end - from) / application.rate(&[4], batch, epoch);
            from = end;
            took
        };
        (0..application.epochs).map(epoch).sum()
    }

    #[test]
    fn jobs_take_about_as_long_as_by_the_measured_curves() {
        let folder = tempfile::tempdir().unwrap();
        let data = std::env::var("TIDEGATE_DATA").ok();
        for (name, facts) in pollux::facts().unwrap() {
            let curve = CURVES.iter().find(|curve| curve.name == name).unwrap();
            assert_eq!(curve.epochs as usize, facts.epochs, "{name}");
            let here = folder.path().join(&name);
            std::fs::create_dir(&here).unwrap();
            curve.files().into_iter().for_each(|(file, text)| std::fs::write(here.join(file), text).unwrap());
            let ours = seconds(&Application::read(&here, facts).unwrap());
            assert!((100.0..1e7).contains(&ours), "{name}: {ours}");
            let Some(data) = &data else { continue };
            let measured = seconds(&Application::read(&Path::new(data).join("pollux/traces").join(&name), facts).unwrap());
            assert!((0.5..2.0).contains(&(ours / measured)), "{name}: {ours} against {measured}");
        }
    }
}
