//! actornot, "not quite an actor": a message for an entity is durably queued in *your own database*; whoever can take
//! that entity's lease runs your code over the queued batch; state, acknowledgement and everything the code sent
//! commit together. No broker, no cluster, no daemon: every instance may die at any line.
//!
//! Implement [`Runner`] for each kind of entity, hand it to [`MailboxPoster::new`] or [`Actornot::builder`] with the
//! adapter of your database, and [`post`](MailboxPoster::post).
//!
//! # Guarantees
#![doc = include_str!("../GUARANTEES.md")]
//!
//! # For authors of adapters
//!
//! [`LockableQueue`] is the contract; the crate `actornot-testkit` holds the suite that proves an adapter against it.
#![forbid(unsafe_code)]

mod batch;
mod calls;
mod claim;
mod commit;
mod config;
mod context;
mod engine;
mod entity;
mod envelope;
mod errand;
mod error;
mod failure;
mod gathered;
mod group;
mod heartbeat;
mod held;
mod id;
mod inspect;
mod lease;
mod mailbox;
mod mailbox_loop;
mod post;
mod queue;
mod receipt;
mod runner;
#[doc(hidden)]
pub mod seam;
mod settle;
mod shutdown;
mod slots;
mod sweep;
mod system;
mod turn;
mod waiters;
mod workers;

pub use batch::{Batch, Delivery};
pub use commit::{Commit, Effect, NewState, Next, Updated, Verdict, Waiting};
pub use config::{Config, Limits, PoisonPolicy, Scheduler};
pub use context::Context;
pub use entity::EntityId;
pub use envelope::{Envelope, Headers, NewMessage, StoredMessage};
pub use error::{Error, ErrorKind, Retry};
pub use failure::Failure;
pub use id::{CommitId, MessageId, Nonce};
pub use inspect::{DeadLetter, DurabilityReport, Inspect, Location, Position, Setting, Snapshot, Why};
pub use lease::{Grant, HandedOut, Lease, LockRequest, StoredState};
pub use mailbox::{MailboxPoster, View};
pub use post::Post;
pub use queue::{
    Admission, Capabilities, Cursor, Due, DueQuery, Enqueue, Enqueued, Heartbeat, LockableQueue, TryLock,
};
pub use receipt::{Receipt, Settled};
pub use runner::{Ready, Runner};
pub use sweep::Swept;
pub use system::{Actornot, Builder, IntoQueue};
