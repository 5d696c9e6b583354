use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::Engine;
use crate::held::inside_handler;
use crate::{EntityId, Error, Location, MessageId};

/// Proof that a message is durable.
#[derive(Debug, Clone)]
pub struct Receipt {
    engine: Arc<Engine>,
    entity: EntityId,
    id: MessageId,
    duplicate: bool,
}

/// What has become of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// A run handled it, and its commit was applied.
    Handled,
    /// It is among the dead letters.
    Dead,
    /// It still waits, after all the time it was given.
    Pending,
}

impl Receipt {
    pub(crate) fn new(engine: Arc<Engine>, entity: EntityId, id: MessageId, duplicate: bool) -> Self {
        Self { engine, entity, id, duplicate }
    }

    /// Whom it is for.
    pub fn entity(&self) -> &EntityId {
        &self.entity
    }

    /// Its id: the one given, or the one made for it.
    pub fn id(&self) -> &MessageId {
        &self.id
    }

    /// Whether this id had been accepted before, so that nothing was stored this time.
    pub fn is_duplicate(&self) -> bool {
        self.duplicate
    }

    /// Waits until the message is settled, by this process or another, but not longer than `within`.
    ///
    /// When the process that holds the entity seems to be gone, this one tries the lock.
    ///
    /// # Guarantees
    /// `Handled` and `Dead` are said only of committed outcomes. What its handler sent is committed too, and may still be on
    /// its way to a target that the database keeps elsewhere. A message that was purged with its entity is gone like
    /// one that was handled.
    ///
    /// # Errors
    /// Those of the database; [`Misuse`](crate::ErrorKind::Misuse) inside a handler, where waiting for another
    /// message can deadlock.
    ///
    /// # Cancel safety
    /// Changes nothing; can be dropped and called again.
    ///
    /// # Round trips
    /// None when this process handles it at once; otherwise one read at growing intervals, from 20 ms to 1 s.
    pub async fn settled(&self, within: Duration) -> Result<Settled, Error> {
        const FIRST: Duration = Duration::from_millis(20);
        const LONGEST: Duration = Duration::from_secs(1);
        refuse_inside_handler("settled")?;
        let engine = &self.engine;
        let started = engine.seam.now();
        let deadline = started + within.min(crate::Limits::DELAY);
        // Before the receiver, so that it is dropped behind it, whose sender is closed by then.
        let _forget = Forget(self);
        let mut told = engine.waiters.wait(&self.entity, &self.id);
        let mut pause = if engine.slots.is_held(&self.entity) { FIRST } else { Duration::ZERO };
        loop {
            let left = deadline.saturating_duration_since(engine.seam.now());
            tokio::select! {
                biased;
                Ok(settled) = &mut told => return Ok(settled),
                () = engine.seam.sleep(pause.min(left)) => {}
            }
            match engine.queue.locate(&self.entity, std::slice::from_ref(&self.id)).await?.first() {
                Some(Location::Gone) => return Ok(Settled::Handled),
                Some(Location::Dead) => return Ok(Settled::Dead),
                Some(Location::Queued) | None => {}
            }
            if engine.seam.now() >= deadline {
                return Ok(Settled::Pending);
            }
            self.look_if_abandoned(started);
            pause = (pause * 2).clamp(FIRST, LONGEST);
        }
    }

    /// After a lease's time without a result, its holder may have died.
    fn look_if_abandoned(&self, started: Instant) {
        if self.engine.seam.now() >= started + self.engine.config.lease {
            self.engine.look(&self.entity, self.engine.errand());
        }
    }
}

/// Takes the waiter out again, however the wait ends.
struct Forget<'a>(&'a Receipt);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.engine.waiters.forget(&self.0.entity, &self.0.id);
    }
}

/// A handler holds its entity's lock: what it waits for may be waiting for it.
pub(crate) fn refuse_inside_handler(call: &str) -> Result<(), Error> {
    match inside_handler() {
        Some(entity) => {
            let message =
                format!("`{call}` inside a handler can wait for itself; use `ctx.send` and answer later");
            Err(Error::misuse(message).with_entity(&entity))
        }
        None => Ok(()),
    }
}
