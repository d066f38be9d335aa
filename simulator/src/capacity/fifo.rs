//! Today's rule: strict first come first served on the first class; every model keeps a fixed number of replicas.

use std::collections::VecDeque;

use super::{Ask, CapacityPolicy, Ms, Observed, Order};

/// First come first served, nothing lent, nothing elastic.
pub struct Fifo {
    /// GPUs of the first class for training, less those in use.
    free: u32,
    waiting: VecDeque<Ask>,
    /// GPUs by job; 0: not running.
    running: Vec<u32>,
    /// Fixed replicas by model; ordered once.
    replicas: Vec<u32>,
}

impl Fifo {
    /// `gpus` of the first class are for training; `replicas` of each model are fixed.
    pub fn new(gpus: u32, replicas: Vec<u32>) -> Self {
        Self { free: gpus, waiting: VecDeque::new(), running: Vec::new(), replicas }
    }
}

impl CapacityPolicy for Fifo {
    fn observe(&mut self, _: Ms, _: usize, _: Observed) {}

    fn submitted(&mut self, _: Ms, ask: &Ask) {
        self.waiting.push_back(ask.clone());
    }

    fn finished(&mut self, _: Ms, job: u32) {
        if let Some(gpus) = self.running.get_mut(job as usize) {
            self.free += std::mem::take(gpus);
        }
    }

    fn decide(&mut self, _: Ms, orders: &mut Vec<Order>) {
        let serve = |(model, replicas)| Order::Serve { model, replicas, sharers: 0 };
        orders.extend(self.replicas.drain(..).enumerate().map(serve));
        while let Some(ask) = self.waiting.front().filter(|ask| ask.gpus <= self.free) {
            let (job, gpus) = (ask.job, ask.gpus);
            let index = job as usize;
            self.running.resize(self.running.len().max(index + 1), 0);
            if let Some(slot) = self.running.get_mut(index) {
                *slot = gpus;
            }
            self.free -= gpus;
            orders.push(Order::Start { job, class: 0, gpus });
            self.waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(job: u32, gpus: u32) -> Ask {
        Ask { job, team: 0, gpus, min_gpus: gpus, max_gpus: gpus, any_class: false }
    }

    #[test]
    fn the_head_of_the_queue_blocks_those_behind_it() {
        let mut fifo = Fifo::new(4, vec![3]);
        for (job, gpus) in [(0, 3), (1, 4), (2, 1)] {
            fifo.submitted(0, &ask(job, gpus));
        }
        let mut orders = Vec::new();
        fifo.decide(0, &mut orders);
        let serve = Order::Serve { model: 0, replicas: 3, sharers: 0 };
        assert_eq!(orders, [serve, Order::Start { job: 0, class: 0, gpus: 3 }]);
        orders.clear();
        fifo.finished(1, 0);
        fifo.decide(1, &mut orders);
        assert_eq!(orders, [Order::Start { job: 1, class: 0, gpus: 4 }]);
    }
}
