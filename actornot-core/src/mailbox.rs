use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use serde::de::{DeserializeOwned, IgnoredAny};

use crate::receipt::refuse_inside_handler;
use crate::system::Handle;
use crate::{
    Actornot, DeadLetter, EntityId, Error, ErrorKind, Inspect, IntoQueue, Position, Post, Runner, Snapshot,
    Swept, Why,
};

/// The main entry point: posts messages for the entities of one kind, and runs them where the lock is.
///
/// Cheap to clone; clones share everything. When the last one is dropped without [`close`](Self::close), nothing new is
/// started, and running batches finish and hand their leases back as long as the runtime lives. When `main` returns
/// without `close` they are cut off, and their entities wait for the lease to run out.
pub struct MailboxPoster<R: Runner> {
    handle: Arc<Handle>,
    runner: PhantomData<fn() -> R>,
}

// By hand, for a derived one would ask it of the runner.
impl<R: Runner> fmt::Debug for MailboxPoster<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailboxPoster").field("kind", &R::KIND).finish_non_exhaustive()
    }
}

impl<R: Runner> Clone for MailboxPoster<R> {
    fn clone(&self) -> Self {
        Self::over(self.handle.clone())
    }
}

/// A committed state, read without a lock. Derefs to the state, whose own fields named `state`, `version` or `pending`
/// are reached by `view.state`.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct View<S> {
    /// The state; the default for an entity whose first message is not handled yet.
    pub state: S,
    /// How many commits have written it.
    pub version: u64,
    /// Messages that were accepted and not yet handled, delayed ones included.
    pub pending: u64,
}

// The state is the user's secret: it never reaches a log by way of Debug, unless its own Debug is asked.
impl<S> fmt::Debug for View<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("version", &self.version)
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}

impl<S> Deref for View<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.state
    }
}

impl<R: Runner> MailboxPoster<R> {
    /// A mailbox for one kind, with the default configuration: the short form of
    /// `Actornot::builder(queue).runner(runner).build()?.mailbox()?`.
    ///
    /// Call it inside the runtime that is to run the handlers.
    pub fn new(queue: impl IntoQueue, runner: R) -> Self {
        Self::over(Actornot::single(queue.into_queue(), runner))
    }

    pub(crate) fn over(handle: Arc<Handle>) -> Self {
        Self { handle, runner: PhantomData }
    }

    /// Posts a message for the entity with this key. See [`Post`] for guarantees, errors and options.
    pub fn post(&self, key: impl AsRef<str>, message: R::Message) -> Post<R> {
        Post::message(self.handle.engine.clone(), key.as_ref(), &message)
    }

    /// Posts JSON text as it is, byte for byte: for a webhook that passes on what it was sent. Text that is not JSON
    /// is refused; JSON that is not a message of this kind ends among the dead letters.
    pub fn post_json(&self, key: impl AsRef<str>, json: impl Into<String>) -> Post<R> {
        let json = json.into();
        let payload = match serde_json::from_str::<IgnoredAny>(&json) {
            Ok(_) => Ok(json),
            Err(error) => Err(Error::invalid("payload", format!("is not JSON: {error}"))),
        };
        Post::payload(self.handle.engine.clone(), key.as_ref(), payload)
    }

    /// Reads an entity's committed state without a lock; `None` for one that was never posted to.
    ///
    /// # Errors
    /// Those of the database; [`Corrupt`](ErrorKind::Corrupt) for a state that does not decode.
    ///
    /// # Cancel safety
    /// Reads only.
    ///
    /// # Round trips
    /// One.
    pub async fn read(&self, key: impl AsRef<str>) -> Result<Option<View<R::State>>, Error> {
        let entity = EntityId::new(R::KIND, key.as_ref())?;
        let snapshot = self.queue().read(std::slice::from_ref(&entity)).await?.into_iter().next().flatten();
        snapshot.map(|snapshot| view::<R::State>(&entity, snapshot)).transpose()
    }

    /// Reads entities in the order of their keys' bytes, from behind `after`, at most `limit`.
    ///
    /// # Errors
    /// Those of the database; for each entity [`Corrupt`](ErrorKind::Corrupt) if its state does not decode.
    ///
    /// # Cancel safety
    /// Reads only.
    ///
    /// # Round trips
    /// One.
    pub async fn list(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(EntityId, Result<View<R::State>, Error>)>, Error> {
        let page = self.queue().list(R::KIND, after, limit).await?;
        let view = |(entity, snapshot)| {
            let view = view::<R::State>(&entity, snapshot);
            (entity, view)
        };
        Ok(page.into_iter().map(view).collect())
    }

    /// Posts a message and waits for the handler's reply.
    ///
    /// # Errors
    /// [`Misuse`](ErrorKind::Misuse) inside a handler, where it can wait for itself;
    /// [`Unsupported`](ErrorKind::Unsupported) where the adapter has no replies, which today is everywhere.
    ///
    /// # Cancel safety
    /// As [`Post`].
    ///
    /// # Round trips
    /// None.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        key: impl AsRef<str>,
        message: R::Message,
        within: Duration,
    ) -> Result<T, Error> {
        let _ = (message, within);
        refuse_inside_handler("ask")?;
        Err(Error::unsupported("a reply").with_entity(&EntityId::new(R::KIND, key.as_ref())?))
    }

    /// Finds entities of every kind of this system that have due work and no live lease, and runs them, for hosts
    /// that do not sweep by themselves: call it from a cron.
    ///
    /// # Guarantees
    /// G5, for as long as somebody calls it. No batch is started after `budget` has passed, and nothing that it started
    /// runs when it returns.
    ///
    /// # Errors
    /// Those of the database; a run's own failures are stored with its entity. [`Misuse`](ErrorKind::Misuse) with
    /// [`Scheduler::Never`](crate::Scheduler::Never), which runs nothing; [`Closed`](ErrorKind::Closed).
    ///
    /// # Cancel safety
    /// What was started goes on.
    ///
    /// # Round trips
    /// One for each page of 64, and those of running what is found.
    pub async fn sweep(&self, budget: Duration) -> Result<Swept, Error> {
        refuse_inside_handler("sweep")?;
        self.handle.engine.sweep(budget).await
    }

    /// Why an entity does or does not run; `None` for one that was never posted to.
    ///
    /// # Errors
    /// Those of the database.
    ///
    /// # Cancel safety
    /// Reads only.
    ///
    /// # Round trips
    /// One.
    pub async fn why(&self, key: impl AsRef<str>) -> Result<Option<Why>, Error> {
        self.queue().why(&EntityId::new(R::KIND, key.as_ref())?).await
    }

    /// Dead letters of this kind, oldest first, from behind `after`, at most `limit`.
    ///
    /// # Errors
    /// Those of the database.
    ///
    /// # Cancel safety
    /// Reads only.
    ///
    /// # Round trips
    /// One.
    pub async fn dead_letters(&self, after: Option<u64>, limit: u32) -> Result<Vec<DeadLetter>, Error> {
        self.queue().dead_letters(R::KIND, after, limit).await
    }

    /// Moves a dead letter back into its queue and sees to it that it is run, here or, with
    /// [`Scheduler::Never`](crate::Scheduler::Never), by a worker's sweep; `false` if it is not there any more.
    ///
    /// # Errors
    /// Those of the database.
    ///
    /// # Cancel safety
    /// It was moved or not; can be repeated.
    ///
    /// # Round trips
    /// One.
    pub async fn redrive(&self, letter: &DeadLetter, to: Position) -> Result<bool, Error> {
        let moved = self.queue().redrive(letter, to).await?;
        self.handle.engine.look(&letter.entity, self.handle.engine.errand());
        Ok(moved)
    }

    /// Ends a pause and a wait with fresh attempts, and sees to it that the entity is run; `false` if it is unknown.
    ///
    /// # Errors
    /// Those of the database.
    ///
    /// # Cancel safety
    /// It was resumed or not; can be repeated.
    ///
    /// # Round trips
    /// One.
    pub async fn resume(&self, key: impl AsRef<str>) -> Result<bool, Error> {
        let entity = EntityId::new(R::KIND, key.as_ref())?;
        let known = self.queue().resume(&entity).await?;
        self.handle.engine.look(&entity, self.handle.engine.errand());
        Ok(known)
    }

    /// The database behind it, for what else [`Inspect`] can tell and mend: peek, pause, purge, doctor.
    pub fn queue(&self) -> &dyn Inspect {
        &*self.handle.engine.queue
    }

    /// Drains: takes no new posts, lets running batches finish, hands leases back.
    ///
    /// Batches that still run after [`close_timeout`](crate::Config::close_timeout) are dropped, and their leases
    /// handed back, so that another instance goes on at once. Closes every mailbox of the system; can be repeated.
    ///
    /// # Guarantees
    /// Afterwards nothing of this system runs and no lease is held, unless the database did not answer.
    ///
    /// # Errors
    /// None: what could not be handed back runs out by itself.
    ///
    /// # Cancel safety
    /// The drain goes on without its time limit.
    ///
    /// # Round trips
    /// One for each running batch.
    pub async fn close(&self) {
        self.handle.engine.close().await;
    }
}

fn view<S: Default + DeserializeOwned>(entity: &EntityId, snapshot: Snapshot) -> Result<View<S>, Error> {
    let Some(stored) = snapshot.state else {
        return Ok(View { state: S::default(), version: 0, pending: snapshot.pending });
    };
    let state = serde_json::from_str(&stored.json).map_err(|error| {
        let message = format!("the stored state does not decode: {error}; mend it or the type, then resume");
        Error::new(ErrorKind::Corrupt, message).with_source(error).with_entity(entity)
    })?;
    Ok(View { state, version: stored.version, pending: snapshot.pending })
}
