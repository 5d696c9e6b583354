//! Messages that share a row.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use actornot_core::{
    Inspect, Location, LockRequest, LockableQueue, MessageId, Next, Position, TryLock, Updated, Verdict,
};
use actornot_postgres::PostgresQueue;

use crate::common::*;

/// Posts them in one call.
async fn together(queue: &PostgresQueue, ids: impl Iterator<Item = usize>, payload: Option<&str>) {
    let mut item = post("a", "0");
    item.messages = ids.flat_map(|id| post("a", &id.to_string()).messages).collect();
    for message in &mut item.messages {
        message.payload = payload.unwrap_or(&message.payload).into();
    }
    ok(queue, item).await;
}

/// How many messages each row has.
async fn rows(namespace: &Namespace) -> Vec<i32> {
    let text = format!("SELECT count FROM {}.message ORDER BY seq", namespace.0);
    let query = actornot_postgres::sqlx::query_scalar(actornot_postgres::sqlx::AssertSqlSafe(text));
    query.fetch_all(&mut outside().await).await.unwrap()
}

/// Runs so many at a time until the lock is let go, and tells the ids of each batch.
async fn batches(queue: &PostgresQueue, max_batch: u32) -> Vec<Vec<String>> {
    let request = LockRequest { max_batch, ..request() };
    let locked = queue.try_lock(&[TryLock { entity: entity("a"), request }]).await.remove(0);
    let Some(grant) = locked.unwrap() else { return Vec::new() };
    let (mut lease, mut batch, mut found) = (grant.lease, grant.batch, Vec::new());
    loop {
        found.push(batch.ids().iter().map(|id| id.as_str().to_owned()).collect());
        let mut next = commit(&lease, batch.ids());
        next.next = Next::Batch { max: max_batch };
        match queue.update_locked(&[next]).await.remove(0).unwrap() {
            Updated::Continue { fence, batch: more } => (lease.fence, batch) = (fence, more),
            _ => return found,
        }
    }
}

#[tokio::test]
async fn what_comes_together_shares_a_row_up_to_a_limit() {
    let namespace = Namespace::new();
    let queue = namespace.open().await;
    together(&queue, 0..100, None).await;
    together(&queue, 100..101, None).await;
    let large = format!("\"{}\"", "x".repeat(40 << 10));
    together(&queue, 101..103, Some(&large)).await;
    assert_eq!(rows(&namespace).await, [64, 36, 1, 1, 1]);
}

/// A part of a row is settled: the rest of it is found, looked at and handed out, and nothing else.
#[tokio::test]
async fn a_row_is_settled_part_by_part() {
    let namespace = Namespace::new();
    let queue = namespace.open().await;
    together(&queue, 0..7, None).await;
    let request = LockRequest { max_batch: 3, ..request() };
    let grant = queue.try_lock(&[TryLock { entity: entity("a"), request }]).await.remove(0).unwrap().unwrap();
    let mut settled = commit(&grant.lease, grant.batch.ids());
    settled.next = Next::Release;
    queue.update_locked(&[settled]).await.remove(0).unwrap();

    let ids = ["0", "2", "3", "6"].map(|id| MessageId::new(id).unwrap());
    let found = queue.locate(&entity("a"), &ids).await.unwrap();
    assert_eq!(found, [Location::Gone, Location::Gone, Location::Queued, Location::Queued]);
    let seen = queue.peek(&entity("a"), 2).await.unwrap();
    assert_eq!(seen.iter().map(|message| message.id.as_str()).collect::<Vec<_>>(), ["3", "4"]);
    let pending = format!("SELECT count(*) FROM {}.pending_messages", namespace.0);
    assert_eq!(number(&mut outside().await, &pending).await, 4);
    assert_eq!(batches(&queue, 3).await, [vec!["3", "4", "5"], vec!["6"]]);
    assert_eq!(rows(&namespace).await, [0; 0]);
}

/// A letter that returns to the head takes a number before the others, and leaves no gap behind them that would end a batch.
#[tokio::test]
async fn a_redriven_letter_and_what_stands_behind_it_are_one_batch() {
    let namespace = Namespace::new();
    let queue = namespace.open().await;
    together(&queue, 0..3, None).await;
    let grant = lock(&queue, "a").await.unwrap();
    let mut dead = commit(&grant.lease, vec![]);
    (dead.verdict, dead.next) = (Verdict::DeadLetter { error: "no".into() }, Next::Release);
    queue.update_locked(&[dead]).await.remove(0).unwrap();
    let letter = queue.dead_letters("counter", None, 1).await.unwrap().remove(0);
    assert!(queue.redrive(&letter, Position::Head).await.unwrap());
    together(&queue, 3..4, None).await;
    assert_eq!(batches(&queue, 64).await, [["0", "1", "2", "3"]]);
}

/// What is left of the batch is settled with it.
#[tokio::test]
async fn a_row_that_is_deleted_by_hand_during_its_run_is_not_missed() {
    let namespace = Namespace::new();
    let queue = namespace.open().await;
    for first in [0, 2, 4] {
        together(&queue, first..first + 2, None).await;
    }
    let grant = lock(&queue, "a").await.unwrap();
    assert_eq!(grant.batch.messages.len(), 6);
    sql(&mut outside().await, format!("DELETE FROM {}.message WHERE '3' = ANY (ids)", namespace.0)).await;
    let updated = queue.update_locked(&[commit(&grant.lease, grant.batch.ids())]).await.remove(0).unwrap();
    assert!(matches!(updated, Updated::Released { next_due: None }), "{updated:?}");
    assert_eq!(
        (rows(&namespace).await, queue.why(&entity("a")).await.unwrap().unwrap().pending),
        (vec![], 0)
    );
}

/// A batch ends where numbers are missing, and the next one begins behind them.
#[tokio::test]
async fn rows_that_were_deleted_by_hand_hide_none_behind_them() {
    for gone in ["1", "3", "5"] {
        let namespace = Namespace::new();
        let queue = namespace.open().await;
        for first in [0, 2, 4] {
            together(&queue, first..first + 2, None).await;
        }
        let delete = format!("DELETE FROM {}.message WHERE '{gone}' = ANY (ids)", namespace.0);
        sql(&mut outside().await, delete).await;
        let found: Vec<String> = batches(&queue, 64).await.concat();
        let gone: usize = gone.parse().unwrap();
        let left = (0..6).filter(|id| *id != gone && *id != gone - 1).map(|id| id.to_string());
        assert_eq!(found, left.collect::<Vec<_>>(), "without {gone}");
        assert_eq!(batches(&queue, 64).await.len(), 0);
        let pending = queue.why(&entity("a")).await.unwrap().unwrap().pending;
        assert_eq!(pending, 0, "without {gone}");
    }
}
