//! Questions to the world, and to copies of it. A copy is asked off the runtime's workers, so that neither the world nor other
//! requests wait for a long answer; so many at once, and more are told to come again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tidegate_api::eta::Etas;
use tidegate_core::eta::{self, Limits};
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};

use crate::ledger::Shelf;
use crate::metrics::Metrics;
use crate::view::Page;
use crate::world::{Ask, Scene};

/// Copies that are asked at once: each has the size of the engine, and its question a core of its own for some seconds at worst.
const AT_ONCE: usize = 2;
/// When one may come again who came when all were busy.
const AGAIN_SECONDS: &str = "5";
/// The page sees a moment for so long, and ten times as long as it took to look.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const LOOK_COST: u32 = 10;
/// Expected starts cost more than a look, and are needed less often.
const ETAS_EVERY: Duration = Duration::from_secs(15);
/// Moments looked at for the page, a tenth of what `/eta` gets.
const ETA_STEPS: u32 = 2_000;

/// Asks; clones share their limits.
#[derive(Clone)]
pub struct Asker {
    asks: mpsc::Sender<Ask>,
    slots: Arc<Semaphore>,
    looked: Arc<Mutex<Option<Look>>>,
    /// Absent: no ledger is kept.
    pub shelf: Option<Shelf>,
    metrics: Metrics,
}

/// What the page sees.
#[derive(Clone)]
pub struct Look {
    pub scene: Arc<Scene>,
    pub page: Arc<Page>,
    etas: Arc<(Instant, Etas)>,
    until: Instant,
}

impl Asker {
    pub fn new(asks: mpsc::Sender<Ask>, shelf: Option<Shelf>, metrics: Metrics) -> Self {
        Self { asks, slots: Arc::new(Semaphore::new(AT_ONCE)), looked: Arc::default(), shelf, metrics }
    }

    /// Asks the world; 503 while there is none, because this process stands by.
    pub async fn world<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Response> {
        let (to, answer) = oneshot::channel();
        let asked = self.asks.try_send(question(to)).is_ok();
        let answer = if asked { answer.await.ok() } else { None };
        answer.ok_or_else(stands_by)
    }

    /// Asks a copy of the world. `name` is for the metric.
    pub async fn copy(&self, name: &'static str, question: impl FnOnce(&Scene) -> Response + Send + 'static) -> Response {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            self.metrics.asked(name, "busy");
            let text = "as many questions as are answered at once are being answered; ask again in a few seconds\n";
            return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, AGAIN_SECONDS)], text).into_response();
        };
        let scene = match self.world(Ask::Scene).await {
            Ok(scene) => scene,
            Err(response) => {
                self.metrics.asked(name, "absent");
                return response;
            }
        };
        // The place is taken until the answer is there, also if nobody waits for it any more.
        let answer = tokio::task::spawn_blocking(move || {
            let answer = question(&scene);
            drop(slot);
            answer
        });
        self.metrics.asked(name, "given");
        answer.await.unwrap_or_else(|e| failed(&e))
    }

    /// What the page sees now: one look serves everybody who looks at the page.
    pub async fn look(&self) -> Result<Look, Response> {
        let mut looked = self.looked.lock().await;
        let now = Instant::now();
        if let Some(look) = looked.as_ref().filter(|look| look.until > now) {
            return Ok(look.clone());
        }
        let etas = looked.take().map(|look| look.etas).filter(|etas| now.duration_since(etas.0) < ETAS_EVERY);
        let scene = self.world(Ask::Scene).await?;
        let look = tokio::task::spawn_blocking(move || Look::at(scene.into(), etas, now)).await.map_err(|e| failed(&e))?;
        *looked = Some(look.clone());
        self.metrics.asked("page", "given");
        Ok(look)
    }
}

impl Look {
    fn at(scene: Arc<Scene>, etas: Option<Arc<(Instant, Etas)>>, began: Instant) -> Self {
        let etas = etas.unwrap_or_else(|| {
            let all = eta::all(&scene.engine, scene.at, Limits { steps: ETA_STEPS, ..Limits::default() });
            let told = all.into_iter().map(|(name, eta)| (name.to_string(), tidegate_api::eta::Eta::of(&eta, scene.at)));
            Arc::new((began, told.collect()))
        });
        let page = Arc::new(Page::of(&scene, &etas.1));
        let took = began.elapsed();
        Self { scene, page, etas, until: Instant::now() + LOOK_EVERY.max(took * LOOK_COST) }
    }
}

/// The connection ends, so that who asks again through a service may reach the one that leads.
fn stands_by() -> Response {
    let close = [(header::CONNECTION, "close")];
    (StatusCode::SERVICE_UNAVAILABLE, close, "this operator stands by or is busy; ask the one that leads\n").into_response()
}

fn failed(error: &tokio::task::JoinError) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("the question could not be answered: {error}\n")).into_response()
}
