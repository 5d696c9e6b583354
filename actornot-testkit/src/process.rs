//! One process as users build it: a runner, a mailbox, and the gate in front of the database.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actornot_core::{
    Actornot, Batch, Config, Context, EntityId, Error, Failure, LockableQueue, MailboxPoster, Ready, Receipt,
    Runner, Settled,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use crate::gate::{Gate, Gated};
use crate::lab::{LEASE, Lab};
use crate::world::World;

/// How long behaviours wait for what should come at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A message: its name, and what its handler does with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    name: String,
    act: Act,
}

/// What the handler does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Act {
    /// Writes the name into the state.
    Say,
    /// Fails so many times, then says.
    Fail(u32),
    Panic,
    /// Takes the process with it.
    Abort,
    /// Asks for the dead letters, telling how many came before it.
    Bury,
    /// Asks for a pause.
    Pause,
    /// Never returns.
    Hang,
    /// Waits until [`Probe::let_go`], then says.
    Hold,
    /// Says, and sends its name to another entity.
    Send(String),
    /// Says, and sends a message to another entity whose handler holds.
    SendHold(String),
    /// Says, and makes the state as long as this.
    Swell(usize),
}

/// What an entity remembers: everything that was said, in order.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Book {
    pub(crate) said: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    ballast: String,
}

/// The runner.
pub(crate) struct Thing(pub(crate) Arc<Probe>);

/// What the handlers of one process tell, and are told.
pub(crate) struct Probe {
    runs: Mutex<Vec<Vec<String>>>,
    running: Mutex<BTreeMap<EntityId, usize>>,
    most: watch::Sender<usize>,
    overlapped: AtomicBool,
    holding: watch::Sender<usize>,
    released: Semaphore,
    cancelled: watch::Sender<bool>,
    asleep: AtomicBool,
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
            asleep: AtomicBool::new(false),
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

    /// Whether entities are ready to run.
    pub(crate) fn sleep(&self, asleep: bool) {
        self.asleep.store(asleep, Ordering::Release);
    }
}

/// Counts a handler while it runs, however it ends.
struct Running<'a>(&'a Probe, EntityId);

impl<'a> Running<'a> {
    fn begin(probe: &'a Probe, entity: &EntityId, names: Vec<String>) -> Self {
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

impl Runner for Thing {
    const KIND: &'static str = "thing";
    type State = Book;
    type Message = Line;

    async fn run_locked(
        &self,
        state: &mut Book,
        batch: Batch<Line>,
        ctx: &mut Context,
    ) -> Result<(), Failure> {
        let names = batch.iter().map(|line| line.name.clone()).collect();
        let _running = Running::begin(&self.0, ctx.entity(), names);
        for (nth, line) in batch.into_iter().enumerate() {
            match &line.act {
                Act::Say => {}
                Act::Fail(times) if line.attempt() > *times => {}
                Act::Fail(_) => return Err(Failure::retry(format!("{} fails", line.name))),
                Act::Panic => panic!("{} panics", line.name),
                Act::Abort => std::process::abort(),
                Act::Bury => return Err(Failure::dead_letter(format!("{} is bad", line.name)).handled(nth)),
                Act::Pause => return Err(Failure::pause(format!("{} asks a human", line.name)).handled(nth)),
                Act::Hang => std::future::pending().await,
                Act::Hold => {
                    self.0.holding.send_modify(|holding| *holding += 1);
                    tokio::select! {
                        permit = self.0.released.acquire() => permit?.forget(),
                        () = ctx.cancelled() => {
                            self.0.cancelled.send_replace(true);
                            std::future::pending().await
                        }
                    }
                }
                Act::Send(to) => ctx.send::<Self>(to, Line { name: line.name.clone(), act: Act::Say })?,
                Act::SendHold(to) => {
                    ctx.send::<Self>(to, Line { name: line.name.clone(), act: Act::Hold })?
                }
                Act::Swell(size) => state.ballast = "x".repeat(*size),
            }
            state.said.push(line.name.clone());
        }
        Ok(())
    }

    fn ready(&self, _: &Book) -> Ready {
        match self.0.asleep.load(Ordering::Acquire) {
            true => Ready::After(Duration::from_millis(20)),
            false => Ready::Now,
        }
    }
}

/// One process.
pub(crate) struct Process {
    pub(crate) mailbox: MailboxPoster<Thing>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) probe: Arc<Probe>,
    world: Arc<World>,
}

impl Lab {
    /// A process that does not sweep by itself and retries quickly.
    pub(crate) async fn process(&self) -> Process {
        self.process_with(|_| {}).await
    }

    pub(crate) async fn process_with(&self, change: impl FnOnce(&mut Config)) -> Process {
        let gate = Gate::new(self.backend.open().await);
        let probe = Probe::new();
        let world = World::new(self.numbers(), self.backend.mistake());
        let queue: Arc<dyn LockableQueue> = Arc::new(Gated(gate.clone()));
        let system = Actornot::builder(queue).runner(Thing(probe.clone())).seam(world.clone());
        let system = system.configure(|config| {
            config.lease = LEASE;
            config.sweep_every = None;
            config.backoff = Duration::from_millis(1);
            config.max_backoff = Duration::from_millis(4);
            change(config);
        });
        let mailbox = system.build().and_then(|system| system.mailbox()).expect("a legal configuration");
        Process { mailbox, gate, probe, world }
    }
}

impl Process {
    /// Posts a message that is said.
    pub(crate) async fn say(&self, key: &str, name: &str) -> Result<Receipt, Error> {
        self.act(key, name, Act::Say).await
    }

    pub(crate) async fn act(&self, key: &str, name: &str, act: Act) -> Result<Receipt, Error> {
        self.mailbox.post(key, line(name, act)).await
    }

    /// Waits until a message is settled, and says how.
    pub(crate) async fn settled(&self, receipt: &Receipt) -> Result<Settled, Error> {
        receipt.settled(SOON).await
    }

    /// What was said, as it is committed.
    pub(crate) async fn said(&self, key: &str) -> Result<Vec<String>, Error> {
        Ok(self.mailbox.read(key).await?.map(|book| book.state.said).unwrap_or_default())
    }

    pub(crate) async fn pending(&self, key: &str) -> Result<u64, Error> {
        Ok(self.mailbox.read(key).await?.map_or(0, |book| book.pending))
    }

    /// Dies as it stands.
    pub(crate) fn kill(self) {
        self.world.end();
    }
}

pub(crate) fn line(name: &str, act: Act) -> Line {
    Line { name: name.to_owned(), act }
}
