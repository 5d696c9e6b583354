//! What the tests of this crate share.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)] // Each test binary uses its part.

use std::future::Future;
use std::task::Poll;

use actornot_sqlite::SqliteQueue;
use actornot_sqlite::sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use actornot_sqlite::sqlx::{self, ConnectOptions};
#[allow(unused_imports)]
pub(crate) use actornot_testkit::items::*;
use tempfile::TempDir;

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
