//! Why a running job has the size and the place that it has.

use crate::engine::Engine;
use crate::names::JobName;
use crate::state::{Job, Run};
use crate::time::At;

use super::{Explanation, claims, quota, waits, words};

/// Explains a running job.
pub(super) fn explain(engine: &Engine, name: &JobName, job: &Job, run: &Run, now: At) -> Explanation {
    let mut on: Vec<String> =
        run.seats.iter().flat_map(|seat| engine.state().devices_of(seat)).map(|device| device.id.to_string()).collect();
    on.dedup();
    let place = if on.is_empty() { "CPUs".to_owned() } else { words::list(&on) };
    let mut answer = Explanation {
        status: format!("job/{name} runs attempt {} with {} worker(s) on {place}", run.attempt, run.seats.len()),
        ..Explanation::default()
    };
    match &run.stop {
        Some(stop) => {
            answer.because.push(format!("it is being stopped: {}", stop.reason));
            answer.because.extend(goes_on(job, stop.keep.len()));
        }
        None => answer.because.extend(size(engine, name, job, run, now)),
    }
    answer.because.extend(waits::stops(job, now));
    answer.because.extend(ahead(engine, run, now));
    answer.because.extend(claims::shielded(job, now).map(|why| format!("others may not take its devices now: {why}")));
    answer.would_change.push(format!("if it had to give way now it would lose {} device-seconds", job.lost_work_ms(now) / 1000));
    answer
}

/// What follows a stop.
fn goes_on(job: &Job, keep: usize) -> Option<String> {
    let (least, most) = job.spec.size();
    (keep > 0).then(|| format!("it goes on with {keep} worker(s); it needs {least} and can use {most}"))
}

/// It was let in before another job's reservation.
fn ahead(engine: &Engine, run: &Run, now: At) -> Option<String> {
    let until = run.backfilled_until?;
    let due = if until > now { format!("until {}", words::clock(until, now)) } else { "which is due now".to_owned() };
    let whose = engine.state().reservations.iter().find(|(_, reservation)| reservation.at == until);
    let whose = whose
        .and_then(|(ix, _)| engine.state().jobs.name(*ix))
        .map_or_else(|| "another job".to_owned(), |name| format!("job/{name}"));
    Some(format!("it was let in ahead of a reservation of {whose}, {due}: it is the first to give way then"))
}

/// Why it has the size that it has.
fn size(engine: &Engine, name: &JobName, job: &Job, run: &Run, now: At) -> Vec<String> {
    let mut because = Vec::new();
    let queue = &job.spec.queue;
    if let Some((used, above)) = quota::above_own(engine.books(), queue) {
        because.push(format!(
            "queue {queue} uses {} device(s), {} above its own: these are lent and go back on demand",
            words::milli(used),
            words::milli(above)
        ));
    }
    let (has, most) = (run.seats.len(), job.spec.size().1);
    let growing = job.spec.growing_group(&run.seats).filter(|_| job.spec.is_elastic());
    let Some(group) = growing.and_then(|index| job.spec.groups.get(index)) else { return because };
    let mut held = std::collections::BTreeMap::<String, u64>::new();
    for (holder, milli) in claims::holders(engine, &group.ask) {
        *held.entry(claims::name(engine.state(), holder)).or_default() += milli;
    }
    let mine = format!("job/{name}");
    let held: Vec<String> = held
        .into_iter()
        .filter(|(holder, _)| *holder != mine)
        .map(|(holder, milli)| format!("{holder} {}", words::milli(i64::try_from(milli).unwrap_or(i64::MAX))))
        .collect();
    let by = if held.is_empty() { "nobody else".to_owned() } else { words::list(&held) };
    because.push(format!("it could use {most} workers and has {has}; devices are held by: {by}"));
    because.extend(quota::refusing_one_more(engine.books(), &job.spec, &group.ask));
    let settled = run.since.plus(2 * job.spec.restart_ms + engine.state().policy.grow_after_ms);
    if settled > now {
        because
            .push(format!("a restart to grow must pay first: it does not grow for another {}", words::span(settled.since(now))));
    }
    because
}
