//! The world of one process in a behaviour: it can die between any two steps, and its randomness repeats.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actornot_core::seam::{BoxFuture, Mistake, Seam};
use actornot_core::{Error, ErrorKind};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// The world; `tasks` is `None` once the process is dead.
#[derive(Debug)]
pub(crate) struct World {
    runtime: Handle,
    numbers: Arc<AtomicU64>,
    mistake: Option<Mistake>,
    tasks: Mutex<Option<Vec<AbortHandle>>>,
}

impl World {
    pub(crate) fn new(numbers: Arc<AtomicU64>, mistake: Option<Mistake>) -> Arc<Self> {
        let tasks = Mutex::new(Some(Vec::new()));
        Arc::new(Self { runtime: Handle::current(), numbers, mistake, tasks })
    }

    /// Every task ends where it stands, and none starts any more: what SIGKILL is to a process.
    pub(crate) fn end(&self) {
        // Outside the lock: a dropped task may want to spawn another.
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        tasks.into_iter().flatten().for_each(|task| task.abort());
    }
}

impl Seam for World {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }

    fn random(&self) -> u128 {
        let mix = |n: u64| {
            let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            n ^ (n >> 31)
        };
        let n = self.numbers.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        u128::from(mix(n)) << 64 | u128::from(mix(!n))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        match tasks.as_mut() {
            Some(tasks) => {
                tasks.retain(|task| !task.is_finished());
                tasks.push(self.runtime.spawn(task).abort_handle());
            }
            None => {
                drop(tasks);
                drop(task);
            }
        }
    }

    fn spawn_heartbeat(&self, task: BoxFuture<'static, ()>) {
        self.spawn(task);
    }

    fn gone(&self) -> Error {
        Error::new(ErrorKind::Closed, "the process has died")
    }

    fn mistake(&self) -> Option<Mistake> {
        self.mistake
    }
}
