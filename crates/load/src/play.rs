//! The day itself: one owner that starts each request at its time and counts each end.

use std::iter::Peekable;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::arrivals::{Arrival, Arrivals, RateCurve, hash};
use crate::judge::Outcome;
use crate::report::Report;
use crate::script::{self, Script};
use crate::send::{Ended, Sender};
use crate::tally::{Tally, millis};
use crate::traffic::Traffic;

/// More are not sent but counted: the client would measure itself.
const MAX_IN_FLIGHT: usize = 2000;
const LIVE_EVERY: Duration = Duration::from_secs(1);

/// How to play a script.
#[derive(Clone, Debug)]
pub struct Options {
    /// `http://host:port` of the server.
    pub target: String,
    /// Of arrival times and of the choice of requests.
    pub seed: u64,
    /// Stretches the day; rates stay.
    pub duration_scale: f64,
    /// Models to play; empty: all of the script.
    pub only: Vec<String>,
    /// Gets the figures so far about once a second.
    pub live: Option<watch::Sender<Report>>,
    /// Seconds of the script at which one phase of the day ends and the next begins, in order; percentiles are told by phase too.
    pub phase_ends: Vec<u32>,
}

impl Options {
    /// The whole day in its own time.
    pub fn new(target: impl Into<String>, seed: u64) -> Self {
        Self { target: target.into(), seed, duration_scale: 1.0, only: Vec::new(), live: None, phase_ends: Vec::new() }
    }
}

/// Why a day could not begin. Once it has begun, everything that happens is in the report.
#[derive(Debug, Error)]
pub enum Error {
    #[error(transparent)]
    Script(#[from] script::Error),
    #[error("{0}")]
    Option(String),
    #[error("{target} does not answer: {problem}")]
    Unreachable { target: String, problem: String },
}

/// Plays the day and reports what became of each request.
///
/// Guarantees: every request that was sent is in the report, with its end. Models that the server does
/// not have are skipped and named in `skipped`. When `cancel` fires nothing more is sent, and what
/// is in flight is waited for (each request by itself ends within 70 s).
pub async fn play(script: &Script, options: Options, cancel: &CancellationToken) -> Result<Report, Error> {
    let Options { target, seed, duration_scale, only, live, phase_ends } = options;
    if !(duration_scale > 0.0 && duration_scale.is_finite()) {
        return Err(Error::Option(format!("duration scale {duration_scale} must be above 0")));
    }
    if let Some(name) = only.iter().find(|name| !script.models.iter().any(|model| model.name == **name)) {
        return Err(Error::Option(format!("the script has no model {name:?}")));
    }
    let sender = Sender::new(&target).map_err(Error::Option)?;
    let phase_ends: Vec<Duration> =
        phase_ends.iter().map(|second| Duration::from_secs(u64::from(*second)).mul_f64(duration_scale)).collect();
    let mut day = Day::new(sender);
    for model in &script.models {
        let wanted = only.is_empty() || only.contains(&model.name);
        if !wanted
            || !day
                .sender
                .has_model(&model.name)
                .await
                .map_err(|problem| Error::Unreachable { target: target.clone(), problem })?
        {
            tracing::info!(model = %model.name, left_out = !wanted, "skipped: not asked for, or the server does not have it");
            day.skipped.push(model.name.clone());
            continue;
        }
        let traffic = Traffic::prepare(script, model, seed ^ hash(&model.name))?;
        let curve = RateCurve::new(&model.requests_per_second, duration_scale);
        let tally =
            Tally::new(model.slo_ms, model.cold_start_budget_ms, &phase_ends).map_err(|e| Error::Option(e.to_string()))?;
        let arrivals = Arrivals::new(curve, traffic.bodies.len(), seed, &model.name).peekable();
        day.players.push(Player { name: model.name.clone(), traffic: Arc::new(traffic), arrivals, tally });
    }
    Ok(day.run(cancel, live.as_ref()).await)
}

struct Day {
    sender: Sender,
    players: Vec<Player>,
    skipped: Vec<String>,
    start: Instant,
    started_unix_ms: u64,
    max_send_lag: Duration,
    flights: JoinSet<Landed>,
}

struct Player {
    name: String,
    traffic: Arc<Traffic>,
    arrivals: Peekable<Arrivals>,
    tally: Tally,
}

/// A request that ended: whose, when it was due, and how.
struct Landed {
    player: usize,
    due: Duration,
    ended: Ended,
}

impl Day {
    fn new(sender: Sender) -> Self {
        Self {
            sender,
            players: Vec::new(),
            skipped: Vec::new(),
            start: Instant::now(),
            started_unix_ms: 0,
            max_send_lag: Duration::ZERO,
            flights: JoinSet::new(),
        }
    }

    async fn run(mut self, cancel: &CancellationToken, live: Option<&watch::Sender<Report>>) -> Report {
        self.start = Instant::now();
        self.started_unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map(millis).unwrap_or_default();
        let mut ticks = interval(LIVE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sending = true;
        loop {
            let next = if sending { self.next_due() } else { None };
            if next.is_none() && self.flights.is_empty() {
                return self.report();
            }
            tokio::select! {
                () = cancel.cancelled(), if sending => sending = false,
                Some(landed) = self.flights.join_next() => self.land(landed),
                () = sleep_until(next.map_or(self.start, |(_, due)| self.start + due)), if next.is_some() => self.launch(next),
                _ = ticks.tick(), if live.is_some() => {
                    if let Some(live) = live {
                        live.send_replace(self.report());
                    }
                }
            }
        }
    }

    fn next_due(&mut self) -> Option<(usize, Duration)> {
        let dues =
            self.players.iter_mut().enumerate().filter_map(|(i, player)| player.arrivals.peek().map(|arrival| (i, arrival.at)));
        dues.min_by_key(|(_, at)| *at)
    }

    fn launch(&mut self, next: Option<(usize, Duration)>) {
        let Some((index, player)) = next.and_then(|(index, _)| self.players.get_mut(index).map(|player| (index, player))) else {
            return;
        };
        let Some(Arrival { at, pick }) = player.arrivals.next() else { return };
        if self.flights.len() >= MAX_IN_FLIGHT {
            return player.tally.saturated();
        }
        player.tally.sent(at);
        self.max_send_lag = self.max_send_lag.max(self.start.elapsed().saturating_sub(at));
        let (sender, traffic) = (self.sender.clone(), Arc::clone(&player.traffic));
        self.flights.spawn(async move { Landed { player: index, due: at, ended: sender.send(&traffic, pick).await } });
    }

    fn land(&mut self, landed: Result<Landed, tokio::task::JoinError>) {
        match landed {
            Ok(Landed { player, due, ended: Ended { outcome, at, connect_retries } }) => {
                let after = at.saturating_duration_since(self.start);
                if let Some(player) = self.players.get_mut(player) {
                    if let Outcome::Failed(why) | Outcome::Lost(why) = &outcome {
                        tracing::debug!(model = %player.name, sent_ms = millis(due), ended_ms = millis(after), why, "request without an answer");
                    }
                    player.tally.ended(due, after, outcome, connect_retries);
                }
            }
            // It stays `unfinished` in the report, which a check of the sums sees.
            Err(e) => tracing::error!("a request's task ended early: {e}"),
        }
    }

    fn report(&self) -> Report {
        let mut report = Report {
            skipped: self.skipped.clone(),
            elapsed_ms: millis(self.start.elapsed()),
            max_send_lag_ms: millis(self.max_send_lag),
            started_unix_ms: self.started_unix_ms,
            ..Report::default()
        };
        for player in &self.players {
            let model = player.tally.report();
            report.totals.add(&model.totals);
            report.models.insert(player.name.clone(), model);
        }
        report
    }
}
