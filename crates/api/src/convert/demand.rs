//! What routers report, as the engine's samples.

use tidegate_core::demand::{Demand, ServiceTime};

use crate::control::ModelDemand;

/// A report as the engine's sample. Requests are counted in rows, as devices work through rows. `late_ppm` as [`Judged`] has it.
pub fn demand(demand: &ModelDemand, late_ppm: Option<u64>) -> Demand {
    let rows = |requests: u32| (u64::from(requests) * demand.rows_per_request_milli.max(1000)).div_ceil(1000);
    let known = demand.fit_samples > 0;
    Demand {
        milli_rows_per_s: demand.arrival_milli_rows_per_s,
        trend: demand.arrival_trend,
        queued: rows(demand.queued),
        held: rows(demand.held),
        in_flight: rows(demand.in_flight),
        service: known.then_some(ServiceTime { base_us: demand.fit_base_us, per_row_us: demand.fit_per_row_us }),
        burst_milli: demand.burst_milli,
        late_ppm,
    }
}

/// Rows of a router's last report that kept the SLO or did not, and those that did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged(u64, u64);

impl Judged {
    /// Of the rows since the last report, those that were late or refused, in millionths; `None` if there were none.
    pub fn late_ppm(&mut self, demand: &ModelDemand) -> Option<u64> {
        let counted = Self(demand.judged_rows_total, demand.late_rows_total);
        let last = std::mem::replace(self, counted);
        // A new router counts anew. Both counters together say so: of a few late rows alone it could not be seen.
        let Self(rows, late) = if counted.0 < last.0 { Self::default() } else { last };
        let late = counted.1.saturating_sub(late).saturating_mul(1_000_000);
        late.checked_div(counted.0 - rows).map(|ppm| ppm.min(1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_rows_are_a_part_of_those_since_the_last_report_and_a_new_router_begins_anew() {
        let mut judged = Judged::default();
        let mut report = |judged_rows_total, late_rows_total| {
            judged.late_ppm(&ModelDemand { judged_rows_total, late_rows_total, ..ModelDemand::default() })
        };
        assert_eq!(report(0, 0), None, "nothing came");
        assert_eq!(report(100, 1), Some(10_000));
        assert_eq!(report(200, 1), Some(0));
        assert_eq!(report(200, 1), None);
        assert_eq!(report(50, 25), Some(500_000), "the counters of another router");
    }

    #[test]
    fn the_engine_is_told_how_unevenly_rows_arrive() {
        let sample = |burst_milli| demand(&ModelDemand { burst_milli, ..ModelDemand::default() }, Some(7));
        assert_eq!((sample(None).burst_milli, sample(Some(0)).burst_milli, sample(None).late_ppm), (None, Some(0), Some(7)));
    }
}
