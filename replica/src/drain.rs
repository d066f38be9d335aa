//! Counts requests in flight, so that a replica ends when the last is answered.

use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Open until closed once. Clones are the same gate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(TaskTracker);

impl Gate {
    /// A pass that counts until it is dropped; `None` once the gate is closed.
    pub fn enter(&self) -> Option<TaskTrackerToken> {
        // The pass comes first: a gate closed between the two lines waits for it.
        let pass = self.0.token();
        (!self.0.is_closed()).then_some(pass)
    }

    /// Lets nobody in, and waits until all passes are dropped.
    pub async fn close(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_gate_admits_nobody_and_waits_for_those_inside() {
        let gate = Gate::default();
        let pass = gate.enter().unwrap();
        let mut closing = Box::pin(gate.close());
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(closing.as_mut().poll(cx).is_pending())).await);
        assert!(gate.enter().is_none());
        drop(pass);
        closing.await;
    }
}
