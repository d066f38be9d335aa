//! The figures for people.

use std::io::{self, Write};

use super::figures::Figures;

/// Requests by model, training by job, then the devices.
pub fn write(out: &mut impl Write, figures: &Figures) -> io::Result<()> {
    requests(out, figures)?;
    phases(out, figures)?;
    training(out, figures)?;
    let lent_percent = 100.0 * figures.lent_gpu_seconds / figures.device_seconds.max(1.0);
    writeln!(out)?;
    writeln!(
        out,
        "device seconds of the day     {:.0}, lent to training {:.0} ({lent_percent:.0} %)",
        figures.device_seconds, figures.lent_gpu_seconds
    )?;
    writeln!(out, "reclaims                      {}, p99 {} ms", figures.reclaims, figures.reclaim_p99_ms)?;
    writeln!(
        out,
        "steps lost                    {} in all, at worst {:.2} checkpoint intervals",
        figures.steps_lost, figures.worst_stop_in_checkpoint_intervals
    )?;
    writeln!(out, "checkpoints, resizes          {}, {}", figures.checkpoints, figures.resizes)?;
    writeln!(out, "double runs, orphans          {}, {}", figures.double_runs, figures.orphans)?;
    writeln!(
        out,
        "the machine stood still       {} ms for its disk, {} ms for its processors, at most",
        figures.longest_write_ms, figures.longest_pause_ms
    )?;
    if let (Some(twice), Some(most)) = (figures.gpus_given_twice, figures.most_gpus_held) {
        writeln!(out, "GPUs given twice              {twice}, held at most {most}")?;
    }
    for (job, sizes) in &figures.sizes {
        let sizes: Vec<String> = sizes.iter().map(ToString::to_string).collect();
        writeln!(out, "workers of {job:<18} {}", sizes.join(" "))?;
    }
    writeln!(out, "GPUs of a static split        {:.2}", figures.gpus_static)?;
    for (holder, devices) in &figures.gpus_static_parts {
        writeln!(out, "  {holder:<27} {devices:.2}")?;
    }
    writeln!(out, "GPUs used                     {}, a factor of {:.2}", figures.gpus_used, figures.factor)?;
    for kill in &figures.kills {
        writeln!(out, "killed at second {:>3}          {:?}, pid {}", kill.second, kill.victim, kill.pid)?;
    }
    figures.remarks.iter().try_for_each(|remark| writeln!(out, "remark: {remark}"))
}

fn requests(out: &mut impl Write, figures: &Figures) -> io::Result<()> {
    let heads = ["sent", "answered", "refused", "lost", "late", "woken", "p50 ms", "p99 ms", "SLO ms"];
    write!(out, "{:<20}", "model")?;
    heads.iter().try_for_each(|head| write!(out, " {head:>8}"))?;
    writeln!(out)?;
    let Figures { requests_sent, answered, refused, lost, late, woken, p50_ms, p99_ms, slo_ms, .. } = figures;
    for name in requests_sent.keys() {
        write!(out, "{name:<20}")?;
        for counts in [requests_sent, answered, refused, lost, late, woken] {
            write!(out, " {:>8}", counts.get(name).copied().unwrap_or_default())?;
        }
        for times in [p50_ms, p99_ms] {
            write!(out, " {:>8.1}", times.get(name).copied().unwrap_or_default())?;
        }
        writeln!(out, " {:>8}", slo_ms.get(name).copied().unwrap_or_default())?;
    }
    Ok(())
}

fn phases(out: &mut impl Write, figures: &Figures) -> io::Result<()> {
    write!(out, "\n{:<12} {:>7} {:>7}", "phase", "from s", "to s")?;
    figures.requests_sent.keys().try_for_each(|model| write!(out, " {:>24}", format!("p99 ms {model}")))?;
    writeln!(out, " {:>14}", "training GPUs")?;
    for phase in &figures.phases {
        write!(out, "{:<12} {:>7.0} {:>7.0}", phase.name, phase.from_s, phase.to_s)?;
        for model in figures.requests_sent.keys() {
            write!(out, " {:>24.1}", phase.p99_ms.get(model).copied().unwrap_or_default())?;
        }
        writeln!(out, " {:>14}", phase.training_gpus.map_or("-".to_owned(), |gpus| format!("{gpus:.2}")))?;
    }
    Ok(())
}

fn training(out: &mut impl Write, figures: &Figures) -> io::Result<()> {
    writeln!(out, "\n{:<20} {:>18} {:>18}", "job", "final metric", "undisturbed")?;
    for (name, undisturbed) in &figures.final_metric_undisturbed {
        let metric = figures.final_metric.get(name).map_or("none".to_owned(), |metric| format!("{metric:.6}"));
        writeln!(out, "{name:<20} {metric:>18} {undisturbed:>18.6}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::figures::Phase;
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_model_and_job_has_its_line() {
        let sent = BTreeMap::from([("digits".to_owned(), 16_061)]);
        let metric = BTreeMap::from([("spirals".to_owned(), 0.062)]);
        let p99_ms = BTreeMap::from([("digits".to_owned(), 151.0)]);
        let phases = vec![Phase { name: "peak".to_owned(), p99_ms, training_gpus: Some(0.75), ..Phase::default() }];
        let figures = Figures { requests_sent: sent, final_metric_undisturbed: metric, phases, ..Figures::default() };
        let mut out = Vec::new();
        write(&mut out, &figures).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().any(|line| line.starts_with("digits") && line.contains("16061")), "{text}");
        let peak = text.lines().find(|line| line.starts_with("peak")).unwrap();
        assert!(peak.contains("151.0") && peak.ends_with("0.75"), "{peak}");
        assert!(
            text.lines().any(|line| line.starts_with("spirals") && line.contains("none") && line.contains("0.062")),
            "{text}"
        );
    }
}
