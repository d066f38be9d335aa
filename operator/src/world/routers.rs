//! What routers report, added up: each model's demand over all routers that are there.

use std::collections::BTreeMap;

use tidegate_api::control::{ModelDemand, RouterReport};
use tidegate_api::convert::{self, Judged};
use tidegate_core::Event;
use tidegate_core::demand::{Demand, ServiceTime};
use tidegate_core::names::ModelName;
use tidegate_core::time::At;

/// Routers that are listened to; more are counted by nobody, and told so in the log.
const MOST_ROUTERS: usize = 256;
/// Models of one router that are listened to.
const MOST_MODELS: usize = 10_000;
/// A router reports twice a second. One that has not for so long is gone: what it had to do comes to others.
const GONE_AFTER_MS: u64 = 5_000;

/// The routers that are there.
#[derive(Debug, Default)]
pub(super) struct Routers(BTreeMap<String, Router>);

#[derive(Debug, Default)]
struct Router {
    seen: At,
    /// The configuration that it uses.
    version: u64,
    models: BTreeMap<ModelName, Traffic>,
}

#[derive(Debug, Default)]
struct Traffic {
    last: Demand,
    /// Batches from which its service time was fitted.
    samples: u64,
    judged: Judged,
}

impl Routers {
    /// A router says what arrives: the demand of its models as it is now.
    pub fn report(&mut self, at: At, report: &RouterReport) -> Vec<Event> {
        if !self.0.contains_key(&report.router_id) && self.0.len() >= MOST_ROUTERS {
            tracing::warn!(router = report.router_id, "there are {MOST_ROUTERS} routers already; this one is not counted");
            return Vec::new();
        }
        let router = self.0.entry(report.router_id.clone()).or_default();
        (router.seen, router.version) = (at, report.config_version);
        let mut changed = Vec::new();
        for demand in report.models.iter().take(MOST_MODELS) {
            let name = ModelName::from(demand.model.as_str());
            let late_ppm = router.see(&name, demand);
            changed.push((name, late_ppm));
        }
        changed.into_iter().map(|(name, late_ppm)| self.demand(name, late_ppm)).collect()
    }

    /// Forgets those that are gone; what of the demand is left.
    pub fn look(&mut self, now: At) -> Vec<Event> {
        let gone = self.0.extract_if(.., |_, router| now.since(router.seen) >= GONE_AFTER_MS);
        let mut names = Vec::new();
        for (id, router) in gone {
            tracing::info!(router = id, "a router reports no more");
            names.extend(router.models.into_keys());
        }
        names.into_iter().map(|name| self.demand(name, None)).collect()
    }

    /// Routers that are there.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether every router uses this configuration or a newer one.
    pub fn have(&self, version: u64) -> bool {
        !self.0.is_empty() && self.0.values().all(|router| router.version >= version)
    }

    fn demand(&self, name: ModelName, late_ppm: Option<u64>) -> Event {
        let all = self.0.values().filter_map(|router| router.models.get(&name));
        let demand = Demand { late_ppm, ..sum(all) };
        Event::Demand { model: name, demand }
    }
}

impl Router {
    /// Of the rows since the last report, those that were late.
    fn see(&mut self, name: &ModelName, demand: &ModelDemand) -> Option<u64> {
        // What was counted before this world began was another one's to report.
        let is_first = !self.models.contains_key(name);
        let traffic = self.models.entry(name.clone()).or_default();
        let late_ppm = traffic.judged.late_ppm(demand).filter(|_| !is_first);
        (traffic.last, traffic.samples) = (convert::demand(demand, None), demand.fit_samples);
        late_ppm
    }
}

/// All that arrives. The service time and how unevenly rows come are means, by what each router has seen of them.
fn sum<'a>(all: impl Iterator<Item = &'a Traffic>) -> Demand {
    let mut sum = Demand::default();
    let (mut samples, mut base, mut per_row) = (0_u128, 0_u128, 0_u128);
    let (mut rates, mut bursts) = (0_u128, 0_u128);
    for traffic in all {
        let Demand { milli_rows_per_s, trend, queued, held, in_flight, service, burst_milli, late_ppm: _ } = traffic.last;
        sum.milli_rows_per_s = sum.milli_rows_per_s.saturating_add(milli_rows_per_s);
        sum.trend = sum.trend.saturating_add(trend);
        sum.queued = sum.queued.saturating_add(queued);
        sum.held = sum.held.saturating_add(held);
        sum.in_flight = sum.in_flight.saturating_add(in_flight);
        if let Some(service) = service {
            let weight = u128::from(traffic.samples.max(1));
            samples += weight;
            base += weight * u128::from(service.base_us);
            per_row += weight * u128::from(service.per_row_us);
        }
        if let Some(burst) = burst_milli {
            let weight = u128::from(milli_rows_per_s.max(1));
            rates += weight;
            bursts += weight * u128::from(burst);
        }
    }
    let mean = |sum: u128, weight: u128| sum.checked_div(weight).map(|mean| u64::try_from(mean).unwrap_or(u64::MAX));
    sum.service =
        mean(base, samples).zip(mean(per_row, samples)).map(|(base_us, per_row_us)| ServiceTime { base_us, per_row_us });
    sum.burst_milli = mean(bursts, rates);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(router: &str, rate: u64, base: u64, samples: u64) -> RouterReport {
        let demand = ModelDemand {
            model: "digits".to_owned(),
            arrival_milli_rows_per_s: rate,
            queued: 1,
            fit_base_us: base,
            fit_per_row_us: 10,
            fit_samples: samples,
            burst_milli: Some(1_000),
            ..ModelDemand::default()
        };
        RouterReport { router_id: router.to_owned(), models: vec![demand], config_version: 7 }
    }

    fn told(events: Vec<Event>) -> Demand {
        let [Event::Demand { model, demand }] = <[Event; 1]>::try_from(events).unwrap() else { panic!() };
        assert_eq!(model.as_str(), "digits");
        demand
    }

    #[test]
    fn demand_is_that_of_all_routers_and_service_times_are_weighed() {
        let mut routers = Routers::default();
        told(routers.report(At(1_000), &report("a", 3_000, 100, 30)));
        let demand = told(routers.report(At(1_100), &report("b", 1_000, 200, 10)));
        assert_eq!((demand.milli_rows_per_s, demand.queued), (4_000, 2));
        assert_eq!(demand.service, Some(ServiceTime { base_us: 125, per_row_us: 10 }));
        assert_eq!(demand.burst_milli, Some(1_000));
    }

    #[test]
    fn a_router_that_reports_no_more_is_not_counted() {
        let mut routers = Routers::default();
        routers.report(At(1_000), &report("a", 3_000, 100, 30));
        routers.report(At(5_000), &report("b", 1_000, 100, 30));
        assert!(routers.have(7) && !routers.have(8));
        assert_eq!(told(routers.look(At(6_000))).milli_rows_per_s, 1_000);
        assert_eq!(told(routers.look(At(20_000))), Demand::default());
        assert!(!routers.have(7), "nobody has it");
    }

    #[test]
    fn there_is_a_bound_on_routers() {
        let mut routers = Routers::default();
        for number in 0..MOST_ROUTERS {
            routers.report(At(1_000), &report(&number.to_string(), 1, 1, 1));
        }
        assert_eq!(routers.report(At(1_000), &report("more", 1, 1, 1)), []);
    }
}
