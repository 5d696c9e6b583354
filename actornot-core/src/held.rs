//! A lease in use: how it is got, what is run under it, and what ends a run early.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::engine::{Engine, Stop};
use crate::errand::Errand;
use crate::heartbeat::Kept;
use crate::settle::{History, Settle};
use crate::turn::{Outcome, Turn};
use crate::{
    Commit, CommitId, Context, EntityId, Failure, Grant, HandedOut, Lease, MessageId, Next, Nonce, TryLock,
};

/// A lease in use.
pub(crate) struct Held {
    pub(crate) lease: Lease,
    /// What is handed out under it now.
    pub(crate) ids: Vec<MessageId>,
    /// Batches run since it was granted, or taken up again.
    pub(crate) batches: u32,
    /// When it queued up behind the others.
    pub(crate) lined_up: Instant,
    batch: Option<HandedOut>,
    version: u64,
    turn: Box<dyn Turn>,
    kept: Kept,
    lost: Arc<watch::Sender<bool>>,
}

/// What ends a run before its handler does.
enum Interrupt {
    /// Somebody else may hold the lock: nothing may be committed.
    LockLost,
    /// The process shuts down: the lease is handed back.
    Shutdown,
    /// It took too long: it counts as failed.
    TimedOut,
}

impl Held {
    /// Starts to use a lease that was just granted; `None` if no runner is there for it, which nobody asks for.
    pub(crate) fn new(engine: &Arc<Engine>, grant: Grant) -> Option<Self> {
        let runner = engine.runners.get(grant.lease.entity.kind())?.clone();
        let lost = Arc::new(watch::Sender::new(false));
        Some(Self {
            ids: grant.batch.ids(),
            batches: 0,
            lined_up: engine.seam.now(),
            batch: Some(grant.batch),
            version: grant.state.as_ref().map_or(0, |state| state.version),
            turn: runner.open(&grant.lease.entity, grant.state),
            kept: engine.heartbeats.keep(&grant.lease, engine.run_deadline(), lost.clone()),
            lost,
            lease: grant.lease,
        })
    }

    /// The commit was applied, and brought the next batch.
    pub(crate) fn go_on(&mut self, fence: u64, batch: HandedOut, until: Instant) {
        self.lease.fence = fence;
        self.ids = batch.ids();
        self.batch = Some(batch);
        self.batches += 1;
        self.kept.renewed(until);
    }
}

impl Engine {
    /// When a run that starts now is given up, and its lease no longer renewed.
    pub(crate) fn run_deadline(&self) -> Instant {
        self.seam.now() + self.config.run_timeout + self.config.cancel_grace
    }

    /// Asks for the lock.
    pub(crate) async fn lock(self: &Arc<Self>, entity: &EntityId, nonce: Option<Nonce>) -> Option<Box<Held>> {
        let nonce = nonce.unwrap_or_else(|| Nonce::from_random(self.seam.random()));
        let ask = TryLock { entity: entity.clone(), request: self.lock_request(nonce) };
        match self.locks.call(ask).await {
            Ok(grant) => grant.and_then(|grant| Held::new(self, grant)).map(Box::new),
            Err(error) => {
                tracing::warn!(%entity, %error, "the lock could not be tried; the next post or sweep will");
                None
            }
        }
    }

    /// Goes on with a lease, unless no batch may be started, or the wait in line has cost it too much of its time.
    pub(crate) async fn take_up(self: &Arc<Self>, mut held: Box<Held>, errand: &Errand) -> Option<Box<Held>> {
        if *held.lost.borrow() {
            return None;
        }
        let waited = self.seam.now().saturating_duration_since(held.lined_up);
        if self.is_over(errand) || waited > held.lease.length / 2 {
            self.hand_back(&held.lease).await;
            return None;
        }
        held.batches = 0;
        held.kept.renewed(self.run_deadline());
        Some(held)
    }

    /// Gives up a request for the lock that may have been granted.
    pub(crate) async fn forgo(self: &Arc<Self>, entity: &EntityId, nonce: Option<Nonce>) {
        let Some(nonce) = nonce else { return };
        if let Some(held) = self.lock(entity, Some(nonce)).await {
            self.hand_back(&held.lease).await;
        }
    }

    /// Hands a lease back, so that another instance can go on at once.
    pub(crate) async fn hand_back(&self, lease: &Lease) {
        if let Err(error) = self.releases.call(lease.clone()).await {
            tracing::warn!(entity = %lease.entity, %error, "a lease could not be handed back; it will run out");
        }
    }

    /// Runs the batch that is handed out, and says what to commit; `None` if nothing can be.
    pub(crate) async fn run_batch(&self, held: &mut Held) -> Option<Commit> {
        let batch = held.batch.take()?;
        let commit = |settle: Settle, outcome: Outcome, effects| Commit {
            id: CommitId::from_random(self.seam.random()),
            lease: held.lease.clone(),
            state: outcome.state,
            acked: held.ids[..settle.acked].to_vec(),
            verdict: settle.verdict,
            effects,
            batch_limit: settle.batch_limit,
            // Until the loop knows that somebody wants more.
            next: Next::Release,
        };
        if let Some(settle) = self.config.gives_up(&batch) {
            return Some(commit(settle, Outcome::nothing(), Vec::new()));
        }
        let history = History::from(&batch);
        let cancel = watch::Sender::new(false);
        let mut ctx = Context {
            entity: held.lease.entity.clone(),
            fence: held.lease.fence,
            version: held.version,
            deadline: (self.seam.now() + self.config.run_timeout).into_std(),
            cancelled: cancel.subscribe(),
            effects: Vec::new(),
            capabilities: self.queue.capabilities(),
            config: self.config.clone(),
            seam: self.seam.clone(),
        };
        let outcome = tokio::select! {
            biased;
            outcome = within(&held.lease.entity, held.turn.run(batch, &mut ctx)) => outcome,
            interrupt = self.interrupted(&held.lost, &cancel) => match interrupt {
                Interrupt::TimedOut => {
                    let error = format!("the run took longer than {:?} and was cancelled", self.config.run_timeout);
                    Outcome::failed(Failure::retry(error))
                }
                Interrupt::LockLost => return None,
                Interrupt::Shutdown => {
                    self.hand_back(&held.lease).await;
                    return None;
                }
            },
        };
        held.version += u64::from(outcome.state.is_some());
        let settle = self.config.settle(history, &outcome, self.jitter());
        let effects = if outcome.handled > 0 { ctx.effects } else { Vec::new() };
        Some(commit(settle, outcome, effects))
    }

    /// Completes when a run must end: first its handler is told, and after a grace it is dropped.
    async fn interrupted(&self, lost: &watch::Sender<bool>, cancel: &watch::Sender<bool>) -> Interrupt {
        let mut lost = lost.subscribe();
        let mut stop = self.stop.subscribe();
        let interrupt = tokio::select! {
            _ = lost.wait_for(|lost| *lost) => Interrupt::LockLost,
            _ = stop.wait_for(|stop| *stop == Stop::Now) => Interrupt::Shutdown,
            () = self.seam.sleep(self.config.run_timeout) => Interrupt::TimedOut,
        };
        cancel.send_replace(true);
        if !matches!(interrupt, Interrupt::Shutdown) {
            self.seam.sleep(self.config.cancel_grace).await;
        }
        interrupt
    }

    /// A random number between 0 and 1.
    pub(crate) fn jitter(&self) -> f64 {
        (self.seam.random() >> 64) as f64 / u64::MAX as f64
    }
}

tokio::task_local! {
    /// The entity whose handler runs in this task.
    static RUNNING: EntityId;
}

/// Runs a handler so that calls which cannot work inside one can tell.
async fn within<T>(entity: &EntityId, run: impl Future<Output = T>) -> T {
    RUNNING.scope(entity.clone(), run).await
}

/// The entity whose handler makes this call, if one does.
pub(crate) fn inside_handler() -> Option<EntityId> {
    RUNNING.try_with(Clone::clone).ok()
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("lease", &self.lease)
            .field("batches", &self.batches)
            .finish_non_exhaustive()
    }
}
