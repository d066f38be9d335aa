use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn good(load: u32) -> Signs {
    Signs::test(&[], load)
}

fn bad(causes: &[Cause], load: u32) -> Signs {
    Signs::test(causes, load)
}

#[test]
fn the_worst_finding_is_the_state_and_each_keeps_its_evidence() {
    let mut health = Health::default();
    assert_eq!(
        health.observe(&bad(&[Cause::RemapPending], 1), at(1)),
        Some(Transition { from: State::Healthy, to: State::Degraded })
    );
    assert_eq!(health.observe(&bad(&[Cause::RemapPending, Cause::RemapFailed], 1), at(2)).unwrap().to, State::Sick);
    let causes: Vec<_> = health.findings().map(|(cause, finding)| (cause, finding.since)).collect();
    assert_eq!(causes, [(Cause::RemapFailed, at(2)), (Cause::RemapPending, at(1))]);
    assert_eq!(health.observe(&good(1), at(3)).unwrap().to, State::Healthy);
}

#[test]
fn a_sign_that_flickers_is_one_bad_period() {
    let mut health = Health::default();
    health.observe(&bad(&[Cause::LinkDown], 1), at(0));
    health.observe(&good(1), at(5));
    assert_eq!(health.state(), State::Degraded);
    health.observe(&bad(&[Cause::LinkDown], 1), at(8));
    health.observe(&good(1), at(17));
    assert_eq!(health.findings().next().unwrap().1.since, at(0));
    assert_eq!(health.observe(&good(1), at(18)).unwrap().to, State::Healthy);
}

#[test]
fn an_xid_of_a_program_says_nothing_about_the_gpu() {
    let mut health = Health::default();
    for xid in [13, 31, 43, 45, 68] {
        assert_eq!(health.xid(xid, 1, at(1)), None);
    }
    assert_eq!(health.xid(48, 1, at(2)).unwrap().to, State::Sick);
}

#[test]
fn an_xid_is_found_by_what_the_catalog_says_to_do_at_once() {
    let cause = |xid| meaning(xid).1;
    assert_eq!([46, 48, 54, 64, 95, 109, 119, 136, 143, 158].map(cause), [Some(Cause::FatalXid); 10]);
    assert_eq!([74, 144, 150].map(cause), [Some(Cause::LinkXid); 3]);
    assert_eq!([38, 44, 63, 130, 157].map(cause), [None; 5]);
    assert_eq!([79, 92, 94].map(cause), [Cause::OffTheBus, Cause::CorrectedEccStorm, Cause::ContainedXid].map(Some));
    assert_eq!([57, 122, 142, 168, 9_999].map(cause), [Some(Cause::UnknownXid); 5], "unused, or without a remedy");
}

#[test]
fn a_fatal_xid_ends_by_a_reset_by_the_drivers_word_or_by_time() {
    let fresh = || {
        let mut health = Health::default();
        health.xid(119, 1, at(0));
        health
    };
    assert_eq!(fresh().observe(&good(2), at(5)).unwrap().to, State::Healthy, "NVML was opened anew after a reset");
    let mut absolved = good(1);
    absolved.absolved = true;
    assert_eq!(fresh().observe(&absolved, at(5)), None, "the driver has not made up its mind yet");
    assert_eq!(fresh().observe(&absolved, at(30)).unwrap().to, State::Healthy);
    assert_eq!(fresh().observe(&good(1), at(599)), None);
    assert_eq!(fresh().observe(&good(1), at(600)).unwrap().to, State::Healthy);
}

#[test]
fn what_cannot_be_read_neither_raises_nor_clears() {
    let mut health = Health::default();
    health.observe(&bad(&[Cause::RemapFailed], 1), at(0));
    let mut unknown = good(1);
    unknown.replace(Cause::RemapFailed, Sign::Unknown);
    assert_eq!(health.observe(&unknown, at(60)), None);
    assert_eq!(health.state(), State::Sick);
}

#[test]
fn a_gpu_that_came_back_is_on_probation() {
    let mut health = Health::default();
    health.observe(&Signs::none(Cause::OffTheBus, "lost", 1), at(0));
    health.observe(&good(2), at(29));
    assert_eq!(health.state(), State::Lost);
    assert_eq!(health.observe(&good(2), at(30)).unwrap().to, State::Healthy);
}

#[test]
fn words_and_numbers_of_the_tables_are_unique() {
    let mut words: Vec<_> = CAUSES.iter().map(|cause| cause.rule().word).collect();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), CAUSES.len());
    assert!(XIDS.iter().all(|row| row.first <= row.last));
    assert!(XIDS.windows(2).all(|pair| pair[0].last < pair[1].first), "in the order of numbers, none twice");
}

fn any_cause() -> impl Strategy<Value = Cause> {
    prop::sample::select(CAUSES.to_vec())
}

proptest! {
    #[test]
    fn health_always_recovers_when_the_causes_are_gone(
        history in prop::collection::vec((prop::collection::vec(any_cause(), 0..4), any::<bool>(), 0u64..200, 0u64..60), 1..40)
    ) {
        let (mut health, mut now) = (Health::default(), 0);
        for (causes, lost, xid, pause) in history {
            now += pause;
            if lost {
                health.observe(&Signs::none(Cause::NotAnswering, "hung", 1), at(now));
            } else {
                health.observe(&bad(&causes, 1), at(now));
            }
            health.xid(xid, 1, at(now));
            health.event(Cause::UncorrectedEcc, "test", 1, at(now));
            let worst = health.findings().map(|(cause, _)| cause.rule().severity.state()).max().unwrap_or_default();
            prop_assert_eq!(health.state(), worst);
        }
        let longest = CAUSES.iter().map(|cause| cause.rule().quiet).max().unwrap();
        health.observe(&good(1), at(now) + longest);
        prop_assert_eq!(health.state(), State::Healthy);
        prop_assert_eq!(health.findings().count(), 0);
    }
}
