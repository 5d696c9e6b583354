//! What the engine takes from the world: clock, sleep, randomness, tasks and the heartbeat's thread.
//!
//! Nothing else in core touches these, so a simulation that replaces this one trait decides every schedule.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::Error;

/// A boxed future that a task can own.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The world as the engine sees it. For the testkit's simulation; not a stable interface.
pub trait Seam: Debug + Send + Sync + 'static {
    /// A monotonic clock, for this process's own waits only: leases live on the server's.
    fn now(&self) -> Instant;
    /// Completes when the time has passed.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;
    /// 128 random bits.
    fn random(&self) -> u128;
    /// Runs a task; drops it at once if there is nothing left to run it on.
    fn spawn(&self, task: BoxFuture<'static, ()>);
    /// Runs the heartbeat where a handler that blocks its thread, or the whole runtime, cannot stop it.
    fn spawn_heartbeat(&self, task: BoxFuture<'static, ()>);
    /// Why a task that was spawned was dropped.
    fn gone(&self) -> Error;
    /// The mistake that a saboteur of the loop makes.
    fn mistake(&self) -> Option<Mistake> {
        None
    }
}

/// A mistake somebody who changes the loop could make, at the line where it would be made: the suite must find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mistake {
    /// A post that skipped the lock, because its entity had a slot here, does not have the slot look again.
    SlotToldTooLate,
    /// A request for the lock whose answer never came is forgotten, and with it the grant.
    LostGrantForgotten,
    /// A lease that was handed back after its wait in line leaves its queue to nobody.
    LateLeaseLeftToNobody,
    /// A slice that was refused as a whole is not split, and its neighbours fail with the offender.
    SliceNeverSplit,
    /// A trip does not leave while more calls come, though they would not fit in.
    GatherForEver,
    /// What does not fit in the line is not looked for when the line is short.
    LeftToNobody,
    /// A run whose own budget is spent forgets those who joined it.
    SpentBudgetForOthers,
}

/// The real world.
#[derive(Debug)]
pub(crate) struct Tokio(Option<Handle>);

impl Tokio {
    /// The runtime of the caller: every task of the engine runs on it.
    pub(crate) fn current() -> Self {
        Self(Handle::try_current().ok())
    }
}

impl Seam for Tokio {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }

    fn random(&self) -> u128 {
        let mut bits = [0; 16];
        if let Err(error) = getrandom::fill(&mut bits) {
            // No entropy means no unique nonces, and so no safe lock: unlike an I/O error it never heals.
            panic!("the operating system has no random bits: {error}");
        }
        u128::from_le_bytes(bits)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        if let Some(handle) = &self.0 {
            drop(handle.spawn(task));
        }
    }

    fn spawn_heartbeat(&self, task: BoxFuture<'static, ()>) {
        let thread = std::thread::Builder::new().name("actornot-heartbeat".into()).spawn(move || {
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(task),
                Err(error) => tracing::error!(%error, "no heartbeat: long runs will lose their lease"),
            }
        });
        if let Err(error) = thread {
            tracing::error!(%error, "no heartbeat: long runs will lose their lease");
        }
    }

    fn gone(&self) -> Error {
        match self.0 {
            Some(_) => {
                Error::new(crate::ErrorKind::Closed, "the runtime this mailbox was built on has ended")
            }
            None => Error::misuse(
                "this mailbox was built outside a tokio runtime; build it inside `async fn main`",
            ),
        }
    }
}
