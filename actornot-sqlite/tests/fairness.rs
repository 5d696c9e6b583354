//! Whose turn it is, and how long one waits for it.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::fs::File;
use std::time::{Duration, Instant};

use actornot_core::LockableQueue;
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
