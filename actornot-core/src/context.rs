use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;

use crate::envelope::encode;
use crate::seam::Seam;
use crate::{
    Capabilities, Config, Effect, EntityId, Envelope, Error, Headers, MessageId, NewMessage, Runner,
};

/// What a run may know and ask for besides its state.
#[derive(Debug)]
pub struct Context {
    pub(crate) entity: EntityId,
    pub(crate) fence: u64,
    pub(crate) version: u64,
    pub(crate) deadline: Instant,
    pub(crate) cancelled: watch::Receiver<bool>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) capabilities: Capabilities,
    pub(crate) config: Arc<Config>,
    pub(crate) seam: Arc<dyn Seam>,
}

impl Context {
    /// Whose turn it is.
    pub fn entity(&self) -> &EntityId {
        &self.entity
    }

    /// The fence of this run: higher than that of every earlier run of the entity. External systems that remember
    /// the highest fence they saw can refuse a stale run.
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// How many commits have written the state that this run started from.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When this run is cancelled at the latest.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How long that is from now.
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(self.seam.now().into_std())
    }

    /// Whether this run is to end: its lock was lost, its time is up, or the process shuts down. Its commit will not
    /// count, and a little later its future is dropped.
    pub fn is_cancelled(&self) -> bool {
        *self.cancelled.borrow()
    }

    /// Waits until this run is to end.
    ///
    /// # Cancel safety
    /// Can be dropped and called again, for example in `select!`.
    pub async fn cancelled(&self) {
        let mut cancelled = self.cancelled.clone();
        // The sender lives as long as the run; if it is gone, so is the run.
        let _ = cancelled.wait_for(|cancelled| *cancelled).await;
    }

    /// Posts a message to another entity, or to this one, when this run commits: exactly once, beyond the target's
    /// backlog limit.
    ///
    /// # Errors
    /// A key or message that cannot be accepted; nothing was staged.
    pub fn send<R: Runner>(&mut self, key: impl AsRef<str>, message: R::Message) -> Result<(), Error> {
        self.send_after::<R>(key, message, Duration::ZERO)
    }

    /// As [`send`](Self::send); the message joins the target's queue when `delay` has passed.
    ///
    /// # Errors
    /// A key, message or delay that cannot be accepted; nothing was staged.
    pub fn send_after<R: Runner>(
        &mut self,
        key: impl AsRef<str>,
        message: R::Message,
        delay: Duration,
    ) -> Result<(), Error> {
        let envelope = self.envelope(EntityId::new(R::KIND, key.as_ref())?, &message, delay)?;
        self.effects.push(Effect::Send(envelope));
        Ok(())
    }

    /// Posts `message` to this entity after `delay`, under a name that can be set again or cancelled.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where the adapter has no timers.
    pub fn set_timer<R: Runner>(
        &mut self,
        name: &str,
        delay: Duration,
        message: R::Message,
    ) -> Result<(), Error> {
        self.claimed(self.capabilities.timers, "a timer")?;
        if R::KIND != self.entity.kind() {
            let message =
                format!("a timer of {} carries its own messages, not those of {:?}", self.entity, R::KIND);
            return Err(Error::misuse(message));
        }
        let envelope = self.envelope(self.entity.clone(), &message, delay)?;
        self.effects.push(Effect::SetTimer { name: name.to_owned(), envelope });
        Ok(())
    }

    /// Forgets a timer when this run commits.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where the adapter has no timers.
    pub fn cancel_timer(&mut self, name: &str) -> Result<(), Error> {
        self.claimed(self.capabilities.timers, "a timer")?;
        self.effects.push(Effect::CancelTimer { name: name.to_owned() });
        Ok(())
    }

    /// Answers whoever asked with this message, when this run commits.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where the adapter has no replies.
    pub fn reply<T: Serialize>(&mut self, to: &MessageId, reply: &T) -> Result<(), Error> {
        self.claimed(self.capabilities.replies, "a reply")?;
        let payload = encode("reply", reply, self.config.limits.payload_bytes)?;
        self.effects.push(Effect::Reply { to: to.clone(), payload });
        Ok(())
    }

    fn claimed(&self, claimed: bool, what: &str) -> Result<(), Error> {
        if claimed { Ok(()) } else { Err(Error::unsupported(what).with_entity(&self.entity)) }
    }

    fn envelope<M: Serialize>(
        &self,
        entity: EntityId,
        message: &M,
        delay: Duration,
    ) -> Result<Envelope, Error> {
        let message = NewMessage {
            id: MessageId::from_random(self.seam.random()),
            payload: encode("payload", message, self.config.limits.payload_bytes)?,
            headers: Headers::new(),
            delay,
            retention: self.config.own_retention,
        };
        message.check(&self.config.limits)?;
        Ok(Envelope { entity, message })
    }
}
