//! A model's request rate like `ServeGen`'s `m-small`: `model,t_s,total_rate_rps,active_clients,rate_weighted_cv`, one row
//! per 600 s, from a midnight on.
//!
//! Fitted to 2,016 windows (14 days): the mean of each hour of the day (775 req/s at 5 o'clock, 1,709 at 20 o'clock, 1,174 in
//! all), joined by straight lines; the days' means; what is left is an AR(1) of the logarithm, its deviation 0.18 and
//! correlation between neighbours 0.78; 15 to 26 active clients, 20 in the mean; CV p10 1.58,
//! p50 2.19, p90 3.94. The original's 37 gaps (0 clients) are left out.

use std::io::{self, Write};

use super::draw::{Draw, whole};

/// Seconds in a window.
pub const WINDOW_S: u64 = 600;
/// Mean rate by hour of the day in requests per second.
const HOURS: [f64; 24] = [
    985.0, 838.0, 861.0, 794.0, 839.0, 775.0, 804.0, 1004.0, 1192.0, 1238.0, 1321.0, 1284.0, 1245.0, 1260.0, 1245.0, 1229.0,
    1281.0, 1267.0, 1183.0, 1443.0, 1709.0, 1646.0, 1491.0, 1248.0,
];
/// Mean rate by day.
const DAYS: [f64; 14] =
    [985.0, 933.0, 1138.0, 1151.0, 1020.0, 1142.0, 1072.0, 1166.0, 1220.0, 1438.0, 1355.0, 1423.0, 1174.0, 1225.0];
const MEAN: f64 = 1174.4;
const SIGMA: f64 = 0.18;
const CORRELATION: f64 = 0.78;
/// Coefficient of variation of the times between requests: a log-normal with a longer upper side.
const CV_MEDIAN: f64 = 2.19;
const CV_BELOW: f64 = 0.26;
const CV_ABOVE: f64 = 0.46;

const HEADER: &str = "model,t_s,total_rate_rps,active_clients,rate_weighted_cv";

/// The models that the study `lyra` names, and their mean rates against `m-small`'s; courses and variation stay `m-small`'s.
const FAMILY: [(&str, f64); 3] = [("m-small", 1.0), ("m-mid", 1.56), ("m-large", 0.164)];

/// Writes `windows` rows after the header.
pub fn write(windows: u32, seed: u64, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{HEADER}")?;
    model("m-small", 1.0, windows, &mut Draw::new(seed, 2), out)
}

/// Writes `windows` rows of each model of the public file's general ones, each by a seed of its own.
pub fn write_family(windows: u32, seed: u64, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{HEADER}")?;
    for ((name, factor), n) in FAMILY.into_iter().zip(0..) {
        model(name, factor, windows, &mut Draw::new(seed.wrapping_add(n), 2), out)?;
    }
    Ok(())
}

fn model(name: &str, factor: f64, windows: u32, draw: &mut Draw, out: &mut dyn Write) -> io::Result<()> {
    let mut rest = SIGMA * draw.normal();
    for window in 0..u64::from(windows) {
        // exp(-sigma^2 / 2) keeps the mean of a log-normal factor at 1.
        let rate = factor * expected(window * WINDOW_S) * (rest - SIGMA * SIGMA / 2.0).exp();
        let clients = whole(20.3 + 1.8 * draw.normal()).clamp(15, 26);
        let normal = draw.normal();
        let cv = (CV_MEDIAN * (normal * if normal < 0.0 { CV_BELOW } else { CV_ABOVE }).exp()).clamp(1.1, 10.0);
        writeln!(out, "{name},{},{rate:.4},{clients},{cv:.4}", window * WINDOW_S)?;
        rest = CORRELATION * rest + SIGMA * (1.0 - CORRELATION * CORRELATION).sqrt() * draw.normal();
    }
    Ok(())
}

/// The rate at a time, without chance: the middle of each hour has the hour's mean.
pub(super) fn expected(t_s: u64) -> f64 {
    let at = |hour: u64| HOURS.get((hour % 24) as usize).copied().unwrap_or(MEAN);
    let since_middle = t_s + WINDOW_S / 2 + 86_400 - 1800;
    let (hour, part) = (since_middle / 3600, (since_middle % 3600) as f64 / 3600.0);
    let day = DAYS.get((t_s / 86_400 % 14) as usize).copied().unwrap_or(MEAN);
    (at(hour) * (1.0 - part) + at(hour + 1) * part) * day / MEAN
}
