//! From the wish to stop to the end.

use tokio::sync::oneshot;

use crate::engine::{Engine, Stop};
use crate::held::inside_handler;

impl Engine {
    /// Takes no new work; running batches finish.
    pub(crate) fn drain(&self) {
        self.stop.send_if_modified(|stop| {
            let first = *stop == Stop::Running;
            *stop = Stop::Draining.max(*stop);
            first
        });
        self.sweeper.wake();
    }

    /// Drains, and after a while drops what still runs.
    pub(crate) async fn close(&self) {
        self.drain();
        if let Some(entity) = inside_handler() {
            tracing::warn!(%entity, "closed from inside a handler, which would wait for itself: it drains, no more");
            return;
        }
        if !self.is_alive().await {
            // Its runtime took everything with it that could be waited for.
            return;
        }
        tokio::select! {
            () = self.workers.idle() => {}
            () = self.seam.sleep(self.config.close_timeout) => {
                self.stop.send_replace(Stop::Now);
                tokio::select! {
                    () = self.workers.idle() => {}
                    () = self.seam.sleep(self.config.call_timeout) => {
                        tracing::warn!("closed while handlers that block their thread still run");
                    }
                }
            }
        }
        self.heartbeats.close();
    }

    /// Whether there is still a runtime to run on.
    async fn is_alive(&self) -> bool {
        let (alive, answer) = oneshot::channel();
        self.seam.spawn(Box::pin(async move {
            let _ = alive.send(());
        }));
        answer.await.is_ok()
    }
}
