//! A queue between the loop and the database: holds calls where a behaviour wants them, and loses their replies.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use actornot_core::{EntityId, Error, ErrorKind, LockableQueue};
use tokio::sync::oneshot;

mod queue;

pub(crate) use queue::Gated;

/// A verb of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Enqueue,
    TryLock,
    Update,
    Release,
    Due,
}

/// Where in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// It was not made yet.
    Before,
    /// It was made, and its reply is on its way.
    After,
}

/// What becomes of the next call of a verb.
enum Plan {
    Hold { at: Point, reached: oneshot::Sender<()>, end: oneshot::Receiver<Lost> },
    LoseReply,
    RefuseUnmade(ErrorKind),
}

/// A call that is held. Dropped, it goes on.
pub(crate) struct Hold {
    reached: oneshot::Receiver<()>,
    end: oneshot::Sender<Lost>,
}

/// The reply of a call that was held is lost.
struct Lost;

impl Hold {
    /// Completes when a call has come this far.
    pub(crate) async fn reached(&mut self) {
        let _ = (&mut self.reached).await;
    }

    /// Lets it go on.
    pub(crate) fn go_on(self) {
        drop(self);
    }

    /// Lets it go on, and loses its reply.
    pub(crate) fn lose(self) {
        let _ = self.end.send(Lost);
    }
}

/// The gate in front of one queue.
pub(crate) struct Gate {
    inner: Arc<dyn LockableQueue>,
    plans: Mutex<VecDeque<(Verb, Plan)>>,
    /// What was called, and for how many items.
    calls: Mutex<Vec<(Verb, usize)>>,
    halt: Mutex<Option<Halt>>,
    /// Posts to entities whose key starts so cannot be served.
    shut: OnceLock<&'static str>,
    /// A call is refused as a whole for an entity or a message whose name starts so.
    spoilt: OnceLock<&'static str>,
}

/// The call at which a process stands still, until it is killed.
struct Halt {
    nth: usize,
    at: Point,
    halted: oneshot::Sender<Verb>,
}

impl Gate {
    pub(crate) fn new(inner: Arc<dyn LockableQueue>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            plans: Mutex::default(),
            calls: Mutex::default(),
            halt: Mutex::default(),
            shut: OnceLock::new(),
            spoilt: OnceLock::new(),
        })
    }

    fn plans(&self) -> MutexGuard<'_, VecDeque<(Verb, Plan)>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan(&self, verb: Verb, plan: Plan) {
        self.plans().push_back((verb, plan));
    }

    /// Holds the next call of a verb.
    pub(crate) fn hold(&self, verb: Verb, at: Point) -> Hold {
        let (arrived, reached) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        self.plan(verb, Plan::Hold { at, reached: arrived, end: ended });
        Hold { reached, end }
    }

    /// The next call of a verb is made, and its reply lost.
    pub(crate) fn lose_reply(&self, verb: Verb) {
        self.plan(verb, Plan::LoseReply);
    }

    /// The next call of a verb is not made.
    pub(crate) fn refuse(&self, verb: Verb, kind: ErrorKind) {
        self.plan(verb, Plan::RefuseUnmade(kind));
    }

    /// From now on, posts to entities whose key starts so cannot be served.
    pub(crate) fn shut(&self, keys: &'static str) {
        let _ = self.shut.set(keys);
    }

    fn is_shut(&self, entity: &EntityId) -> bool {
        self.shut.get().is_some_and(|keys| entity.key().starts_with(keys))
    }

    /// From now on, calls are refused as a whole for an entity or a message whose name starts so.
    pub(crate) fn spoil(&self, names: &'static str) {
        let _ = self.spoilt.set(names);
    }

    /// What a database says that refuses a value, and with it the statement.
    fn refused(&self, mut names: impl Iterator<Item = impl AsRef<str>>) -> Option<Error> {
        let spoilt = self.spoilt.get()?;
        names.any(|name| name.as_ref().starts_with(spoilt)).then(|| Error::invalid("value", "is spoilt"))
    }

    /// How often a verb was called.
    pub(crate) fn calls(&self, verb: Verb) -> usize {
        self.sizes(verb).len()
    }

    /// For how many items each call of a verb was.
    pub(crate) fn sizes(&self, verb: Verb) -> Vec<usize> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().filter(|(called, _)| *called == verb).map(|(_, items)| *items).collect()
    }

    /// Completes when the so-manieth call, of whatever verb, has come to this point; it goes no further.
    pub(crate) async fn halt(&self, nth: usize, at: Point) -> Verb {
        let (halted, reached) = oneshot::channel();
        *self.halt.lock().unwrap_or_else(PoisonError::into_inner) = Some(Halt { nth, at, halted });
        match reached.await {
            Ok(verb) => verb,
            Err(_) => std::future::pending().await,
        }
    }

    /// Stands still if this is where to halt.
    async fn passed(&self, nth: usize, at: Point, verb: Verb) {
        let here = |halt: &mut Halt| halt.nth == nth && halt.at == at;
        let halt = self.halt.lock().unwrap_or_else(PoisonError::into_inner).take_if(here);
        if let Some(halt) = halt {
            let _ = halt.halted.send(verb);
            std::future::pending::<()>().await;
        }
    }

    /// Counts a call.
    fn count(&self, verb: Verb, items: usize) -> usize {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push((verb, items));
        calls.len()
    }

    fn next(&self, verb: Verb) -> Option<Plan> {
        let mut plans = self.plans();
        let place = plans.iter().position(|(planned, _)| *planned == verb)?;
        plans.remove(place).map(|(_, plan)| plan)
    }

    /// Makes a call as planned. `Err`: it has no answer, for this reason.
    async fn pass<T>(&self, verb: Verb, items: usize, call: impl Future<Output = T>) -> Result<T, Error> {
        let nth = self.count(verb, items);
        match self.next(verb) {
            None => {
                self.passed(nth, Point::Before, verb).await;
                let answer = call.await;
                self.passed(nth, Point::After, verb).await;
                Ok(answer)
            }
            Some(Plan::Hold { at, reached, end }) => {
                let held = async {
                    let _ = reached.send(());
                    end.await.is_ok()
                };
                let (answer, lost) = match at {
                    Point::Before => {
                        let lost = held.await;
                        (call.await, lost)
                    }
                    Point::After => (call.await, held.await),
                };
                if lost { Err(lost_reply()) } else { Ok(answer) }
            }
            Some(Plan::LoseReply) => {
                call.await;
                Err(lost_reply())
            }
            Some(Plan::RefuseUnmade(kind)) => Err(Error::new(kind, "the call was not made")),
        }
    }

    async fn each<T>(
        &self,
        verb: Verb,
        items: usize,
        call: impl Future<Output = Vec<Result<T, Error>>>,
    ) -> Vec<Result<T, Error>> {
        self.pass(verb, items, call).await.unwrap_or_else(|error| error.for_each(items))
    }
}

fn lost_reply() -> Error {
    Error::new(ErrorKind::UnknownOutcome, "the reply was lost")
}

/// How the loop shares trips: of concern to nobody who writes an adapter, so not in the suite.
#[cfg(test)]
mod tests {
    use actornot_core::seam::BoxFuture;

    use super::*;
    use crate::MemoryBackend;
    use crate::lab::Lab;
    use crate::process::{Act, Process, sent};

    const SEATS: usize = 32;

    /// Every seat is taken by a handler that waits, and three times as many entities stand in line.
    async fn crowded(lab: &Lab) -> Process {
        crowded_with(lab, &["a"]).await
    }

    /// The same, with these messages for each of those in line.
    async fn crowded_with(lab: &Lab, messages: &[&str]) -> Process {
        let process = lab.process_with(|config| config.concurrency = SEATS as u32).await;
        for n in 0..SEATS {
            process.act(&format!("seated{n}"), "a", Act::Hold).await.unwrap();
        }
        process.probe.holding(SEATS).await;
        for n in 0..3 * SEATS {
            for message in messages {
                process.say(&format!("in line{n}"), message).await.unwrap();
            }
        }
        process
    }

    /// How many locks the first trips take, while a post is on its way.
    async fn locks_while_posts_outrun_the_runs(messages: &[&str]) -> Vec<usize> {
        let lab = Lab::new(MemoryBackend::sound());
        let process = crowded_with(&lab, messages).await;
        let mut posted = process.gate.hold(Verb::Enqueue, Point::Before);
        let mut post = [Box::pin(process.say("late", "a")) as BoxFuture<'_, _>];
        sent(&mut post).await;
        posted.reached().await;
        process.probe.let_go(SEATS);
        assert!(process.emptied(&format!("in line{}", SEATS / 2 * 3)).await.unwrap());
        let locks = process.gate.sizes(Verb::TryLock);
        posted.go_on();
        locks
    }

    // The clock stands still while there is something to do: nobody gives way for too long.
    #[tokio::test(start_paused = true)]
    async fn grants_and_commits_take_turns_and_gather_meanwhile() {
        let lab = Lab::new(MemoryBackend::sound());
        let process = crowded(&lab).await;
        let mut grant = process.gate.hold(Verb::TryLock, Point::Before);
        process.probe.let_go(1);
        grant.reached().await;
        process.probe.let_go(SEATS - 1);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(process.gate.sizes(Verb::Update), [1], "none while a grant is on its way");
        grant.go_on();
        assert!(process.emptied(&format!("in line{}", SEATS / 2)).await.unwrap());
        // With that of the one that was granted.
        assert_eq!(process.gate.sizes(Verb::Update).get(1), Some(&SEATS));
    }

    #[tokio::test]
    async fn a_grant_that_hangs_holds_up_no_commit() {
        let lab = Lab::new(MemoryBackend::sound());
        let process = crowded(&lab).await;
        let mut grant = process.gate.hold(Verb::TryLock, Point::Before);
        process.probe.let_go(1);
        grant.reached().await;
        process.probe.let_go(SEATS - 1);
        for n in 1..SEATS {
            assert!(process.emptied(&format!("seated{n}")).await.unwrap());
        }
        assert_eq!(process.gate.calls(Verb::TryLock), 1, "it still hangs");
        grant.go_on();
    }

    #[tokio::test]
    async fn while_posts_outrun_the_runs_and_messages_gather_fewer_runs_share_a_trip() {
        let locks = locks_while_posts_outrun_the_runs(&["a", "b"]).await;
        assert_eq!(locks[0], SEATS, "nothing is known yet: {locks:?}");
        assert!((8..SEATS).contains(&locks[1]), "{locks:?}");
    }

    #[tokio::test]
    async fn while_posts_outrun_the_runs_and_nothing_gathers_all_who_have_a_seat_share_a_trip() {
        let locks = locks_while_posts_outrun_the_runs(&["a"]).await;
        assert_eq!(locks[..2], [SEATS, SEATS]);
    }

    #[tokio::test]
    async fn while_nobody_posts_all_who_have_a_seat_share_a_trip() {
        let lab = Lab::new(MemoryBackend::sound());
        let process = crowded(&lab).await;
        process.probe.let_go(SEATS);
        assert!(process.emptied(&format!("in line{}", SEATS / 2)).await.unwrap());
        assert_eq!(process.gate.sizes(Verb::TryLock).first(), Some(&SEATS));
    }
}
