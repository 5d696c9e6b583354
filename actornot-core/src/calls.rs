//! The verbs of the contract as the engine calls them: in slices, with one item for each entity.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::claim::Claim;
use crate::engine::Engine;
use crate::errand::Errand;
use crate::gathered::Gathered;
use crate::group::Verb;
use crate::seam::BoxFuture;
use crate::{
    Admission, Commit, Enqueue, Enqueued, EntityId, Envelope, Error, ErrorKind, Grant, Lease, Limits,
    LockableQueue, Retry, TryLock, Updated,
};

/// Posts: those for the same entity share an item, and the first of them may bring back the lock.
pub(crate) struct Posts {
    pub(crate) queue: Arc<dyn LockableQueue>,
    pub(crate) engine: Weak<Engine>,
    pub(crate) backlog: u64,
}

/// One post on its way.
pub(crate) struct Posting {
    pub(crate) envelope: Envelope,
    /// What it is to be run for, if this process may run it.
    pub(crate) errand: Option<Errand>,
}

impl Verb for Posts {
    type Ask = Posting;
    type Answer = Admission;

    fn cut(&self, waiting: &mut dyn Iterator<Item = &Posting>) -> usize {
        const MESSAGES: usize = 256;
        const BYTES: usize = 4 * 1024 * 1024;
        let mut bytes = 0;
        waiting
            .take(MESSAGES)
            .take_while(|posting| {
                bytes += posting.envelope.message.payload.len();
                bytes <= BYTES
            })
            .count()
    }

    fn call<'a>(&'a self, slice: &'a [Posting]) -> BoxFuture<'a, Vec<Result<Admission, Error>>> {
        Box::pin(async move {
            let mut items: Vec<Enqueue> = Vec::new();
            let mut item_of: HashMap<&EntityId, usize> = HashMap::new();
            let mut errands: Vec<Option<Errand>> = Vec::new();
            let mut places = Vec::with_capacity(slice.len());
            for Posting { envelope, errand } in slice {
                let item = *item_of.entry(&envelope.entity).or_insert_with(|| {
                    items.push(Enqueue {
                        entity: envelope.entity.clone(),
                        messages: Vec::new(),
                        backlog_limit: self.backlog,
                        lock: None,
                    });
                    errands.push(None);
                    items.len() - 1
                });
                places.push((item, items[item].messages.len()));
                items[item].messages.push(envelope.message.clone());
                match (&mut errands[item], errand.clone()) {
                    (Some(all), Some(errand)) => all.join(errand),
                    (all @ None, errand) => *all = errand,
                    (Some(_), None) => {}
                }
            }
            let engine = self.engine.upgrade();
            // A claim that is dropped, because the trip was given up or its outcome is unknown, asks for the lock
            // again with the same nonce: a grant whose reply was lost is found.
            let mut claims: Vec<Option<Claim>> = Vec::with_capacity(items.len());
            for (item, errand) in items.iter_mut().zip(&errands) {
                let claim = engine.as_ref().zip(errand.as_ref());
                let claim = claim.and_then(|(engine, errand)| engine.claim(&item.entity, errand));
                item.lock = claim.as_ref().map(Claim::request);
                claims.push(claim);
            }

            let answers = self.queue.enqueue(&items).await;

            let admissions: Vec<Result<Vec<Admission>, Error>> = answers
                .into_iter()
                .zip(items.iter().zip(errands))
                .zip(claims)
                .map(|((answer, (item, errand)), claim)| {
                    arrived(engine.as_ref(), item, errand, claim, answer)
                })
                .collect();
            places
                .into_iter()
                .map(|(item, nth)| match admissions.get(item) {
                    Some(Ok(admissions)) => admissions.get(nth).copied().ok_or_else(short_answer),
                    Some(Err(error)) => Err(refused(error, items[item].messages.len())),
                    None => Err(short_answer()),
                })
                .collect()
        })
    }
}

/// A value of one message may be what its whole item was refused for.
fn refused(error: &Error, messages: usize) -> Error {
    use ErrorKind::{Conflict, Corrupt, Invalid, TooLarge};
    match error.kind() {
        Invalid { .. } | TooLarge { .. } | Conflict | Corrupt if !error.is_shared() => {
            error.clone().shared_by(messages)
        }
        _ => error.clone(),
    }
}

/// The messages are durable, or not: makes sure that somebody looks at them.
fn arrived(
    engine: Option<&Arc<Engine>>,
    item: &Enqueue,
    errand: Option<Errand>,
    claim: Option<Claim>,
    answer: Result<Enqueued, Error>,
) -> Result<Vec<Admission>, Error> {
    match answer {
        Ok(Enqueued { admissions, grant }) => {
            match (claim, engine, errand) {
                (Some(claim), ..) => claim.answered(grant),
                (None, Some(engine), Some(errand)) => engine.look_after_enqueue(&item.entity, errand),
                _ => {}
            }
            Ok(admissions)
        }
        Err(error) => {
            if let Some(claim) = claim
                && error.retry() != Retry::SameId
            {
                claim.answered(None);
            }
            Err(error.with_entity(&item.entity))
        }
    }
}

fn short_answer() -> Error {
    Error::new(crate::ErrorKind::Conflict, "the adapter answered for fewer messages than it was given")
}

/// Locks of entities that waited in line.
pub(crate) struct Locks {
    pub(crate) queue: Arc<dyn LockableQueue>,
    pub(crate) engine: Weak<Engine>,
    pub(crate) gathered: Gathered,
}

impl Verb for Locks {
    type Ask = TryLock;
    type Answer = Option<Grant>;

    fn cut(&self, waiting: &mut dyn Iterator<Item = &TryLock>) -> usize {
        // A run costs the server more than a post, and hardly more for three messages than for one. So while posts
        // outrun the runs, fewer runs get more done, if messages gather for the others meanwhile; but nobody waits for
        // ever.
        const FEWEST: usize = Limits::SLICE / 8;
        let outrun = self.engine.upgrade().is_some_and(|engine| engine.is_outrun());
        let most = if outrun { self.gathered.alone(Limits::SLICE).max(FEWEST) } else { Limits::SLICE };
        waiting.take(most).count()
    }

    fn call<'a>(&'a self, slice: &'a [TryLock]) -> BoxFuture<'a, Vec<Result<Option<Grant>, Error>>> {
        Box::pin(async move {
            let answers = self.queue.try_lock(slice).await;
            let grants = answers.iter().flatten().flatten();
            self.gathered.learn(grants.map(|grant| grant.batch.messages.len() > 1));
            answers
        })
    }
}

/// A verb whose slices need nothing but a limit: each entity has one owner in this process, and so one call.
macro_rules! plain_verb {
    ($name:ident, $ask:ty => $answer:ty, $call:ident) => {
        pub(crate) struct $name(pub(crate) Arc<dyn LockableQueue>);

        impl Verb for $name {
            type Ask = $ask;
            type Answer = $answer;

            fn cut(&self, waiting: &mut dyn Iterator<Item = &$ask>) -> usize {
                waiting.take(Limits::SLICE).count()
            }

            fn call<'a>(&'a self, slice: &'a [$ask]) -> BoxFuture<'a, Vec<Result<$answer, Error>>> {
                self.0.$call(slice)
            }
        }
    };
}

plain_verb!(Commits, Commit => Updated, update_locked);
plain_verb!(Releases, Lease => bool, release);
