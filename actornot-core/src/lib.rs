//! actornot, "not quite an actor".
#![forbid(unsafe_code)]

mod commit;
mod config;
mod entity;
mod envelope;
mod error;
mod id;
mod inspect;
mod lease;
mod queue;

pub use commit::{Commit, Effect, NewState, Next, Updated, Verdict, Waiting};
pub use config::{Config, Limits, PoisonPolicy, Scheduler};
pub use entity::EntityId;
pub use envelope::{Envelope, Headers, NewMessage, StoredMessage};
pub use error::{Error, ErrorKind, Retry};
pub use id::{CommitId, MessageId, Nonce};
pub use inspect::{DeadLetter, DurabilityReport, Inspect, Location, Position, Setting, Snapshot, Why};
pub use lease::{Grant, HandedOut, Lease, LockRequest, StoredState};
pub use queue::{
    Admission, Capabilities, Cursor, Due, DueQuery, Enqueue, Enqueued, Heartbeat, LockableQueue, TryLock,
};
