//! Whole decisions as tables: a cluster, its queues, what runs and what waits; and what the engine then does.
//!
//! ```text
//! == the name of the case
//! policy   levels=block,rack reservations=0 cap=30 fair history=PERCENT half=3600s
//! namespaces NAME [LABEL=VALUE ...]
//! nodes    NAME COUNTxCLASS [mig] [islands=2] [cores=8] [gib=32] [taint=KEY] [drained=0-1] [gone] [LABEL=VALUE ...]
//! queues   NAME [parent=NAME] [gpu=N | CLASS=N | cpu=CORES | memory=GIB [borrow=N] [lend=N]] [weight=N] [priority=N] [takes=TERM (of namespaces)]
//!          [strict | responsive]
//! running  NAME QUEUE SHAPE [option ...] on PLACE ...        one place a worker
//! waiting  NAME QUEUE SHAPE [option ...]
//! expect   what is ordered, and why each waiting job waits; running jobs that are not named are left alone
//! later    30s, and what happens meanwhile: `JOB ends`, `NODE:0 drains`, `NODE is lost`, `JOB comes: QUEUE SHAPE ...`,
//!          `NODE is overcommitted: JOB ...`, `JOB is refused`, `NAMESPACE gone`, and lines of the sections above after `namespace`, `node` or `queue`
//! expect   ...
//!
//! SHAPE    WORKERSxASK[@LEVEL[!]] joined by `+` for several groups; WORKERS is 2 or 1-4; ASK is 2 (whole GPUs), 20000MiB,
//!          250m, 2g (MIG; `1g+` is the one with twice the memory) or cpu; `!` makes the spread required
//! option   prio=N pinned (not preemptible) cores=N gib=N class=A,B:400 LABEL=VALUE tolerates=KEY spread=LEVEL[!]
//!          from=NAMESPACE must=TERM rather=WEIGHT:TERM since=60s checkpoint=10s restart=2s least=60s disruptions=N estimate=100s
//! TERM     KEY:A,B  KEY:>N  KEY:<N  KEY  !KEY, joined by `&`
//! PLACE    NODE, NODE:0, NODE:0-3 (devices), NODE:0#4-5 (slices)
//! ```
//!
//! Before `later`, everything that was ordered happens.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "scenarios/board.rs"]
mod board;
#[path = "scenarios/table.rs"]
mod table;

/// Plays every case of a file.
fn play(text: &str, least: usize) {
    let cases = table::cases(text);
    assert!(cases.len() >= least, "{} cases, not {least}", cases.len());
    let wrong: Vec<String> = cases.iter().filter_map(|case| board::play(case).err()).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn work_is_placed_where_it_leaves_the_most() {
    play(include_str!("scenarios/placement.txt"), 17);
}

#[test]
fn gangs_are_whole_and_as_close_as_asked() {
    play(include_str!("scenarios/gangs.txt"), 13);
}

#[test]
fn a_node_that_was_given_too_much_is_left() {
    play(include_str!("scenarios/overcommit.txt"), 4);
}

#[test]
fn quota_is_lent_and_taken_back() {
    play(include_str!("scenarios/quota.txt"), 11);
}

#[test]
fn order_and_preemption_inside_a_queue() {
    play(include_str!("scenarios/order.txt"), 11);
}

#[test]
fn reservations_and_backfill() {
    play(include_str!("scenarios/time.txt"), 4);
}

#[test]
fn what_waits_for_people_holds_nobody_up() {
    play(include_str!("scenarios/people.txt"), 8);
}

#[test]
fn borrowers_share_by_weight_and_priority() {
    play(include_str!("scenarios/fair.txt"), 12);
}

#[test]
fn loops_that_others_had_do_not_happen() {
    play(include_str!("scenarios/loops.txt"), 8);
}
