//! A hand on the handlers of one process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actornot_core::{Context, EntityId, Failure, Ready};
use tokio::sync::{Semaphore, watch};

/// What the handlers of one process tell, and are told.
pub(crate) struct Probe {
    runs: Mutex<Vec<Vec<String>>>,
    running: Mutex<BTreeMap<EntityId, usize>>,
    most: watch::Sender<usize>,
    overlapped: AtomicBool,
    holding: watch::Sender<usize>,
    released: Semaphore,
    cancelled: watch::Sender<bool>,
    asleep: Mutex<Option<Duration>>,
    stumbles: AtomicBool,
}

impl Probe {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            runs: Mutex::default(),
            running: Mutex::default(),
            most: watch::Sender::new(0),
            overlapped: AtomicBool::new(false),
            holding: watch::Sender::new(0),
            released: Semaphore::new(0),
            cancelled: watch::Sender::new(false),
            asleep: Mutex::default(),
            stumbles: AtomicBool::new(false),
        })
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<EntityId, usize>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of each run's batch.
    pub(crate) fn runs(&self) -> Vec<Vec<String>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether an entity was ever run twice at once in this process.
    pub(crate) fn overlapped(&self) -> bool {
        self.overlapped.load(Ordering::Acquire)
    }

    /// The most handlers that ever ran at once.
    pub(crate) fn most_at_once(&self) -> usize {
        *self.most.borrow()
    }

    /// Completes when so many handlers have come to a `Hold`.
    pub(crate) async fn holding(&self, n: usize) {
        let _ = self.holding.subscribe().wait_for(|holding| *holding >= n).await;
    }

    /// Completes when a handler that holds was told to end.
    pub(crate) async fn cancelled(&self) {
        let _ = self.cancelled.subscribe().wait_for(|cancelled| *cancelled).await;
    }

    /// Lets handlers that hold go on.
    pub(crate) fn let_go(&self, n: usize) {
        self.released.add_permits(n);
    }

    fn asleep(&self) -> MutexGuard<'_, Option<Duration>> {
        self.asleep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handler holds, until it may go on or is told to end.
    pub(super) async fn hold(&self, ctx: &Context) -> Result<(), Failure> {
        self.holding.send_modify(|holding| *holding += 1);
        tokio::select! {
            permit = self.released.acquire() => permit?.forget(),
            () = ctx.cancelled() => {
                self.cancelled.send_replace(true);
                std::future::pending().await
            }
        }
        Ok(())
    }

    /// Whether an entity is ready, as it was told.
    pub(super) fn ready(&self) -> Ready {
        assert!(!self.stumbles.swap(false, Ordering::AcqRel), "ready stumbles");
        self.asleep().map_or(Ready::Now, Ready::After)
    }

    /// From now on entities say that they are not ready before this time has passed.
    pub(crate) fn sleep(&self, time: Duration) {
        *self.asleep() = Some(time);
    }

    /// From now on entities are ready to run.
    pub(crate) fn wake(&self) {
        *self.asleep() = None;
    }

    /// The next entity that is asked whether it is ready panics.
    pub(crate) fn stumble(&self) {
        self.stumbles.store(true, Ordering::Release);
    }
}

/// Counts a handler while it runs, however it ends.
pub(super) struct Running<'a>(&'a Probe, EntityId);

impl<'a> Running<'a> {
    pub(super) fn begin(probe: &'a Probe, entity: &EntityId, names: Vec<String>) -> Self {
        probe.runs.lock().unwrap_or_else(PoisonError::into_inner).push(names);
        let mut running = probe.running();
        let mine = running.entry(entity.clone()).or_default();
        *mine += 1;
        probe.overlapped.fetch_or(*mine > 1, Ordering::AcqRel);
        let all: usize = running.values().sum();
        probe.most.send_modify(|most| *most = all.max(*most));
        Self(probe, entity.clone())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(mine) = self.0.running().get_mut(&self.1) {
            *mine -= 1;
        }
    }
}
