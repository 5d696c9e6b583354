use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Batch, Context, Failure};

/// Your logic for one kind of entity: the only place where an entity's state changes.
///
/// ```
/// # use actornot_core::{Batch, Context, Failure, Runner};
/// # use serde::{Deserialize, Serialize};
/// #[derive(Default, Serialize, Deserialize)]
/// struct Total { value: i64 }
///
/// #[derive(Serialize, Deserialize)]
/// struct Add { delta: i64 }
///
/// struct Counter;
///
/// impl Runner for Counter {
///     const KIND: &'static str = "counter";
///     type State = Total;
///     type Message = Add;
///
///     async fn run_locked(&self, state: &mut Total, batch: Batch<Add>, _ctx: &mut Context) -> Result<(), Failure> {
///         for add in batch {
///             state.value += add.delta;
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Runner: Send + Sync + 'static {
    /// The name of the kind: 1 to 64 bytes of `a-z 0-9 _ - .`, starting with a letter. It is stored with every
    /// entity, so it must not change.
    const KIND: &'static str;

    /// The version of [`State`](Self::State)'s shape. A process that meets a state with a higher version leaves it
    /// to one that knows it.
    const STATE_VERSION: u32 = 1;

    /// What an entity remembers; an entity without a state starts with the default.
    type State: Default + Serialize + DeserializeOwned + Send + 'static;

    /// What an entity is told.
    type Message: Serialize + DeserializeOwned + Send + 'static;

    /// Handles a batch, in order, while nobody else runs this entity.
    ///
    /// # Guarantees
    /// On `Ok`, the changed state, the acknowledgement of the batch and everything sent through `ctx` commit together
    /// or not at all (G4). On `Err`, or a panic, nothing of it is kept, unless the failure says that
    /// [the first n were handled](Failure::handled). Effects on the outside world are at-least-once: pass on
    /// [`Delivery::idempotency_key`](crate::Delivery::idempotency_key) and [`Context::fence`].
    ///
    /// # Errors
    /// See [`Failure`]: retry, dead-letter or pause.
    ///
    /// # Cancel safety
    /// The future is dropped at an await when the lock was lost, the run takes too long, or the process shuts down;
    /// [`Context::cancelled`] says so a little earlier. Nothing of the run is kept then.
    ///
    /// # Round trips
    /// One for the commit, which also brings the next batch.
    fn run_locked(
        &self,
        state: &mut Self::State,
        batch: Batch<Self::Message>,
        ctx: &mut Context,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Whether the entity may run now. It is asked before each batch; an entity that is not ready keeps its messages
    /// and is asked again when the time has passed, on the server's clock.
    fn ready(&self, state: &Self::State) -> Ready {
        let _ = state;
        Ready::Now
    }
}

/// Whether an entity may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ready {
    /// At once.
    Now,
    /// Not before this time has passed; at least [`SOONEST`](Self::SOONEST).
    After(Duration),
}

impl Ready {
    /// The shortest wait before an entity that was not ready is asked again: asking costs a commit.
    pub const SOONEST: Duration = Duration::from_millis(10);
}
