//! The tide on one box, told as short stories: what the engine orders when demand rises and falls.

use std::collections::BTreeMap;

use tidegate_core::demand::{Demand, ServiceTime};
use tidegate_core::event::ObservedReplica;
use tidegate_core::explain;
use tidegate_core::names::{Class, DeviceId, JobName, ModelName, Namespace, NodeName, QueueName, ReplicaId};
use tidegate_core::plan::{Action, ActionKind, Placed};
use tidegate_core::policy::Policy;
use tidegate_core::state::{
    Amount, Ask, ClassWish, Device, Health, JobSpec, ModelMemory, ModelSpec, NodeSpec, Queue, Quota, Resource,
};
use tidegate_core::{At, Engine, Event, JobExit, Outcome};

/// Four devices that belong to serving; training lives on what is lent.
struct Box4 {
    engine: Engine,
    now: At,
}

impl Box4 {
    fn new() -> Self {
        let mut this = Self { engine: Engine::default(), now: At(1_000_000) };
        this.tell(Event::PolicySet(Policy {
            headroom_percent: 0,
            lend_after_ms: 6_000,
            grow_after_ms: 4_000,
            max_evictions_per_minute: 30,
            ..Policy::default()
        }));
        for index in 0..4 {
            this.tell(Event::DeviceSeen(Device::new(format!("gpu-{index}"), "box", "H100-80GB", 81_920)));
        }
        for (name, nominal) in [("serving", 4), ("training", 0)] {
            this.tell(Event::QueueSet { name: QueueName::from(name), queue: Queue::devices(nominal, None) });
        }
        let spec = ModelSpec {
            queue: QueueName::from("serving"),
            namespace: Namespace::default(),
            priority: 0,
            ask: Ask::whole(1),
            slo_ms: 250,
            min: 0,
            max: 4,
            zero_after_ms: 10_000,
            max_rows: 16,
            max_sharers: 1,
            memory: None,
            generation: 1,
        };
        this.tell(Event::ModelSet { name: ModelName::from("digits"), spec });
        this
    }

    fn tell(&mut self, event: Event) {
        self.engine.apply(self.now, event);
    }

    fn submit(&mut self, name: &str, min: u32, max: u32) {
        let spec = JobSpec { restart_ms: 1_000, backoff_limit: 3, ..JobSpec::workers("training", min, max, Ask::whole(1)) };
        self.tell(Event::JobSet { name: JobName::from(name), spec: spec.into() });
    }

    fn demand(&mut self, rows_per_s: u64) {
        let service = Some(ServiceTime { base_us: 20_000, per_row_us: 5_000 });
        let demand = Demand { milli_rows_per_s: rows_per_s * 1000, service, ..Demand::default() };
        self.tell(Event::Demand { model: ModelName::from("digits"), demand });
    }

    /// Decides after `ms`, and says what was ordered in few words.
    fn after(&mut self, ms: u64) -> Vec<String> {
        self.now = self.now.plus(ms);
        let plan = self.engine.decide(self.now);
        plan.actions.iter().map(told).collect()
    }

    /// What was ordered happens: starts run and replicas are ready; stops end.
    fn happen(&mut self) {
        let actions: Vec<Action> = self.engine.outstanding().cloned().collect();
        for action in actions {
            match action.kind {
                ActionKind::StopJob { job, attempt, .. } => {
                    self.tell(Event::JobExited { name: job, attempt, exit: JobExit::Stopped });
                }
                ActionKind::StopReplica { replica, .. } => self.tell(Event::ReplicaExited { id: replica, failed: false }),
                ActionKind::StartJob { job, attempt, .. } => {
                    self.tell(Event::Outcome { id: action.id, outcome: Outcome::Done });
                    self.tell(Event::JobStarted { name: job, attempt });
                }
                ActionKind::StartReplica { replica, .. } => {
                    self.tell(Event::Outcome { id: action.id, outcome: Outcome::Done });
                    self.tell(Event::ReplicaReady { id: replica, load_ms: 500 });
                }
            }
        }
    }
}

fn told(action: &Action) -> String {
    let category = action.reason.category();
    match &action.kind {
        ActionKind::StartJob { job, workers, .. } => format!("{job} starts on {} ({category})", workers.len()),
        ActionKind::StopJob { job, resume_with, .. } => format!("{job} stops, goes on with {resume_with} ({category})"),
        ActionKind::StartReplica { replica: ReplicaId(id), .. } => format!("{id} starts ({category})"),
        ActionKind::StopReplica { replica: ReplicaId(id), .. } => format!("{id} stops ({category})"),
    }
}

#[test]
fn at_low_tide_everything_is_lent_and_shared_out_evenly() {
    let mut tide = Box4::new();
    tide.submit("a", 1, 4);
    tide.submit("b", 1, 4);
    assert_eq!(tide.after(0), ["a starts on 2 (lend)", "b starts on 2 (lend)"]);
}

#[test]
fn a_rising_tide_shrinks_the_job_that_loses_least_and_starts_a_replica_behind_it() {
    let mut tide = Box4::new();
    tide.submit("a", 1, 4);
    tide.submit("b", 1, 4);
    tide.after(0);
    tide.happen();
    tide.now = tide.now.plus(5_000);
    tide.tell(Event::JobProgress { name: JobName::from("b"), attempt: 1, step: 10, checkpoint: Some(10), done_ppm: None });
    tide.demand(100);
    assert_eq!(tide.after(1_000), ["b stops, goes on with 1 (reclaim)", "digits-1 starts (demand)"]);
    let orders: Vec<Action> = tide.engine.outstanding().cloned().collect();
    assert_eq!(orders[1].after, [orders[0].id], "the replica waits for the device");
    tide.happen();
    assert_eq!(tide.after(0), ["b starts on 1 (resume)"]);
}

#[test]
fn a_job_at_its_minimum_is_evicted_whole_and_comes_back_at_ebb() {
    let mut tide = Box4::new();
    tide.submit("gang", 4, 4);
    tide.after(0);
    tide.happen();
    tide.demand(100);
    assert_eq!(tide.after(1_000), ["gang stops, goes on with 0 (reclaim)", "digits-1 starts (demand)"]);
    tide.happen();
    assert_eq!(tide.after(0), Vec::<String>::new(), "three free devices are no gang of four");
    tide.demand(0);
    assert_eq!(tide.after(5_000), Vec::<String>::new(), "the model is still awake");
    assert_eq!(tide.after(6_000), ["digits-1 stops (asleep)", "gang starts on 4 (lend)"]);
}

#[test]
fn a_running_job_grows_only_onto_devices_that_stayed_idle() {
    let mut tide = Box4::new();
    tide.demand(500);
    tide.after(0);
    tide.happen();
    tide.submit("a", 1, 4);
    assert_eq!(tide.after(0), Vec::<String>::new(), "four replicas hold four devices");
    tide.demand(400);
    assert_eq!(tide.after(6_000), ["digits-4 stops (surplus)", "a starts on 1 (lend)"]);
    tide.happen();
    tide.demand(100);
    assert_eq!(tide.after(6_000), ["digits-2 stops (surplus)", "digits-3 stops (surplus)"]);
    tide.happen();
    assert_eq!(tide.after(0), Vec::<String>::new(), "the devices are idle only now");
    assert_eq!(tide.after(4_000), ["a stops, goes on with 3 (grow)"]);
}

#[test]
fn what_only_the_hysteresis_keeps_takes_no_device_from_training() {
    let mut tide = Box4::new();
    tide.demand(10);
    tide.after(0);
    tide.happen();
    tide.submit("a", 3, 3);
    tide.after(0);
    tide.happen();
    tide.demand(0);
    tide.tell(Event::ReplicaExited { id: "digits-1".into(), failed: true });
    tide.tell(Event::DeviceDrained { id: DeviceId::from("gpu-0"), drained: true });
    assert_eq!(tide.after(0), Vec::<String>::new());
    tide.demand(10);
    assert_eq!(tide.after(0), ["a stops, goes on with 0 (reclaim)", "digits-2 starts (demand)"]);
}

#[test]
fn the_cap_on_evictions_stops_them_says_so_and_lifts_after_a_minute() {
    let mut tide = Box4::new();
    tide.tell(Event::PolicySet(Policy { max_evictions_per_minute: 1, ..Policy::default() }));
    tide.submit("a", 2, 2);
    tide.submit("b", 2, 2);
    tide.after(0);
    tide.happen();
    tide.demand(450);
    let ordered = tide.after(0);
    assert_eq!(ordered.iter().filter(|order| order.contains("reclaim")).count(), 1, "{ordered:?}");
    assert!(tide.engine.state().eviction_cap_reached);
    tide.happen();
    assert_eq!(tide.after(59_000), Vec::<String>::new());
    let ordered = tide.after(1_000);
    assert!(ordered.iter().any(|order| order.contains("reclaim")), "{ordered:?}");
}

#[test]
fn a_waiting_job_is_told_why_and_what_would_change_it() {
    let mut tide = Box4::new();
    tide.demand(500);
    tide.after(0);
    tide.happen();
    tide.submit("a", 2, 4);
    tide.after(0);
    let answer = explain::job(&tide.engine, &JobName::from("a"), tide.now).unwrap();
    assert_eq!(answer.status, "job/a waits");
    assert_eq!(answer.because[0], "needs 2 device(s), 0 of 4 are free; model/digits hold the rest");
    assert_eq!(answer.would_change, ["would start now with 2 more H100-80GB"]);
    assert!(explain::job(&tide.engine, &JobName::from("nobody"), tide.now).is_none());
}

#[test]
fn a_job_that_keeps_failing_backs_off_and_is_failed_at_its_limit() {
    let mut tide = Box4::new();
    tide.submit("a", 1, 1);
    for attempt in 1..=4 {
        assert_eq!(tide.after(60_000), ["a starts on 1 (lend)"], "attempt {attempt}");
        tide.happen();
        tide.tell(Event::JobExited { name: JobName::from("a"), attempt, exit: JobExit::Failed });
        assert_eq!(tide.after(0), Vec::<String>::new(), "it backs off");
    }
    assert_eq!(tide.after(120_000), Vec::<String>::new());
}

#[test]
fn a_stale_attempt_changes_nothing() {
    let mut tide = Box4::new();
    tide.submit("a", 1, 1);
    tide.after(0);
    tide.happen();
    let before = tide.engine.state().jobs.clone();
    tide.tell(Event::JobProgress { name: JobName::from("a"), attempt: 7, step: 99, checkpoint: Some(99), done_ppm: None });
    tide.tell(Event::JobExited { name: JobName::from("a"), attempt: 7, exit: JobExit::Succeeded });
    assert_eq!(tide.engine.state().jobs, before);
}

#[test]
fn what_nothing_needs_stays_loaded_until_somebody_wants_the_device() {
    let mut tide = Box4::new();
    let policy = tide.engine.state().policy.clone();
    tide.tell(Event::PolicySet(Policy { keep_surplus: true, ..policy }));
    tide.demand(500);
    tide.after(0);
    tide.happen();
    tide.demand(100);
    assert_eq!(tide.after(60_000), Vec::<String>::new(), "nobody waits");
    tide.submit("a", 1, 1);
    assert_eq!(tide.after(0), ["digits-4 stops (surplus)", "a starts on 1 (lend)"]);
    tide.happen();
    tide.demand(500);
    assert_eq!(tide.after(0), ["a stops, goes on with 0 (reclaim)", "digits-5 starts (demand)"]);
}

#[test]
fn without_the_choice_to_keep_it_surplus_ends_after_the_hysteresis() {
    let mut tide = Box4::new();
    tide.demand(500);
    tide.after(0);
    tide.happen();
    tide.demand(300);
    assert_eq!(tide.after(5_999), Vec::<String>::new());
    assert_eq!(tide.after(1), ["digits-3 stops (surplus)", "digits-4 stops (surplus)"]);
}

#[test]
fn surplus_goes_before_any_job_is_disturbed_and_is_no_eviction() {
    let mut tide = Box4::new();
    let policy = tide.engine.state().policy.clone();
    tide.tell(Event::PolicySet(Policy { keep_surplus: true, ..policy }));
    tide.submit("small", 1, 1);
    tide.after(0);
    tide.happen();
    tide.demand(450);
    tide.after(0);
    tide.happen();
    tide.demand(100);
    tide.after(10_000);
    let other = ModelSpec { priority: 1, ..tide.engine.state().models[&ModelName::from("digits")].spec.clone() };
    tide.tell(Event::ModelSet { name: ModelName::from("other"), spec: other });
    let demand = Demand { milli_rows_per_s: 1_000, ..Demand::default() };
    tide.tell(Event::Demand { model: ModelName::from("other"), demand });
    assert_eq!(tide.after(0), ["digits-3 stops (surplus)", "other-4 starts (demand)"]);
    assert!(tide.engine.state().evictions.is_empty());
}

#[test]
fn a_small_model_moves_into_a_slice_beside_another_and_out_again() {
    let mut tide = Box4::new();
    let spec = tide.engine.state().models[&ModelName::from("digits")].spec.clone();
    for name in ["digits", "words"] {
        let spec = ModelSpec { max_sharers: 4, ..spec.clone() };
        tide.tell(Event::ModelSet { name: ModelName::from(name), spec });
    }
    let words = |tide: &mut Box4, rows_per_s: u64| {
        let service = Some(ServiceTime { base_us: 20_000, per_row_us: 5_000 });
        let demand = Demand { milli_rows_per_s: rows_per_s * 1000, service, ..Demand::default() };
        tide.tell(Event::Demand { model: ModelName::from("words"), demand });
    };
    tide.demand(10);
    words(&mut tide, 160);
    assert_eq!(tide.after(0), ["digits-1 starts (demand)", "words-2 starts (demand)"]);
    tide.happen();
    words(&mut tide, 10);
    assert_eq!(tide.after(5_999), Vec::<String>::new(), "the hysteresis");
    assert_eq!(tide.after(1), ["words-3 starts (demand)"]);
    tide.happen();
    let state = tide.engine.state();
    let seat = |id: &str| state.replicas[&id.into()].seat;
    assert_eq!(seat("words-3").mask, seat("digits-1").mask, "both are on one device");
    assert_eq!(tide.after(0), ["words-2 stops (reshaped)"]);
    tide.happen();
    words(&mut tide, 160);
    assert_eq!(tide.after(0), ["words-4 starts (demand)"]);
    tide.happen();
    assert_eq!(tide.after(0), ["words-3 stops (reshaped)"]);
}

#[test]
fn models_take_turns_where_the_weights_of_all_of_them_fit() {
    let mut tide = Box4::new();
    let spec = tide.engine.state().models[&ModelName::from("digits")].spec.clone();
    // Of 81,920 MiB a slice by turns alone would take a quarter for each.
    for (name, weights_mib) in [("large", 60_000), ("larger", 50_000), ("small", 10_000), ("tiny", 1_000)] {
        let memory = Some(ModelMemory { weights_mib, row_kib: 1_024 });
        let spec = ModelSpec { max_sharers: 4, memory, max_rows: 100, ..spec.clone() };
        tide.tell(Event::ModelSet { name: ModelName::from(name), spec });
        let demand = Demand {
            milli_rows_per_s: 1_000,
            service: Some(ServiceTime { base_us: 20_000, per_row_us: 5_000 }),
            ..Demand::default()
        };
        tide.tell(Event::Demand { model: ModelName::from(name), demand });
    }
    tide.after(0);
    let state = tide.engine.state();
    let of = |name: &str| {
        let replica = state.replicas.values().find(|replica| replica.model == ModelName::from(name)).unwrap();
        (replica.seat.mask, replica.ask.amount)
    };
    assert_eq!(of("large").1, Amount::Slice { milli: 250, mib: 60_100 });
    assert_ne!(of("large").0, of("larger").0, "110,000 MiB are not on one device");
    let full = [of("large").0, of("larger").0];
    assert!(full.contains(&of("small").0) && full.contains(&of("tiny").0), "what is left beside them is used");
}

#[test]
fn a_worker_takes_as_many_devices_of_a_slower_class_as_do_its_work() {
    let mut tide = Box4::new();
    for index in 0..8 {
        tide.tell(Event::DeviceSeen(Device::new(format!("slow-{index}"), "slow", "T4", 16_384)));
    }
    let wish = |class: &str, speed_milli, devices| ClassWish { class: class.into(), speed_milli, devices };
    let ask = Ask { classes: vec![wish("H100-80GB", 1_000, 0), wish("T4", 999, 3)], ..Ask::whole(1) };
    for (name, workers) in [("fast", 4), ("slow", 2)] {
        let spec = JobSpec::workers("training", workers, workers, ask.clone());
        tide.tell(Event::JobSet { name: JobName::from(name), spec: spec.into() });
    }
    assert_eq!(tide.after(0), ["fast starts on 4 (lend)", "slow starts on 2 (lend)"]);
    let devices = |name: &str| -> Vec<usize> {
        let job = &tide.engine.state().jobs[&JobName::from(name)];
        job.run().unwrap().seats.iter().map(|seat| seat.mask.count_ones() as usize).collect()
    };
    assert_eq!((devices("fast"), devices("slow")), (vec![1; 4], vec![3, 3]));
}

#[test]
fn what_is_given_by_name_and_what_is_counted_are_never_given_for_each_other() {
    let mut this = Box4::new();
    let named = Device { named: true, ..Device::new("by-name", "box", "H100-80GB", 81_920) };
    this.tell(Event::DeviceSeen(named));
    let job = |ask| JobSpec { backoff_limit: 3, ..JobSpec::workers("training", 2, 2, ask) };
    this.tell(Event::JobSet { name: JobName::from("two-by-name"), spec: job(Ask { named: true, ..Ask::whole(1) }).into() });
    this.tell(Event::JobSet { name: JobName::from("five"), spec: JobSpec::workers("training", 5, 5, Ask::whole(1)).into() });
    assert_eq!(this.after(1_000), Vec::<String>::new(), "one has a name, and four are counted");
    this.tell(Event::JobSet {
        name: JobName::from("one-by-name"),
        spec: JobSpec::workers("training", 1, 1, Ask { named: true, ..Ask::whole(1) }).into(),
    });
    let plan = this.engine.decide(this.now);
    let [Action { kind: ActionKind::StartJob { workers, .. }, .. }] = plan.actions.as_slice() else { panic!("{plan:?}") };
    assert_eq!(workers[0].devices, [DeviceId::from("by-name")]);
}

#[test]
fn a_part_of_a_gpu_is_given_to_who_names_it_and_counts_as_a_part() {
    let mut this = Box4::new();
    let part = |index: u32| Device { part: Some(125), ..Device::new(format!("mig-{index}"), "box", "mig-1g.10gb", 10_240) };
    (0..2).for_each(|index| this.tell(Event::DeviceSeen(part(index))));
    let class = Resource::Class("mig-1g.10gb".into());
    let quotas = BTreeMap::from([(Resource::Gpu, Quota::closed(250)), (class, Quota::closed(2_000))]);
    this.tell(Event::QueueSet { name: QueueName::from("parts"), queue: Queue { quotas, ..Queue::default() } });
    this.tell(Event::JobSet { name: JobName::from("five"), spec: JobSpec::workers("training", 5, 5, Ask::whole(1)).into() });
    assert_eq!(this.after(1_000), Vec::<String>::new(), "parts are no GPUs for who names none");
    let small = Ask { classes: vec![Class::from("mig-1g.10gb").into()], ..Ask::whole(1) };
    for name in ["a", "b"] {
        this.tell(Event::JobSet { name: JobName::from(name), spec: JobSpec::workers("parts", 1, 1, small.clone()).into() });
    }
    assert_eq!(this.after(0).len(), 2, "a quarter of a GPU is enough for both");
    let queue = this.engine.books().tree.node(&QueueName::from("parts")).unwrap();
    assert_eq!(this.engine.books().tree.usage(queue, 0), 250);
    this.tell(Event::DeviceSeen(Device { part: Some(250), ..part(0) }));
    assert_eq!(this.engine.books().tree.usage(queue, 0), 375, "it is more than was thought");
    this.engine.is_consistent().unwrap();
}

#[test]
fn on_a_node_that_is_full_a_new_device_takes_the_place_of_a_lost_one() {
    let mut this = Box4::new();
    (4..64).for_each(|index| this.tell(Event::DeviceSeen(Device::new(format!("gpu-{index}"), "box", "H100-80GB", 81_920))));
    this.submit("held", 1, 1);
    assert_eq!(this.after(0).len(), 1);
    let held = this.engine.state().jobs.values().find_map(|job| job.run()).unwrap().seats[0].mask.trailing_zeros();
    this.tell(Event::DeviceLost(DeviceId::from(format!("gpu-{held}"))));
    this.tell(Event::DeviceSeen(Device::new("new", "box", "H100-80GB", 81_920)));
    assert!(this.engine.state().device(&DeviceId::from("new")).is_none(), "the lost one is held");
    this.tell(Event::DeviceLost(DeviceId::from(format!("gpu-{}", held + 1))));
    this.tell(Event::DeviceSeen(Device::new("new", "box", "H100-80GB", 81_920)));
    let place = this.engine.state().device(&DeviceId::from("new")).map(|device| device.health);
    assert_eq!((place, this.engine.state().device(&DeviceId::from(format!("gpu-{}", held + 1)))), (Some(Health::Ok), None));
    this.engine.is_consistent().unwrap();
}

#[test]
fn a_replica_that_another_engine_started_stays_until_it_was_not_asked_for_as_long_as_any() {
    let mut this = Box4::new();
    this.submit("night", 4, 4);
    let place = Placed { group: 0, node: "box".into(), devices: Vec::new(), slices: 0 };
    let observed =
        ObservedReplica { model: "digits".into(), ask: Ask::whole(1), place, generation: 1, since: At(1), ready: true };
    this.tell(Event::ReplicaObserved { id: ReplicaId::from("digits-7"), observed });
    assert_eq!(this.after(1_000), Vec::<String>::new(), "its device is taken, and no router has told anything yet");
    this.demand(0);
    let waits = this.after(4_000);
    assert_eq!(waits, Vec::<String>::new());
    let ends = this.after(20_000);
    assert!(ends.iter().any(|told| told.contains("digits-7")), "{ends:?}");
    this.tell(Event::ReplicaExited { id: ReplicaId::from("digits-7"), failed: false });
    this.demand(100);
    let next = this.after(1_000);
    assert!(next.iter().any(|told| told.contains("digits-8")), "its name is not given again: {next:?}");
}

#[test]
fn a_place_that_was_about_to_be_given_up_and_is_taken_again_is_kept() {
    let mut this = Box4::new();
    let node = |cores: u64| NodeSpec { cpu_milli: cores * 1_000, memory_mib: 1_024, ..NodeSpec::default() };
    this.tell(Event::NodeSet { name: NodeName::from("box"), spec: node(0).into() });
    this.tell(Event::NodeSet { name: NodeName::from("a"), spec: node(1).into() });
    this.tell(Event::NodeSet { name: NodeName::from("b"), spec: node(2).into() });
    let core = Ask { amount: Amount::None, cpu_milli: 1_000, ..Ask::whole(1) };
    let set = |this: &mut Box4, workers: u32| {
        let spec = JobSpec::workers("training", workers, workers, core.clone());
        this.tell(Event::JobSet { name: JobName::from("j"), spec: spec.into() });
        this.after(0)
    };
    assert_eq!(set(&mut this, 3), ["j starts on 3 (turn)"]);
    this.happen();
    assert_eq!(set(&mut this, 2), ["j stops, goes on with 2 (too_large)"]);
    // One of the two that it keeps stands there; its third worker, on the other node, has not ended yet.
    this.tell(Event::NodeSet { name: NodeName::from("b"), spec: node(3).into() });
    this.tell(Event::NodeLost(NodeName::from("a")));
    this.after(0);
    let kept = this.engine.state().jobs.values().find_map(|job| job.run()).unwrap().kept().to_vec();
    assert_eq!(kept.len(), 2);
    this.engine.is_consistent().unwrap();
}
