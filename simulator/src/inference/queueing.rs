//! What share of requests is answered inside the SLO: the truth of the virtual world.
//!
//! A GPU that runs batches of `n` in `t(n)` is `n` places of a many-server queue, each busy `t(n)` per request
//! (continuous batching: a sequence joins as soon as a place is free). With `c` places, arrival rate `r` and offered
//! load `a = r*t` (in places):
//!
//! * variability `z = (ca2 + cs2) / 2`: squared variation of arrivals and of service, halved (Allen-Cunneen);
//! * spare places in standard deviations `b = (c - a) / sqrt(a*z)`;
//! * a request waits with probability `1 / (1 + sqrt(2*pi)*b*Phi(b)*exp(b^2/2))` (Halfin and Whitt 1981; with the
//!   peakedness `z` in `b`, Whitt 2004), and longer than `d` with that times `exp(-(c/t - r)*d/z)` (Allen-Cunneen);
//! * the front door refuses at once what cannot make its deadline, so in overload only the surplus is lost: Erlang's
//!   loss for many servers `sqrt(z/a)*phi(b)/Phi(b)` (Hayward's peaked traffic) bounds the late share from above.
//!
//! The late share is the smaller of the two. `d` is the SLO less `t(n)`.

/// Serves requests of one model on one GPU (or on one replica of several GPUs).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Server {
    /// Requests at a time.
    pub places: f64,
    /// Seconds per request at that batch.
    pub service_s: f64,
    /// Seconds within which a request must be answered.
    pub slo_s: f64,
}

/// Squared variation of service times; 1: output lengths vary as an exponential's.
pub const SERVICE_BURST: f64 = 1.0;

impl Server {
    /// Requests per second of one server when its batch is always full.
    pub fn capacity_rps(&self) -> f64 {
        self.places / self.service_s
    }

    /// Share of requests inside the SLO, 0 to 1, for `rate` requests/s of squared variation `burst` on `servers`
    /// (fractions are places of a shared GPU).
    pub fn attainment(&self, rate: f64, burst: f64, servers: f64) -> f64 {
        attainment(rate, burst, servers * self.places, self.service_s, self.slo_s - self.service_s)
    }

    /// The fewest servers whose share inside the SLO is at least `target`.
    pub fn needed(&self, rate: f64, burst: f64, target: f64) -> u32 {
        let (mut low, mut high) = (0_u32, 1_u32);
        let enough = |servers: u32| self.attainment(rate, burst, f64::from(servers)) >= target;
        while !enough(high) && high < 1 << 24 {
            high *= 2;
        }
        while low < high {
            let middle = low.midpoint(high);
            if enough(middle) { high = middle } else { low = middle + 1 }
        }
        low
    }
}

/// Share of requests that wait at most `slack_s` for one of `places`.
pub fn attainment(rate: f64, burst: f64, places: f64, service_s: f64, slack_s: f64) -> f64 {
    if rate <= 0.0 {
        return 1.0;
    }
    if places <= 0.0 || slack_s < 0.0 {
        return 0.0;
    }
    let load = rate * service_s;
    let z = f64::midpoint(burst.max(0.0), SERVICE_BURST);
    let spare = (places - load) / (load * z).sqrt();
    let lost = (z / load).sqrt() * hazard(spare);
    let late = if spare > 0.0 { waits(spare) * (-(places / service_s - rate) * slack_s / z).exp() } else { 1.0 };
    (1.0 - lost.min(late)).clamp(0.0, 1.0)
}

/// Probability of waiting (Halfin and Whitt).
fn waits(spare: f64) -> f64 {
    1.0 / (1.0 + (2.0 * std::f64::consts::PI).sqrt() * spare * normal(spare) * (spare * spare / 2.0).exp())
}

/// `phi(x) / Phi(x)`; for very negative `x` its asymptote.
fn hazard(x: f64) -> f64 {
    if x < -6.0 {
        return -x - 1.0 / x;
    }
    (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() / normal(x)
}

/// The normal distribution function (Abramowitz and Stegun 26.2.17, error below 1e-7).
fn normal(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let series = [1.330_274_429, -1.821_255_978, 1.781_477_937, -0.356_563_782, 0.319_381_530];
    let tail = series.iter().fold(0.0, |sum, term| (sum + term) * t) * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if x >= 0.0 { 1.0 - tail } else { tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Erlang's formulas by recursion: probability of loss and of waiting for `c` servers at load `a`.
    fn erlang(c: u32, a: f64) -> (f64, f64) {
        let loss = (1..=c).fold(1.0, |b, k| a * b / (f64::from(k) + a * b));
        (loss, loss / (1.0 - a / f64::from(c) * (1.0 - loss)))
    }

    #[test]
    fn many_servers_come_close_to_erlang() {
        for (c, a) in [(100_u32, 90.0_f64), (400, 380.0), (40, 32.0)] {
            let (_, wait) = erlang(c, a);
            let share = attainment(a, 1.0, f64::from(c), 1.0, 0.2);
            let exact = 1.0 - wait * (-(f64::from(c) - a) * 0.2).exp();
            assert!((share - exact).abs() < 0.03, "{c} {a}: {share} {exact}");
        }
    }

    #[test]
    fn in_overload_the_surplus_is_refused_and_no_more() {
        let share = attainment(200.0, 1.0, 100.0, 1.0, 1.0);
        assert!((share - 0.5).abs() < 0.02, "{share}");
        assert!(attainment(1.0, 1.0, 0.0, 1.0, 1.0) < 1e-9);
        assert!(attainment(0.0, 1.0, 0.0, 1.0, 1.0) > 1.0 - 1e-9);
    }

    #[test]
    fn bursts_need_more_servers_and_pools_need_fewer() {
        let server = Server { places: 10.0, service_s: 0.5, slo_s: 1.0 };
        assert!(server.needed(500.0, 20.0, 0.999) > server.needed(500.0, 1.0, 0.999));
        assert!(server.needed(1000.0, 4.0, 0.999) < 2 * server.needed(500.0, 4.0, 0.999));
        let needed = server.needed(500.0, 4.0, 0.999);
        assert!(server.attainment(500.0, 4.0, f64::from(needed)) >= 0.999);
        assert!(server.attainment(500.0, 4.0, f64::from(needed - 1)) < 0.999);
    }
}
