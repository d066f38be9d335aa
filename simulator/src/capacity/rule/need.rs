//! Replicas that a model needs for a rate, and whether a slice of a shared GPU will do.
//!
//! One replica answers `n / t(n)` with the largest batch `n` of which two fit into the SLO (`core::demand`). The need in
//! places is the load `a = rate * t(n)` plus the larger of `head_room * a` and `burst_sigmas * sqrt(a * z)` with
//! `z = (burst + 1) / 2`. A model whose need fits the places of a slice gets the smallest such slice and no replica;
//! a replica is given up only when the slice has been loaded.

use super::super::{ModelSpec, Ms, to_ms};
use super::Rule;
use crate::inference::queueing::{SERVICE_BURST, Server};

/// What a model has been given.
pub struct Need {
    whole: Server,
    /// By sharers, from 2 on: slices in which a request still keeps its SLO.
    slices: Vec<(u32, Server)>,
    load_ms: Ms,
    replicas: u32,
    sharers: u32,
    /// Until when a replica stays beside a slice that is being loaded.
    keep_until: Ms,
    /// Replicas it would have if none were given up.
    kept: u32,
    /// What was last ordered: replicas and sharers.
    ordered: Option<(u32, u32)>,
}

impl Need {
    /// `max_sharers` 1: never shared.
    pub fn new(spec: &ModelSpec, max_sharers: u32) -> Self {
        let server = |sharers| (sharers, spec.batch.server(spec.slo_s, spec.max_rows, sharers));
        Self {
            whole: server(1).1,
            slices: (2..=max_sharers.min(16)).filter(|of| spec.batch.may_share(spec.slo_s, *of)).map(server).collect(),
            load_ms: to_ms(spec.load_s),
            replicas: 0,
            sharers: 0,
            keep_until: 0,
            kept: 0,
            ordered: None,
        }
    }

    pub fn replicas(&self) -> u32 {
        self.replicas
    }

    pub fn sharers(&self) -> u32 {
        self.sharers
    }

    /// A fixed number of replicas.
    pub fn fix(&mut self, replicas: u32) {
        self.replicas = replicas;
    }

    /// Replicas above the need that it still has.
    pub fn surplus(&self) -> u32 {
        if self.sharers > 0 { 0 } else { self.kept.saturating_sub(self.replicas) }
    }

    /// Gives none of them up.
    pub fn keep_surplus(&mut self) {
        self.replicas += self.surplus();
    }

    /// No more than this share of the replicas wished for, rounded down.
    pub fn cut(&mut self, share: f64) {
        self.replicas = super::super::ceil((f64::from(self.replicas) * share).floor());
    }

    /// Whether replicas or slice differ from what was ordered last; counts as ordered from then on.
    pub fn take_change(&mut self) -> bool {
        self.ordered.replace((self.replicas, self.sharers)) != Some((self.replicas, self.sharers))
    }

    /// As many as the rate needs, one at least; head-room times `factor`.
    pub fn follow(&mut self, now: Ms, rate_rps: f64, burst: f64, rule: &Rule, factor: f64) {
        let places = |server: &Server| {
            let load = rate_rps * server.service_s;
            let z = f64::midpoint(burst, SERVICE_BURST);
            load + factor * (rule.head_room * load).max(rule.burst_sigmas * (load * z).sqrt())
        };
        let slice = self.slices.iter().rev().find(|(_, server)| places(server) <= server.places);
        let (replicas, sharers) = match slice {
            Some((sharers, _)) => (0, *sharers),
            None => (super::super::ceil(places(&self.whole) / self.whole.places - 1e-9).max(1), 0),
        };
        if sharers > 0 && self.sharers == 0 && self.ordered.is_some() {
            self.keep_until = now + self.load_ms;
        }
        self.sharers = sharers;
        self.kept = self.replicas.max(replicas);
        self.replicas = if sharers > 0 && now < self.keep_until { self.replicas } else { replicas };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::service::BatchTime;

    const RULE: Rule = Rule {
        head_room: 0.25,
        burst_sigmas: 0.0,
        late_share: 0.001,
        lend_for_growth: false,
        hold_s: 600,
        trend_limit: 1.3,
        levels_gpu_hours: Vec::new(),
        resume_margin: 0,
        protect_s: 0,
        regrow_s: 0,
    };

    fn need(sharers: u32) -> Need {
        let batch = BatchTime { base_s: 0.02, row_s: 0.005 };
        let spec = ModelSpec {
            name: "m".into(),
            class: 0,
            gpus: 1,
            batch,
            slo_s: 0.25,
            max_rows: 16,
            load_s: 30.0,
            max_sharers: sharers,
        };
        Need::new(&spec, sharers)
    }

    #[test]
    fn replicas_follow_the_rate_as_in_core() {
        let mut need = need(1);
        for (rate, replicas) in [(0.0, 1), (1.0, 1), (160.0, 2), (500.0, 4)] {
            need.follow(0, rate, 1.0, &RULE, 1.0);
            assert_eq!(need.replicas(), replicas, "{rate} requests/s at 160 a replica and a quarter of head-room");
        }
    }

    #[test]
    fn a_small_model_moves_into_a_slice_and_keeps_its_replica_until_that_is_loaded() {
        let mut need = need(3);
        need.follow(0, 300.0, 1.0, &RULE, 1.0);
        assert_eq!((need.replicas(), need.sharers(), need.take_change(), need.take_change()), (3, 0, true, false));
        need.follow(60_000, 5.0, 1.0, &RULE, 1.0);
        assert_eq!((need.replicas(), need.sharers()), (3, 3));
        need.follow(120_000, 5.0, 1.0, &RULE, 1.0);
        assert_eq!((need.replicas(), need.sharers()), (0, 3));
        need.follow(180_000, 300.0, 1.0, &RULE, 1.0);
        assert_eq!((need.replicas(), need.sharers()), (3, 0));
    }

    #[test]
    fn bursty_traffic_gets_more() {
        let rule = Rule { burst_sigmas: 3.0, ..RULE };
        let (mut calm, mut bursty) = (need(1), need(1));
        calm.follow(0, 500.0, 1.0, &rule, 1.0);
        bursty.follow(0, 500.0, 30.0, &rule, 1.0);
        assert!(bursty.replicas() > calm.replicas());
    }
}
