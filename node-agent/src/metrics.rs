//! What Prometheus scrapes. Every metric is one line of a table ([`table`]), from which the documentation is made; the
//! values are read from the [`Node`] at the scrape, so that a GPU, an instance or a pod that is gone has no series left.
//!
//! Labels are bounded by the hardware and by the pods of a node. No process id is a label.

mod dcgm;
mod own;
pub mod table;

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto;
use prometheus::{Opts, Registry};

use crate::collect::Shared;
use table::{Def, Kind};

/// The families of one scrape.
#[derive(Debug, Default)]
pub struct Sheet {
    families: Vec<(&'static Def, Vec<proto::Metric>)>,
}

impl Sheet {
    /// One value, if it is known; labels are those that the metric's line names, in that order.
    pub fn add(&mut self, def: &'static Def, labels: &[&str], value: Option<f64>) {
        let Some(value) = value.filter(|value| value.is_finite()) else { return };
        let pairs = def.labels.iter().zip(labels).map(|(name, value)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut metric = proto::Metric::from_label(pairs.collect());
        match def.kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        match self.families.iter_mut().find(|(known, _)| std::ptr::eq(*known, def)) {
            Some((_, metrics)) => metrics.push(metric),
            None => self.families.push((def, vec![metric])),
        }
    }

    fn into_families(self) -> Vec<proto::MetricFamily> {
        self.families.into_iter().map(|(def, metrics)| family(def, metrics)).collect()
    }
}

fn family(def: &Def, metrics: Vec<proto::Metric>) -> proto::MetricFamily {
    let mut family = proto::MetricFamily::default();
    family.set_name(def.name.to_owned());
    family.set_help(def.help.to_owned());
    family.set_field_type(match def.kind {
        Kind::Counter => proto::MetricType::COUNTER,
        Kind::Gauge => proto::MetricType::GAUGE,
    });
    family.set_metric(metrics);
    family
}

/// Reads the node at each scrape.
struct Scrape {
    shared: Arc<Shared>,
    dcgm_names: bool,
    hostname: String,
    desc: Desc,
}

impl Collector for Scrape {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let (mut sheet, at) = (Sheet::default(), self.shared.at());
        let node = self.shared.node.lock();
        own::write(&node, at, &mut sheet);
        if self.dcgm_names {
            dcgm::write(&node, &self.hostname, &mut sheet);
        }
        drop(node);
        sheet.into_families()
    }
}

/// Registers the agent's metrics; with `dcgm_names` those of dcgm-exporter too.
pub fn register(registry: &Registry, shared: Arc<Shared>, dcgm_names: bool, hostname: String) -> Result<(), prometheus::Error> {
    // A collector must describe something; the families themselves come and go with the hardware.
    let desc = Opts::new("tidegate_node_agent", "Facts about the GPUs of this node.");
    let desc = prometheus::core::Describer::describe(&desc)?;
    registry.register(Box::new(Scrape { shared, dcgm_names, hostname, desc }))
}

#[cfg(test)]
mod tests;
