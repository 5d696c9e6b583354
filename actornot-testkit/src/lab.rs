//! What behaviours are written with: instances of a backend, and calls that read like sentences.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actornot_core::{
    Admission, Commit, CommitId, Due, DueQuery, Effect, Enqueue, Enqueued, EntityId, Envelope, Error,
    ErrorKind, Grant, HandedOut, Headers, Lease, LockRequest, LockableQueue, MessageId, NewMessage, NewState,
    Next, Nonce, Snapshot, TryLock, Updated, Verdict, Waiting, Why,
};

use crate::Backend;

/// How long leases last in behaviours.
pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// Long enough for the database to let a lease run out.
pub(crate) const PAST_LEASE: Duration = Duration::from_secs(31);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

/// A backend, and names that are used once.
pub(crate) struct Lab {
    pub(crate) backend: Box<dyn Backend>,
    names: Arc<AtomicU64>,
}

/// One instance of a backend: another process, as far as the database can tell.
#[derive(Clone)]
pub(crate) struct Instance<'a> {
    pub(crate) queue: Arc<dyn LockableQueue>,
    lab: &'a Lab,
}

impl Lab {
    pub(crate) fn new(backend: impl Backend) -> Self {
        Self { backend: Box::new(backend), names: Arc::new(AtomicU64::new(1)) }
    }

    pub(crate) async fn open(&self) -> Instance<'_> {
        Instance { queue: self.backend.open().await, lab: self }
    }

    pub(crate) async fn elapse(&self, time: Duration) {
        self.backend.elapse(time).await;
    }

    /// The numbers that [`fresh`](Self::fresh) draws from.
    pub(crate) fn numbers(&self) -> Arc<AtomicU64> {
        self.names.clone()
    }

    /// A number that was not used in this lab before.
    pub(crate) fn fresh(&self) -> u128 {
        u128::from(self.names.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn nonce(&self) -> Nonce {
        Nonce::from_random(self.fresh())
    }
}

pub(crate) fn entity(key: &str) -> EntityId {
    EntityId::new("thing", key).expect("a legal key")
}

pub(crate) fn id(id: &str) -> MessageId {
    MessageId::new(id).expect("a legal id")
}

/// A message whose payload is its id, as JSON.
pub(crate) fn message(name: &str) -> NewMessage {
    NewMessage {
        id: id(name),
        payload: format!("{name:?}"),
        headers: Headers::new(),
        delay: Duration::ZERO,
        retention: DAY,
    }
}

pub(crate) fn delayed(name: &str, delay: Duration) -> NewMessage {
    NewMessage { delay, ..message(name) }
}

pub(crate) fn messages(names: &[&str]) -> Vec<NewMessage> {
    names.iter().map(|name| message(name)).collect()
}

pub(crate) fn names(batch: &HandedOut) -> Vec<String> {
    batch.messages.iter().map(|message| message.id.to_string()).collect()
}

pub(crate) fn send(to: &EntityId, message: NewMessage) -> Effect {
    Effect::Send(Envelope { entity: to.clone(), message })
}

/// A commit in the making: acknowledges everything, keeps the state, goes on.
#[derive(Clone)]
pub(crate) struct Draft(pub(crate) Commit);

impl Draft {
    pub(crate) fn of(lab: &Lab, lease: &Lease, batch: &HandedOut) -> Self {
        Self(Commit {
            id: CommitId::from_random(lab.fresh()),
            lease: lease.clone(),
            state: None,
            acked: batch.ids(),
            verdict: Verdict::Proceed,
            effects: Vec::new(),
            batch_limit: 64,
            next: Next::Batch { max: 64 },
        })
    }

    pub(crate) fn state(mut self, json: &str) -> Self {
        self.0.state = Some(NewState { json: json.to_owned(), state_version: 1 });
        self
    }

    pub(crate) fn ack(mut self, n: usize) -> Self {
        self.0.acked.truncate(n);
        self
    }

    pub(crate) fn verdict(mut self, verdict: Verdict) -> Self {
        self.0.verdict = verdict;
        self
    }

    pub(crate) fn dead_letter(self, error: &str) -> Self {
        self.ack(0).verdict(Verdict::DeadLetter { error: error.to_owned() })
    }

    pub(crate) fn wait(self, why: Waiting, after: Duration) -> Self {
        let error = Some("it failed".to_owned());
        self.ack(0).verdict(Verdict::Wait { why, after, error })
    }

    pub(crate) fn effect(mut self, effect: Effect) -> Self {
        self.0.effects.push(effect);
        self
    }

    pub(crate) fn batch_limit(mut self, limit: u32) -> Self {
        self.0.batch_limit = limit;
        self
    }

    pub(crate) fn release(mut self) -> Self {
        self.0.next = Next::Release;
        self
    }
}

/// The only answer of a slice of one.
fn only<T>(answers: Vec<Result<T, Error>>) -> Result<T, Error> {
    let n = answers.len();
    let mut answers = answers.into_iter();
    match (answers.next(), n) {
        (Some(answer), 1) => answer,
        _ => Err(Error::new(ErrorKind::Conflict, format!("{n} answers to a slice of one"))),
    }
}

impl<'a> Instance<'a> {
    pub(crate) fn enqueue(&self, entity: &EntityId, messages: Vec<NewMessage>) -> Enqueue {
        Enqueue { entity: entity.clone(), messages, backlog_limit: 1000, lock: None }
    }

    pub(crate) fn lock_request(&self) -> LockRequest {
        LockRequest { nonce: self.lab.nonce(), length: LEASE, max_batch: 64 }
    }

    pub(crate) async fn send_item(&self, item: &Enqueue) -> Result<Enqueued, Error> {
        only(self.queue.enqueue(std::slice::from_ref(item)).await)
    }

    pub(crate) async fn post_all(
        &self,
        entity: &EntityId,
        messages: Vec<NewMessage>,
    ) -> Result<Vec<Admission>, Error> {
        Ok(self.send_item(&self.enqueue(entity, messages)).await?.admissions)
    }

    pub(crate) async fn post(&self, entity: &EntityId, name: &str) -> Result<Admission, Error> {
        let admissions = self.post_all(entity, vec![message(name)]).await?;
        admissions.first().copied().ok_or_else(|| Error::new(ErrorKind::Conflict, "no admission"))
    }

    pub(crate) async fn ask(&self, entity: &EntityId, request: LockRequest) -> Result<Option<Grant>, Error> {
        only(self.queue.try_lock(&[TryLock { entity: entity.clone(), request }]).await)
    }

    /// One attempt at the lock.
    pub(crate) async fn try_once(&self, entity: &EntityId) -> Result<Option<Grant>, Error> {
        self.ask(entity, self.lock_request()).await
    }

    /// The lock, which must be free. A queue may refuse now and then for reasons of its own.
    pub(crate) async fn lock(&self, entity: &EntityId) -> Result<Grant, Error> {
        self.lock_at_most(entity, 64).await
    }

    pub(crate) async fn lock_at_most(&self, entity: &EntityId, max_batch: u32) -> Result<Grant, Error> {
        for _ in 0..8 {
            let request = LockRequest { max_batch, ..self.lock_request() };
            if let Some(grant) = self.ask(entity, request).await? {
                return Ok(grant);
            }
        }
        Err(Error::new(ErrorKind::Conflict, "the lock was refused eight times").with_entity(entity))
    }

    pub(crate) fn draft(&self, grant: &Grant) -> Draft {
        Draft::of(self.lab, &grant.lease, &grant.batch)
    }

    pub(crate) async fn commit(&self, draft: &Draft) -> Result<Updated, Error> {
        only(self.queue.update_locked(std::slice::from_ref(&draft.0)).await)
    }

    pub(crate) async fn release(&self, lease: &Lease) -> Result<bool, Error> {
        only(self.queue.release(std::slice::from_ref(lease)).await)
    }

    pub(crate) async fn extend(&self, lease: &Lease) -> Result<bool, Error> {
        only(self.queue.heartbeat().await?.extend_lock(std::slice::from_ref(lease)).await)
    }

    pub(crate) async fn due(&self) -> Result<Due, Error> {
        self.queue.due(&DueQuery { kinds: vec!["thing".to_owned()], limit: 100, after: None }).await
    }

    /// Whether `due` reports the entity.
    pub(crate) async fn is_due(&self, entity: &EntityId) -> Result<bool, Error> {
        Ok(self.due().await?.entities.contains(entity))
    }

    pub(crate) async fn snapshot(&self, entity: &EntityId) -> Result<Option<Snapshot>, Error> {
        Ok(self.queue.read(std::slice::from_ref(entity)).await?.into_iter().next().flatten())
    }

    pub(crate) async fn state(&self, entity: &EntityId) -> Result<Option<String>, Error> {
        Ok(self.snapshot(entity).await?.and_then(|snapshot| snapshot.state).map(|state| state.json))
    }

    pub(crate) async fn pending(&self, entity: &EntityId) -> Result<u64, Error> {
        Ok(self.snapshot(entity).await?.map_or(0, |snapshot| snapshot.pending))
    }

    pub(crate) async fn why(&self, entity: &EntityId) -> Result<Why, Error> {
        let why = self.queue.why(entity).await?;
        why.ok_or_else(|| Error::new(ErrorKind::Conflict, "the entity is unknown").with_entity(entity))
    }

    /// The names in the queue, in order.
    pub(crate) async fn queued(&self, entity: &EntityId) -> Result<Vec<String>, Error> {
        let queued = self.queue.peek(entity, 1000).await?;
        Ok(queued.into_iter().map(|message| message.id.to_string()).collect())
    }

    /// Runs the entity until its queue is empty, and tells the names in the order in which they were handed out.
    pub(crate) async fn drain(&self, entity: &EntityId) -> Result<Vec<String>, Error> {
        let grant = self.lock(entity).await?;
        self.drain_from(grant).await
    }

    /// As [`drain`](Self::drain), with a lock that was granted already.
    pub(crate) async fn drain_from(&self, grant: Grant) -> Result<Vec<String>, Error> {
        let Grant { mut lease, mut batch, .. } = grant;
        let mut handled = Vec::new();
        for _ in 0..10_000 {
            handled.extend(names(&batch));
            match self.commit(&Draft::of(self.lab, &lease, &batch)).await? {
                Updated::Continue { fence, batch: next } => (lease.fence, batch) = (fence, next),
                Updated::Released { .. } => return Ok(handled),
                Updated::LockLost => {
                    return Err(Error::new(ErrorKind::Conflict, "the lock was lost while draining"));
                }
            }
        }
        Err(Error::new(ErrorKind::Conflict, "the queue never ends"))
    }
}
