//! What Prometheus scrapes. Every metric is one line of a table ([`table`]), from which the documentation is made; the
//! values are read from the [`Node`](crate::node::Node) at the scrape, so that a GPU, an instance or a pod that is gone
//! has no series left.
//!
//! Written as text at once, into buffers that are kept: between a node of eight GPUs and its thousand series stand no
//! objects. Labels are bounded by the hardware and by the pods of a node. No process id is a label.

mod dcgm;
mod own;
pub mod table;

use std::fmt::Write;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::collect::Shared;
use table::Def;

/// Prometheus' text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers scrapes.
#[derive(Debug)]
pub struct Scrape {
    shared: Arc<Shared>,
    dcgm_names: bool,
    hostname: String,
    sheet: Mutex<Sheet>,
}

impl Scrape {
    /// With `dcgm_names` also the metrics of dcgm-exporter.
    pub fn new(shared: Arc<Shared>, dcgm_names: bool, hostname: String) -> Self {
        Self { shared, dcgm_names, hostname, sheet: Mutex::default() }
    }

    /// Everything that is known now.
    pub fn text(&self) -> String {
        let mut sheet = self.sheet.lock();
        sheet.clear();
        let at = self.shared.at();
        {
            let node = self.shared.node.lock();
            own::write(&node, at, &mut sheet);
            if self.dcgm_names {
                dcgm::write(&node, &self.hostname, &mut sheet);
            }
        }
        own::of_process(&mut sheet);
        sheet.text()
    }
}

/// The series of one scrape, family by family.
#[derive(Debug, Default)]
struct Sheet {
    families: Vec<(&'static Def, String)>,
    /// Where the last series went.
    last: usize,
}

impl Sheet {
    /// One value, if it is known; labels are those that the metric's line names, in that order.
    fn add(&mut self, def: &'static Def, labels: &[&str], value: Option<f64>) {
        let Some(value) = value.filter(|value| value.is_finite()) else { return };
        let Some(text) = self.family(def) else { return };
        text.push_str(def.name);
        for (at, (name, label)) in def.labels.iter().zip(labels).enumerate() {
            text.push_str(if at == 0 { "{" } else { "," });
            text.push_str(name);
            text.push_str("=\"");
            escape(label, text);
            text.push('"');
        }
        if !def.labels.is_empty() {
            text.push('}');
        }
        let _strings_take_all = writeln!(text, " {value}");
    }

    /// The family's series so far. GPUs are written one like the other, so it is nearly always the last family or the next.
    fn family(&mut self, def: &'static Def) -> Option<&mut String> {
        let is = |at: usize| self.families.get(at).is_some_and(|(known, _)| std::ptr::eq(*known, def));
        let near = [self.last, self.last + 1].into_iter().find(|at| is(*at));
        let found = near.or_else(|| (0..self.families.len()).find(|at| is(*at)));
        self.last = found.unwrap_or(self.families.len());
        if found.is_none() {
            self.families.push((def, String::new()));
        }
        self.families.get_mut(self.last).map(|(_, text)| text)
    }

    fn text(&self) -> String {
        let mut text = String::with_capacity(self.families.iter().map(|(def, series)| series.len() + def.about()).sum());
        for (def, series) in self.families.iter().filter(|(_, series)| !series.is_empty()) {
            let Def { name, help, .. } = def;
            let _strings_take_all = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", def.kind.word());
            text.push_str(series);
        }
        text
    }

    /// Keeps the buffers.
    fn clear(&mut self) {
        self.families.iter_mut().for_each(|(_, series)| series.clear());
    }
}

/// A label's value as the format wants it.
fn escape(label: &str, text: &mut String) {
    for part in label.split_inclusive(['\\', '"', '\n']) {
        let (plain, special) = match part.char_indices().next_back() {
            Some((at, '\\')) => (part.get(..at), "\\\\"),
            Some((at, '"')) => (part.get(..at), "\\\""),
            Some((at, '\n')) => (part.get(..at), "\\n"),
            _ => (Some(part), ""),
        };
        text.push_str(plain.unwrap_or_default());
        text.push_str(special);
    }
}

#[cfg(test)]
mod tests;
