use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;
use crate::envelope::encode;
use crate::errand::Errand;
use crate::held::inside_handler;
use crate::seam::BoxFuture;
use crate::{
    Admission, EntityId, Envelope, Error, ErrorKind, Headers, MessageId, NewMessage, Receipt, Runner,
    Scheduler,
};

/// A message about to be posted: set options, then await it.
///
/// # Guarantees
/// When it answers `Ok`, the message is durable (G1), and joins the queue behind everything whose post had returned
/// before this one was made (G2). With [`id`](Self::id), it is accepted once (G7).
///
/// # Errors
/// - [`Invalid`](ErrorKind::Invalid), [`TooLarge`](ErrorKind::TooLarge): names the field and the limit; nothing
///   reached the database.
/// - [`BacklogFull`](ErrorKind::BacklogFull): nothing was stored.
/// - [`Unavailable`](ErrorKind::Unavailable): nothing was stored.
/// - [`UnknownOutcome`](ErrorKind::UnknownOutcome): it may have been stored; repeat with the same id.
/// - [`Closed`](ErrorKind::Closed), [`Misuse`](ErrorKind::Misuse): not made here.
///
/// # Cancel safety
/// Dropped before its first poll, nothing happens. Dropped later, the message is stored or not, and if it is, it is
/// run: the database call belongs to a task of the mailbox and goes on.
///
/// # Round trips
/// One, shared with the other posts of this process that wait at the same time; it also tries the lock.
#[must_use = "a post does nothing until it is awaited"]
pub struct Post<R: Runner> {
    engine: Arc<Engine>,
    /// What is known to be wrong with it already is said when it is awaited.
    entity: Result<EntityId, Error>,
    payload: Result<String, Error>,
    id: Option<String>,
    headers: Headers,
    delay: Duration,
    run: bool,
    runner: PhantomData<fn() -> R>,
}

impl<R: Runner> Post<R> {
    pub(crate) fn message(engine: Arc<Engine>, key: &str, message: &R::Message) -> Self {
        let payload = encode("payload", message, engine.config.limits.payload_bytes);
        Self::payload(engine, key, payload)
    }

    pub(crate) fn payload(engine: Arc<Engine>, key: &str, payload: Result<String, Error>) -> Self {
        Self {
            engine,
            entity: EntityId::new(R::KIND, key),
            payload,
            id: None,
            headers: Headers::new(),
            delay: Duration::ZERO,
            run: true,
            runner: PhantomData,
        }
    }

    /// The idempotency key, 1 to 256 bytes: a webhook's event id. Posted again for the same entity within
    /// [`retention`](crate::Config::retention) it is not stored again, and the first payload stays.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Joins the tail of the queue when this time has passed on the server's clock, with the order of that moment.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Adds headers.
    pub fn headers<N: Into<String>, V: Into<String>>(
        mut self,
        headers: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.headers.extend(headers.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Does not run it here: a sweep will, in this process or another.
    pub fn only_enqueue(mut self) -> Self {
        self.run = false;
        self
    }

    /// Posts from a thread that is not part of an async runtime, and blocks it.
    ///
    /// # Errors
    /// As by awaiting it; [`Misuse`](ErrorKind::Misuse) on a thread of an async runtime, where it could block the
    /// very tasks it waits for.
    pub fn blocking(self) -> Result<Receipt, Error> {
        if tokio::runtime::Handle::try_current().is_ok() {
            return Err(Error::misuse(
                "a blocking post inside an async runtime can deadlock; await it instead",
            ));
        }
        let (sender, receiver) = std::sync::mpsc::channel();
        let engine = self.engine.clone();
        engine.seam.spawn(Box::pin(async move { drop(sender.send(self.send().await)) }));
        receiver.recv().unwrap_or_else(|_| Err(engine.seam.gone()))
    }

    async fn send(self) -> Result<Receipt, Error> {
        let Self { engine, entity, payload, id, headers, delay, run, .. } = self;
        let entity = entity?;
        let given = id.is_some();
        let id = match id {
            Some(id) => MessageId::new(id).map_err(|error| error.with_entity(&entity))?,
            None => MessageId::from_random(engine.seam.random()),
        };
        let retention = if given { engine.config.retention } else { engine.config.own_retention };
        let payload = payload.map_err(|error| error.with_entity(&entity))?;
        let message = NewMessage { id: id.clone(), payload, headers, delay, retention };
        message.check(&engine.config.limits).map_err(|error| error.with_entity(&entity))?;

        let envelope = Envelope { entity: entity.clone(), message };
        let admission = match engine.config.scheduler {
            // A handler that waited for another entity could wait for itself.
            Scheduler::Inline { budget } if run && inside_handler().is_none() => {
                let (errand, over) = Errand::awaited(engine.seam.now() + budget);
                let admission = engine.post(envelope, run, errand).await?;
                over.wait().await;
                admission
            }
            _ => engine.post(envelope, run, engine.errand()).await?,
        };
        if admission == Admission::Full {
            let limit = engine.config.limits.backlog;
            let message = format!("{limit} messages are pending, which is the backlog limit");
            return Err(Error::new(ErrorKind::BacklogFull { limit }, message).with_entity(&entity));
        }
        // An id of our own can only meet itself: a try whose reply was lost.
        Ok(Receipt::new(engine, entity, id, given && admission == Admission::Duplicate))
    }
}

// Payloads and header values are the user's secrets: they never reach a log by way of Debug.
impl<R: Runner> fmt::Debug for Post<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post")
            .field("entity", &self.entity)
            .field("id", &self.id)
            .field("payload_bytes", &self.payload.as_ref().map(String::len))
            .field("headers", &self.headers.len())
            .field("delay", &self.delay)
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}

impl<R: Runner> IntoFuture for Post<R> {
    type Output = Result<Receipt, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
