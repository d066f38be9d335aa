//! The batching report for people.

use super::batching::{Report, Row};

/// Lines of text.
pub fn render(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "{} ({} cores, {} GiB, load {} before); {} rounds x {} s, {}\n",
        machine.cpu, machine.cores, machine.memory_gib, machine.load_before, report.rounds, report.seconds, report.encoding
    );
    for model in &report.models {
        line(&mut text, &format!("\n{}", model.about));
        line(
            &mut text,
            &format!(
                "{:<18} {:>5} {:>9} {:>9} {:>9} {:>10} {:>11} {:>7}",
                "", "c", "req/s", "p50 ms", "p99 ms", "mean batch", "CPU ms/req", "busy %"
            ),
        );
        model.bare.iter().for_each(|row| line(&mut text, &one("bare tract, batch", row)));
        model.server.iter().for_each(|row| line(&mut text, &one("tidegate", row)));
        line(&mut text, &format!("at c={}: {:.1} % of bare tract at that batch size", model.share_at, model.share_percent));
    }
    text.truncate(text.trim_end().len());
    text
}

fn one(name: &str, row: &Row) -> String {
    let f = &row.figures;
    format!(
        "{name:<18} {:>5} {:>9.1} {:>9.2} {:>9.2} {:>10.1} {:>11.3} {:>7.1}",
        row.c, f.req_per_s, f.p50_ms, f.p99_ms, f.mean_batch, f.cpu_ms_per_request, f.busy_percent
    )
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
