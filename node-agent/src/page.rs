//! The text of `/metrics`, made beside the scrapes: who scrapes waits for nothing but its bytes, whatever the machine does at that
//! moment. It is made once a second while somebody scrapes, and is then at most as old as the readings are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use parking_lot::Mutex;
use prometheus::{Error, Registry};
use tidegate_runtime::admin;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Between two texts; GPUs that are read more often are not shown more often.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);
/// Without a scrape for so long no more texts are made until there is one.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(5);

/// See the module.
#[derive(Debug)]
pub struct Page {
    registry: Registry,
    every: Duration,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    text: Option<(Instant, Bytes)>,
    asked: Option<Instant>,
}

impl Page {
    /// Of GPUs that are read so often.
    pub fn new(registry: Registry, readings: Duration) -> Arc<Self> {
        Arc::new(Self { registry, every: readings.max(LEAST_INTERVAL), kept: Mutex::default() })
    }

    /// The text as it was made last; made now if that is too long ago.
    ///
    /// # Errors
    /// As [`admin::text`].
    pub fn text(&self) -> Result<Bytes, Error> {
        let now = Instant::now();
        {
            let mut kept = self.kept.lock();
            kept.asked = Some(now);
            // A tick may come late.
            let fresh = kept.text.as_ref().filter(|(made, _)| now.duration_since(*made) < self.every * 3 / 2);
            if let Some((_, text)) = fresh {
                return Ok(text.clone());
            }
        }
        self.make()
    }

    fn make(&self) -> Result<Bytes, Error> {
        let text = Bytes::from(admin::text(&self.registry)?);
        self.kept.lock().text = Some((Instant::now(), text.clone()));
        Ok(text)
    }

    /// Makes texts until `shutdown`.
    pub async fn keep(self: Arc<Self>, shutdown: CancellationToken) {
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let asked = self.kept.lock().asked;
            if asked.is_none_or(|asked| asked.elapsed() > FORGOTTEN_AFTER) {
                self.kept.lock().text = None;
            } else if let Err(error) = self.make() {
                tracing::warn!(%error, "the metrics cannot be written");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::IntGauge;

    use super::*;

    fn page(every: Duration) -> (Arc<Page>, IntGauge) {
        let (registry, gauge) = (Registry::new(), IntGauge::new("x", "x").unwrap());
        registry.register(Box::new(gauge.clone())).unwrap();
        (Page::new(registry, every), gauge)
    }

    fn says(page: &Page, value: i64) -> bool {
        page.text().unwrap().ends_with(format!("x {value}\n").as_bytes())
    }

    #[test]
    fn a_text_is_kept_while_it_is_fresh() {
        let (page, gauge) = page(Duration::from_hours(1));
        assert!(says(&page, 0));
        gauge.set(1);
        assert!(says(&page, 0));
    }

    #[tokio::test]
    async fn while_somebody_scrapes_it_is_made_anew() {
        let (page, gauge) = page(Duration::ZERO);
        assert!(says(&page, 0));
        gauge.set(1);
        let shutdown = CancellationToken::new();
        let look = async {
            while !says(&page, 1) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            shutdown.cancel();
        };
        tokio::join!(page.clone().keep(shutdown.clone()), look);
    }
}
