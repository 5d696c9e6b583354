//! Every verb with its reply lost, its caller dropped, its client crashed before and after, its holder stale, and a
//! late duplicate of an earlier call: G4, G10.

pub(crate) mod due;
pub(crate) mod enqueue;
pub(crate) mod extend_lock;
pub(crate) mod release;
pub(crate) mod try_lock;
pub(crate) mod update_locked;

use std::future::Future;
use std::task::Poll;

/// Polls a call at most `polls` times and then drops it; `None` if it was dropped.
pub(crate) async fn dropped_after<T>(polls: usize, call: impl Future<Output = T>) -> Option<T> {
    let mut call = Box::pin(call);
    let mut polled = 0;
    std::future::poll_fn(move |cx| {
        if polled == polls {
            return Poll::Ready(None);
        }
        polled += 1;
        match call.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            // The next wake-up comes back here, and drops it if that was its last poll.
            Poll::Pending if polled == polls => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// More polls than any verb takes.
pub(crate) const POLLS: usize = 40;
