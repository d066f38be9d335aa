//! How many GPUs each elastic job should hold, so that jobs end soon on average.
//!
//! **Rule.** Sort jobs by remaining work, shortest first. Progress of a job is worth as many jobs as have no less work left
//! than it, itself included: those are the ones that wait for it. GPUs go one step after another to the job whose step is
//! worth most: that number x gain of speed per GPU on the job's own curve (its concave hull, so that a job which only
//! becomes fast with many GPUs is judged by what they bring together). With curves k^p this is the shape of the optimal
//! policy (heSRPT, Berg et al. 2020: shares follow the rank, not the size); with curves that end at one GPU it is shortest
//! remaining time first. No job is shut out for long: whoever is last still outbids others' steps that bring little.
//!
//! **Source.** Ours; chosen on the study `pollux` (8 workloads of the Pollux artifact, OSDI 2021) beside the optimum named above.
//!
//! **Size.** From ended runs of the same recipe; without any, a multiple of the furthest that a run of the recipe has got,
//! so that what nobody has seen the end of waits behind what is known, and of two such runs the further one goes first.
//!
//! **Hysteresis.** A step within what a job holds is worth more by [`Rules::stickiness_permille`], a step beyond it is worth
//! less by the same; after that a change is undone when its gain within a horizon does not pay for the restart (a horizon of
//! 10 restarts asks for 11 % more speed, and for more of a job that ends sooner). The whole is kept unless the sum of progress
//! times worth grows: with time standing still that sum only rises, so shares cannot go round in a circle.
//!
//! Pure, integer, same input same output; ties go to the smaller id. O(steps x log jobs), steps <= GPUs + jobs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// One way to run a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// At least 1.
    pub gpus: u32,
    /// Which of the job's own settings (a batch size, say) it takes; only handed back.
    pub choice: u32,
    /// Work done per unit of time; 1000 is what one GPU does at the job's smallest size.
    pub speed: u64,
}

/// What is known of a job's whole work, in milliseconds at speed 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// From ended runs of the same recipe.
    Predicted(u64),
    /// None has ended; the furthest that any run of the recipe has got, this one included.
    AtLeast(u64),
}

/// A job that runs or waits.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// Unique; the older job has the smaller.
    pub id: u64,
    /// Ascending by GPUs; several choices may stand for one count.
    pub points: &'a [Point],
    /// Work done, in milliseconds at speed 1000.
    pub attained_ms: u64,
    pub size: Size,
    /// GPUs held now.
    pub held: u32,
    /// Time without progress that a change of GPUs costs.
    pub restart_ms: u64,
}

/// Constants of the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Worth of a GPU that is held, in thousandths of one that is not; at least 1000.
    pub stickiness_permille: u64,
    /// A change must have paid for its restart after so many times the restart's duration.
    pub horizon_restarts: u64,
    /// The whole work of a recipe that none has seen the end of, in multiples of the furthest run.
    pub unknown_factor: u64,
    /// And at least so much, milliseconds at speed 1000.
    pub unknown_ms: u64,
}

impl Default for Rules {
    /// As chosen on the study `pollux`: shares swing with less stickiness and follow new jobs too slowly with more; the order
    /// of jobs, and so the result, hardly depends on what is assumed of unknown ones (factors of 4 to 100 differ by 1 %).
    fn default() -> Self {
        Self { stickiness_permille: 1500, horizon_restarts: 10, unknown_factor: 4, unknown_ms: 3_600_000 }
    }
}

/// What a job should hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// 0: it waits.
    pub gpus: u32,
    pub choice: u32,
}

/// A job while GPUs are shared out.
struct Bid<'a> {
    job: Job<'a>,
    remaining_ms: u64,
    /// Jobs with no less work left.
    weight: u64,
    /// Corners of the concave hull of the curve.
    corners: Vec<Point>,
    gpus: u32,
}

/// Shares `capacity` GPUs out, in the order of `jobs`. Assumes that what is held now fits into it.
pub fn share(jobs: &[Job<'_>], capacity: u32, rules: &Rules) -> Vec<Share> {
    let mut bids: Vec<Bid<'_>> = jobs.iter().map(|job| Bid::new(*job, rules)).collect();
    let mut order: Vec<usize> = (0..bids.len()).collect();
    order.sort_by_key(|at| bids.get(*at).map(|bid| (bid.remaining_ms, bid.job.id)));
    for (weight, at) in (1..).zip(order.iter().rev()) {
        bids.iter_mut().skip(*at).take(1).for_each(|bid| bid.weight = weight);
    }
    let mut free = raise(&mut bids, capacity, rules);
    free += undo_growth(&mut bids, rules);
    free -= undo_shrinking(&mut bids, &order, free, rules);
    start(&mut bids, &order, free);
    keep_if_no_worse(&mut bids, &order, capacity);
    bids.iter().map(Bid::share).collect()
}

/// Leaves everything as it is, and only starts jobs on what is free, unless the new shares are worth more than what is held.
fn keep_if_no_worse(bids: &mut [Bid<'_>], order: &[usize], capacity: u32) {
    let worth = |gpus: fn(&Bid<'_>) -> u32| -> u128 {
        bids.iter().map(|bid| u128::from(bid.weight) * u128::from(bid.speed(gpus(bid)))).sum()
    };
    let held: u32 = bids.iter().map(|bid| bid.job.held).sum();
    if held <= capacity && worth(|bid| bid.gpus) <= worth(|bid| bid.job.held) {
        for bid in bids.iter_mut() {
            bid.gpus = bid.job.held;
        }
        start(bids, order, capacity - held);
    }
}

/// Gives GPUs to the worthiest step until none fits; returns what is left.
fn raise(bids: &mut [Bid<'_>], capacity: u32, rules: &Rules) -> u32 {
    let mut free = capacity;
    let mut heap: BinaryHeap<(u128, Reverse<u64>, usize)> = BinaryHeap::new();
    let offer = |bid: &Bid<'_>, at: usize| bid.worth(rules).map(|worth| (worth, Reverse(bid.job.id), at));
    heap.extend(bids.iter().enumerate().filter_map(|(at, bid)| offer(bid, at)));
    while let Some((_, _, at)) = heap.pop().filter(|_| free > 0) {
        let Some(bid) = bids.get_mut(at) else { continue };
        let before = bid.gpus;
        let whole_step = bid.step(free);
        free -= bid.gpus - before;
        heap.extend(whole_step.then(|| offer(bid, at)).flatten());
    }
    free
}

/// Leaves running jobs as they are whose growth does not pay; returns the GPUs that this frees.
fn undo_growth(bids: &mut [Bid<'_>], rules: &Rules) -> u32 {
    let mut freed = 0;
    for bid in bids.iter_mut().filter(|bid| bid.job.held > 0 && bid.gpus > bid.job.held) {
        let (slow, fast) = (bid.speed(bid.job.held), bid.speed(bid.gpus));
        let left_ms = bid.remaining_ms.saturating_mul(1000) / fast.max(1);
        if !bid.pays(slow, fast, left_ms.saturating_add(bid.job.restart_ms), rules) {
            freed += bid.gpus - bid.job.held;
            bid.gpus = bid.job.held;
        }
    }
    freed
}

/// Leaves running jobs as they are, shortest first, where GPUs are free anyway and the restart would not pay; returns the
/// GPUs that this takes.
fn undo_shrinking(bids: &mut [Bid<'_>], order: &[usize], free: u32, rules: &Rules) -> u32 {
    let mut taken = 0;
    for at in order {
        let Some(bid) = bids.get_mut(*at).filter(|bid| bid.gpus < bid.job.held) else { continue };
        let more = bid.job.held - bid.gpus;
        let (fast, slow) = (bid.speed(bid.job.held), bid.speed(bid.gpus));
        if more <= free - taken && !bid.pays(fast, slow, u64::MAX, rules) {
            taken += more;
            bid.gpus = bid.job.held;
        }
    }
    taken
}

/// What is still free goes to jobs that start anyway, shortest first: they have nothing to lose by a restart.
fn start(bids: &mut [Bid<'_>], order: &[usize], mut free: u32) {
    for at in order {
        let Some(bid) = bids.get_mut(*at).filter(|bid| bid.job.held == 0) else { continue };
        let fits = |corner: &&Point| corner.gpus > bid.gpus && corner.gpus - bid.gpus <= free;
        if let Some(corner) = bid.corners.iter().rev().find(fits) {
            free -= corner.gpus - bid.gpus;
            bid.gpus = corner.gpus;
        }
    }
}

impl<'a> Bid<'a> {
    fn new(job: Job<'a>, rules: &Rules) -> Self {
        let total_ms = match job.size {
            Size::Predicted(total_ms) => total_ms,
            Size::AtLeast(furthest_ms) => furthest_ms.saturating_mul(rules.unknown_factor).max(rules.unknown_ms),
        };
        let remaining_ms = total_ms.saturating_sub(job.attained_ms).max(1);
        Self { job, remaining_ms, weight: 0, corners: corners(&job), gpus: 0 }
    }

    /// The next corner of the hull.
    fn next(&self) -> Option<&Point> {
        self.corners.get(self.corners.partition_point(|corner| corner.gpus <= self.gpus))
    }

    /// Worth of the next step per GPU.
    fn worth(&self, rules: &Rules) -> Option<u128> {
        let next = self.next()?;
        let gain = u128::from(next.speed - self.speed(self.gpus)) * u128::from(self.weight);
        let sticky = u128::from(rules.stickiness_permille);
        let scaled = gain * 1_000_000_000;
        let worth = match self.job.held {
            0 => scaled,
            held if next.gpus <= held => scaled * sticky / 1000,
            _ => scaled * 1000 / sticky.max(1),
        };
        Some(worth / u128::from(next.gpus - self.gpus))
    }

    /// Takes the next step, or the most of it that fits and brings something; whether it was the whole.
    fn step(&mut self, free: u32) -> bool {
        let Some(next) = self.next().copied() else { return false };
        if next.gpus - self.gpus <= free {
            self.gpus = next.gpus;
            return true;
        }
        let now = self.speed(self.gpus);
        let fits = |point: &&Point| point.gpus > self.gpus && point.gpus - self.gpus <= free && point.speed > now;
        self.gpus = self.job.points.iter().rev().find(fits).map_or(self.gpus, |point| point.gpus);
        false
    }

    /// Whether a change of speed makes more progress within a span, at most the horizon, although it starts with a restart.
    fn pays(&self, from: u64, to: u64, span_ms: u64, rules: &Rules) -> bool {
        let span_ms = span_ms.min(self.job.restart_ms.saturating_mul(rules.horizon_restarts)).max(1);
        let useful_ms = span_ms.saturating_sub(self.job.restart_ms);
        u128::from(to) * u128::from(useful_ms) > u128::from(from) * u128::from(span_ms)
    }

    fn best(&self, gpus: u32) -> Option<&Point> {
        self.job.points.iter().filter(|point| point.gpus == gpus).max_by_key(|point| (point.speed, Reverse(point.choice)))
    }

    fn speed(&self, gpus: u32) -> u64 {
        self.best(gpus).map_or(0, |point| point.speed)
    }

    fn share(&self) -> Share {
        Share { gpus: self.gpus, choice: self.best(self.gpus).map_or(0, |point| point.choice) }
    }
}

/// Steps of a job: up to what it holds, if that is among its sizes, and from there on.
fn corners(job: &Job<'_>) -> Vec<Point> {
    let split = job.points.partition_point(|point| point.gpus <= job.held);
    let (within, beyond) = job.points.split_at_checked(split).unwrap_or((job.points, &[]));
    let stays = within.iter().filter(|point| point.gpus == job.held).max_by_key(|point| (point.speed, Reverse(point.choice)));
    let mut corners = hull(within);
    let Some(stays) = stays.copied().filter(|stays| corners.last().is_some_and(|last| last.gpus == stays.gpus)) else {
        return hull(job.points);
    };
    let lift =
        |point: &Point| Some(Point { gpus: point.gpus - stays.gpus, speed: point.speed.checked_sub(stays.speed)?, ..*point });
    let lifted: Vec<Point> = beyond.iter().filter_map(lift).collect();
    let lower = |point: Point| Point { gpus: point.gpus + stays.gpus, speed: point.speed + stays.speed, ..point };
    corners.extend(hull(&lifted).into_iter().map(lower));
    corners
}

/// Corners of the concave hull of a curve from (0, 0), rising strictly in GPUs and in speed, falling in speed per GPU.
fn hull(points: &[Point]) -> Vec<Point> {
    let mut corners: Vec<Point> = Vec::new();
    let slope_is_less = |from: Point, mid: Point, to: Point| {
        let rise = |low: Point, high: Point| u128::from(high.speed - low.speed);
        let run = |low: Point, high: Point| u128::from(high.gpus.saturating_sub(low.gpus));
        rise(from, mid) * run(mid, to) <= rise(mid, to) * run(from, mid)
    };
    for point in points.iter().filter(|point| point.gpus > 0) {
        if corners.last().map_or(0, |last| last.speed) >= point.speed {
            continue;
        }
        while let Some(last) = corners.last().copied() {
            let before = corners.len().checked_sub(2).and_then(|at| corners.get(at).copied());
            let from = before.unwrap_or(Point { gpus: 0, choice: 0, speed: 0 });
            if !slope_is_less(from, last, *point) {
                break;
            }
            corners.pop();
        }
        corners.push(*point);
    }
    corners
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn curve(speeds: &[(u32, u64)]) -> Vec<Point> {
        speeds.iter().map(|(gpus, speed)| Point { gpus: *gpus, choice: 0, speed: *speed }).collect()
    }

    fn job(id: u64, points: &[Point], hours_left: u64, held: u32) -> Job<'_> {
        Job { id, points, attained_ms: HOUR_MS, size: Size::Predicted(HOUR_MS * (hours_left + 1)), held, restart_ms: 30_000 }
    }

    fn gpus(jobs: &[Job<'_>], capacity: u32) -> Vec<u32> {
        share(jobs, capacity, &Rules::default()).iter().map(|share| share.gpus).collect()
    }

    #[test]
    fn jobs_of_one_gpu_run_shortest_first() {
        let one = curve(&[(1, 1000)]);
        assert_eq!(gpus(&[job(0, &one, 9, 0), job(1, &one, 1, 0), job(2, &one, 5, 0)], 2), [0, 1, 1]);
    }

    #[test]
    fn a_gpu_goes_where_it_speeds_up_most_for_the_jobs_that_wait() {
        let (flat, steep) = (curve(&[(1, 1000), (2, 1100), (4, 1200)]), curve(&[(1, 1000), (2, 1900), (4, 3600)]));
        assert_eq!(gpus(&[job(0, &flat, 1, 0), job(1, &steep, 9, 0)], 5), [1, 4]);
    }

    #[test]
    fn a_job_that_is_only_fast_with_many_gpus_is_judged_by_what_they_bring_together() {
        let (late, even) = (curve(&[(1, 1000), (2, 1000), (8, 8000)]), curve(&[(1, 1000), (8, 2000)]));
        assert_eq!(gpus(&[job(0, &late, 1, 0), job(1, &even, 1, 0)], 9), [8, 1]);
    }

    #[test]
    fn what_does_not_fit_whole_takes_the_part_that_does() {
        let steep = curve(&[(1, 1000), (4, 4000), (8, 8000)]);
        assert_eq!(gpus(&[job(0, &steep, 1, 0)], 6), [4]);
    }

    #[test]
    fn the_fastest_choice_is_told_with_the_size() {
        let points: Vec<Point> =
            [(1, 7, 1000), (2, 7, 1500), (2, 9, 1800)].map(|(gpus, choice, speed)| Point { gpus, choice, speed }).into();
        assert_eq!(share(&[job(0, &points, 1, 0)], 2, &Rules::default()), [Share { gpus: 2, choice: 9 }]);
    }

    #[test]
    fn a_running_job_is_not_restarted_for_little() {
        let steep = |gain: u64| curve(&[(4, 4000), (8, 4000 + gain)]);
        assert_eq!(gpus(&[job(0, &steep(400), 1, 4)], 8), [4]);
        assert_eq!(gpus(&[job(0, &steep(800), 1, 4)], 8), [8]);
        let points = steep(800);
        let almost_done = Job { size: Size::Predicted(HOUR_MS + 200_000), ..job(0, &points, 0, 4) };
        assert_eq!(gpus(&[almost_done], 8), [4]);
    }

    #[test]
    fn nobody_shrinks_while_gpus_are_free() {
        let falling = curve(&[(4, 4000), (8, 3990)]);
        assert_eq!(gpus(&[job(0, &falling, 1, 8)], 8), [8]);
        let other = curve(&[(4, 4000)]);
        assert_eq!(gpus(&[job(0, &falling, 1, 8), job(1, &other, 1, 0)], 8), [4, 4]);
    }

    #[test]
    fn unseen_recipes_wait_behind_known_ones_and_the_furthest_of_them_goes_first() {
        let one = curve(&[(1, 1000)]);
        let known = job(0, &one, 50, 0);
        let unknown = |id, attained_ms| Job { attained_ms, size: Size::AtLeast(40 * HOUR_MS), ..job(id, &one, 0, 0) };
        assert_eq!(gpus(&[known, unknown(1, HOUR_MS), unknown(2, 40 * HOUR_MS)], 1), [1, 0, 0]);
        assert_eq!(gpus(&[known, unknown(1, HOUR_MS), unknown(2, 40 * HOUR_MS)], 2), [1, 0, 1]);
    }

    #[test]
    fn jobs_without_a_curve_get_nothing_and_disturb_nobody() {
        let one = curve(&[(1, 1000)]);
        assert_eq!(gpus(&[job(0, &[], 1, 0), job(1, &one, 9, 0)], 4), [0, 1]);
        assert!(gpus(&[], 4).is_empty());
    }

    /// Curve, work left in seconds, whether the size is known.
    type Entry = (Vec<Point>, u64, bool);

    fn systems() -> impl Strategy<Value = (Vec<Entry>, u32)> {
        let points = prop::collection::btree_map(1u32..40, 1u64..40_000, 0..8)
            .prop_map(|points| points.into_iter().map(|(gpus, speed)| Point { gpus, choice: gpus, speed }).collect());
        (prop::collection::vec((points, 0u64..1_000_000, any::<bool>()), 0..24), 0u32..80)
    }

    fn jobs<'a>(system: &'a [Entry], held: &[u32]) -> Vec<Job<'a>> {
        let size = |left_s: u64, known: bool| if known { Size::Predicted(left_s * 1000) } else { Size::AtLeast(left_s * 1000) };
        let job = |(id, ((points, left_s, known), held)): (u64, (&'a Entry, &u32))| Job {
            id,
            points,
            attained_ms: 0,
            size: size(*left_s, *known),
            held: *held,
            restart_ms: 30_000,
        };
        (0..).zip(system.iter().zip(held)).map(job).collect()
    }

    proptest! {
        #[test]
        fn shares_fit_and_are_sizes_of_the_job((system, capacity) in systems()) {
            let mut held = vec![0; system.len()];
            for _ in 0..3 {
                held = gpus(&jobs(&system, &held), capacity);
                prop_assert!(held.iter().sum::<u32>() <= capacity);
                for ((points, ..), held) in system.iter().zip(&held) {
                    prop_assert!(*held == 0 || points.iter().any(|point| point.gpus == *held));
                }
            }
        }

        #[test]
        fn the_order_of_the_input_does_not_matter((system, capacity) in systems()) {
            let held = vec![0; system.len()];
            let mut list = jobs(&system, &held);
            let forwards = share(&list, capacity, &Rules::default());
            list.reverse();
            let mut backwards = share(&list, capacity, &Rules::default());
            backwards.reverse();
            prop_assert_eq!(forwards, backwards);
        }

        #[test]
        fn with_time_standing_still_shares_soon_stay((system, capacity) in systems()) {
            let mut held = vec![0; system.len()];
            let mut rounds = 0;
            loop {
                let next = gpus(&jobs(&system, &held), capacity);
                if next == held {
                    break;
                }
                held = next;
                rounds += 1;
                prop_assert!(rounds <= 8, "still changing after {rounds} rounds");
            }
        }
    }
}
