//! One job's run: progress, waits, and what stops and resizes cost it.

use super::super::outcome::Ended;
use super::super::{Ask, Costs, Job, Ms, to_ms};

/// State of one job.
pub struct Run {
    ask: Ask,
    arrives: Ms,
    /// Seconds of work left on its own GPUs.
    left_s: f64,
    class: usize,
    gpus: u32,
    /// Work seconds per second on what it holds.
    rate: f64,
    /// When the last change began, and when work goes on after it.
    since: Ms,
    works_from: Ms,
    wait_ms: Ms,
    started: bool,
    stops: u32,
    resizes: u32,
    version: u32,
    ended: Option<Ms>,
}

impl Run {
    pub fn new(job: &Job) -> Self {
        Self {
            ask: job.ask.clone(),
            arrives: job.arrives,
            left_s: job.work_s,
            class: 0,
            gpus: 0,
            rate: 0.0,
            since: job.arrives,
            works_from: job.arrives,
            wait_ms: 0,
            started: false,
            stops: 0,
            resizes: 0,
            version: 0,
            ended: None,
        }
    }

    pub fn class(&self) -> usize {
        self.class
    }

    pub fn gpus(&self) -> u32 {
        self.gpus
    }

    pub fn version(&self) -> u32 {
        self.version
    }

    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Holds `gpus` of a class from `now` on, none when 0. Returns GPU-seconds of work lost.
    pub fn change(&mut self, now: Ms, class: usize, gpus: u32, speed: f64, costs: &Costs) -> f64 {
        let lost_s = self.settle(now, gpus == 0, costs);
        let restart_s = if self.started { costs.restart_s } else { 0.0 };
        match (self.gpus, gpus) {
            (_, 0) => self.stops += 1,
            (0, _) => {}
            _ => self.resizes += 1,
        }
        self.started |= gpus > 0;
        self.rate = (f64::from(gpus) * speed / f64::from(self.ask.gpus)).powf(costs.scaling_exponent);
        (self.class, self.gpus, self.since) = (class, gpus, now);
        self.works_from = now + to_ms(restart_s);
        self.version += 1;
        lost_s * f64::from(self.ask.gpus)
    }

    /// Books the span since the last change. Returns seconds of own work lost by a stop.
    fn settle(&mut self, now: Ms, is_stop: bool, costs: &Costs) -> f64 {
        if self.gpus == 0 {
            self.wait_ms += now.saturating_sub(self.since);
            return 0.0;
        }
        let ran_s = now.saturating_sub(self.works_from) as f64 / 1000.0;
        let every = costs.checkpoint_every_s;
        let kept_s = if is_stop && every > 0.0 { (ran_s / every).floor() * every } else { ran_s };
        self.left_s = (self.left_s - kept_s * self.rate).max(0.0);
        (ran_s - kept_s) * self.rate
    }

    /// When it ends if nothing changes.
    pub fn ends_at(&self) -> Option<Ms> {
        (self.gpus > 0).then(|| self.works_from + to_ms(self.left_s / self.rate))
    }

    /// It ended.
    pub fn end(&mut self, at: Ms) {
        self.gpus = 0;
        self.ended = Some(at);
    }

    /// Its figures, once ended.
    pub fn ended(&self) -> Option<Ended> {
        let end = self.ended?;
        Some(Ended {
            team: self.ask.team,
            gpus: self.ask.gpus,
            wait_s: self.wait_ms as f64 / 1000.0,
            jct_s: end.saturating_sub(self.arrives) as f64 / 1000.0,
            stops: self.stops,
            resizes: self.resizes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: Costs = Costs { restart_s: 30.0, checkpoint_every_s: 600.0, evict_s: 10.0, scaling_exponent: 1.0 };

    fn run(work_s: f64) -> Run {
        let ask = Ask { job: 0, team: 0, gpus: 2, min_gpus: 1, max_gpus: 4, any_class: true };
        Run::new(&Job { ask, arrives: 1_000, work_s })
    }

    #[test]
    fn a_stop_loses_what_is_younger_than_the_checkpoint_and_a_restart_costs() {
        let mut run = run(1_000.0);
        run.change(11_000, 0, 2, 1.0, &COSTS);
        assert_eq!(run.ends_at(), Some(1_011_000));
        let lost = run.change(711_000, 0, 0, 1.0, &COSTS);
        assert!((lost - 200.0).abs() < 1e-6, "100 s on 2 GPUs");
        run.change(811_000, 0, 2, 1.0, &COSTS);
        assert_eq!(run.ends_at(), Some(811_000 + 30_000 + 400_000));
        run.end(1_241_000);
        let ended = run.ended().unwrap();
        assert!((ended.wait_s - 110.0).abs() < 1e-6 && (ended.jct_s - 1_240.0).abs() < 1e-6 && ended.stops == 1);
    }

    #[test]
    fn a_resize_loses_only_the_restart() {
        let mut run = run(1_000.0);
        run.change(1_000, 0, 2, 1.0, &COSTS);
        assert!(run.change(501_000, 0, 4, 1.0, &COSTS).abs() < 1e-9);
        assert_eq!(run.ends_at(), Some(501_000 + 30_000 + 250_000));
    }

    #[test]
    fn a_slower_class_takes_longer() {
        let mut run = run(1_000.0);
        run.change(1_000, 1, 2, 0.5, &COSTS);
        assert_eq!(run.ends_at(), Some(2_001_000));
    }
}
