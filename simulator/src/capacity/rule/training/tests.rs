use super::*;

const MINUTE: Ms = 60_000;

fn training(is_elastic: bool) -> Training {
    let rule = Rule {
        head_room: 0.2,
        burst_sigmas: 0.0,
        late_share: 0.001,
        lend_for_growth: false,
        hold_s: 600,
        trend_limit: 1.3,
        levels_gpu_hours: vec![1.0, 10.0],
        resume_margin: 0,
        protect_s: 0,
        regrow_s: 600,
    };
    let costs = Costs { restart_s: 30.0, checkpoint_every_s: 600.0, evict_s: 10.0, scaling_exponent: 1.0 };
    let class = |name: &str, speed| GpuClass { name: name.into(), gpus: 16, speed };
    Training::new(&rule, is_elastic, costs, &[class("V100", 1.0), class("T4", 1.0 / 3.0)])
}

fn ask(job: u32, gpus: u32) -> Ask {
    Ask { job, team: 0, gpus, min_gpus: gpus.div_ceil(2), max_gpus: gpus * 2, any_class: false }
}

fn decide(training: &mut Training, now: Ms, left: [u32; 2]) -> Vec<Order> {
    let mut orders = Vec::new();
    training.decide(now, &left, &mut orders);
    orders
}

#[test]
fn who_has_had_most_yields_to_who_has_had_least() {
    let mut training = training(false);
    training.submitted(&ask(0, 4));
    assert_eq!(decide(&mut training, 0, [4, 0]), [Order::Start { job: 0, class: 0, gpus: 4 }]);
    training.submitted(&ask(1, 4));
    assert_eq!(decide(&mut training, 10 * MINUTE, [4, 0]), [], "both are on the first level: the running one stays");
    let after = decide(&mut training, 20 * MINUTE, [4, 0]);
    assert_eq!(after, [Order::Start { job: 1, class: 0, gpus: 4 }, Order::Stop { job: 0 }]);
}

#[test]
fn elastic_jobs_shrink_before_any_stops_and_grow_when_there_is_room() {
    let mut training = training(true);
    training.submitted(&ask(0, 4));
    decide(&mut training, 0, [8, 0]);
    assert_eq!(decide(&mut training, 10 * MINUTE, [8, 0]), [Order::Resize { job: 0, gpus: 8 }]);
    training.submitted(&ask(1, 4));
    let orders = decide(&mut training, 11 * MINUTE, [8, 0]);
    assert!(orders.contains(&Order::Start { job: 1, class: 0, gpus: 4 }) && orders.contains(&Order::Resize { job: 0, gpus: 4 }));
    let orders = decide(&mut training, 12 * MINUTE, [4, 0]);
    assert!(orders.contains(&Order::Resize { job: 0, gpus: 2 }) && orders.contains(&Order::Resize { job: 1, gpus: 2 }));
}

#[test]
fn jobs_of_any_class_take_lent_gpus_at_their_speed_and_leave_when_they_return() {
    let mut training = training(false);
    training.submitted(&Ask { any_class: true, ..ask(0, 4) });
    assert_eq!(decide(&mut training, 0, [16, 16]), [Order::Start { job: 0, class: 1, gpus: 12 }]);
    assert_eq!(decide(&mut training, MINUTE, [16, 8]), [Order::Stop { job: 0 }]);
    assert_eq!(decide(&mut training, 6 * MINUTE, [16, 8]), [Order::Start { job: 0, class: 0, gpus: 4 }]);
}

#[test]
fn orders_never_exceed_what_is_left() {
    let mut training = training(true);
    for job in 0..40 {
        training.submitted(&Ask { any_class: job % 3 == 0, ..ask(job, 1 + job % 7) });
    }
    let mut held = vec![(0, 0); 40];
    for minute in 0..200 {
        let left = [8 + (minute % 5) as u32 * 3, (minute % 7) as u32 * 2];
        for order in decide(&mut training, minute * 11 * MINUTE, left) {
            match order {
                Order::Start { job, class, gpus } => held[job as usize] = (class, gpus),
                Order::Stop { job } => held[job as usize] = (0, 0),
                Order::Resize { job, gpus } => held[job as usize].1 = gpus,
                Order::Serve { .. } => unreachable!("training serves no model"),
            }
        }
        for (class, left) in left.into_iter().enumerate() {
            let used: u32 = held.iter().filter(|(on, _)| *on == class).map(|(_, gpus)| gpus).sum();
            assert!(used <= left, "minute {minute}: {used} of {left} on class {class}");
        }
    }
}
