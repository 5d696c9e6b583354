//! Disks, files and other programs that get in the way.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::time::{Duration, Instant};

use actornot_core::{
    Admission, Batch, Context, ErrorKind, Failure, Inspect, LockableQueue, MailboxPoster, Retry, Runner,
    Settled, TryLock,
};
use actornot_sqlite::sqlx::ConnectOptions;
use actornot_sqlite::sqlx::sqlite::SqliteConnectOptions;
use actornot_sqlite::{SqliteConfig, SqliteQueue};
use tempfile::TempDir;

use crate::common::*;

#[tokio::test]
async fn a_file_that_cannot_be_written_is_a_typed_error_that_names_it() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir).await);
    let junk = dir.path().join("junk.db").display().to_string();
    std::fs::write(&junk, vec![b'x'; 8192]).unwrap();
    let test = dir.path().join("test.db").display().to_string();
    let missing = dir.path().join("missing.db").display().to_string();
    let nowhere = "/nowhere/at/all/test.db".to_owned();
    for (name, mode, kind) in [
        (&test, "?mode=ro", ErrorKind::ReadOnly),
        (&nowhere, "", ErrorKind::AccessDenied),
        (&missing, "?mode=rw", ErrorKind::AccessDenied),
        (&junk, "", ErrorKind::Corrupt),
    ] {
        let error = SqliteQueue::connect(&format!("sqlite:{name}{mode}")).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (kind, Retry::Never), "{error}");
        assert!(error.to_string().starts_with(&format!("{name}: ")), "{error}");
    }
    let error = SqliteQueue::connect("sqlite:/nowhere/at/all/test.db").await.unwrap_err().to_string();
    assert!(error.contains("does its directory exist, and may this user write there?"), "{error}");
    assert!(!std::path::Path::new(&missing).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outside_writer_longer_than_the_timeout_is_unavailable_and_then_over() {
    let dir = TempDir::new().unwrap();
    let config = SqliteConfig::new(url(&dir)).busy_timeout(Duration::from_millis(300));
    let queue = SqliteQueue::open(config).await.unwrap();
    let mut other = outside(&dir).await;
    sql(&mut other, "BEGIN IMMEDIATE").await;

    let began = Instant::now();
    let error = queue.enqueue(&[post("a", "1")]).await.remove(0).unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Safe), "{error}");
    assert!(began.elapsed() < Duration::from_secs(3));
    // Readers are not in the way of writers, nor the other way round.
    assert_eq!(queue.read(&[entity("a")]).await.unwrap(), [None]);

    sql(&mut other, "ROLLBACK").await;
    assert_eq!(ok(&queue, post("a", "1")).await.admissions, [Admission::Accepted]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outside_writer_shorter_than_the_timeout_is_waited_for() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir).await;
    let mut other = outside(&dir).await;
    sql(&mut other, "BEGIN IMMEDIATE").await;
    let waiting = tokio::spawn(async move { ok(&queue, post("a", "1")).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    sql(&mut other, "COMMIT").await;
    assert_eq!(waiting.await.unwrap().admissions, [Admission::Accepted]);
}

#[tokio::test]
async fn a_full_disk_is_a_typed_error_and_nothing_is_lost() {
    let dir = TempDir::new().unwrap();
    let queue = SqliteQueue::open(SqliteConfig::new(url(&dir)).max_pages(60)).await.unwrap();
    let mut accepted = Vec::new();
    let error = loop {
        let mut item = post("a", &accepted.len().to_string());
        item.messages[0].payload = format!("\"{}\"", "x".repeat(8000));
        let id = item.messages[0].id.clone();
        match queue.enqueue(&[item]).await.remove(0) {
            Ok(_) => accepted.push(id),
            Err(error) => break error,
        }
        assert!(accepted.len() < 1000);
    };
    assert_eq!((error.kind(), error.retry()), (ErrorKind::StorageFull, Retry::Safe), "{error}");
    let found = queue.peek(&entity("a"), 1000).await.unwrap();
    assert_eq!(found.into_iter().map(|message| message.id).collect::<Vec<_>>(), accepted);
    // A commit that frees space works on a full disk, and makes room.
    let grant =
        queue.try_lock(&[TryLock { entity: entity("a"), request: request() }]).await.remove(0).unwrap();
    let grant = grant.unwrap();
    queue.update_locked(&[commit(&grant.lease, grant.batch.ids())]).await.remove(0).unwrap();
    ok(&queue, post("a", "after")).await;
}

#[tokio::test]
async fn a_deleted_file_is_not_created_anew() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir).await;
    ok(&queue, post("a", "1")).await;
    for name in ["test.db", "test.db-wal", "test.db-shm"] {
        std::fs::remove_file(dir.path().join(name)).unwrap();
    }
    let error = queue.heartbeat().await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("test.db"), "{error}");
    // A call that is dropped on its way takes its connection along: the next one connects again.
    let items = [post("a", "2")];
    for round in 0..400 {
        // How far a call is at its nth wake depends on the machine.
        poll_times(queue.enqueue(&items), 1 + round % 8).await;
        if let Err(error) = queue.enqueue(&items).await.remove(0) {
            assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Safe), "{error}");
            assert!(!dir.path().join("test.db").exists());
            return;
        }
    }
    panic!("no dropped call took its connection along");
}

/// The tables may stand in the user's own database, and payloads would be cut at the wrong places.
#[tokio::test]
async fn an_encoding_other_than_utf_8_is_refused() {
    let dir = TempDir::new().unwrap();
    let options = SqliteConnectOptions::new().filename(dir.path().join("test.db")).create_if_missing(true);
    let mut users = options.connect().await.unwrap();
    sql(&mut users, "PRAGMA encoding = 'UTF-16le'").await;
    sql(&mut users, "CREATE TABLE users (name TEXT)").await;
    let error = SqliteQueue::connect(&url(&dir)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    assert!(
        error.to_string().contains("UTF-16le") && error.to_string().contains("a file of its own"),
        "{error}"
    );
}

#[tokio::test]
async fn the_log_shrinks_after_a_long_reader() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir).await;
    let mut reader = outside(&dir).await;
    sql(&mut reader, "BEGIN").await;
    sql(&mut reader, "SELECT count(*) FROM actornot_entity").await;
    let log = || std::fs::metadata(dir.path().join("test.db-wal")).unwrap().len();
    for n in 0..10 {
        let mut item = post("a", &format!("big{n}"));
        item.messages[0].payload = format!("\"{}\"", "x".repeat(8 << 20));
        ok(&queue, item).await;
    }
    assert!(log() > 80 << 20);
    sql(&mut reader, "ROLLBACK").await;
    // One writes the log back, the next begins it anew.
    for n in 0..2 {
        ok(&queue, post("a", &format!("small{n}"))).await;
    }
    assert!(log() <= 64 << 20, "{}", log());
}

struct Counter;

impl Runner for Counter {
    const KIND: &'static str = "counter";
    type State = i64;
    type Message = i64;

    async fn run_locked(&self, state: &mut i64, batch: Batch<i64>, _: &mut Context) -> Result<(), Failure> {
        batch.iter().for_each(|delta| *state += **delta);
        Ok(())
    }
}

/// Twice as long as a call waits by default, and as long as the loop repeats it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_writer_that_holds_the_lock_for_ten_seconds_is_waited_for_or_told_and_then_over() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir).await;
    let direct = queue.clone();
    let mailbox = MailboxPoster::new(queue, Counter);
    let mut writer = outside(&dir).await;
    sql(&mut writer, "BEGIN IMMEDIATE").await;
    let release = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(10)).await;
        sql(&mut writer, "COMMIT").await;
    });
    // Below the loop, a call is told in time that nothing was applied.
    let refused = direct.enqueue(&[post("direct", "1")]).await.remove(0).unwrap_err();
    assert_eq!((refused.kind(), refused.retry()), (ErrorKind::Unavailable, Retry::Safe), "{refused}");
    // Through the loop, a post is repeated for as long as its caller waits; with its id it may be posted again.
    let posted = loop {
        match mailbox.post("alice", 5).id("evt_1").await {
            Ok(receipt) => break receipt,
            Err(error) => assert_ne!(error.retry(), Retry::Never, "{error}"),
        }
    };
    release.await.unwrap();
    assert_eq!(posted.settled(Duration::from_secs(20)).await.unwrap(), Settled::Handled);
    assert_eq!(mailbox.read("alice").await.unwrap().unwrap().state, 5);
    assert_eq!(direct.read(&[entity("direct")]).await.unwrap(), [None], "what was refused left nothing");
}
