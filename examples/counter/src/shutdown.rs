//! From the signal to the end.

use std::io;
use std::time::Duration;

use actornot_core::MailboxPoster;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::domain::Counter;

/// SIGTERM or Ctrl-C.
pub(crate) struct Signal {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signal {
    #[cfg(unix)]
    pub(crate) fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    #[cfg(unix)]
    pub(crate) async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    pub(crate) async fn received(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// Lets requests that were begun be answered; a client that dawdles does not keep the process.
pub(crate) async fn requests(mut servers: JoinSet<io::Result<()>>) {
    const PATIENCE: Duration = Duration::from_secs(10);
    let all = async { while servers.join_next().await.is_some() {} };
    if timeout(PATIENCE, all).await.is_err() {
        tracing::warn!("requests are still unanswered after {PATIENCE:?}; going on without them");
    }
}

/// Handles what is still queued, as far as it goes in a short time.
///
/// Others would handle it too, or this service when it is started again; but if it is the only one, whoever stops it
/// would rather find nothing pending.
pub(crate) async fn backlog(mailbox: &MailboxPoster<Counter>) {
    const BUDGET: Duration = Duration::from_secs(2);
    let until = Instant::now() + BUDGET;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match mailbox.sweep(left).await {
            // Nothing is due now or later: what runs here has a lease, and that would be later.
            Ok(swept) if swept.found == 0 && swept.next.is_none() => return,
            Ok(_) if left.is_zero() => return,
            Ok(_) => sleep(Duration::from_millis(10)).await,
            Err(error) => {
                tracing::warn!(%error, "what is queued stays queued");
                return;
            }
        }
    }
}
