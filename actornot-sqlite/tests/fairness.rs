//! Whose turn it is, and how long one waits for it.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::time::{Duration, Instant};

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
