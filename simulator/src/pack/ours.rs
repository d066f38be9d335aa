//! Our rule: the score that the engine places by, behind the bench's trait.

use tidegate_core::fragment::{self, Ask, History, Mix, Shape};

use super::MixSource;
use super::openb::Lists;
use super::rules::{Rating, Rule};
use super::world::State;

/// `tidegate_core::fragment` with a mix.
pub(super) struct Ours {
    class_gpus: Vec<u64>,
    mix: Mix,
    /// Absent: the mix stays as it is.
    history: Option<History>,
}

impl Ours {
    pub(super) fn new(lists: &Lists, source: MixSource) -> Self {
        let class_gpus = lists.class_gpus();
        match source {
            MixSource::Seen => Self { class_gpus, mix: Mix::default(), history: Some(History::default()) },
            MixSource::List => {
                let counted: Vec<(Shape, u64)> = lists.shapes.iter().copied().zip(lists.counts()).collect();
                Self { mix: Mix::new(&counted, &class_gpus), class_gpus, history: None }
            }
        }
    }
}

impl Rule for Ours {
    fn rate(&self, node: &State, shape: &Shape) -> Option<Rating> {
        let placement = fragment::place(&self.mix, &node.view(), &Ask { shape: *shape, memory_mib: 0 })?;
        let slack = i64::try_from(placement.score.slack.0).unwrap_or(i64::MAX);
        Some(Rating { key: (i64::from(placement.score.bucket), -slack), device: placement.device })
    }

    fn start(&mut self) -> bool {
        let learns = self.history.is_some();
        if learns {
            self.history = Some(History::default());
            self.mix = Mix::default();
        }
        learns
    }

    fn saw(&mut self, shape: &Shape) -> bool {
        let Some(history) = self.history.as_mut() else { return false };
        let fit = history.saw(*shape);
        if fit {
            self.mix = history.mix(&self.class_gpus);
        }
        fit
    }
}
