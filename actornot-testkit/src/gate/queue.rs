//! The gate as the loop sees it.

use std::sync::Arc;

use actornot_core::{
    Capabilities, Commit, DeadLetter, Due, DueQuery, DurabilityReport, Enqueue, Enqueued, EntityId, Error,
    ErrorKind, Grant, Heartbeat, Inspect, Lease, Location, LockableQueue, MessageId, Position, Snapshot,
    StoredMessage, TryLock, Updated, Why,
};
use async_trait::async_trait;

use super::{Gate, Verb};

/// The gate as the loop's queue.
#[derive(Clone)]
pub(crate) struct Gated(pub(crate) Arc<Gate>);

#[async_trait]
impl LockableQueue for Gated {
    async fn enqueue(&self, items: &[Enqueue]) -> Vec<Result<Enqueued, Error>> {
        let messages = items.iter().flat_map(|item| item.messages.iter().map(|message| message.id.as_str()));
        let names = items.iter().map(|item| item.entity.key()).chain(messages);
        if let Some(error) = self.0.refused(names) {
            return error.for_some_of(items.len());
        }
        let served: Vec<Enqueue> =
            items.iter().filter(|item| !self.0.is_shut(&item.entity)).cloned().collect();
        let call = self.0.inner.enqueue(&served);
        let mut answers = self.0.each(Verb::Enqueue, served.len(), call).await.into_iter();
        let unavailable = || Err(Error::new(ErrorKind::Unavailable, "the entity is out of reach"));
        items
            .iter()
            .filter_map(
                |item| if self.0.is_shut(&item.entity) { Some(unavailable()) } else { answers.next() },
            )
            .collect()
    }

    async fn try_lock(&self, items: &[TryLock]) -> Vec<Result<Option<Grant>, Error>> {
        self.0.each(Verb::TryLock, items.len(), self.0.inner.try_lock(items)).await
    }

    async fn update_locked(&self, commits: &[Commit]) -> Vec<Result<Updated, Error>> {
        if let Some(error) = self.0.refused(commits.iter().map(|commit| commit.lease.entity.key())) {
            return error.for_some_of(commits.len());
        }
        self.0.each(Verb::Update, commits.len(), self.0.inner.update_locked(commits)).await
    }

    async fn release(&self, leases: &[Lease]) -> Vec<Result<bool, Error>> {
        self.0.each(Verb::Release, leases.len(), self.0.inner.release(leases)).await
    }

    async fn due(&self, query: &DueQuery) -> Result<Due, Error> {
        self.0.pass(Verb::Due, 1, self.0.inner.due(query)).await?
    }

    async fn heartbeat(&self) -> Result<Box<dyn Heartbeat>, Error> {
        self.0.inner.heartbeat().await
    }

    fn capabilities(&self) -> Capabilities {
        self.0.inner.capabilities()
    }
}

#[async_trait]
impl Inspect for Gated {
    async fn read(&self, entities: &[EntityId]) -> Result<Vec<Option<Snapshot>>, Error> {
        self.0.inner.read(entities).await
    }

    async fn list(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(EntityId, Snapshot)>, Error> {
        self.0.inner.list(kind, after, limit).await
    }

    async fn peek(&self, entity: &EntityId, limit: u32) -> Result<Vec<StoredMessage>, Error> {
        self.0.inner.peek(entity, limit).await
    }

    async fn locate(&self, entity: &EntityId, ids: &[MessageId]) -> Result<Vec<Location>, Error> {
        self.0.inner.locate(entity, ids).await
    }

    async fn why(&self, entity: &EntityId) -> Result<Option<Why>, Error> {
        self.0.inner.why(entity).await
    }

    async fn dead_letters(
        &self,
        kind: &str,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, Error> {
        self.0.inner.dead_letters(kind, after, limit).await
    }

    async fn redrive(&self, letter: &DeadLetter, to: Position) -> Result<bool, Error> {
        self.0.inner.redrive(letter, to).await
    }

    async fn pause(&self, entity: &EntityId, reason: &str) -> Result<(), Error> {
        self.0.inner.pause(entity, reason).await
    }

    async fn resume(&self, entity: &EntityId) -> Result<bool, Error> {
        self.0.inner.resume(entity).await
    }

    async fn purge(&self, entity: &EntityId) -> Result<bool, Error> {
        self.0.inner.purge(entity).await
    }

    async fn doctor(&self) -> Result<DurabilityReport, Error> {
        self.0.inner.doctor().await
    }
}
