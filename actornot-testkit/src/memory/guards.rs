//! What broken queues leave behind when their calls are dropped, or meet each other.

use std::sync::atomic::Ordering;

use actornot_core::TryLock;

use super::{Bug, MemoryQueue};

/// For the queue that locks rows in the order of the slice: calls of several entities must not meet.
pub(super) struct Crossing<'a>(&'a MemoryQueue, bool);

impl<'a> Crossing<'a> {
    pub(super) fn enter(queue: &'a MemoryQueue, items: usize) -> Self {
        let several = items > 1;
        queue.crossing.fetch_add(usize::from(several), Ordering::Relaxed);
        Self(queue, several)
    }

    pub(super) fn meets_another(&self) -> bool {
        self.1
            && self.0.bug == Some(Bug::RowsLockedInSliceOrder)
            && self.0.crossing.load(Ordering::Relaxed) > 1
    }
}

impl Drop for Crossing<'_> {
    fn drop(&mut self) {
        self.0.crossing.fetch_sub(usize::from(self.1), Ordering::Relaxed);
    }
}

/// For the queue that a dropped call wedges.
pub(super) struct Wedge<'a>(pub(super) bool, pub(super) &'a MemoryQueue);

impl Wedge<'_> {
    pub(super) fn passed(mut self) {
        self.0 = false;
    }
}

impl Drop for Wedge<'_> {
    fn drop(&mut self) {
        if self.0 {
            self.1.store().wedged = true;
        }
    }
}

/// For the queue whose grants are known by a name that only their reply tells: dropped before it, they are leaked.
pub(super) struct Leak<'a>(pub(super) &'a [TryLock], pub(super) &'a MemoryQueue);

impl Drop for Leak<'_> {
    fn drop(&mut self) {
        for TryLock { entity, request } in self.0 {
            let mut store = self.1.store();
            let row = store.row(entity);
            if row.nonce == Some(request.nonce) {
                row.nonce = None;
            }
        }
    }
}
