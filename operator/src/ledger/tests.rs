use std::sync::Arc;
use std::time::Duration;

use tidegate_core::ask::Ask;
use tidegate_core::event::Observed;
use tidegate_core::names::JobName;
use tidegate_core::state::{Device, JobSpec, Queue};
use tidegate_core::time::At;
use tidegate_core::{Engine, Event, JobExit};
use tidegate_runtime::ledger::{Commit, Error};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::lease::Fence;
use crate::world::Planned;

fn settings(dir: &std::path::Path) -> Settings {
    let place = format!("sqlite:{}", dir.display()).parse().unwrap();
    Settings { place, keep: Keep { decisions: 1_000, age_ms: Some(1_000_000) } }
}

fn line(at_ms: u64, subject: &str) -> Arc<Planned> {
    let (subject, reason) = (subject.to_owned(), "its turn".to_owned());
    Arc::new(Planned { at_ms, action: "start_job", subject, nodes: vec!["n1".to_owned()], reason, category: "turn" })
}

/// One GPU; a run of ann's `bert` took a second, and `second` has run for two of them and was stopped.
fn experienced() -> Engine {
    let mut engine = Engine::default();
    let job = || JobSpec { owner: "ann".into(), recipe: "bert".into(), ..JobSpec::workers("q", 1, 1, Ask::whole(1)) };
    engine.apply(At(0), Event::DeviceSeen(Device::new("gpu-0", "n1", "H100-80GB", 81_920)));
    engine.apply(At(0), Event::QueueSet { name: "q".into(), queue: Queue { budget_ms: Some(1), ..Queue::devices(1, None) } });
    for (name, at, exit) in [("first", 0, JobExit::Succeeded), ("second", 2_000, JobExit::Stopped)] {
        engine.apply(At(at), Event::JobSet { name: name.into(), spec: job().into() });
        let observed = Observed { submitted: At(at), ..Observed::default() };
        engine.apply(At(at), Event::JobObserved { name: name.into(), observed });
        engine.decide(At(at));
        engine.apply(At(at), Event::JobStarted { name: name.into(), attempt: 1 });
        let (step, checkpoint) = (9, Some(7));
        engine.apply(At(at), Event::JobProgress { name: name.into(), attempt: 1, step, checkpoint, done_ppm: Some(500_000) });
        engine.apply(At(at + 1_000), Event::JobExited { name: name.into(), attempt: 1, exit });
    }
    engine
}

/// Told of `second` as after a restart, submitted at that moment.
fn told(engine: &mut Engine, submitted: u64) {
    let spec = JobSpec::workers("q", 1, 1, Ask::whole(1));
    engine.apply(At(5_000), Event::JobSet { name: "second".into(), spec: spec.into() });
    let observed = Observed { submitted: At(submitted), ..Observed::default() };
    engine.apply(At(5_000), Event::JobObserved { name: "second".into(), observed });
}

fn served(engine: &Engine) -> (u64, u64) {
    let job = engine.state().jobs.get(&JobName::from("second")).unwrap();
    (job.served_ms, job.progress.checkpoint_step)
}

#[test]
fn an_engine_goes_on_with_what_another_has_learned_and_holds_nothing_of_it() {
    let before = experienced();
    let json = before.past().to_json().unwrap();
    let mut after = Engine::default();
    after.remember(At(4_000), tidegate_core::engine::Past::from_json(&json).unwrap());
    let (was, is) = (before.state(), after.state());
    assert_eq!((&is.history, is.stop_ms), (&was.history, was.stop_ms));
    assert!(!was.usage.decayed_ms.is_empty());
    assert_eq!(is.usage.decayed_ms.keys().collect::<Vec<_>>(), was.usage.decayed_ms.keys().collect::<Vec<_>>());
    assert!(is.nodes.is_empty() && is.jobs.is_empty() && is.queues.is_empty() && is.actions.is_empty());
    assert!(after.is_consistent().is_ok());
    assert_eq!(after.past().to_json().unwrap().len(), json.len(), "what has not come back is handed on");
    told(&mut after, 2_000);
    assert_eq!(served(&after), (1_000, 7));
    assert!(after.is_consistent().is_ok());
    let mut later = Engine::default();
    told(&mut later, 2_000);
    later.remember(At(6_000), before.past());
    assert_eq!(served(&later), (1_000, 7), "the ledger came late");
    let mut namesake = Engine::default();
    namesake.remember(At(4_000), before.past());
    told(&mut namesake, 4_500);
    assert_eq!(served(&namesake), (0, 0), "another job of that name");
}

#[test]
fn what_never_comes_back_is_forgotten_and_another_version_is_not_read() {
    let mut after = Engine::default();
    after.remember(At(4_000), experienced().past());
    assert!(!after.state().remembered.is_empty());
    after.apply(At(4_000 + 3_600_000), Event::QueueRemoved("none".into()));
    assert!(after.state().remembered.is_empty());
    let other = experienced().past().to_json().unwrap().replacen("\"version\":", "\"version\":9", 1);
    assert!(tidegate_core::engine::Past::from_json(&other).unwrap_err().to_string().contains("has version 9"));
}

/// Waits until the keeper has opened the ledger and written so many lines.
async fn written(shelf: &Shelf, count: usize) -> Vec<String> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let ledger = shelf.read().clone();
        let kept = match ledger {
            Some(ledger) => ledger.kept(None, None, 100).await.unwrap(),
            None => Vec::new(),
        };
        if kept.len() >= count {
            return kept.into_iter().map(|kept| kept.decision).collect();
        }
        assert!(Instant::now() < until, "{kept:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_one_leader_has_learned_is_there_for_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let (metrics, settings) = (Metrics::new().unwrap(), settings(dir.path()));
    for turn in 0..2 {
        let (shelf, quit, tasks) = (Shelf::default(), CancellationToken::new(), TaskTracker::new());
        let (keeper, past) = Keeper::new(&settings, "operator_7", Fence::for_a_minute(), shelf.clone(), metrics.clone());
        let journal = keeper.journal();
        tasks.spawn(keeper.run(quit.clone()));
        let found = past.await.unwrap();
        assert_eq!(found.is_some(), turn == 1);
        journal.line(line(turn, "job/gang/team/night#2"));
        assert_eq!(written(&shelf, usize::try_from(turn).unwrap() + 1).await.len(), usize::try_from(turn).unwrap() + 1);
        let ledger = shelf.read().clone().unwrap();
        let about = ledger.kept(Some("job/gang/team/night"), None, 10).await.unwrap();
        assert!(about[0].decision.contains("\"night#2\"") || about[0].decision.contains("night#2"), "{about:?}");
        // What is handed over last is written before the keeper ends.
        journal.past(experienced().past());
        drop(ledger);
        quit.cancel();
        tasks.close();
        tasks.wait().await;
        assert!(shelf.read().is_none());
    }
    assert_eq!(metrics.figures(), (2, 0));
}

#[tokio::test]
async fn who_has_led_before_writes_nothing_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let ledger = Ledger::at(&settings.place, "--ledger", settings.keep).await.unwrap();
    let first = ledger.take("first", 1).await.unwrap();
    let commit = |value: &str| Commit { values: vec![("past".into(), value.into())], ..Commit::default() };
    ledger.commit_as(&first, &commit("of the first")).await.unwrap();
    let second = ledger.take("second", 2).await.unwrap();
    assert!(second.epoch > first.epoch);
    let refused = ledger.commit_as(&first, &commit("too late")).await.unwrap_err();
    assert!(matches!(refused, Error::NotLeader { .. }) && refused.to_string().contains("--ledger sqlite:"), "{refused}");
    assert_eq!(ledger.value("past").await.unwrap().as_deref(), Some("of the first"));
    ledger.commit_as(&second, &commit("of the second")).await.unwrap();
    assert_eq!(ledger.value("past").await.unwrap().as_deref(), Some("of the second"));
    assert_eq!(ledger.value("none").await.unwrap(), None);
}

#[tokio::test]
async fn one_whose_lease_is_over_does_not_take_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let (metrics, shelf, tasks) = (Metrics::new().unwrap(), Shelf::default(), TaskTracker::new());
    let (keeper, past) = Keeper::new(&settings(dir.path()), "late", Fence::default(), shelf.clone(), metrics.clone());
    keeper.journal().line(line(1, "job/a"));
    let quit = CancellationToken::new();
    tasks.spawn(keeper.run(quit.clone()));
    sleep(Duration::from_millis(50)).await;
    quit.cancel();
    tasks.close();
    tasks.wait().await;
    assert!(past.await.is_err() && shelf.read().is_none());
    assert_eq!(metrics.figures().0, 0);
}

#[tokio::test]
async fn a_ledger_that_is_away_costs_the_oldest_lines_alone() {
    let metrics = Metrics::new().unwrap();
    let journal = Journal::new(metrics.clone());
    for at_ms in 0..50_010 {
        journal.line(line(at_ms, "job/a"));
    }
    journal.past(experienced().past());
    assert_eq!(metrics.figures(), (0, 10));
    let batch = journal.take();
    assert_eq!((batch.lines.len(), batch.lines[0].at_ms, batch.past.is_some()), (1_000, 10, true));
    journal.give_back(batch);
    assert_eq!(metrics.figures(), (0, 10), "what goes back fits");
    let again = journal.take();
    assert_eq!((again.lines[0].at_ms, again.past.is_some()), (10, true));
}

#[tokio::test]
async fn history_is_bounded_by_number_and_by_age_and_read_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let place = settings(dir.path()).place;
    let ledger = Ledger::at(&place, "--ledger", Keep { decisions: 30, age_ms: Some(50) }).await.unwrap();
    let row = |at_ms: u64| tidegate_runtime::ledger::DecisionRow { at_ms, subject: "job/a".into(), decision: at_ms.to_string() };
    let commit = |range: std::ops::Range<u64>| Commit { decisions: range.map(row).collect(), ..Commit::default() };
    ledger.commit(&commit(0..100)).await.unwrap();
    let kept = ledger.kept(Some("job/a"), None, 20).await.unwrap();
    assert_eq!((kept.len(), kept[0].at_ms, kept[19].at_ms), (20, 99, 80));
    let before = ledger.kept(Some("job/a"), Some(kept[19].number), 20).await.unwrap();
    assert_eq!((before.len(), before[0].at_ms, before[9].at_ms), (10, 79, 70));
    assert!(ledger.kept(Some("job/b"), None, 20).await.unwrap().is_empty());
    ledger.commit(&commit(140..141)).await.unwrap();
    let kept = ledger.kept(None, None, 100).await.unwrap();
    assert_eq!((kept.len(), kept.last().unwrap().at_ms), (11, 90));
}
