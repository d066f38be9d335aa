use tidegate_core::quota::{QueueQuota, Quota};

use super::super::greedy::Greedy;
use super::super::rule::{Rule, RuleSettings, Strategy};
use super::super::{Class, Layout, Scene, Wish, generate, settings};
use super::*;

const LATENCY: Latency = Latency { cycle_us: 1000, admit_us: 10_000, evict_us: 5_000, release_ms: 7 };

/// One queue of 10 with workloads of `(cpus, created, runtime)`.
fn setup(workloads: &[(i64, Ms, Ms)]) -> Setup {
    let quotas = vec![(0, Quota::closed(10))];
    let queues = vec![QueueQuota { name: "q".into(), parent: None, weight_milli: 1000, quotas }];
    let class = |(at, (cpus, _, _)): (usize, &(i64, Ms, Ms))| Class {
        name: format!("c{at}"),
        pods: 1,
        per_pod: vec![(0, *cpus)],
        priority: 0,
        wish: None,
    };
    let classes = workloads.iter().enumerate().map(class).collect();
    let workload = |(class, (_, created_ms, runtime_ms)): (u16, &(i64, Ms, Ms))| Workload {
        queue: NodeIx(0),
        class,
        created_ms: *created_ms,
        runtime_ms: *runtime_ms,
    };
    let scene = Scene { name: "t".into(), resources: vec!["cpu".into()], queues, classes, layout: None };
    Setup { scene, workloads: (0..).zip(workloads).map(workload).collect() }
}

fn play(setup: &Setup, scheduler: &mut dyn QuotaScheduler) -> Result<Figures, Error> {
    run(setup, scheduler, Run::all(LATENCY), &|| 0)
}

#[test]
fn cycles_and_admissions_cost_their_time_and_quota_is_free_after_its_release() {
    let setup = setup(&[(10, 0, 100), (5, 0, 100)]);
    let figures = play(&setup, &mut Greedy::new(&setup.scene, 9).unwrap()).unwrap();
    // 0 lands at 1 + 10, is free at 118; 1 lands at 118 + 1 + 10 and is free at 236.
    assert_eq!((figures.workloads, figures.makespan_ms), (2, 236));
    assert_eq!((figures.admit_ms["c0"].sum, figures.admit_ms["c1"].sum), (11, 129));
    let used = f64::from(10 * 107 + 5 * 107) / f64::from(10 * 236);
    assert!((figures.usage_percent - used * 100.0).abs() < 1e-9, "{figures:?}");
}

/// Orders what it was told to, once.
struct Scripted(Vec<Orders>);

impl QuotaScheduler for Scripted {
    fn submit(&mut self, _: Ms, _: WorkloadIx, _: NodeIx, _: u16) {}
    fn finish(&mut self, _: Ms, _: WorkloadIx) {}
    fn evicted(&mut self, _: Ms, _: WorkloadIx) {}
    fn cycle(&mut self, now: Ms, orders: &mut Orders) -> Option<Ms> {
        if self.0.is_empty() {
            return None;
        }
        *orders = self.0.remove(0);
        Some(now)
    }
}

fn admit(workload: u32) -> Orders {
    Orders { evict: vec![], admit: vec![Admission { workload: WorkloadIx(workload), nodes: vec![] }] }
}

fn evict(workload: u32) -> Orders {
    Orders { evict: vec![WorkloadIx(workload)], admit: vec![] }
}

#[test]
fn the_world_refuses_what_cannot_be() {
    let setup = setup(&[(6, 0, 1000), (6, 0, 1000)]);
    let says = |orders| play(&setup, &mut Scripted(orders)).unwrap_err().to_string();
    assert!(says(vec![admit(0), admit(1)]).contains("quota is used up"));
    assert!(says(vec![admit(0), admit(0)]).contains("does not wait"));
    assert!(says(vec![admit(7)]).contains("does not wait"));
    assert!(says(vec![evict(1)]).contains("does not run"));
    assert!(says(vec![admit(0), evict(0), evict(0)]).contains("evicted already"));
}

#[test]
fn an_evicted_workload_starts_anew() {
    let setup = setup(&[(6, 0, 100)]);
    let figures = play(&setup, &mut Scripted(vec![admit(0), evict(0), admit(0)])).unwrap();
    // Lands at 11, is evicted at 17, lands again at 28 and ends 100 + 7 later.
    assert_eq!((figures.workloads, figures.evictions, figures.makespan_ms, figures.admit_ms["c0"].sum), (1, 1, 135, 28));
}

#[test]
fn every_placement_in_the_tas_study_keeps_its_wish_and_every_workload_ends() {
    struct Checked(Rule, Setup);
    impl QuotaScheduler for Checked {
        fn submit(&mut self, now: Ms, workload: WorkloadIx, queue: NodeIx, class: u16) {
            self.0.submit(now, workload, queue, class);
        }
        fn finish(&mut self, now: Ms, workload: WorkloadIx) {
            self.0.finish(now, workload);
        }
        fn evicted(&mut self, now: Ms, workload: WorkloadIx) {
            self.0.evicted(now, workload);
        }
        fn cycle(&mut self, now: Ms, orders: &mut Orders) -> Option<Ms> {
            let wake = self.0.cycle(now, orders);
            for admission in &orders.admit {
                let class = &self.1.scene.classes[usize::from(self.1.workloads[admission.workload.0 as usize].class)];
                assert!(
                    keeps_wish(self.1.scene.layout.as_ref().unwrap(), class, &admission.nodes),
                    "{class:?} on {:?}",
                    admission.nodes
                );
            }
            wake
        }
    }
    let mut settings: settings::KueueSettings =
        settings::read("kueue-tas", include_str!("../../../settings/kueue-tas.yaml")).unwrap();
    // Two nodes of 40 CPUs in each of four racks: topology binds.
    if let Some(topology) = &mut settings.topology {
        topology.levels = vec![("block".into(), 1), ("rack".into(), 4), ("node".into(), 2)];
        topology.node_milli = 40_000;
    }
    settings.latency.admit_us = 1000;
    let setup = generate::kueue("kueue-tas", &settings).unwrap();
    let rule = Rule::new(&setup.scene, RuleSettings { strategy: Strategy::BestEffortFifo, ..settings.rule }).unwrap();
    let figures = play(&setup, &mut Checked(rule, setup.clone())).unwrap();
    assert_eq!(figures.workloads, 15_000);
}

/// Whether every pod of a class is where its wish allows it.
fn keeps_wish(layout: &Layout, class: &Class, nodes: &[(u32, u32)]) -> bool {
    let domains = |level: u8| {
        let mut domains: Vec<(u32, u32)> = Vec::new();
        for (node, pods) in nodes {
            let domain = node / layout.width(level).max(1);
            match domains.iter_mut().find(|(known, _)| *known == domain) {
                Some((_, sum)) => *sum += pods,
                None => domains.push((domain, *pods)),
            }
        }
        domains
    };
    match class.wish {
        Some(Wish::Required { level }) => domains(level).len() == 1,
        Some(Wish::Slices { level, size }) => domains(level).iter().all(|(_, pods)| pods % size == 0),
        Some(Wish::Preferred { .. }) | None => true,
    }
}
