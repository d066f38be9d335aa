use proptest::prelude::*;

use super::*;

const T4: ClassSet = 1;
const P100: ClassSet = 2;

fn shape(cpu_milli: i64, gpus: Gpus) -> Shape {
    Shape { cpu_milli, gpus, classes: ANY_CLASS }
}

fn node(cpu_milli: i64, free: &[u16]) -> NodeView<'_> {
    NodeView { cpu_milli, memory_mib: None, class: 0, free }
}

fn ask(shape: Shape) -> Ask {
    Ask { shape, memory_mib: 0 }
}

/// Half of the weight on whole GPUs with 10 CPUs, half on quarters with 2: 16 quarters weigh as much as 1 whole.
fn mix() -> Mix {
    Mix::new(&[(shape(10_000, Gpus::Whole(1)), 16), (shape(2000, Gpus::Fraction(250)), 1)], &[8, 8])
}

fn milli(fragment: u64) -> u64 {
    fragment / 1_000_000
}

#[test]
fn what_half_of_the_usual_work_cannot_use_counts_half() {
    assert_eq!(milli(fragment(&mix(), &node(96_000, &[1000, 1000]))), 0);
    assert_eq!(milli(fragment(&mix(), &node(96_000, &[1000, 600]))), 300, "whole GPUs cannot use the 600");
    assert_eq!(milli(fragment(&mix(), &node(96_000, &[200]))), 200, "nobody can");
}

#[test]
fn idle_gpus_without_cpu_are_a_fragment() {
    assert_eq!(milli(fragment(&mix(), &node(1999, &[1000, 1000]))), 2000, "no CPU for anybody");
    let some = milli(fragment(&mix(), &node(9000, &[1000, 1000, 1000, 1000])));
    assert!((2000..4000).contains(&some), "quarters run, but 9 CPUs feed only about one GPU of them: {some}");
    assert_eq!(milli(fragment(&mix(), &node(96_000, &[1000, 1000, 1000, 1000]))), 0);
}

#[test]
fn a_class_that_nobody_may_use_is_a_fragment_as_a_whole() {
    let mix = Mix::new(&[(Shape { classes: T4, ..shape(1000, Gpus::Whole(1)) }, 1)], &[8, 8]);
    let p100 = NodeView { class: 1, ..node(96_000, &[1000]) };
    assert_eq!((milli(fragment(&mix, &node(96_000, &[1000]))), milli(fragment(&mix, &p100))), (0, 1000));
}

#[test]
fn a_gang_on_one_node_needs_all_its_gpus() {
    let mix = Mix::new(&[(shape(1000, Gpus::Whole(4)), 1)], &[8]);
    assert_eq!(milli(fragment(&mix, &node(96_000, &[1000, 1000, 1000, 500]))), 3500);
    assert_eq!(milli(fragment(&mix, &node(96_000, &[1000, 1000, 1000, 1000]))), 0);
}

#[test]
fn without_history_the_best_fit_wins() {
    let mix = Mix::default();
    let half = ask(shape(1000, Gpus::Fraction(500)));
    let tight = place(&mix, &node(8000, &[500, 0]), &half).unwrap();
    let wide = place(&mix, &node(8000, &[1000, 1000]), &half).unwrap();
    assert_eq!(tight.score.bucket, wide.score.bucket);
    assert!(tight.score > wide.score);
}

#[test]
fn a_fraction_takes_the_gpu_whose_rest_stays_useful() {
    let rest = place(&mix(), &node(96_000, &[1000, 300, 250]), &ask(shape(2000, Gpus::Fraction(250)))).unwrap();
    assert_eq!(rest.device, Some(2), "250 fits exactly; 300 would leave 50 to nobody, 1000 would break a whole GPU");
}

#[test]
fn of_gpus_that_score_alike_the_fullest_is_taken() {
    let half = ask(shape(0, Gpus::Fraction(500)));
    for mix in [Mix::default(), Mix::new(&[(half.shape, 1)], &[3])] {
        let place = place(&mix, &node(8000, &[1000, 500, 1000]), &half).unwrap();
        assert_eq!(place.device, Some(1), "a free half before a whole GPU, whatever the work seen so far");
    }
}

#[test]
fn cpu_work_goes_where_no_gpu_needs_the_cpu() {
    let cpu = ask(shape(8000, Gpus::None));
    let needed = place(&mix(), &node(20_000, &[1000, 1000]), &cpu).unwrap();
    let spare = place(&mix(), &node(20_000, &[0, 0]), &cpu).unwrap();
    assert!(spare.score > needed.score);
}

#[test]
fn work_for_any_class_spares_the_class_that_others_are_bound_to() {
    let bound = Shape { classes: T4, ..shape(1000, Gpus::Whole(1)) };
    let mix = Mix::new(&[(bound, 1), (shape(1000, Gpus::Whole(1)), 1)], &[8, 8]);
    assert_eq!((mix.pressure(0), mix.pressure(1)), (1000, 0));
    let anywhere = ask(shape(1000, Gpus::Whole(1)));
    let t4 = place(&mix, &node(96_000, &[1000; 4]), &anywhere).unwrap();
    let p100 = place(&mix, &NodeView { class: 1, ..node(96_000, &[1000; 4]) }, &anywhere).unwrap();
    assert!(p100.score > t4.score);
    assert!(place(&mix, &node(96_000, &[1000]), &ask(Shape { classes: P100, ..bound })).is_none());
}

#[test]
fn what_does_not_fit_has_no_score() {
    let whole = |gpus| ask(shape(1000, Gpus::Whole(gpus)));
    assert!(place(&mix(), &node(96_000, &[1000, 999]), &whole(2)).is_none());
    assert!(place(&mix(), &node(999, &[1000]), &whole(1)).is_none());
    assert!(place(&mix(), &node(96_000, &[400]), &ask(shape(1000, Gpus::Fraction(401)))).is_none());
    let small = NodeView { memory_mib: Some(10), ..node(96_000, &[1000]) };
    assert!(place(&mix(), &small, &Ask { memory_mib: 11, ..whole(1) }).is_none());
    assert!(place(&mix(), &small, &Ask { memory_mib: 10, ..whole(1) }).is_some());
}

#[test]
fn the_mix_is_fitted_often_at_first_and_forgets() {
    let mut history = History::default();
    let old = shape(1000, Gpus::Fraction(500));
    let fits: Vec<u64> = (1..=1024).filter(|_| history.saw(old)).collect();
    assert_eq!(fits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]);
    let new = shape(1000, Gpus::Whole(1));
    for _ in 0..40_000 {
        history.saw(new);
    }
    assert_eq!(history.mix(&[1]), Mix::new(&[(new, 1)], &[1]), "the old shape is forgotten");
}

#[test]
fn absurd_numbers_are_scored_all_the_same() {
    let huge = Shape { classes: T4, ..shape(i64::MAX, Gpus::Whole(u16::MAX)) };
    let mix = Mix::new(&[(huge, u64::MAX), (shape(i64::MAX, Gpus::Whole(1)), u64::MAX)], &[u64::MAX, u64::MAX]);
    let placed = place(&mix, &node(i64::MAX, &[1000; 64]), &ask(shape(0, Gpus::Fraction(1))));
    assert_eq!(placed.unwrap().device, Some(0));
    assert!(place(&Mix::default(), &node(i64::MAX, &[1000]), &ask(shape(0, Gpus::Whole(1)))).is_some());
}

fn some_shape() -> impl Strategy<Value = Shape> {
    let gpus = prop_oneof![Just(Gpus::None), (1u16..1000).prop_map(Gpus::Fraction), (1u16..9).prop_map(Gpus::Whole)];
    (0i64..64_000, gpus, prop_oneof![Just(ANY_CLASS), 1u64..8]).prop_map(|(cpu_milli, gpus, classes)| Shape {
        cpu_milli,
        gpus,
        classes,
    })
}

/// The formula as it reads, shape by shape.
fn naive(shapes: &[(Shape, u64)], mix: &Mix, node: &NodeView<'_>) -> f64 {
    let weight = |(shape, count): &(Shape, u64)| match shape.gpus.milli() {
        0 => 0.0,
        milli => *count as f64 / (milli as f64).powi(2),
    };
    let all: f64 = shapes.iter().map(weight).sum();
    let idle: f64 = node.free.iter().map(|&free| f64::from(free)).sum();
    let fed = node.cpu_milli as f64 * 1200.0 / mix.cpu_milli_per_gpu() as f64;
    let usable = |shape: &Shape| {
        let (gpus, each) = shape.gpus.each();
        let fit: Vec<f64> = node.free.iter().filter(|&&free| free >= each).map(|&free| f64::from(free)).collect();
        let runs = shape.classes & (1 << node.class) != 0 && shape.cpu_milli <= node.cpu_milli && fit.len() >= usize::from(gpus);
        if runs { fit.iter().sum::<f64>().min(fed) } else { 0.0 }
    };
    idle - shapes.iter().map(|entry| weight(entry) / all.max(1e-30) * usable(&entry.0)).sum::<f64>()
}

proptest! {
    #[test]
    fn the_prepared_mix_says_what_the_formula_says(
        shapes in prop::collection::vec((some_shape(), 1u64..1000), 1..40),
        cpu_milli in 0i64..128_000, class in 0u16..3, free in prop::collection::vec(0u16..=1000, 0..9),
    ) {
        let mix = Mix::new(&shapes, &[5, 7, 11]);
        let node = NodeView { cpu_milli, memory_mib: None, class, free: &free };
        let ours = fragment(&mix, &node) as f64 / 1e6;
        let idle: u64 = free.iter().map(|&free| u64::from(free)).sum();
        prop_assert!(ours <= idle as f64);
        // Weights are whole millionths and CPU reaches whole thousandths.
        prop_assert!((ours - naive(&shapes, &mix, &node)).abs() < 2.0 + 40.0 * idle as f64 / 1e6);
    }

    #[test]
    fn the_gpu_chosen_has_room_and_no_other_scores_better(
        shapes in prop::collection::vec((some_shape(), 1u64..1000), 0..20),
        milli in 1u16..1000, cpu_milli in 0i64..64_000, free in prop::collection::vec(0u16..=1000, 1..9),
    ) {
        let mix = Mix::new(&shapes, &[5, 7, 11]);
        let ask = ask(shape(2000, Gpus::Fraction(milli)));
        let found = place(&mix, &node(cpu_milli, &free), &ask);
        prop_assert_eq!(found.is_some(), cpu_milli >= 2000 && free.iter().any(|&left| left >= milli));
        let Some(found) = found else { return Ok(()) };
        for (device, _) in free.iter().enumerate().filter(|(_, left)| **left >= milli) {
            let before = fragment(&mix, &node(cpu_milli, &free));
            let mut after = free.clone();
            after[device] -= milli;
            let left = fragment(&mix, &node(cpu_milli - 2000, &after)) + mix.pressure(0) * 100_000;
            let gain = before.cast_signed() - left.cast_signed();
            let bucket = (gain.div_euclid(40_000_000) + 50).clamp(0, 99);
            prop_assert!(i64::from(found.score.bucket) >= bucket);
            prop_assert!(Some(device) != found.device || i64::from(found.score.bucket) == bucket);
        }
    }
}
