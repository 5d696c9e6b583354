use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use actornot_core::seam::Mistake;
use actornot_core::{EntityId, LockableQueue, MessageId};
use async_trait::async_trait;

use crate::{Bug, MemoryQueue, Oddity};

/// One configuration of one adapter, as the suite needs it. Each behaviour makes its own.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Another instance on the same, at first empty, namespace, as another process would open it.
    async fn open(&self) -> Arc<dyn LockableQueue>;

    /// The database's time moves on: its clock, or every moment it has stored moves the other way.
    async fn elapse(&self, time: Duration);

    /// Replaces the bytes of a stored message, as a disk or an operator might.
    async fn corrupt_payload(&self, entity: &EntityId, id: &MessageId, payload: &str);

    /// Replaces the bytes of a stored state, as a disk or an operator might.
    async fn corrupt_state(&self, entity: &EntityId, json: &str);

    /// Calls a stored entity, and all that points to it, by a key that is none, as an operator might.
    async fn corrupt_key(&self, entity: &EntityId, key: &str);

    /// Keeps every writer of the namespace waiting, from outside, until the answer is dropped.
    async fn freeze(&self) -> Box<dyn Any + Send>;

    /// A mistake that the loop over this backend makes, for the test of the suite itself.
    #[doc(hidden)]
    fn mistake(&self) -> Option<Mistake> {
        None
    }
}

/// The reference queue as a backend.
#[derive(Debug)]
pub struct MemoryBackend {
    queue: MemoryQueue,
    mistake: Option<Mistake>,
}

impl MemoryBackend {
    /// The reference queue.
    pub fn sound() -> Self {
        Self { queue: MemoryQueue::new(), mistake: None }
    }

    /// The reference queue with one mistake.
    pub fn with_bug(bug: Bug) -> Self {
        Self { queue: MemoryQueue::with_bug(bug), mistake: None }
    }

    /// The reference queue, under a loop with one mistake.
    pub fn with_mistake(mistake: Mistake) -> Self {
        Self { queue: MemoryQueue::new(), mistake: Some(mistake) }
    }

    /// The reference queue, doing something unusual but legal.
    pub fn with_oddity(oddity: Oddity) -> Self {
        Self { queue: MemoryQueue::with_oddity(oddity), mistake: None }
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    async fn open(&self) -> Arc<dyn LockableQueue> {
        Arc::new(self.queue.clone())
    }

    async fn elapse(&self, time: Duration) {
        self.queue.elapse(time);
    }

    async fn corrupt_payload(&self, entity: &EntityId, id: &MessageId, payload: &str) {
        self.queue.corrupt_payload(entity, id, payload);
    }

    async fn corrupt_state(&self, entity: &EntityId, json: &str) {
        self.queue.corrupt_state(entity, json);
    }

    async fn corrupt_key(&self, entity: &EntityId, _: &str) {
        self.queue.corrupt_key(entity);
    }

    async fn freeze(&self) -> Box<dyn Any + Send> {
        Box::new(self.queue.freeze().await)
    }

    fn mistake(&self) -> Option<Mistake> {
        self.mistake
    }
}
