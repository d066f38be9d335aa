//! Server-sent events: `state` as it changes, at most twice a second, and every `decision`.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use tokio_stream::wrappers::{BroadcastStream, IntervalStream};
use tokio_stream::{Stream, StreamExt};

use super::Api;

/// How often the state is sent.
const EVERY: Duration = Duration::from_millis(500);

pub(super) async fn events(State(api): State<Api>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let state = api.state.clone();
    let states = IntervalStream::new(tokio::time::interval(EVERY)).filter_map(move |_| {
        let now = state.borrow().clone();
        Event::default().event("state").json_data(&*now).ok()
    });
    // A listener that lags misses decisions; the page asks for the last ones when it connects.
    let decisions = BroadcastStream::new(api.decisions.subscribe())
        .filter_map(|decision| decision.ok().and_then(|decision| Event::default().event("decision").json_data(decision).ok()));
    let both = states.merge(decisions).map(Ok);
    let until = api.shutdown.clone().cancelled_owned();
    Sse::new(futures_util::StreamExt::take_until(both, until)).keep_alive(KeepAlive::default())
}
