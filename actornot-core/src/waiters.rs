use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::{EntityId, MessageId, Settled};

/// Those who wait, by what they wait for.
type Waiting = HashMap<(EntityId, MessageId), Vec<oneshot::Sender<Settled>>>;

/// Who in this process waits for which message. Empty, and then free, unless somebody calls `settled`.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: Mutex<Waiting>,
    /// Entries in `waiting`, so that a commit nobody waits for takes no lock.
    entries: AtomicUsize,
}

impl Waiters {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes when this process settles the message.
    pub(crate) fn wait(&self, entity: &EntityId, id: &MessageId) -> oneshot::Receiver<Settled> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting();
        waiting.entry((entity.clone(), id.clone())).or_default().push(sender);
        self.entries.store(waiting.len(), Ordering::Release);
        receiver
    }

    /// Forgets those who gave up.
    pub(crate) fn forget(&self, entity: &EntityId, id: &MessageId) {
        let mut waiting = self.waiting();
        let key = (entity.clone(), id.clone());
        if let Some(senders) = waiting.get_mut(&key) {
            senders.retain(|sender| !sender.is_closed());
            if senders.is_empty() {
                waiting.remove(&key);
            }
        }
        self.entries.store(waiting.len(), Ordering::Release);
    }

    /// How many messages are waited for.
    pub(crate) fn count(&self) -> usize {
        self.entries.load(Ordering::Acquire)
    }

    /// These messages are settled.
    pub(crate) fn tell(&self, entity: &EntityId, ids: &[MessageId], settled: Settled) {
        if ids.is_empty() || self.count() == 0 {
            return;
        }
        let mut waiting = self.waiting();
        for id in ids {
            for sender in waiting.remove(&(entity.clone(), id.clone())).into_iter().flatten() {
                let _ = sender.send(settled);
            }
        }
        self.entries.store(waiting.len(), Ordering::Release);
    }
}
