//! Going down in order: requests in flight are answered, training checkpoints, replicas last.

use std::time::Duration;

use tidegate_runtime::exit::Error;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::replicas::REPLICA_GRACE;
use super::router::UNIT;
use super::{Message, TICK, World};
use crate::agent;
use crate::unit::UnitId;
use crate::units::{UnitEvent, UnitState};

/// The router answers what it has within its own drain time-out; this is that and a little.
const ROUTER_GRACE: Duration = Duration::from_secs(15);
/// The node agent has nothing to finish; it waits 3 s for its own threads.
const AGENT_GRACE: Duration = Duration::from_secs(5);
/// Beyond the longest grace: from SIGKILL to the last exit record.
const MARGIN: Duration = Duration::from_secs(10);

impl World {
    /// Ends everything that runs, decides nothing more, and leaves the ledger as the next world should find it.
    pub(super) async fn drain(
        mut self,
        mut messages: mpsc::Receiver<Message>,
        mut unit_events: mpsc::UnboundedReceiver<UnitEvent>,
    ) -> Result<(), Error> {
        let router = UnitId::new(UNIT).map_err(|e| Error::failed("stop the router", e))?;
        self.end_unit(&router, ROUTER_GRACE);
        let jobs: Vec<_> = self.attempts.iter().map(|(job, attempt)| (job.clone(), attempt.number)).collect();
        let mut longest = ROUTER_GRACE;
        for (job, attempt) in jobs {
            let grace = self.objects.job(&job.0).map_or(0, |spec| u64::from(spec.checkpoint.grace_seconds));
            longest = longest.max(Duration::from_secs(grace));
            self.stop_attempt(&job, attempt);
        }
        tracing::info!(jobs = self.attempts.len(), replicas = self.servers.len(), "draining");
        let answered = |world: &Self| !world.is_running(&router) && world.attempts.is_empty();
        self.wait_until(answered, longest + MARGIN, &mut messages, &mut unit_events).await?;
        let servers: Vec<UnitId> = self.servers.values().map(|server| server.unit.clone()).collect();
        for server in self.servers.values_mut() {
            server.told_to_end = true;
        }
        for unit in &servers {
            self.end_unit(unit, REPLICA_GRACE);
        }
        let agent = UnitId::new(agent::UNIT).map_err(|e| Error::failed("stop the node agent", e))?;
        self.end_unit(&agent, AGENT_GRACE);
        let ended = |world: &Self| world.servers.is_empty() && !world.is_running(&agent);
        self.wait_until(ended, REPLICA_GRACE + MARGIN, &mut messages, &mut unit_events).await?;
        drop(self.units.forget(&router));
        drop(self.units.forget(&agent));
        let waiting = std::mem::take(&mut self.waiting);
        self.timeline.update(&self.engine, &waiting, super::now_ms(), &mut self.pending);
        self.commit(true).await?;
        let left = self.attempts.len() + self.servers.len();
        tracing::info!(left, "drained");
        self.units.close().await;
        self.ledger.close().await;
        Ok(())
    }

    fn is_running(&self, unit: &UnitId) -> bool {
        self.units.status(unit).is_some_and(|status| matches!(status.state, UnitState::Running(_)))
    }

    async fn wait_until(
        &mut self,
        done: impl Fn(&Self) -> bool,
        limit: Duration,
        messages: &mut mpsc::Receiver<Message>,
        unit_events: &mut mpsc::UnboundedReceiver<UnitEvent>,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        while !done(self) && Instant::now() < deadline {
            tokio::select! {
                Some(event) = unit_events.recv() => self.last_event(event),
                Some(message) = messages.recv() => self.message(message),
                () = tokio::time::sleep(TICK) => {}
            }
            if !self.replies.is_empty() {
                self.commit(true).await?;
                self.replies.drain(..).for_each(|reply| reply());
            }
            self.publish_state();
        }
        Ok(())
    }

    /// As ever, but a router or an agent that has ended stays so.
    fn last_event(&mut self, event: UnitEvent) {
        if !matches!(&event, UnitEvent::Exited { id, .. } if [UNIT, agent::UNIT].contains(&id.as_str())) {
            self.unit(event);
        }
    }
}
