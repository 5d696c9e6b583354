//! What the tests of this crate share.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)] // Each test binary uses its part.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use actornot_core::{
    Commit, CommitId, Enqueue, Enqueued, EntityId, Grant, Headers, Lease, LockRequest, LockableQueue,
    MessageId, NewMessage, NewState, Next, Nonce, TryLock, Verdict,
};
use actornot_sqlite::SqliteQueue;
use actornot_sqlite::sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use actornot_sqlite::sqlx::{self, ConnectOptions};
use tempfile::TempDir;

static COUNTER: AtomicU64 = AtomicU64::new(1);

pub(crate) fn unique() -> u128 {
    u128::from(COUNTER.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn entity(key: &str) -> EntityId {
    EntityId::new("counter", key).unwrap()
}

pub(crate) fn message(id: &str) -> NewMessage {
    NewMessage {
        id: MessageId::new(id).unwrap(),
        payload: format!("{{\"id\":\"{id}\"}}"),
        headers: Headers::new(),
        delay: Duration::ZERO,
        retention: Duration::from_secs(60),
    }
}

pub(crate) fn post(key: &str, id: &str) -> Enqueue {
    Enqueue { entity: entity(key), messages: vec![message(id)], backlog_limit: 1_000_000, lock: None }
}

pub(crate) fn request() -> LockRequest {
    LockRequest { nonce: Nonce::from_random(unique()), length: Duration::from_secs(30), max_batch: 64 }
}

pub(crate) fn commit(lease: &Lease, acked: Vec<MessageId>) -> Commit {
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

pub(crate) fn url(dir: &TempDir) -> String {
    format!("sqlite:{}", dir.path().join("test.db").display())
}

pub(crate) async fn open(dir: &TempDir) -> SqliteQueue {
    SqliteQueue::connect(&url(dir)).await.unwrap()
}

pub(crate) async fn outside(dir: &TempDir) -> SqliteConnection {
    SqliteConnectOptions::new().filename(dir.path().join("test.db")).connect().await.unwrap()
}

pub(crate) async fn sql(connection: &mut SqliteConnection, text: &'static str) {
    sqlx::query(text).execute(connection).await.unwrap();
}

pub(crate) async fn ok(queue: &SqliteQueue, item: Enqueue) -> Enqueued {
    queue.enqueue(&[item]).await.remove(0).unwrap()
}

pub(crate) async fn lock(queue: &SqliteQueue, key: &str) -> Option<Grant> {
    queue.try_lock(&[TryLock { entity: entity(key), request: request() }]).await.remove(0).unwrap()
}

/// Polls a future so many times, each when it is woken, and then drops it; `true` if it finished.
pub(crate) async fn poll_times<F: Future>(future: F, times: usize) -> bool {
    let mut future = Box::pin(future);
    let mut polled = 0;
    std::future::poll_fn(move |cx| {
        polled += 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if polled >= times => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
