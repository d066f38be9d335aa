//! One model's replicas: ready, loading, or a slice of a shared GPU.
//!
//! A slice (or another slice) answers after its load time; until then the old one does. Fewer replicas: at once.

use super::super::outcome::Served;
use super::super::{ModelSpec, Ms, to_ms};
use crate::inference::Window;
use crate::inference::queueing::{Server, attainment};

/// State of one model.
pub struct Serving {
    name: String,
    class: usize,
    gpus: u32,
    load_s: f64,
    whole: Server,
    /// What a slice offers by sharers (index 0: one sharer).
    slices: Vec<Server>,
    ready: u32,
    /// Replicas that become ready: time and count, ascending.
    loading: Vec<(Ms, u32)>,
    sharers: u32,
    next_sharers: Option<(Ms, u32)>,
    /// Requests and late ones since the last round.
    round: (f64, f64),
    requests: f64,
    inside: f64,
    busy_ms: f64,
    held_ms: f64,
    /// The last answer of the queueing model: same demand and places, same share.
    last: (Window, f64, f64),
}

impl Serving {
    pub fn new(spec: &ModelSpec) -> Self {
        let server = |sharers| spec.batch.server(spec.slo_s, spec.max_rows, sharers);
        Self {
            name: spec.name.clone(),
            class: spec.class,
            gpus: spec.gpus,
            load_s: spec.load_s,
            whole: server(1),
            slices: (1..=spec.max_sharers.max(1)).map(server).collect(),
            ready: 0,
            loading: Vec::new(),
            sharers: 0,
            next_sharers: None,
            round: (0.0, 0.0),
            requests: 0.0,
            inside: 0.0,
            busy_ms: 0.0,
            held_ms: 0.0,
            last: (Window::default(), 0.0, 1.0),
        }
    }

    pub fn class(&self) -> usize {
        self.class
    }

    pub fn gpus_per_replica(&self) -> u32 {
        self.gpus
    }

    /// Whole replicas, loading ones included.
    pub fn replicas(&self) -> u32 {
        self.ready + self.loading.iter().map(|(_, count)| count).sum::<u32>()
    }

    /// The slice that counts: the one being loaded, else the one there is.
    fn slice(&self) -> u32 {
        self.next_sharers.map_or(self.sharers, |(_, sharers)| sharers)
    }

    /// Sets the wish; what is new is ready after `evict_s` and the load time. At time 0 everything is loaded.
    pub fn order(&mut self, now: Ms, replicas: u32, sharers: u32, evict_s: f64) {
        let ready_at = if now == 0 { 0 } else { now + to_ms(evict_s + self.load_s) };
        let have = self.replicas();
        if replicas > have {
            self.loading.push((ready_at, replicas - have));
            self.loading.sort_unstable();
        }
        let mut surplus = have.saturating_sub(replicas);
        while let Some((_, count)) = self.loading.last_mut().filter(|_| surplus > 0) {
            let cut = surplus.min(*count);
            *count -= cut;
            surplus -= cut;
            if *count == 0 {
                self.loading.pop();
            }
        }
        self.ready -= surplus;
        if sharers != self.slice() {
            self.next_sharers = Some((ready_at, sharers));
        }
    }

    /// Answers the requests of `[from, to)`, piece by piece as replicas become ready. `others` is the load of a shared GPU
    /// by the other models on it, 0 to 1: a slice gets what they leave, and never less than its own turns.
    pub fn serve(&mut self, from: Ms, to: Ms, demand: Window, others: f64, is_measured: bool) {
        let mut at = from;
        while at < to {
            self.become_ready(at);
            let next = self.loading.first().map_or(to, |(ready_at, _)| *ready_at).min(to);
            let next = self.next_sharers.map_or(next, |(ready_at, _)| ready_at.min(next));
            self.serve_span(next - at, demand, others, is_measured);
            at = next;
        }
    }

    fn become_ready(&mut self, now: Ms) {
        while let Some((_, count)) = self.loading.first().copied().filter(|(ready_at, _)| *ready_at <= now) {
            self.ready += count;
            self.loading.remove(0);
        }
        if let Some((_, sharers)) = self.next_sharers.filter(|(ready_at, _)| *ready_at <= now) {
            self.sharers = sharers;
            self.next_sharers = None;
        }
    }

    fn serve_span(&mut self, span_ms: Ms, demand: Window, others: f64, is_measured: bool) {
        let idle = Server { places: self.whole.places * (1.0 - others), ..self.whole };
        let turns = self.sharers.checked_sub(1).and_then(|index| self.slices.get(index as usize));
        let slice = turns.map(|turns| if idle.capacity_rps() > turns.capacity_rps() { idle } else { *turns });
        let places = self.whole.places * f64::from(self.ready) + slice.map_or(0.0, |slice| slice.places);
        if self.last.0 != demand || (self.last.1 - places).abs() > 1e-9 {
            let service_s =
                if self.ready > 0 { self.whole.service_s } else { slice.map_or(self.whole.service_s, |s| s.service_s) };
            let slack_s = self.whole.slo_s - service_s;
            self.last = (demand, places, attainment(demand.rate_rps, demand.burst, places, service_s, slack_s));
        }
        let requests = demand.rate_rps * span_ms as f64 / 1000.0;
        self.round.0 += requests;
        self.round.1 += requests * (1.0 - self.last.2);
        if !is_measured {
            return;
        }
        self.requests += requests;
        self.inside += requests * self.last.2;
        let replicas = f64::from(self.ready) + slice.map_or(0.0, |_| 1.0);
        let needed = demand.rate_rps / self.whole.capacity_rps();
        self.busy_ms += needed.min(replicas) * f64::from(self.gpus) * span_ms as f64;
        self.held_ms += (f64::from(self.replicas()) + share(self.slice())) * f64::from(self.gpus) * span_ms as f64;
    }

    /// Share of the requests since the last call that were late.
    pub fn take_late_share(&mut self) -> f64 {
        let (requests, late) = std::mem::take(&mut self.round);
        if requests > 0.0 { late / requests } else { 0.0 }
    }

    /// GPU-milliseconds busy and held.
    pub fn gpu_ms(&self) -> (f64, f64) {
        (self.busy_ms, self.held_ms)
    }

    pub fn summary(&self) -> Served {
        let attained = if self.requests > 0.0 { self.inside / self.requests } else { 1.0 };
        Served { name: self.name.clone(), requests: self.requests, attained, gpu_hours: self.held_ms / 3_600_000.0 }
    }
}

/// Mean load of the GPUs shared by as many models as this one shares with, its own load left out.
pub fn load_of_others(all: &[Serving], rates: &[f64], index: usize) -> f64 {
    let Some(own) = all.get(index).filter(|own| own.sharers > 1) else { return 0.0 };
    let beside = |(at, other): &(usize, &Serving)| *at != index && other.sharers == own.sharers && other.class == own.class;
    let load = |(at, other): (usize, &Serving)| (rates.get(at).copied().unwrap_or(0.0) / other.whole.capacity_rps()).min(1.0);
    let (count, sum) =
        all.iter().enumerate().filter(beside).map(load).fold((1_u32, 0.0), |(count, sum), load| (count + 1, sum + load));
    (sum / f64::from(count.div_ceil(own.sharers))).min(1.0)
}

fn share(sharers: u32) -> f64 {
    if sharers > 1 { 1.0 / f64::from(sharers) } else { 0.0 }
}

/// GPUs of a class held by models: whole replicas, and at least as many shared ones as the slices fill.
pub fn held(all: &[Serving], class: usize) -> u32 {
    let (mut gpus, mut milli) = (0, 0);
    for serving in all.iter().filter(|serving| serving.class == class) {
        gpus += serving.replicas() * serving.gpus;
        milli += if serving.slice() > 1 { 1000 / serving.slice() } else { 0 };
    }
    gpus + milli.div_ceil(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::service::BatchTime;

    fn spec(max_sharers: u32) -> ModelSpec {
        let batch = BatchTime { base_s: 0.1, row_s: 0.01 };
        ModelSpec { name: "m".into(), class: 0, gpus: 2, batch, slo_s: 1.0, max_rows: 64, load_s: 20.0, max_sharers }
    }

    #[test]
    fn a_replica_answers_only_after_eviction_and_load() {
        let demand = Window { rate_rps: 50.0, burst: 1.0 };
        let mut serving = Serving::new(&spec(1));
        serving.order(60_000, 1, 0, 10.0);
        serving.serve(60_000, 120_000, demand, 0.0, true);
        let attained = serving.summary().attained;
        assert!((0.48..0.501).contains(&attained), "30 of 60 s: {attained}");
        assert_eq!(held(&[serving], 0), 2);
    }

    #[test]
    fn slices_share_a_gpu() {
        let sliced = |sharers| {
            let mut serving = Serving::new(&spec(4));
            serving.order(0, 0, sharers, 0.0);
            serving
        };
        let all: Vec<Serving> = [4, 4, 4, 4, 4, 2].into_iter().map(sliced).collect();
        assert_eq!(held(&all, 0), 2, "five quarters and a half");
    }

    #[test]
    fn fewer_replicas_cancel_those_still_loading_first() {
        let mut serving = Serving::new(&spec(1));
        serving.order(0, 2, 0, 0.0);
        serving.serve(0, 1, Window::default(), 0.0, true);
        serving.order(60_000, 5, 0, 0.0);
        serving.order(61_000, 1, 0, 0.0);
        assert_eq!((serving.ready, serving.replicas()), (1, 1));
    }
}
