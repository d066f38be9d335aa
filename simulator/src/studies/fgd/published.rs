//! The authors' own results: `analysis_allo_discrete.csv`, allocation by trace, rule, seed and percent arrived.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::pack::PolicyName;

/// Columns before those of the loads 0 %, 1 %, and so on.
const BEFORE: usize = 5;

/// Allocation curves by `(workload, rule)`, one for each seed.
pub(super) struct Published {
    path: PathBuf,
    curves: BTreeMap<(String, String), Vec<Vec<f64>>>,
}

impl Published {
    /// Reads the runs of seeds `first` to `last`.
    pub(super) fn read(path: &Path, first: u64, last: u64) -> Result<Self, Error> {
        let read = |source: io::Error| Error::Read { path: path.to_owned(), source };
        let mut reader = csv::Reader::from_reader(File::open(path).map_err(read)?);
        let mut curves: BTreeMap<(String, String), Vec<Vec<f64>>> = BTreeMap::new();
        for record in reader.records() {
            let record = record.map_err(|error| read(io::Error::other(error)))?;
            let line = record.position().map_or(0, csv::Position::line);
            let field = |at| record.get(at).unwrap_or_default();
            let seed: u64 = field(3).parse().map_err(|_| wrong(path, line, "seed", field(3)))?;
            if (first..=last).contains(&seed) {
                let loads = record.iter().skip(BEFORE);
                let curve = loads.map(|value| value.parse().map_err(|_| wrong(path, line, "allocation", value)));
                curves.entry((field(0).to_owned(), field(1).to_owned())).or_default().push(curve.collect::<Result<_, _>>()?);
            }
        }
        Ok(Self { path: path.to_owned(), curves })
    }

    /// Mean over the seeds, in percent.
    pub(super) fn mean(&self, list: &str, policy: PolicyName, load: u32) -> Result<f64, Error> {
        let key = (format!("openb_pod_list_{list}"), name(policy).to_owned());
        let load_at = usize::try_from(load).unwrap_or(usize::MAX);
        let runs = self.curves.get(&key).into_iter().flatten();
        let values: Vec<f64> = runs.filter_map(|curve| curve.get(load_at).copied()).collect();
        if values.is_empty() {
            let path = self.path.display();
            return Err(Error::Usage(format!(
                "{path}: no result of {} on {} at {load} %; name another list in settings/fgd.yaml",
                key.1, key.0
            )));
        }
        Ok(values.iter().sum::<f64>() / values.len() as f64)
    }
}

fn wrong(path: &Path, line: u64, field: &'static str, found: &str) -> Error {
    Error::Row { path: path.to_owned(), line, field, found: found.to_owned(), remedy: "a number" }
}

/// The authors' name of a rule; ours has none.
pub(super) fn name(policy: PolicyName) -> &'static str {
    match policy {
        PolicyName::Random => "01-Random",
        PolicyName::Dotprod => "02-DotProd",
        PolicyName::Clustering => "03-GpuClustering",
        PolicyName::Packing => "04-GpuPacking",
        PolicyName::Bestfit => "05-BestFit",
        PolicyName::Fgd => "06-FGD",
        PolicyName::Tidegate => "",
    }
}
