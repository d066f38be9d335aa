//! The replica's side of `tidegate.control.v1`: tells the world how it fares, and obeys its wish to drain.
//!
//! The world may go and come back: the replica serves on and connects again, and nothing here ends the process but the wish
//! to drain. Every report is the whole state, so a lost one does no harm.

use std::time::Duration;

use thiserror::Error;
use tidegate_api::control::ReplicaReport;
use tidegate_api::control::control_client::ControlClient;
use tidegate_runtime::control::{REFUSED_BACKOFF, Token, is_refusal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use crate::status::Status;

/// Between two reports without a change of phase.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// Pauses between attempts to reach the world: 50 ms, doubled up to this.
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
/// For the world to accept a connection, and again for it to accept the session. Also the longest that a replica's
/// end waits for a world that does not answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// For the last report to leave before the process ends. The world answers it by ending the session.
const LAST_REPORT_LIMIT: Duration = Duration::from_millis(500);
/// A world that died without a word (its machine, not its process) is noticed after twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Who reports.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub replica_id: String,
    pub model: String,
    pub token: Token,
}

/// Why a session ended.
#[derive(Debug, Error)]
enum SessionError {
    #[error("connect to the world: {0}")]
    Connect(#[from] tonic::transport::Error),
    #[error("the session failed: {0}")]
    Broken(#[from] tonic::Status),
    #[error("the world did not accept the session in time")]
    Silent,
    #[error("the world ended the session")]
    Closed,
}

/// Holds a session until `end`, and cancels `drain` when the world wishes it.
pub(crate) async fn run(control: Endpoint, identity: Identity, status: Status, drain: CancellationToken, end: CancellationToken) {
    let control = control
        .connect_timeout(CONNECT_LIMIT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    let mut backoff = FIRST_BACKOFF;
    let mut said = String::new();
    loop {
        let mut talked = false;
        let ended = session(&control, &identity, &status, &drain, &end, &mut talked).await;
        let Err(error) = ended else { return };
        if talked {
            backoff = FIRST_BACKOFF;
        }
        let is_news = std::mem::replace(&mut said, error.to_string()) != said;
        if talked || is_news {
            tracing::warn!(%error, "no session with the world; serving on");
        }
        tokio::select! {
            () = sleep(backoff) => {}
            // A failure that nobody could be told is in the exit code.
            () = end.cancelled() => return,
        }
        let refused = matches!(&error, SessionError::Broken(status) if is_refusal(status));
        backoff = (backoff * 2).min(if refused { REFUSED_BACKOFF } else { LONGEST_BACKOFF });
    }
}

/// One session. `Ok` after the last report; `talked` says whether the world accepted it.
async fn session(
    control: &Endpoint,
    identity: &Identity,
    status: &Status,
    drain: &CancellationToken,
    end: &CancellationToken,
    talked: &mut bool,
) -> Result<(), SessionError> {
    let mut changes = status.changes();
    let (reports, outgoing) = mpsc::channel(4);
    let send = |reports: &mpsc::Sender<ReplicaReport>| {
        // Full: the world does not read; the next report will say it all.
        drop(reports.try_send(status.report(identity)));
    };
    send(&reports);
    let mut client = ControlClient::new(control.connect().await?);
    let opened = timeout(CONNECT_LIMIT, client.replica_session(identity.token.on(ReceiverStream::new(outgoing))?)).await;
    let mut wishes = opened.map_err(|_| SessionError::Silent)??.into_inner();
    *talked = true;
    let mut version = 0;
    let mut tick = interval(REPORT_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => send(&reports),
            // The sender lives in `status`, so this always is a change.
            _ = changes.changed() => send(&reports),
            wish = wishes.message() => {
                let wish = wish?.ok_or(SessionError::Closed)?;
                if wish.version >= version {
                    version = wish.version;
                    if wish.drain && !drain.is_cancelled() {
                        tracing::info!("the world wishes this replica to end");
                        drain.cancel();
                    }
                }
            }
            () = end.cancelled() => break,
        }
    }
    send(&reports);
    drop(reports);
    let heard = timeout(LAST_REPORT_LIMIT, async { while let Ok(Some(_)) = wishes.message().await {} });
    drop(heard.await);
    Ok(())
}
