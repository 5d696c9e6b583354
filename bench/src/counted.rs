//! A queue that counts what goes through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actornot_core::{
    Capabilities, Commit, DeadLetter, Due, DueQuery, DurabilityReport, Enqueue, Enqueued, EntityId, Error,
    Grant, Heartbeat, Inspect, Lease, Location, LockableQueue, MessageId, Position, Snapshot, StoredMessage,
    TryLock, Updated, Why,
};
use async_trait::async_trait;
use tokio::sync::watch;

/// Hands every call on; knows how many there were, and how many messages were committed.
pub(crate) struct Counted {
    queue: Arc<dyn LockableQueue>,
    trips: AtomicU64,
    committed: watch::Sender<u64>,
}

impl Counted {
    pub(crate) fn new(queue: Arc<dyn LockableQueue>) -> Arc<Self> {
        Arc::new(Self { queue, trips: AtomicU64::new(0), committed: watch::Sender::new(0) })
    }

    /// Calls of the adapter until now: round trips, for those adapters that need one a call.
    pub(crate) fn trips(&self) -> u64 {
        self.trips.load(Ordering::Relaxed)
    }

    /// Messages that a commit of this process has settled.
    pub(crate) fn committed(&self) -> u64 {
        *self.committed.borrow()
    }

    /// Completes when so many are.
    pub(crate) async fn until(&self, messages: u64) {
        // The sender is part of this.
        let _ = self.committed.subscribe().wait_for(|committed| *committed >= messages).await;
    }

    fn count(&self) -> &dyn LockableQueue {
        self.trips.fetch_add(1, Ordering::Relaxed);
        &*self.queue
    }
}

#[async_trait]
impl LockableQueue for Counted {
    async fn enqueue(&self, items: &[Enqueue]) -> Vec<Result<Enqueued, Error>> {
        self.count().enqueue(items).await
    }

    async fn try_lock(&self, items: &[TryLock]) -> Vec<Result<Option<Grant>, Error>> {
        self.count().try_lock(items).await
    }

    async fn update_locked(&self, commits: &[Commit]) -> Vec<Result<Updated, Error>> {
        let answers = self.count().update_locked(commits).await;
        let settled = |(commit, answer): (&Commit, &Result<Updated, Error>)| match answer {
            Ok(Updated::Continue { .. } | Updated::Released { .. }) => commit.acked.len() as u64,
            _ => 0,
        };
        let settled: u64 = commits.iter().zip(&answers).map(settled).sum();
        self.committed.send_modify(|committed| *committed += settled);
        answers
    }

    async fn release(&self, leases: &[Lease]) -> Vec<Result<bool, Error>> {
        self.count().release(leases).await
    }

    async fn due(&self, query: &DueQuery) -> Result<Due, Error> {
        self.count().due(query).await
    }

    async fn heartbeat(&self) -> Result<Box<dyn Heartbeat>, Error> {
        self.count().heartbeat().await
    }

    fn capabilities(&self) -> Capabilities {
        self.queue.capabilities()
    }
}

#[async_trait]
impl Inspect for Counted {
    async fn read(&self, entities: &[EntityId]) -> Result<Vec<Option<Snapshot>>, Error> {
        self.count().read(entities).await
    }

    async fn list(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(EntityId, Snapshot)>, Error> {
        self.count().list(kind, after, limit).await
    }

    async fn peek(&self, entity: &EntityId, limit: u32) -> Result<Vec<StoredMessage>, Error> {
        self.count().peek(entity, limit).await
    }

    async fn locate(&self, entity: &EntityId, ids: &[MessageId]) -> Result<Vec<Location>, Error> {
        self.count().locate(entity, ids).await
    }

    async fn why(&self, entity: &EntityId) -> Result<Option<Why>, Error> {
        self.count().why(entity).await
    }

    async fn dead_letters(
        &self,
        kind: &str,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, Error> {
        self.count().dead_letters(kind, after, limit).await
    }

    async fn redrive(&self, letter: &DeadLetter, to: Position) -> Result<bool, Error> {
        self.count().redrive(letter, to).await
    }

    async fn pause(&self, entity: &EntityId, reason: &str) -> Result<(), Error> {
        self.count().pause(entity, reason).await
    }

    async fn resume(&self, entity: &EntityId) -> Result<bool, Error> {
        self.count().resume(entity).await
    }

    async fn purge(&self, entity: &EntityId) -> Result<bool, Error> {
        self.count().purge(entity).await
    }

    async fn doctor(&self) -> Result<DurabilityReport, Error> {
        self.count().doctor().await
    }
}
