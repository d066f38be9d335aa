//! The pool's policy: head-room, hysteresis and the cap on evictions.

use serde::{Deserialize, Serialize};

/// By which rules devices flow. Times in milliseconds.
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own, by name in the snapshot")]
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Capacity above the forecast demand, in percent of it.
    pub headroom_percent: u32,
    /// ... but at least so many standard deviations of the load, in hundredths; see `demand`.
    #[serde(default)]
    pub burst_sigmas_percent: u32,
    /// Rows of a model that may be late, in millionths: head-room follows what is spent of it, where routers count late rows.
    #[serde(default = "late_ppm")]
    pub late_ppm: u64,
    /// What a model does not need stays loaded until somebody wants the device; else it ends after `lend_after_ms`.
    #[serde(default)]
    pub keep_surplus: bool,
    /// A model's target falls only after its demand asked for less this long.
    pub lend_after_ms: u64,
    /// A device must be free this long before a running job restarts to grow onto it.
    pub grow_after_ms: u64,
    /// Stops of running work in any minute that the engine may order by itself.
    pub max_evictions_per_minute: u32,
    /// Node label keys of the topology, the widest first.
    pub levels: Vec<String>,
    /// What a queue used counts half after this long.
    pub half_life_ms: u64,
    /// How much the past weighs beside what is used now, in percent.
    pub history_percent: u32,
    /// Who borrows more than its fair share gives back to who borrows less; off, nothing above nominal is taken back for another
    /// borrower.
    #[serde(default)]
    pub fair_reclaim: bool,
    /// Jobs that cannot start for lack of devices hold at most so many reservations; 0: large gangs may starve.
    pub max_reservations: u32,
    /// Run times of the past at this quantile are taken for the end of running work and of what is let in before a reservation.
    pub predict_percent: u32,
    /// How often jobs of responsive queues are put in order anew, and running ones may yield to waiting ones.
    pub rank_every_ms: u64,
    /// Elastic jobs of responsive queues get sizes all together when they are put in order (shortest mean time); else one worker
    /// at a time and whenever devices come free, and what was started is made smaller but not stopped for it.
    #[serde(default = "share_sizes")]
    pub share_sizes: bool,
    /// By how many doublings more than usual the claim of a waiting job of a responsive queue must be smaller than that of the
    /// running one that yields to it, if the waiting one has run before: what was stopped does not come back by stopping another
    /// like it.
    #[serde(default)]
    pub again_doublings: u32,
    /// Of work of responsive queues whose stop is cheap not what loses least goes first but the farthest from its end: a wait
    /// costs it least in proportion, and few jobs wait rather than many. Mean completion times fall, the longest waits grow.
    #[serde(default)]
    pub evict_longest: bool,
    /// Starts of jobs that are ordered and not yet carried out, at most: what comes meanwhile and goes first is not kept
    /// behind a long list of orders.
    pub max_starts: u32,
    /// A waiting job may have running work moved to other devices when that makes room for it.
    pub consolidate: bool,
}

fn late_ppm() -> u64 {
    1000
}

fn share_sizes() -> bool {
    true
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            headroom_percent: 25,
            burst_sigmas_percent: 0,
            late_ppm: late_ppm(),
            keep_surplus: false,
            lend_after_ms: 10_000,
            grow_after_ms: 5_000,
            max_evictions_per_minute: 30,
            levels: Vec::new(),
            half_life_ms: 86_400_000,
            history_percent: 0,
            fair_reclaim: false,
            max_reservations: 4,
            predict_percent: 75,
            rank_every_ms: 120_000,
            share_sizes: share_sizes(),
            again_doublings: 0,
            evict_longest: false,
            max_starts: u32::MAX,
            consolidate: false,
        }
    }
}
