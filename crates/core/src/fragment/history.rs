//! Which work was asked for so far: the mix is learned while running.

use serde::{Deserialize, Serialize};

use super::{Mix, Shape};

/// A count of one; counts are halved away in steps, so they need room below one.
const ONE: u64 = 1 << 16;

/// Asks between two fits, once there were that many; before, at each power of two.
const FIT_EVERY: u64 = 512;

/// Asks count decayed by shape. The decay keeps 7/8 at each fit: half is forgotten after some 2,700 asks.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Ascending by shape.
    counts: Vec<(Shape, u64)>,
    seen: u64,
}

impl History {
    /// Counts an ask, placed or not. True: it is time to fit the mix again.
    pub fn saw(&mut self, shape: Shape) -> bool {
        match self.counts.binary_search_by_key(&shape, |(shape, _)| *shape) {
            Ok(at) => self.counts.iter_mut().skip(at).take(1).for_each(|(_, count)| *count += ONE),
            Err(at) => self.counts.insert(at, (shape, ONE)),
        }
        self.seen += 1;
        if self.seen.is_multiple_of(FIT_EVERY) {
            self.decay();
            return true;
        }
        self.seen < FIT_EVERY && self.seen.is_power_of_two()
    }

    /// The mix of what was seen, for classes that have `class_gpus` GPUs each.
    pub fn mix(&self, class_gpus: &[u64]) -> Mix {
        Mix::new(&self.counts, class_gpus)
    }

    fn decay(&mut self) {
        for (_, count) in &mut self.counts {
            *count -= *count / 8;
        }
        self.counts.retain(|(_, count)| *count >= ONE / 16);
    }
}
