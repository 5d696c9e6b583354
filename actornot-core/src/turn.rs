//! From bytes to the user's types and back: one lease's worth of runs of one entity.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::Failure;
use crate::envelope::encode;
use crate::seam::BoxFuture;
use crate::{
    Batch, Context, Delivery, EntityId, HandedOut, NewState, Ready, Runner, StoredMessage, StoredState,
};

/// A runner whose types were forgotten, so that several kinds share one engine.
pub(crate) trait AnyRunner: Send + Sync {
    /// Opens a turn on a committed state.
    fn open(self: Arc<Self>, entity: &EntityId, state: Option<StoredState>) -> Box<dyn Turn>;
}

/// The state of one entity between the batches of one lease.
pub(crate) trait Turn: Send {
    /// Runs a batch. Dropped before its end, or after a failure, the next run starts from the committed bytes.
    fn run<'a>(&'a mut self, batch: HandedOut, ctx: &'a mut Context) -> BoxFuture<'a, Outcome>;
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// How many messages, from the front, were handled.
    pub(crate) handled: usize,
    /// The state they led to, if it changed.
    pub(crate) state: Option<NewState>,
    /// What is to be said of the message behind them.
    pub(crate) rest: Rest,
}

#[derive(Debug)]
pub(crate) enum Rest {
    /// Nothing: all were handled.
    Nothing,
    /// Its payload does not decode; no attempt will mend it.
    Undecodable(String),
    /// It cannot be run now.
    NotReady { after: Duration, error: Option<String> },
    /// The stored state does not decode, and must not be overwritten.
    StateUndecodable(String),
    /// The run failed.
    Failed(Failure),
}

impl Outcome {
    pub(crate) fn failed(failure: Failure) -> Self {
        Self::stopped(Rest::Failed(failure))
    }

    pub(crate) fn nothing() -> Self {
        Self::stopped(Rest::Nothing)
    }

    fn stopped(rest: Rest) -> Self {
        Self { handled: 0, state: None, rest }
    }
}

impl<R: Runner> AnyRunner for R {
    fn open(self: Arc<Self>, entity: &EntityId, state: Option<StoredState>) -> Box<dyn Turn> {
        let (json, state_version) = match state {
            Some(state) => (Some(state.json), state.state_version),
            None => (None, R::STATE_VERSION),
        };
        Box::new(Live { runner: self, entity: entity.clone(), json, state_version, state: None })
    }
}

struct Live<R: Runner> {
    runner: Arc<R>,
    entity: EntityId,
    /// The bytes that are committed, or are about to be.
    json: Option<String>,
    state_version: u32,
    /// The state those bytes mean; `None` before the first run and after one that was not kept.
    state: Option<R::State>,
}

impl<R: Runner> Turn for Live<R> {
    fn run<'a>(&'a mut self, batch: HandedOut, ctx: &'a mut Context) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let run = async { Ok(self.attempt(batch, ctx).await) };
            caught(run).await.unwrap_or_else(Outcome::failed)
        })
    }
}

impl<R: Runner> Live<R> {
    async fn attempt(&mut self, batch: HandedOut, ctx: &mut Context) -> Outcome {
        let mut state = match self.decode() {
            Ok(state) => state,
            Err(rest) => return Outcome::stopped(rest),
        };
        if let Ready::After(after) = self.runner.ready(&state) {
            self.state = Some(state);
            return Outcome::stopped(Rest::NotReady { after, error: None });
        }
        let (deliveries, undecodable) = self.deliveries(batch);
        let given = deliveries.len();
        let result = match given {
            0 => Ok(()),
            _ => self.runner.run_locked(&mut state, Batch::new(deliveries), ctx).await,
        };
        let (handled, rest) = match (result, undecodable) {
            (Ok(()), None) => (given, Rest::Nothing),
            (Ok(()), Some(error)) => (given, Rest::Undecodable(error)),
            // Whatever a handler says after it has handled everything, the next is none of its business.
            (Err(failure), Some(error)) if failure.handled >= given => (given, Rest::Undecodable(error)),
            (Err(failure), _) => (failure.handled.min(given), Rest::Failed(failure)),
        };
        if handled == 0 {
            return Outcome::stopped(rest);
        }
        match self.encode(&state, ctx.config.limits.state_bytes) {
            Ok(new) => {
                self.state = Some(state);
                Outcome { handled, state: new, rest }
            }
            Err(failure) => Outcome::failed(failure),
        }
    }

    fn decode(&mut self) -> Result<R::State, Rest> {
        if self.state_version > R::STATE_VERSION {
            let error = format!(
                "the state has version {}, this process knows {}: left to a newer one",
                self.state_version,
                R::STATE_VERSION
            );
            // Long enough for a newer process to be asked first, short enough not to be stuck in a rollback.
            return Err(Rest::NotReady { after: Duration::from_secs(5), error: Some(error) });
        }
        match (self.state.take(), &self.json) {
            (Some(state), _) => Ok(state),
            (None, None) => Ok(R::State::default()),
            (None, Some(json)) => serde_json::from_str(json).map_err(|error| {
                Rest::StateUndecodable(format!("the stored state does not decode: {error}"))
            }),
        }
    }

    fn encode(&mut self, state: &R::State, limit: usize) -> Result<Option<NewState>, Failure> {
        let json = encode("state", state, limit)?;
        if self.json.as_ref() == Some(&json) && self.state_version == R::STATE_VERSION {
            return Ok(None);
        }
        self.json = Some(json.clone());
        self.state_version = R::STATE_VERSION;
        Ok(Some(NewState { json, state_version: R::STATE_VERSION }))
    }

    /// The messages up to the first one that does not decode, and why it does not.
    fn deliveries(&self, batch: HandedOut) -> (Vec<Delivery<R::Message>>, Option<String>) {
        let mut deliveries = Vec::with_capacity(batch.messages.len());
        for (nth, StoredMessage { id, payload, headers }) in batch.messages.into_iter().enumerate() {
            let attempt = if nth == 0 { batch.deliveries } else { 1 };
            match serde_json::from_str(&payload) {
                Ok(message) => {
                    deliveries.push(Delivery { message, id, entity: self.entity.clone(), headers, attempt });
                }
                Err(error) => return (deliveries, Some(format!("the payload does not decode: {error}"))),
            }
        }
        (deliveries, None)
    }
}

/// Runs the user's code, of the runner and of its types; a panic becomes a failure, for it is one message's fault and
/// not the process's.
pub(crate) async fn caught<T>(run: impl Future<Output = Result<T, Failure>> + Send) -> Result<T, Failure> {
    let mut run = Box::pin(run);
    std::future::poll_fn(move |cx| {
        match std::panic::catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(cx))) {
            Ok(poll) => poll,
            Err(panic) => {
                let text = panic
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_else(|| "of unknown type".to_owned());
                Poll::Ready(Err(Failure::retry(format!("the handler panicked: {text}"))))
            }
        }
    })
    .await
}
