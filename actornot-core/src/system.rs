use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;
use crate::entity::check_kind;
use crate::receipt::refuse_inside_handler;
use crate::seam::{Seam, Tokio};
use crate::turn::AnyRunner;
use crate::{Config, Error, LockableQueue, MailboxPoster, Runner, Swept};

/// Several kinds of entities over one database: they share connections, workers, heartbeat and sweep, and send to
/// each other.
///
/// ```no_run
/// # use actornot_core::*;
/// # use std::sync::Arc;
/// # fn f<Counter: Runner, Account: Runner>(queue: Arc<dyn LockableQueue>, counter: Counter, account: Account) -> Result<(), Error> {
/// let system = Actornot::builder(queue).runner(counter).runner(account).build()?;
/// let counters = system.mailbox::<Counter>()?;
/// let accounts = system.mailbox::<Account>()?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Actornot {
    handle: Arc<Handle>,
}

/// What keeps a system running; the last one dropped begins its end.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) engine: Arc<Engine>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.engine.drain();
        self.engine.heartbeats.close();
    }
}

/// Collects the runners and the configuration of a system.
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    queue: Arc<dyn LockableQueue>,
    config: Config,
    seam: Option<Arc<dyn Seam>>,
    runners: Vec<(&'static str, Arc<dyn AnyRunner>)>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds: Vec<_> = self.runners.iter().map(|(kind, _)| kind).collect();
        f.debug_struct("Builder").field("config", &self.config).field("kinds", &kinds).finish_non_exhaustive()
    }
}

/// A queue that can be shared: an adapter by value, or one chosen at run time as `Arc<dyn LockableQueue>`.
pub trait IntoQueue {
    /// The queue as the engine holds it.
    fn into_queue(self) -> Arc<dyn LockableQueue>;
}

impl<Q: LockableQueue> IntoQueue for Q {
    fn into_queue(self) -> Arc<dyn LockableQueue> {
        Arc::new(self)
    }
}

impl IntoQueue for Arc<dyn LockableQueue> {
    fn into_queue(self) -> Arc<dyn LockableQueue> {
        self
    }
}

impl Actornot {
    /// Starts a system over a queue.
    pub fn builder(queue: impl IntoQueue) -> Builder {
        Builder { queue: queue.into_queue(), config: Config::default(), seam: None, runners: Vec::new() }
    }

    /// The mailbox of one of the kinds.
    ///
    /// # Errors
    /// [`Misuse`](crate::ErrorKind::Misuse) for a kind that was not given to the builder.
    pub fn mailbox<R: Runner>(&self) -> Result<MailboxPoster<R>, Error> {
        if !self.handle.engine.runners.contains_key(R::KIND) {
            let message = format!("no runner of kind {:?} was given to the builder", R::KIND);
            return Err(Error::misuse(message));
        }
        Ok(MailboxPoster::over(self.handle.clone()))
    }

    /// As [`MailboxPoster::sweep`]: it runs every kind of this system.
    ///
    /// # Guarantees, errors, cancel safety, round trips
    /// As there.
    pub async fn sweep(&self, budget: Duration) -> Result<Swept, Error> {
        refuse_inside_handler("sweep")?;
        self.handle.engine.sweep(budget).await
    }

    /// As [`MailboxPoster::close`].
    ///
    /// # Guarantees, errors, cancel safety, round trips
    /// As there.
    pub async fn close(&self) {
        self.handle.engine.close().await;
    }

    /// A system of one kind with the default configuration, which is known to be right.
    pub(crate) fn single<R: Runner>(queue: Arc<dyn LockableQueue>, runner: R) -> Arc<Handle> {
        const { assert!(legal_kind(R::KIND), "KIND must be 1 to 64 of a-z 0-9 _ - . and start with a letter") };
        let runners = BTreeMap::from([(R::KIND, Arc::new(runner) as Arc<dyn AnyRunner>)]);
        let engine = Engine::new(queue, Config::default(), Arc::new(Tokio::current()), runners);
        Arc::new(Handle { engine })
    }
}

impl Builder {
    /// Adds a kind.
    pub fn runner<R: Runner>(mut self, runner: R) -> Self {
        self.runners.push((R::KIND, Arc::new(runner)));
        self
    }

    /// Changes the configuration.
    ///
    /// ```no_run
    /// # use actornot_core::*;
    /// # fn f(queue: impl LockableQueue) {
    /// let builder = Actornot::builder(queue).configure(|config| {
    ///     config.lease = std::time::Duration::from_secs(10);
    ///     config.sweep_every = None; // a cron calls `sweep`
    /// });
    /// # }
    /// ```
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Replaces the world, for simulation. Not a stable interface.
    #[doc(hidden)]
    pub fn seam(mut self, seam: Arc<dyn Seam>) -> Self {
        self.seam = Some(seam);
        self
    }

    /// The system, on the runtime of the caller.
    ///
    /// # Errors
    /// [`Misuse`](crate::ErrorKind::Misuse): no runner, two of one kind, or outside a runtime.
    /// [`Invalid`](crate::ErrorKind::Invalid): a configuration under which the promises could not be kept.
    pub fn build(self) -> Result<Actornot, Error> {
        self.config.check()?;
        if self.runners.is_empty() {
            return Err(Error::misuse("a system needs at least one runner"));
        }
        let mut runners = BTreeMap::new();
        for (kind, runner) in self.runners {
            check_kind(kind)?;
            if runners.insert(kind, runner).is_some() {
                return Err(Error::misuse(format!("two runners of kind {kind:?}: a kind names one runner")));
            }
        }
        let seam = match self.seam {
            Some(seam) => seam,
            None if tokio::runtime::Handle::try_current().is_err() => return Err(Tokio::current().gone()),
            None => Arc::new(Tokio::current()),
        };
        let engine = Engine::new(self.queue, self.config, seam, runners);
        Ok(Actornot { handle: Arc::new(Handle { engine }) })
    }
}

/// As [`check_kind`], at compile time.
const fn legal_kind(kind: &str) -> bool {
    let bytes = kind.as_bytes();
    if bytes.is_empty() || bytes.len() > crate::Limits::KIND_BYTES || !bytes[0].is_ascii_lowercase() {
        return false;
    }
    let mut i = 0;
    while i < bytes.len() {
        let legal = bytes[i].is_ascii_lowercase() || bytes[i].is_ascii_digit();
        if !legal && !matches!(bytes[i], b'_' | b'-' | b'.') {
            return false;
        }
        i += 1;
    }
    true
}
