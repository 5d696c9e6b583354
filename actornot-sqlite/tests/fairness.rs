//! Whose turn it is, and how long one waits for it.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::fs::File;
use std::time::{Duration, Instant};

use actornot_core::{Admission, ErrorKind, Inspect, LockableQueue, Retry};
use actornot_sqlite::{SqliteConfig, SqliteQueue};
use tempfile::TempDir;

use crate::common::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn four_writers_get_their_turns() {
    let dir = TempDir::new().unwrap();
    let mut running = Vec::new();
    for writer in 0..4 {
        let queue = open(&dir).await;
        running.push(tokio::spawn(async move {
            let until = Instant::now() + Duration::from_secs(1);
            let mut done = 0_u32;
            while Instant::now() < until {
                ok(&queue, post(&format!("w{writer}"), &done.to_string())).await;
                done += 1;
            }
            done
        }));
    }
    let mut done = Vec::new();
    for running in running {
        done.push(running.await.unwrap());
    }
    let (least, most) = (done.iter().min().unwrap(), done.iter().max().unwrap());
    assert!(least * 5 > *most, "{done:?}");
}

/// Out of turn it would need luck for each beat, and others that write without a break leave little of that.
#[tokio::test]
async fn a_heartbeat_waits_for_its_turn() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir).await;
    ok(&queue, post("held", "1")).await;
    let lease = lock(&queue, "held").await.unwrap().lease;
    let mut heartbeat = queue.heartbeat().await.unwrap();
    let other = File::options().write(true).open(dir.path().join("test.db-turn")).unwrap();
    other.lock().unwrap();
    let beat = tokio::spawn(async move { heartbeat.extend_lock(&[lease]).await.remove(0) });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!beat.is_finished());
    other.unlock().unwrap();
    assert!(beat.await.unwrap().unwrap());
}

/// A process that is stopped with the turn in hand delays a heartbeat once.
#[tokio::test]
async fn a_heartbeat_does_not_wait_behind_a_stopped_process_for_long() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir).await;
    ok(&queue, post("held", "1")).await;
    let lease = lock(&queue, "held").await.unwrap().lease;
    let mut heartbeat = queue.heartbeat().await.unwrap();
    let stopped = File::options().write(true).open(dir.path().join("test.db-turn")).unwrap();
    stopped.lock().unwrap();
    let began = Instant::now();
    for _ in 0..20 {
        assert!(heartbeat.extend_lock(std::slice::from_ref(&lease)).await.remove(0).unwrap());
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_patience_that_is_none_or_endless_is_refused() {
    let dir = TempDir::new().unwrap();
    for patience in [Duration::ZERO, Duration::from_secs(3601), Duration::MAX] {
        let config = SqliteConfig::new(url(&dir)).busy_timeout(patience);
        let error = SqliteQueue::open(config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid { field: "busy_timeout" }, "{error}");
    }
    let queue =
        SqliteQueue::open(SqliteConfig::new(url(&dir)).busy_timeout(Duration::from_millis(1))).await.unwrap();
    assert_eq!(queue.read(&[entity("a")]).await.unwrap(), [None]);
}

/// For the writing connection and then for the lock, each of them would wait twice as long.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_behind_each_other_answer_within_their_patience() {
    let dir = TempDir::new().unwrap();
    let patience = Duration::from_secs(2);
    let queue = SqliteQueue::open(SqliteConfig::new(url(&dir)).busy_timeout(patience)).await.unwrap();
    let mut other = outside(&dir).await;
    sql(&mut other, "BEGIN IMMEDIATE").await;
    let calls: Vec<_> = (0..8)
        .map(|n| {
            let queue = queue.clone();
            tokio::spawn(async move {
                // They come in turn, so that each finds the one before still waiting.
                tokio::time::sleep(patience * n / 10).await;
                let began = Instant::now();
                let error = queue.enqueue(&[post("a", &n.to_string())]).await.remove(0).unwrap_err();
                assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Safe));
                began.elapsed()
            })
        })
        .collect();
    let mut longest = Duration::ZERO;
    for call in calls {
        longest = longest.max(call.await.unwrap());
    }
    sql(&mut other, "ROLLBACK").await;
    assert_eq!(ok(&queue, post("a", "0")).await.admissions, [Admission::Accepted]);
    assert!(longest < patience * 7 / 4, "{longest:?}");
}

/// SQLite's own wait goes on when its caller has gone, on a thread of its own.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn callers_that_give_up_leave_no_threads_behind() {
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let dir = TempDir::new().unwrap();
    let queue = open(&dir).await;
    let mut other = outside(&dir).await;
    sql(&mut other, "BEGIN IMMEDIATE").await;
    let before = threads();
    for n in 0..60 {
        let items = [post("a", &n.to_string())];
        let waited = tokio::time::timeout(Duration::from_millis(10), queue.enqueue(&items)).await;
        assert!(waited.is_err());
    }
    let left = threads();
    sql(&mut other, "ROLLBACK").await;
    assert_eq!(ok(&queue, post("a", "0")).await.admissions, [Admission::Accepted]);
    assert!(left < before + 20, "{before} threads, then {left}");
}
