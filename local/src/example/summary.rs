//! What happened, in sentences. `cargo xtask scenario tide` prints the same figures with what must hold of them.

use tidegate_api::view;
use tidegate_load::Report;

/// One line while the day goes on.
pub(super) fn line(report: &Report, state: &view::State) -> String {
    let models: Vec<String> = state
        .models
        .iter()
        .map(|model| {
            format!(
                "{} {:.0}/s on {} (p99 {:.0} of {} ms)",
                model.name, model.arrival_per_s, model.ready, model.p99_ms, model.slo_ms
            )
        })
        .collect();
    let jobs: Vec<String> = state.jobs.iter().map(|job| format!("{} {} on {}", job.name, job.phase, job.workers)).collect();
    format!("{:>4} s  {}; {}", report.elapsed_ms / 1000, models.join(", "), jobs.join(", "))
}

/// What the world reported.
pub(super) struct Seen {
    /// When the day had ended.
    pub day: view::Report,
    /// When training had ended too.
    pub end: view::Report,
    pub state: view::State,
    /// Devices that the models would need, each alone at its own peak.
    pub peak_devices: u32,
}

/// The summary.
pub(super) fn say(client: &Report, seen: &Seen) {
    let Seen { day, end, state, peak_devices } = seen;
    eprintln!();
    eprintln!("  What happened");
    for (name, model) in &client.models {
        let totals = &model.totals;
        eprintln!(
            "    {name}: {} requests sent, {} answered, {} refused, {} lost, {} late, {} woken; p50 {:.0} ms, p99 {:.0} ms, SLO {} ms.",
            totals.requests_sent,
            totals.answered,
            totals.refused,
            totals.lost,
            totals.late,
            totals.woken,
            model.p50_ms,
            model.p99_ms,
            model.slo_ms
        );
    }
    let share = if day.device_seconds > 0.0 { 100.0 * day.lent_gpu_seconds / day.device_seconds } else { 0.0 };
    eprintln!(
        "    Of {:.0} device-seconds of the day, {:.0} ({share:.0} %) were lent to training.",
        day.device_seconds, day.lent_gpu_seconds
    );
    eprintln!("    {} times the tide took devices back; p99 {} ms until they were free.", day.reclaims, p99(&end.reclaim_ms));
    for job in &state.jobs {
        let lost: u64 = end.steps_lost.get(&job.name).into_iter().flatten().sum();
        let (checkpoints, resizes) = (end.checkpoints.get(&job.name).unwrap_or(&0), end.resizes.get(&job.name).unwrap_or(&0));
        let metrics: Vec<String> = job.metrics.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
        eprintln!(
            "    {}: {} after {} attempts at step {}; {checkpoints} checkpoints, {resizes} changes of size, {lost} steps lost; {}.",
            job.name,
            job.phase,
            job.attempt,
            job.step,
            metrics.join(", ")
        );
    }
    say_factor(day, state, *peak_devices);
    eprintln!("  Still up: the page, the API and `tidegate top` go on until Ctrl-C.");
    eprintln!();
}

/// GPUs that a static split needs, by this one.
fn say_factor(day: &view::Report, state: &view::State, peaks: u32) {
    let used = state.devices.len();
    let seconds = if used == 0 { 0.0 } else { day.device_seconds / used as f64 };
    let jobs = day.held_gpu_seconds.iter().filter(|(holder, _)| holder.starts_with("job/"));
    let mean: f64 = jobs.map(|(_, held)| if seconds > 0.0 { held / seconds } else { 0.0 }).sum();
    let needed = f64::from(peaks) + mean;
    eprintln!(
        "    A static split needs {peaks} devices for the models' own peaks and {mean:.2} for the same training: {needed:.2}. Here {used} did it: factor {:.2}.",
        if used == 0 { 0.0 } else { needed / used as f64 }
    );
}

fn p99(samples: &[u64]) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * 99).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}
