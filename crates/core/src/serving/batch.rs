//! Which waiting requests share a batch.
//!
//! The earliest deadline always goes. Others join in the order of their deadlines as long as their
//! shapes agree and the limits hold; the first that does not fit ends the batch, so that no later
//! deadline overtakes it. Where rows have a length that is padded to the longest (text), those nearest
//! in length to the first join first, out of a window of the earliest deadlines, and only while
//! padding stays a small part of the work. Starvation is impossible either way: whoever is passed over
//! becomes the earliest in time.

use std::collections::BTreeMap;

use super::{Entry, Limits, Micros};

/// Position in the queue: deadline, then order of arrival.
pub type Key = (Micros, u64);

/// Batches that the look-ahead covers: enough to find similar lengths, small enough to sort each time.
const WINDOW_BATCHES: usize = 4;
/// Padded work at most, as a fraction of the real work: a quarter more than needed.
const PADDING: (u64, u64) = (5, 4);
/// Padding below so many tokens is always worth sharing a batch: a batch's fixed cost is about that of
/// 16 tokens of a small encoder on a CPU (`reference/runtime.md` section 3).
const FREE_PADDING_TOKENS: u64 = 16;

/// Who leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// In the order of their deadlines.
    pub keys: Vec<Key>,
    pub rows: u32,
    /// Waiting longer cannot make the batch larger, or would keep others waiting that cannot join it.
    pub complete: bool,
}

/// Chooses among `entries`, which are ordered by deadline.
pub fn select<T>(entries: &BTreeMap<Key, Entry<T>>, limits: &Limits) -> Selection {
    let Some((first_key, first)) = entries.first_key_value() else { return Selection::default() };
    let mut batch = Growing::new(*first_key, first);
    if !first.alone {
        let window = WINDOW_BATCHES.saturating_mul(limits.max_rows as usize);
        let mut others: Vec<(&Key, &Entry<T>)> =
            entries.iter().take(window).skip(1).filter(|(_, e)| !e.alone && e.shape == first.shape).collect();
        others.sort_by_key(|(key, e)| (e.length.abs_diff(first.length), **key));
        for (key, entry) in others {
            match batch.room_for(entry, limits) {
                Room::Yes => batch.add(*key, entry),
                Room::TooMuchPadding => {}
                Room::Full => break,
            }
        }
    }
    let complete = first.alone || batch.rows >= limits.max_rows || batch.keys.len() < entries.len();
    batch.keys.sort_unstable();
    Selection { keys: batch.keys, rows: batch.rows, complete }
}

enum Room {
    Yes,
    TooMuchPadding,
    Full,
}

struct Growing {
    keys: Vec<Key>,
    rows: u32,
    longest: u32,
    tokens: u64,
}

impl Growing {
    fn new<T>(key: Key, first: &Entry<T>) -> Self {
        Self { keys: vec![key], rows: first.rows, longest: first.length, tokens: tokens(first.rows, first.length) }
    }

    fn room_for<T>(&self, entry: &Entry<T>, limits: &Limits) -> Room {
        let rows = self.rows.saturating_add(entry.rows);
        let padded = tokens(rows, self.longest.max(entry.length));
        let real = self.tokens.saturating_add(tokens(entry.rows, entry.length));
        if rows > limits.max_rows || limits.max_tokens.is_some_and(|max| padded > u64::from(max)) {
            Room::Full
        } else if padded - real > FREE_PADDING_TOKENS && padded * PADDING.1 > real * PADDING.0 {
            Room::TooMuchPadding
        } else {
            Room::Yes
        }
    }

    fn add<T>(&mut self, key: Key, entry: &Entry<T>) {
        self.keys.push(key);
        self.rows += entry.rows;
        self.longest = self.longest.max(entry.length);
        self.tokens += tokens(entry.rows, entry.length);
    }
}

/// Rows times their length.
pub fn tokens(rows: u32, length: u32) -> u64 {
    u64::from(rows) * u64::from(length)
}
