//! Who held each device when: spans that open and close as holders come and go.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use tidegate_api::view;
use tidegate_core::holdings::{Holder, Holdings};
use tidegate_core::plan::{Action, ActionKind};
use tidegate_core::{Engine, State};
use tidegate_runtime::ledger::{Commit, SpanRow};

/// Ended spans that are shown; the ledger keeps more.
const SHOWN: usize = 5_000;

/// Device, kind, name.
type Key = (String, String, String);

/// Spans, open and ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Timeline {
    open: BTreeMap<Key, view::Span>,
    ended: VecDeque<view::Span>,
}

impl Timeline {
    /// Continues the spans of an earlier world.
    pub fn load(rows: &[SpanRow]) -> Self {
        let mut timeline = Self::default();
        for row in rows {
            let span = view::Span {
                device: row.device.clone(),
                kind: row.kind.clone(),
                name: row.name.clone(),
                lent: row.lent,
                from_ms: row.from_ms,
                to_ms: row.to_ms,
            };
            if span.to_ms.is_some() {
                timeline.ended.push_back(span);
            } else {
                timeline.open.insert((span.device.clone(), span.kind.clone(), span.name.clone()), span);
            }
        }
        timeline
    }

    /// Opens and closes spans so that they say what holds the devices now.
    pub fn update(&mut self, engine: &Engine, waiting: &[Action], now_ms: u64, commit: &mut Commit) {
        let now = holders(engine.state(), waiting);
        let over: Vec<Key> =
            self.open.iter().filter(|(key, span)| now.get(*key) != Some(&span.lent)).map(|(key, _)| key.clone()).collect();
        for key in over {
            let Some(mut span) = self.open.remove(&key) else { continue };
            span.to_ms = Some(now_ms);
            commit.spans_closed.push(row(&span));
            self.ended.push_back(span);
            if self.ended.len() > SHOWN {
                self.ended.pop_front();
            }
        }
        for (key, lent) in now {
            if let Entry::Vacant(vacant) = self.open.entry(key) {
                let (device, kind, name) = vacant.key().clone();
                let span = vacant.insert(view::Span { device, kind, name, lent, from_ms: now_ms, to_ms: None });
                commit.spans_opened.push(row(span));
            }
        }
    }

    /// Spans that had not ended before `since_ms`.
    pub fn since(&self, since_ms: u64, now_ms: u64) -> view::Timeline {
        let ended = self.ended.iter().filter(|span| span.to_ms.is_none_or(|to| to >= since_ms));
        view::Timeline { now_ms, spans: ended.chain(self.open.values()).cloned().collect() }
    }
}

fn row(span: &view::Span) -> SpanRow {
    SpanRow {
        device: span.device.clone(),
        kind: span.kind.clone(),
        name: span.name.clone(),
        lent: span.lent,
        from_ms: span.from_ms,
        to_ms: span.to_ms,
    }
}

/// Whether the holder's start still waits for others to leave.
pub(super) fn is_pending(waiting: &[Action], holder: &Holder) -> bool {
    waiting.iter().any(|action| match (&action.kind, holder) {
        (ActionKind::StartJob { job, .. }, Holder::Job(name)) => job == name,
        (ActionKind::StartReplica { replica, .. }, Holder::Replica(_, id)) => replica == id,
        _ => false,
    })
}

/// Who really holds each device, and whether it is lent.
fn holders(state: &State, waiting: &[Action]) -> BTreeMap<Key, bool> {
    let holdings = Holdings::of(state);
    let borrowers = holdings.borrowers(state);
    let mut all = BTreeMap::new();
    for (device, claims) in &holdings.devices {
        for claim in claims.iter().filter(|claim| !is_pending(waiting, &claim.holder)) {
            let (kind, name) = match &claim.holder {
                Holder::Job(name) => ("job", name.to_string()),
                Holder::Replica(model, _) => ("model", model.to_string()),
            };
            all.insert((device.to_string(), kind.to_owned(), name), borrowers.contains(&claim.queue));
        }
    }
    all
}
