//! Which URLs name a database, and which are refused.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::process::Command;

use actornot_core::{ErrorKind, Inspect};
use actornot_sqlite::SqliteQueue;
use tempfile::TempDir;

use crate::common::*;

#[tokio::test]
async fn what_is_no_sqlite_url_is_refused_without_repeating_it() {
    for (url, why) in [
        ("postgres://me:secret@host/db", "url has the scheme postgres; this adapter opens sqlite:FILE"),
        ("redis:secret", "url has the scheme redis; this adapter opens sqlite:FILE"),
        ("secret.db", "url has no scheme; a file is named as in sqlite:counter.db"),
        ("/var/secret.db", "url has no scheme; a file is named as in sqlite:counter.db"),
        ("C:\\secret.db", "url has no scheme; a file is named as in sqlite:counter.db"),
        ("", "url names no file; write for example sqlite:counter.db"),
        ("sqlite:", "url names no file; write for example sqlite:counter.db"),
        ("sqlite://?mode=rwc", "url names no file; write for example sqlite:counter.db"),
    ] {
        let error = SqliteQueue::connect(url).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Invalid { field: "url" }, why));
    }
}

#[tokio::test]
async fn names_are_taken_as_they_are() {
    let dir = TempDir::new().unwrap();
    for (name, file) in [
        ("a b.db", "a b.db"),
        ("a%20c.db", "a c.db"),
        ("q%3Fx.db?mode=rwc", "q?x.db"),
        ("\u{fc}#.db", "\u{fc}#.db"),
        ("memdb.sqlite", "memdb.sqlite"),
        ("a:memory:.db", "a:memory:.db"),
    ] {
        let queue = SqliteQueue::connect(&format!("sqlite://{}/{name}", dir.path().display())).await.unwrap();
        ok(&queue, post("a", "1")).await;
        assert_eq!(queue.peek(&entity("a"), 1).await.unwrap().len(), 1);
        assert!(dir.path().join(file).exists() && dir.path().join(format!("{file}-turn")).exists(), "{name}");
    }
}

/// In a process of its own, for the directory belongs to the whole process.
#[tokio::test]
async fn a_relative_name_survives_a_change_of_directory() {
    const CHILD: &str = "ACTORNOT_TEST_DIRECTORY";
    let Ok(dir) = std::env::var(CHILD) else {
        let dir = TempDir::new().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "a_relative_name_survives_a_change_of_directory"]).env(CHILD, dir.path());
        let output = child.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(dir.path().join("test.db").exists());
        return;
    };
    std::env::set_current_dir(&dir).unwrap();
    let queue = SqliteQueue::connect("sqlite:test.db").await.unwrap();
    std::env::set_current_dir("/").unwrap();
    ok(&queue, post("a", "1")).await;
    // Reading connections, and the heartbeat's, are opened only now.
    assert_eq!(queue.peek(&entity("a"), 9).await.unwrap().len(), 1);
    actornot_core::LockableQueue::heartbeat(&queue).await.unwrap();
}
