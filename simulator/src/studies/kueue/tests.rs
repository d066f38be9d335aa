use super::*;
use crate::kueue::Scene;
use crate::kueue::greedy::Greedy;

fn greedy(scene: &Scene) -> Box<dyn QuotaScheduler> {
    Box::new(Greedy::new(scene, 20).unwrap())
}

fn study(name: &str) -> Study {
    run(name, &mut greedy, &wall_clock()).unwrap()
}

#[test]
fn kueues_rule_comes_out_near_what_is_published() {
    for name in ["kueue-baseline", "kueue-large", "kueue-tas"] {
        let (settings, setup) = kueue_setup(name).unwrap();
        let mut rule = Rule::new(&setup.scene, settings.rule).unwrap();
        let figures = world::run(&setup, &mut rule, Run::all(settings.latency), &|| 0).unwrap();
        let off = figures.makespan_ms as f64 / 1e3 / settings.published.makespan_s - 1.0;
        assert!(off.abs() <= TOLERANCE && figures.workloads == setup.workloads.len() as u64, "{name}: {off}");
        let [large, medium, small] = ["large", "medium", "small"].map(|group| figures.admit_s(group));
        assert!(large < medium && medium < small, "{name}: {large} {medium} {small}");
        let published = settings.published.admit_s.iter().find(|(group, _)| group == "small").unwrap().1;
        assert!((small / published - 1.0).abs() <= TOLERANCE, "{name}: {small} instead of {published}");
    }
}

#[test]
fn two_runs_of_the_rule_are_the_same() {
    let (settings, setup) = kueue_setup("kueue-baseline").unwrap();
    let once = || {
        let mut rule = Rule::new(&setup.scene, settings.rule).unwrap();
        let figures = world::run(&setup, &mut rule, Run::all(settings.latency), &|| 0).unwrap();
        (figures.makespan_ms, figures.evictions, figures.cycles, figures.admit_ms.clone())
    };
    assert_eq!(once(), once());
}

#[test]
fn a_simple_rule_without_kueues_pauses_admits_the_large_sooner() {
    let study = study("kueue-baseline");
    let large = study.rows.iter().find(|row| row.what.ends_with("large")).unwrap();
    assert!(large.is_reached() && large.ours < large.rule, "{study}");
}

#[test]
fn the_shapes_are_the_published_ones() {
    for (name, workloads, queues, nodes) in
        [("kueue-baseline", 15_000, 30, 0), ("kueue-large", 50_000, 1000, 0), ("kueue-tas", 15_000, 30, 640)]
    {
        let (_, setup) = kueue_setup(name).unwrap();
        let leaves = setup.scene.queues.iter().filter(|queue| queue.parent.is_some()).count();
        let layout = setup.scene.layout.as_ref().map_or(0, crate::kueue::Layout::nodes);
        assert_eq!((setup.workloads.len(), leaves, layout), (workloads, queues, nodes), "{name}");
        assert!(setup.workloads.is_sorted_by_key(|workload| workload.created_ms));
        let asked: i64 = setup.workloads.iter().map(|of| setup.scene.classes[usize::from(of.class)].total()[0].1).sum();
        let each = if name == "kueue-large" { 35 + 11 * 5 + 4 * 20 } else { 350 + 100 * 5 + 50 * 20 };
        assert_eq!(asked, each * 1000 * i64::try_from(queues).unwrap(), "{name}");
    }
}

#[test]
fn production_starts_full_with_536_gangs_queued() {
    let (settings, setup) = production_setup().unwrap();
    let layout = setup.scene.layout.as_ref().unwrap();
    assert_eq!(layout.nodes(), 1300);
    let nominal: i64 = setup.scene.queues.iter().flat_map(|queue| &queue.quotas).map(|(_, quota)| quota.nominal).sum();
    assert_eq!(nominal, 1300 * 8 * 1000, "all GPUs are somebody's quota");
    let first = setup.workloads.iter().filter(|workload| workload.created_ms == 0);
    let gpus: i64 = first.clone().map(|of| setup.scene.classes[usize::from(of.class)].total()[0].1).sum();
    assert!(gpus > 1300 * 8 * 1000 + 536_000, "{gpus}");
    assert_eq!(setup.workloads.len() - first.count(), settings.arriving as usize);
    let study = study("production-1300");
    assert!(study.rows.iter().all(|row| row.ours.is_some()), "{study}");
}

#[test]
fn scale_is_as_busy_as_its_load_says() {
    let (settings, setup) = scale_setup(Some(1000)).unwrap();
    let setup = setup.unwrap();
    let at_start = setup.workloads.iter().filter(|workload| workload.created_ms == 0);
    let gpus: i64 = at_start.map(|of| setup.scene.classes[usize::from(of.class)].total()[0].1).sum();
    assert!((950_000..950_000 + 128_000).contains(&gpus), "{gpus}");
    let (first, last) = (setup.workloads.iter().find(|of| of.created_ms > 0).unwrap(), setup.workloads.last().unwrap());
    assert!(first.created_ms >= settings.settle_ms);
    let often: u32 = settings.sizes.iter().map(|size| size.often).sum();
    let asked: u32 = settings.sizes.iter().map(|size| size.often * size.gpus).sum();
    let rate = f64::from(settings.arrivals) / (last.created_ms - settings.settle_ms) as f64;
    let load = rate * settings.mean_runtime_ms as f64 * f64::from(asked) / f64::from(often) / 1000.0;
    assert!((0.88..1.02).contains(&load), "{load}");
}

#[test]
fn an_unknown_study_names_the_known_ones() {
    let error = run("kueue", &mut greedy, &|| 0).unwrap_err().to_string();
    assert!(error.contains("`kueue`") && error.contains("kueue-baseline"), "{error}");
}
