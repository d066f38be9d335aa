//! How many GPUs each elastic job should hold, so that jobs end soon on average.
//!
//! **Rule.** Sort jobs by remaining work, shortest first. Progress of a job is worth as many jobs as have no less work left
//! than it, itself included: those are the ones that wait for it. GPUs go one step after another to the job whose step is
//! worth most: that number x gain of speed per GPU on the job's own curve (its concave hull, so that a job which only
//! becomes fast with many GPUs is judged by what they bring together). With curves k^p this is the shape of the optimal
//! policy (heSRPT, Berg et al. 2020: shares follow the rank, not the size); with curves that end at one GPU it is shortest
//! remaining time first. No job is shut out for long: whoever is last still outbids others' steps that bring little.
//!
//! **Size.** From ended runs of the same recipe; without any, a multiple of the furthest that a run of the recipe has got,
//! so that what nobody has seen the end of waits behind what is known, and of two such runs the further one goes first.
//!
//! **Hysteresis.** A step within what a job holds is worth more by [`Rules::stickiness_permille`], a step beyond it is worth
//! less by the same; after that a change is undone when its gain within a horizon does not pay for the restart.
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
    /// A change must pay for its restart within so long.
    pub horizon_ms: u64,
    /// The whole work of a recipe that none has seen the end of, in multiples of the furthest run.
    pub unknown_factor: u64,
    /// And at least so much, milliseconds at speed 1000.
    pub unknown_ms: u64,
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
    bids.iter().map(Bid::share).collect()
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
        let span_ms = left_ms.saturating_add(bid.job.restart_ms).min(rules.horizon_ms);
        if !bid.pays(slow, fast, span_ms) {
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
        if more <= free - taken && !bid.pays(fast, slow, rules.horizon_ms) {
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
        Self { job, remaining_ms, weight: 0, corners: hull(job.points), gpus: 0 }
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

    /// Whether a change of speed makes more progress within a span although it starts with a restart.
    fn pays(&self, from: u64, to: u64, span_ms: u64) -> bool {
        to.saturating_mul(span_ms.saturating_sub(self.job.restart_ms)) > from.saturating_mul(span_ms)
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

/// Corners of the concave hull of a curve from (0, 0), rising strictly in GPUs and in speed, falling in speed per GPU.
fn hull(points: &[Point]) -> Vec<Point> {
    let mut corners: Vec<Point> = Vec::new();
    let slope_is_less = |from: Point, mid: Point, to: Point| {
        let rise = |low: Point, high: Point| u128::from(high.speed - low.speed);
        let run = |low: Point, high: Point| u128::from(high.gpus - low.gpus);
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
