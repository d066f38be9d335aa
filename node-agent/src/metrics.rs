//! What Prometheus scrapes. Every metric is one line of a table ([`table`]), from which the documentation is made; the
//! values are read from the [`Node`](crate::node::Node) at the scrape, so that a GPU, an instance or a pod that is gone
//! has no series left.
//!
//! Labels are bounded by the hardware and by the pods of a node. No process id is a label.

mod dcgm;
mod own;
pub mod table;

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Error, Registry};

use crate::collect::Shared;
use table::{Def, Kind};

/// A registry of everything that is known of the node at the moment of a scrape.
///
/// # Errors
/// A name of the table is not one that Prometheus takes, or it is there twice.
pub fn registry(shared: Arc<Shared>, dcgm_names: bool, hostname: String) -> Result<Registry, Error> {
    let tables = [table::OWN, if dcgm_names { table::DCGM } else { &[] }];
    let descriptions = tables.into_iter().flatten().map(|def| def.description()).collect::<Result<_, _>>()?;
    let registry = Registry::new();
    registry.register(Box::new(Facts { shared, dcgm_names, hostname, descriptions }))?;
    Ok(registry)
}

/// The node as Prometheus' crate collects it.
struct Facts {
    shared: Arc<Shared>,
    /// Also the metrics of dcgm-exporter.
    dcgm_names: bool,
    hostname: String,
    descriptions: Vec<Desc>,
}

impl Collector for Facts {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut sheet = Sheet::default();
        let at = self.shared.at();
        {
            let node = self.shared.node.lock();
            own::write(&node, at, &mut sheet);
            if self.dcgm_names {
                dcgm::write(&node, &self.hostname, &mut sheet);
            }
        }
        own::of_process(&mut sheet);
        sheet.families()
    }
}

impl Def {
    fn description(&self) -> Result<Desc, Error> {
        let labels = self.labels.iter().map(|&label| label.to_owned()).collect();
        Desc::new(self.name.to_owned(), self.help.to_owned(), labels, HashMap::new())
    }

    fn family(&self, metrics: Vec<Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(match self.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
        });
        family.set_metric(metrics);
        family
    }

    /// One series; `labels` are the values of those that the metric's line names, in that order.
    fn metric(&self, labels: &[&str], value: f64) -> Metric {
        let pairs = self.labels.iter().zip(labels).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut metric = Metric::from_label(pairs.collect());
        match self.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        metric
    }
}

/// The series of one scrape, family by family.
#[derive(Default)]
struct Sheet {
    families: Vec<(&'static Def, Vec<Metric>)>,
    /// Where the last series went.
    last: usize,
}

impl Sheet {
    /// One value, if it is known.
    fn add(&mut self, def: &'static Def, labels: &[&str], value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            let metric = def.metric(labels, value);
            self.family(def).push(metric);
        }
    }

    /// The family's series so far. GPUs are written one like the other, so it is nearly always the last family or the next.
    fn family(&mut self, def: &'static Def) -> &mut Vec<Metric> {
        let is = |at: usize| self.families.get(at).is_some_and(|(known, _)| std::ptr::eq(*known, def));
        let near = [self.last, self.last + 1].into_iter().find(|at| is(*at));
        let found = near.or_else(|| (0..self.families.len()).find(|at| is(*at)));
        self.last = found.unwrap_or_else(|| {
            self.families.push((def, Vec::new()));
            self.families.len() - 1
        });
        &mut self.families[self.last].1
    }

    fn families(self) -> Vec<MetricFamily> {
        self.families.into_iter().map(|(def, metrics)| def.family(metrics)).collect()
    }
}

#[cfg(test)]
mod tests;
