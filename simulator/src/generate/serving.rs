//! What the study `tide` reads beside request rates: token lengths and single clients like `ServeGen`'s, service times like
//! Splitwise's.
//!
//! Lengths are log-normal, with the public files' means and spreads of logarithms. Clients have the shares of `m-small`'s 24 largest
//! (99.8 % of its requests), each as often silent, in spells of six hours; their courses are the total's. Times are the straight lines
//! fitted to llama2-70b on two H100. Not modelled: clients that drift, the bend of times at large batches.

use std::io::{self, Write};

use super::draw::Draw;
use super::servegen::{WINDOW_S, expected};

/// Model, field, mean tokens, deviation of the logarithm.
const LENGTHS: [(&str, &str, f64, f64); 6] = [
    ("m-small", "input_tokens", 123.8, 1.081),
    ("m-small", "output_tokens", 15.9, 1.407),
    ("m-mid", "input_tokens", 343.6, 0.800),
    ("m-mid", "output_tokens", 53.3, 1.153),
    ("m-large", "input_tokens", 922.7, 1.176),
    ("m-large", "output_tokens", 145.0, 2.054),
];
/// Lengths drawn for a histogram, whose bins grow by a quarter.
const DRAWN: u32 = 20_000;
const BIN: f64 = 1.25;

/// Clients: ten-thousandths of all requests, thousandths of windows in which it sends any, median variation between requests.
const CLIENTS: [(f64, u32, f64); 24] = [
    (2988.0, 982, 1.12),
    (2190.0, 982, 1.11),
    (1072.0, 900, 1.11),
    (881.0, 982, 9.12),
    (568.0, 837, 1.17),
    (532.0, 982, 1.07),
    (418.0, 982, 1.25),
    (349.0, 982, 1.74),
    (161.0, 982, 1.04),
    (122.0, 952, 1.15),
    (111.0, 982, 1.04),
    (108.0, 982, 1.02),
    (108.0, 715, 0.99),
    (65.0, 981, 5.60),
    (57.0, 864, 3.12),
    (54.0, 285, 1.26),
    (54.0, 973, 3.00),
    (26.0, 982, 1.18),
    (24.0, 262, 4.31),
    (21.0, 300, 2.20),
    (16.0, 196, 1.13),
    (13.0, 36, 13.74),
    (12.0, 97, 2.83),
    (11.0, 881, 1.80),
];
/// Windows in a spell of sending or silence.
const SPELL: u32 = 36;
/// Deviation of the logarithm of a client's rate from its share of the total.
const OWN: f64 = 0.25;

/// Seconds per input token; of a step: at batch 0, per row (settings/inference.yaml).
const PREFILL_S: f64 = 0.000_161_64;
const STEP_S: (f64, f64) = (0.036_82, 0.000_453_79);

/// `derived_length_hist.csv`.
pub fn write_lengths(seed: u64, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "model,window_start_s,field,tokens_lo,tokens_hi,probability,rate_coverage")?;
    let mut draw = Draw::new(seed, 7);
    for (model, field, mean, sigma) in LENGTHS {
        let mut bins = std::collections::BTreeMap::<i32, u32>::new();
        for _ in 0..DRAWN {
            let tokens = (mean.ln() - sigma * sigma / 2.0 + sigma * draw.normal()).exp().max(1.0);
            #[expect(clippy::cast_possible_truncation, reason = "the logarithm of a length is small")]
            let bin = (tokens.ln() / BIN.ln()).floor() as i32;
            *bins.entry(bin).or_default() += 1;
        }
        for (bin, count) in bins {
            let (low, high) = (BIN.powi(bin), BIN.powi(bin + 1));
            writeln!(out, "{model},0,{field},{low:.2},{high:.2},{:.6},1", f64::from(count) / f64::from(DRAWN))?;
        }
    }
    Ok(())
}

/// `m-small-trace.tar.gz`, not yet gzipped: one file a client, `t_s,rate,cv` every 600 s.
pub fn write_clients(windows: u32, seed: u64, out: &mut dyn Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(out);
    for (number, (share, active, cv)) in (0_u32..).zip(CLIENTS) {
        let mut draw = Draw::new(seed.wrapping_add(u64::from(number)), 8);
        let mut text = Vec::new();
        let mut sends = false;
        for window in 0..windows {
            sends = if window % SPELL == 0 { draw.chance(active) } else { sends };
            let t_s = u64::from(window) * WINDOW_S;
            // What it sends while it does, so that its share of all is as stated.
            let scale = share / 10_000.0 / (f64::from(active) / 1000.0);
            let rate = if sends { scale * expected(t_s) * (OWN * draw.normal() - OWN * OWN / 2.0).exp() } else { 0.0 };
            writeln!(text, "{t_s},{rate:.4},{}", if sends { cv } else { 0.0 })?;
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        archive.append_data(&mut header, format!("chunk-{number}-trace.csv"), text.as_slice())?;
    }
    archive.finish()
}

/// `perf_model.csv`.
pub fn write_times(out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "model,hardware,prompt_size,batch_size,token_size,peak_power,average_power,prompt_time,token_time,e2e_time,tensor_parallel"
    )?;
    for prompt in [128_u32, 256, 512, 1024, 2048, 4096] {
        for batch in [1_u32, 2, 4, 8, 16, 32] {
            let prompt_ms = 1000.0 * PREFILL_S * f64::from(prompt) * f64::from(batch);
            let token_ms = 1000.0 * (STEP_S.0 + STEP_S.1 * f64::from(batch));
            let all_ms = prompt_ms + 128.0 * token_ms;
            writeln!(out, "llama2-70b,h100-80gb,{prompt},{batch},128,1,1,{prompt_ms:.4},{token_ms:.4},{all_ms:.4},2")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::servegen;
    use crate::inference::service::Measured;

    #[test]
    fn what_is_written_is_read_back_with_the_figures_that_it_was_made_of() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let save = |name: &str, write: &dyn Fn(&mut dyn Write) -> io::Result<()>| {
            write(&mut std::fs::File::create(path(name)).unwrap()).unwrap();
        };
        save("lengths.csv", &|out| write_lengths(1, out));
        save("times.csv", &|out| write_times(out));
        save("clients.tar.gz", &|out| {
            let mut packed = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
            write_clients(2016, 1, &mut packed)?;
            packed.finish().map(|_| ())
        });
        for (model, field, mean, sigma) in LENGTHS {
            let read = servegen::mean_tokens(&path("lengths.csv"), model, field).unwrap();
            let off = if sigma > 1.5 { 0.25 } else { 0.1 };
            assert!((read / mean - 1.0).abs() < off, "{model} {field}: {read}");
        }
        let fit = Measured::fit(&path("times.csv"), "llama2-70b", "h100-80gb", 2).unwrap();
        assert!((fit.prefill_s / PREFILL_S - 1.0).abs() < 1e-3 && (fit.step_s.1 / STEP_S.1 - 1.0).abs() < 1e-3, "{fit:?}");
        let clients = servegen::clients(&path("clients.tar.gz")).unwrap();
        let all: f64 = clients.iter().map(crate::inference::Series::mean_rps).sum();
        assert!(clients.len() == 24 && (1000.0..1350.0).contains(&all), "{all} of 1,174 requests/s");
        let largest = clients[0].mean_rps() / all;
        assert!((0.25..0.35).contains(&largest), "{largest}");
    }
}
