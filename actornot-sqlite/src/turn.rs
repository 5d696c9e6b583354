//! Whose turn it is to write: fairness among processes.
//!
//! SQLite's own lock is what is correct, but it is not fair: processes that fight for it by sleeping and trying again
//! starve each other. Whoever wants it first takes the lock of a file beside the database, where the operating system
//! keeps a queue. It is only a hint: when the turn does not come in time, the call goes on without it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::oneshot;

/// The line in front of the database file. Its thread ends when this is dropped.
pub(crate) struct Line {
    ask: mpsc::Sender<oneshot::Sender<Turn>>,
    /// The thread waits for a lock whose asker has gone: whoever holds it is stopped or stuck. Nobody else waits
    /// behind it then, or a process stopped at the wrong moment would delay each of our calls.
    stuck: Arc<AtomicBool>,
}

/// One's turn, until it is dropped.
///
/// The thread waits for this end of the channel to go away, so no path, panics and dropped futures included, can
/// keep the file locked.
pub(crate) struct Turn {
    _held: mpsc::Sender<()>,
}

impl Line {
    /// Opens the file and starts the thread that waits for its lock, or says why not.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
        let (ask, asked) = mpsc::channel();
        let stuck = Arc::new(AtomicBool::new(false));
        let flag = stuck.clone();
        std::thread::Builder::new()
            .name("actornot-turn".into())
            .spawn(move || serve(&file, &asked, &flag))?;
        Ok(Self { ask, stuck })
    }

    /// Waits for one's turn, but not longer than `patience`.
    pub(crate) async fn turn(&self, patience: Duration) -> Option<Turn> {
        if self.stuck.load(Ordering::Acquire) {
            return None;
        }
        let (give, given) = oneshot::channel();
        self.ask.send(give).ok()?;
        match tokio::time::timeout(patience, given).await {
            Ok(turn) => turn.ok(),
            Err(_) => {
                self.stuck.store(true, Ordering::Release);
                tracing::debug!("the turn to write did not come in time, going on without it");
                None
            }
        }
    }
}

fn serve(file: &File, asked: &mpsc::Receiver<oneshot::Sender<Turn>>, stuck: &AtomicBool) {
    while let Ok(give) = asked.recv() {
        if give.is_closed() {
            stuck.store(false, Ordering::Release);
            continue;
        }
        let locked = file.lock();
        stuck.store(false, Ordering::Release);
        let (held, released) = mpsc::channel();
        // An asker who has gone drops the turn, and `recv` returns at once.
        let _ = give.send(Turn { _held: held });
        let _ = released.recv();
        if locked.is_ok() && file.unlock().is_err() {
            return; // The file closes with the thread, and its lock goes with it.
        }
        std::thread::yield_now(); // Whoever is next in line in another process gets to it before we ask again.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_ends_when_it_is_dropped_or_nobody_waits_for_it() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("test.db-turn");
        let (one, two) = (Line::open(&path).unwrap(), Line::open(&path).unwrap());
        let patience = Duration::from_secs(5);
        let turn = one.turn(patience).await.unwrap();
        assert!(two.turn(Duration::from_millis(20)).await.is_none());
        assert!(two.turn(patience).await.is_none(), "its thread still waits, so nobody waits behind it");
        drop(turn);
        while two.stuck.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
        drop(two.turn(patience).await.unwrap());
        drop(one.turn(patience).await.unwrap());
        // Dropped while it waits, or just when it is given: both leave the file free.
        let _ = tokio::time::timeout(Duration::ZERO, two.turn(patience)).await;
        drop(one.turn(patience).await.unwrap());
    }
}
