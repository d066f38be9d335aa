//! A file for Kueue's performance generator: its `baseline` configuration, scaled to a number of workloads.
//!
//! 5 cohorts of 6 queues; 70 % small workloads (1 unit, 200 ms), 20 % medium (5 units, 500 ms), 10 % large (20 units, 1 s),
//! every 100, 500 and 1,200 ms; 20 units nominal, 100 borrowed. Nothing in it is drawn, so it takes no seed. The number is
//! rounded up to a multiple of 30 queues x 10.

use std::io::{self, Write};

const QUEUES: u32 = 30;

/// Writes a configuration of at least `workloads` workloads.
pub fn write(workloads: u32, out: &mut dyn Write) -> io::Result<()> {
    let tenth = workloads.div_ceil(QUEUES * 10);
    write!(
        out,
        "cohorts:
- className: cohort
  count: 5
  queuesSets:
  - className: cq
    count: 6
    nominalQuota: 20
    borrowingLimit: 100
    reclaimWithinCohort: Any
    withinClusterQueue: LowerPriority
    workloadsSets:
"
    )?;
    let sets = [("small", 7, 100, 200, 50, 1), ("medium", 2, 500, 500, 100, 5), ("large", 1, 1200, 1000, 200, 20)];
    for (class, tenths, interval, runtime, priority, request) in sets {
        let count = tenths * tenth;
        write!(
            out,
            "    - count: {count}
      creationIntervalMs: {interval}
      workloads:
      - className: {class}
        runtimeMs: {runtime}
        priority: {priority}
        request: {request}
"
        )?;
    }
    Ok(())
}
