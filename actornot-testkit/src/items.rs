//! What the verbs take, with values that do for a test: for what an adapter tests besides the suite.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actornot_core::{
    Commit, CommitId, Enqueue, Enqueued, EntityId, Grant, Headers, Lease, LockRequest, LockableQueue,
    MessageId, NewMessage, NewState, Next, Nonce, TryLock, Verdict,
};

/// A number that this process has not used yet.
pub fn unique() -> u128 {
    static COUNTER: AtomicU64 = AtomicU64::new(1);
    u128::from(COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// An entity of the kind `counter`.
///
/// # Panics
/// If the key is not legal.
pub fn entity(key: &str) -> EntityId {
    EntityId::new("counter", key).expect("a legal key")
}

/// A message that is remembered for a minute.
///
/// # Panics
/// If the id is not legal.
pub fn message(id: &str) -> NewMessage {
    NewMessage {
        id: MessageId::new(id).expect("a legal id"),
        payload: format!("{{\"id\":\"{id}\"}}"),
        headers: Headers::new(),
        delay: Duration::ZERO,
        retention: Duration::from_secs(60),
    }
}

/// One message for one entity, without its lock.
pub fn post(key: &str, id: &str) -> Enqueue {
    Enqueue { entity: entity(key), messages: vec![message(id)], backlog_limit: 1_000_000, lock: None }
}

/// A lock for half a minute, under a nonce of its own.
pub fn request() -> LockRequest {
    LockRequest { nonce: Nonce::from_random(unique()), length: Duration::from_secs(30), max_batch: 64 }
}

/// A commit that saves a state and goes on.
pub fn commit(lease: &Lease, acked: Vec<MessageId>) -> Commit {
    Commit {
        id: CommitId::from_random(unique()),
        lease: lease.clone(),
        state: Some(NewState { json: "{\"value\":1}".into(), state_version: 1 }),
        acked,
        verdict: Verdict::Proceed,
        effects: vec![],
        batch_limit: 64,
        next: Next::Batch { max: 64 },
    }
}

/// Posts an item.
///
/// # Panics
/// If it is refused.
pub async fn ok(queue: &impl LockableQueue, item: Enqueue) -> Enqueued {
    queue.enqueue(&[item]).await.remove(0).expect("it is stored")
}

/// Asks for a lock.
///
/// # Panics
/// If the call fails.
pub async fn lock(queue: &impl LockableQueue, key: &str) -> Option<Grant> {
    queue.try_lock(&[TryLock { entity: entity(key), request: request() }]).await.remove(0).expect("an answer")
}
