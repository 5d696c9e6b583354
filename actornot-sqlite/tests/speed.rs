//! How fast: `cargo test --release -p actornot-sqlite --test speed -- --ignored --nocapture`.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

use std::time::{Duration, Instant};

use actornot_core::{
    Commit, CommitId, Enqueue, EntityId, Headers, LockRequest, LockableQueue, MessageId, NewMessage,
    NewState, Next, Nonce, Updated, Verdict,
};
use actornot_sqlite::SqliteQueue;
use actornot_sqlite::sqlx::{self, ConnectOptions, sqlite::SqliteConnectOptions};

fn post(key: usize, n: u128, lock: bool) -> Enqueue {
    let id = MessageId::from_random(n);
    let payload = format!("{{\"delta\":{n}}}");
    let retention = Duration::from_secs(600);
    let message = NewMessage { id, payload, headers: Headers::new(), delay: Duration::ZERO, retention };
    let request =
        LockRequest { nonce: Nonce::from_random(n), length: Duration::from_secs(30), max_batch: 64 };
    Enqueue {
        entity: EntityId::new("counter", format!("k{key}")).unwrap(),
        messages: vec![message],
        backlog_limit: 1_000_000,
        lock: lock.then_some(request),
    }
}

async fn round(queue: &SqliteQueue, first: usize, n: u128) {
    let items: Vec<_> = (0..64).map(|i| post((first + i) % 1000, n * 64 + i as u128 + 1, true)).collect();
    let grants = queue.enqueue(&items).await.into_iter().map(|item| item.unwrap().grant.unwrap());
    let commits: Vec<_> = grants
        .enumerate()
        .map(|(i, grant)| Commit {
            id: CommitId::from_random(n * 64 + i as u128 + 1),
            acked: grant.batch.ids(),
            lease: grant.lease,
            state: Some(NewState { json: "{\"value\":1}".into(), state_version: 1 }),
            verdict: Verdict::Proceed,
            effects: vec![],
            batch_limit: 64,
            next: Next::Batch { max: 64 },
        })
        .collect();
    for answer in queue.update_locked(&commits).await {
        assert_eq!(answer.unwrap(), Updated::Released { next_due: None });
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, asserts nothing"]
async fn how_fast() {
    let dir = tempfile::TempDir::new().unwrap();
    let url = format!("sqlite:{}", dir.path().join("test.db").display());
    let queue = SqliteQueue::connect(&url).await.unwrap();
    for n in 0..16 {
        round(&queue, n as usize * 64, n).await;
    }
    let began = Instant::now();
    let rounds = 150;
    for n in 16..16 + rounds {
        round(&queue, n as usize * 64, n).await;
    }
    println!("slices of 64: {:.0} messages/s", rounds as f64 * 64.0 / began.elapsed().as_secs_f64());

    let mut item = post(2000, 1, false);
    for n in 0..100u128 {
        item.messages =
            (0..1000).map(|i| post(0, 1_000_000 + n * 1000 + i, false).messages.remove(0)).collect();
        queue.enqueue(&[item.clone()]).await.remove(0).unwrap();
    }
    for (name, key) in [("empty", 3000), ("100,000 pending", 2000)] {
        let began = Instant::now();
        for n in 0..200 {
            queue.enqueue(&[post(key, 5_000_000 + n, false)]).await.remove(0).unwrap();
        }
        println!("one post, {name}: {:?}", began.elapsed() / 200);
        let mut item = post(key, 6_000_000, true);
        let began = Instant::now();
        let mut grant = queue.enqueue(&[item.clone()]).await.remove(0).unwrap().grant.unwrap();
        println!("one grant, {name}: {:?}", began.elapsed());
        let began = Instant::now();
        for n in 0..50 {
            let commit = Commit {
                id: CommitId::from_random(7_000_000 + n),
                acked: vec![grant.batch.messages[0].id.clone()],
                lease: grant.lease.clone(),
                state: None,
                verdict: Verdict::Proceed,
                effects: vec![],
                batch_limit: 64,
                next: Next::Batch { max: 1 },
            };
            if let Updated::Continue { fence, batch } =
                queue.update_locked(&[commit]).await.remove(0).unwrap()
            {
                (grant.lease.fence, grant.batch) = (fence, batch);
            }
        }
        println!("one commit, {name}: {:?}", began.elapsed() / 50);
        item.lock = None;
    }

    let options = SqliteConnectOptions::new().filename(dir.path().join("plain.db")).create_if_missing(true);
    let mut db = options.pragma("journal_mode", "WAL").pragma("synchronous", "FULL").connect().await.unwrap();
    sqlx::query("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)").execute(&mut db).await.unwrap();
    let began = Instant::now();
    for _ in 0..1000 {
        sqlx::query("INSERT INTO t (v) VALUES ('{\"delta\":1}')").execute(&mut db).await.unwrap();
    }
    println!("single-row inserts: {:.0}/s", 1000.0 / began.elapsed().as_secs_f64());
}
