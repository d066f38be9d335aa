//! The health of one GPU: what is wrong with it, since when, and when it is right again. Pure: time is an argument.
//!
//! Each [`Cause`] that is active has a severity; the worst is the state. A cause comes by a sign in a reading or by an
//! event, and goes by its own rule ([`Cause::rule`]), which is the table in `docs/node-agent.md`:
//!
//! * while its sign lasts, and `quiet` after its end, so that a flickering sign is one bad period;
//! * of an event: after a reset (the driver went away, came back, and the GPU answers), or when the driver says that the
//!   GPU needs nothing, or when it did not happen again for `quiet`.
//!
//! What cannot be read neither raises nor clears: not knowing is not good news. The agent only reports.

mod cause;
mod signs;
pub mod table;
mod xid;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

pub use cause::{CAUSES, Cause, Rule, Severity};
pub use signs::{Sign, Signs};
pub use xid::{XIDS, meaning};

/// The states, from good to bad.
#[derive(Serialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Nothing is wrong.
    #[default]
    Healthy,
    /// It works; something needs attention.
    Degraded,
    /// Do not start work on it.
    Sick,
    /// It does not answer at all.
    Lost,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Degraded, Self::Sick, Self::Lost];

    /// For labels and tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Sick => "sick",
            Self::Lost => "lost",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Since when.
    pub since: Duration,
    /// When it was last seen.
    pub seen: Duration,
    /// What was seen, in words for people.
    pub evidence: String,
    /// Under which load of the driver it was last seen.
    load: u32,
}

/// A change of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    pub from: State,
    pub to: State,
}

/// The health of one GPU.
#[derive(Clone, Debug, Default)]
pub struct Health {
    findings: BTreeMap<Cause, Finding>,
}

impl Health {
    /// The worst of what is wrong.
    pub fn state(&self) -> State {
        self.findings.keys().map(|cause| cause.rule().severity.state()).max().unwrap_or_default()
    }

    /// What is wrong.
    pub fn findings(&self) -> impl Iterator<Item = (Cause, &Finding)> {
        self.findings.iter().map(|(cause, finding)| (*cause, finding))
    }

    /// A reading of the GPU, or that there was none.
    pub fn observe(&mut self, signs: &Signs, at: Duration) -> Option<Transition> {
        let before = self.state();
        for (cause, sign) in signs.iter() {
            match sign {
                Sign::Bad(evidence) => self.raise(cause, evidence.clone(), at, signs.load),
                Sign::Good => self.settle(cause, at),
                Sign::Unknown => {}
            }
        }
        if signs.answers {
            self.forget_events(signs, at);
        }
        self.transition(before)
    }

    /// An XID of the GPU.
    pub fn xid(&mut self, xid: u64, load: u32, at: Duration) -> Option<Transition> {
        let before = self.state();
        if let (name, Some(cause)) = meaning(xid) {
            self.raise(cause, format!("XID {xid}: {name}"), at, load);
        }
        self.transition(before)
    }

    /// Another event of the driver that means harm.
    pub fn event(&mut self, cause: Cause, evidence: &str, load: u32, at: Duration) -> Option<Transition> {
        let before = self.state();
        self.raise(cause, evidence.to_owned(), at, load);
        self.transition(before)
    }

    /// A finding from before this process.
    pub fn remember(&mut self, cause: Cause, since: Duration, seen: Duration, evidence: String) {
        self.findings.insert(cause, Finding { since, seen, evidence, load: 0 });
    }

    fn raise(&mut self, cause: Cause, evidence: String, at: Duration, load: u32) {
        let since = self.findings.get(&cause).map_or(at, |finding| finding.since);
        self.findings.insert(cause, Finding { since, seen: at, evidence, load });
    }

    /// The sign is gone; it counts until it has been so for the rule's quiet time.
    fn settle(&mut self, cause: Cause, at: Duration) {
        let rule = cause.rule();
        let over = |finding: &Finding| at.saturating_sub(finding.seen) >= rule.quiet;
        if !rule.by_event && self.findings.get(&cause).is_some_and(over) {
            self.findings.remove(&cause);
        }
    }

    fn forget_events(&mut self, signs: &Signs, at: Duration) {
        self.findings.retain(|cause, finding| {
            let rule = cause.rule();
            let age = at.saturating_sub(finding.seen);
            let absolved = signs.absolved && age >= VERDICT_AFTER;
            !rule.by_event || !(signs.load != finding.load || absolved || age >= rule.quiet)
        });
    }

    fn transition(&self, from: State) -> Option<Transition> {
        let to = self.state();
        (from != to).then_some(Transition { from, to })
    }
}

/// How long the driver has to make up its mind about an XID before "needs nothing" is believed.
const VERDICT_AFTER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
