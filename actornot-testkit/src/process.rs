//! One process as users build it: a runner, a mailbox, and the gate in front of the database.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use actornot_core::seam::BoxFuture;
use actornot_core::{
    Actornot, Batch, Config, Context, Error, Failure, LockableQueue, MailboxPoster, Ready, Receipt, Runner,
    Settled,
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::gate::{Gate, Gated};
use crate::lab::{LEASE, Lab};
use crate::world::World;

mod probe;

pub(crate) use probe::Probe;
use probe::Running;

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
    /// Says, and asks for a pause behind everything that was handed out.
    PauseBehind,
    /// Panics when it is decoded.
    Trap(#[serde(deserialize_with = "trap")] ()),
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

fn trap<'de, D: Deserializer<'de>>(_: D) -> Result<(), D::Error> {
    panic!("this is a trap")
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
        let all = batch.len();
        for (nth, line) in batch.into_iter().enumerate() {
            match &line.act {
                Act::Say => {}
                Act::Fail(times) if line.attempt() > *times => {}
                Act::Fail(_) => return Err(Failure::retry(format!("{} fails", line.name))),
                Act::Panic => panic!("{} panics", line.name),
                Act::Abort => std::process::abort(),
                Act::Bury => return Err(Failure::dead_letter(format!("{} is bad", line.name)).handled(nth)),
                Act::Pause => return Err(Failure::pause(format!("{} asks a human", line.name)).handled(nth)),
                Act::PauseBehind => {
                    state.said.push(line.name.clone());
                    return Err(Failure::pause(format!("{} asks too late", line.name)).handled(all));
                }
                Act::Trap(()) => {}
                Act::Hang => std::future::pending().await,
                Act::Hold => self.0.hold(ctx).await?,
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
        self.0.ready()
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

    /// Whether nothing is pending soon. Other than [`settled`](Self::settled) it only reads: a message that is
    /// stranded stays it.
    pub(crate) async fn emptied(&self, key: &str) -> Result<bool, Error> {
        let empty = async {
            while self.pending(key).await? > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(true)
        };
        tokio::time::timeout(SOON, empty).await.unwrap_or(Ok(false))
    }

    /// Whether so much is said soon. What was sent may still be on its way when its sender's message is settled.
    pub(crate) async fn heard(&self, key: &str, times: usize) -> Result<bool, Error> {
        let heard = async {
            while self.said(key).await?.len() < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(true)
        };
        tokio::time::timeout(SOON, heard).await.unwrap_or(Ok(false))
    }

    /// Dies as it stands.
    pub(crate) fn kill(self) {
        self.world.end();
    }
}

pub(crate) fn line(name: &str, act: Act) -> Line {
    Line { name: name.to_owned(), act }
}

/// Sends posts: each is polled once.
pub(crate) async fn sent<T>(posts: &mut [BoxFuture<'_, T>]) {
    std::future::poll_fn(|cx| {
        posts.iter_mut().for_each(|post| drop(post.as_mut().poll(cx)));
        Poll::Ready(())
    })
    .await
}
