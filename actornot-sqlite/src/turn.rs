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

use crate::config::Target;

/// The line in front of the database file. Its thread ends when this is dropped.
pub(crate) struct Line {
    ask: mpsc::Sender<oneshot::Sender<Turn>>,
    /// The thread has an asker that it has not served yet; he may have gone, when whoever holds the lock is stopped
    /// or stuck. Nobody else waits behind him, or a process stopped at the wrong moment would delay each of our
    /// calls. Set with every question and cleared by its answer, so that it cannot stay set with nobody to clear it.
    waiting: Arc<AtomicBool>,
}

/// One's turn, until it is dropped.
///
/// The thread waits for this end of the channel to go away, so no path, panics and dropped futures included, can
/// keep the file locked.
pub(crate) struct Turn {
    _held: mpsc::Sender<()>,
}

impl Line {
    /// The line in front of a database; none in front of one that no other process can see.
    pub(crate) fn of(target: &Target) -> Option<Self> {
        if target.memory {
            return None;
        }
        let opened = Self::open(&target.turn_file());
        opened
            .inspect_err(
                |error| tracing::debug!(%error, "no turn file: writing processes may starve each other"),
            )
            .ok()
    }

    /// Opens the file and starts the thread that waits for its lock, or says why not.
    fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
        let (ask, asked) = mpsc::channel();
        let waiting = Arc::new(AtomicBool::new(false));
        let flag = waiting.clone();
        std::thread::Builder::new()
            .name("actornot-turn".into())
            .spawn(move || serve(&file, &asked, &flag))?;
        Ok(Self { ask, waiting })
    }

    /// Waits for one's turn, but not longer than `patience`.
    pub(crate) async fn turn(&self, patience: Duration) -> Option<Turn> {
        if self.waiting.swap(true, Ordering::AcqRel) {
            return None;
        }
        let (give, given) = oneshot::channel();
        self.ask.send(give).ok()?;
        match tokio::time::timeout(patience, given).await {
            Ok(turn) => turn.ok(),
            Err(_) => {
                tracing::debug!("the turn to write did not come in time, going on without it");
                None
            }
        }
    }
}

fn serve(file: &File, asked: &mpsc::Receiver<oneshot::Sender<Turn>>, waiting: &AtomicBool) {
    while let Ok(give) = asked.recv() {
        let locked = file.lock();
        waiting.store(false, Ordering::Release);
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
    use std::time::Instant;

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
        while two.waiting.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
        drop(two.turn(patience).await.unwrap());
        drop(one.turn(patience).await.unwrap());
        // Dropped while it waits, or just when it is given: both leave the file free.
        let _ = tokio::time::timeout(Duration::ZERO, two.turn(patience)).await;
        drop(one.turn(patience).await.unwrap());
    }

    /// The answer races with the end of the patience: whichever wins, the line must stay usable.
    #[test]
    fn a_turn_that_comes_as_its_asker_gives_up_leaves_the_line_usable() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("test.db-turn");
        let line = Line::open(&path).unwrap();
        let holder = File::options().write(true).open(&path).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        for round in 0..400 {
            holder.lock().unwrap();
            let asked = Instant::now();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    // Around the moment when the timer gives up on a patience of one millisecond.
                    while asked.elapsed() < Duration::from_micros(1900 + (round * 37) % 500) {
                        std::hint::spin_loop();
                    }
                    holder.unlock().unwrap();
                });
                runtime.block_on(async { drop(line.turn(Duration::from_millis(1)).await) });
            });
            let free = Instant::now();
            while runtime.block_on(line.turn(Duration::from_secs(5))).is_none() {
                assert!(free.elapsed() < Duration::from_secs(30), "no turn was ever given again");
                std::thread::yield_now();
            }
        }
    }
}
