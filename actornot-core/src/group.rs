//! Calls that wait while one is in flight form the next slice: no timer, no latency when idle.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::seam::{BoxFuture, Mistake, Seam};
use crate::{Error, ErrorKind, Retry};

/// Into so many slices one that was refused as a whole is split. More than two: while its offender is looked for, its
/// neighbours wait, perhaps for a lock, once for each size of slice.
const SPLIT: usize = 8;

/// One verb of the contract, as a group calls it.
pub(crate) trait Verb: Send + Sync + 'static {
    /// One call.
    type Ask: Send + Sync;
    /// Its answer.
    type Answer: Send;

    /// How many of the waiting calls, from the front, form the next slice; at least one.
    fn cut(&self, waiting: &mut dyn Iterator<Item = &Self::Ask>) -> usize;

    /// Makes the calls of a slice in one trip; one answer for each, in order.
    fn call<'a>(&'a self, slice: &'a [Self::Ask]) -> BoxFuture<'a, Vec<Result<Self::Answer, Error>>>;
}

/// Trips that share a lane are made one after the other: meanwhile more calls gather for the next one. A courtesy, not
/// a lock: see [`GIVES_WAY`].
pub(crate) type Lane = Arc<tokio::sync::Mutex<()>>;

/// For so long a trip gives way. A call that hangs, for a server that is gone or a row that others hold, must not hold up
/// another verb's.
const GIVES_WAY: Duration = Duration::from_millis(100);

/// The calls of one verb. A database call belongs to a task, never to a caller: a caller that is dropped harms no
/// neighbour in the slice and loses no grant.
pub(crate) struct Group<V: Verb> {
    verb: V,
    seam: Arc<dyn Seam>,
    call_timeout: Duration,
    limit: usize,
    lane: Lane,
    waiting: Mutex<Waiting<V>>,
}

struct Waiting<V: Verb> {
    calls: VecDeque<Call<V>>,
    flying: bool,
}

struct Call<V: Verb> {
    ask: V::Ask,
    caller: Caller<V::Answer>,
}

/// Who made a call, and how it went so far.
struct Caller<A> {
    answer: oneshot::Sender<Result<A, Error>>,
    /// Repeated until then.
    deadline: Instant,
    /// An earlier try may have been applied, so the final error must not claim that nothing was.
    unknown: bool,
    /// The most calls it may travel with. One that was refused in company goes again in a smaller slice.
    company: usize,
}

impl<V: Verb> Group<V> {
    pub(crate) fn new(
        verb: V,
        seam: Arc<dyn Seam>,
        call_timeout: Duration,
        limit: usize,
        lane: Lane,
    ) -> Arc<Self> {
        let waiting = Mutex::new(Waiting { calls: VecDeque::new(), flying: false });
        Arc::new(Self { verb, seam, call_timeout, limit, lane, waiting })
    }

    /// Makes a call. Dropping the future forgets the answer; the call goes on.
    pub(crate) async fn call(self: &Arc<Self>, ask: V::Ask) -> Result<V::Answer, Error> {
        let (answer, answered) = oneshot::channel();
        let deadline = self.seam.now() + self.call_timeout;
        let call = Call { ask, caller: Caller { answer, deadline, unknown: false, company: usize::MAX } };
        let start = {
            let mut waiting = self.waiting();
            if waiting.calls.len() >= self.limit {
                let message = format!("{} calls are waiting for the database already", self.limit);
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            waiting.calls.push_back(call);
            !std::mem::replace(&mut waiting.flying, true)
        };
        if start {
            // The guard travels inside the task: if the runtime drops it, even before its first poll, every caller
            // is told instead of waiting for ever.
            let flight = Flight(Some(self.clone()));
            self.seam.spawn(Box::pin(flight.fly()));
        }
        answered.await.unwrap_or_else(|_| {
            let message = "the runtime ended while the call was on its way to the database";
            Err(Error::new(ErrorKind::UnknownOutcome, message))
        })
    }

    /// Whether a trip is under way.
    pub(crate) fn is_flying(&self) -> bool {
        self.waiting().flying
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting<V>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lane, or `None` if whoever has it takes too long.
    async fn give_way(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        tokio::select! {
            biased;
            lane = self.lane.lock() => Some(lane),
            () = self.seam.sleep(GIVES_WAY) => None,
        }
    }

    /// Lets those who were just answered, or just granted a lock, call again: they come along instead of waiting for
    /// the trip after this one. No timer, and nobody else is waited for: a full slice leaves, however many more come.
    async fn gather(&self) {
        let mut before = 0;
        loop {
            let (calls, full) = {
                let waiting = self.waiting();
                (waiting.calls.len(), self.cut(&waiting) < waiting.calls.len())
            };
            if calls == before || full && self.seam.mistake() != Some(Mistake::GatherForEver) {
                return;
            }
            before = calls;
            tokio::task::yield_now().await;
        }
    }

    /// How many of the waiting calls the verb wants in the next slice.
    fn cut(&self, waiting: &Waiting<V>) -> usize {
        self.verb.cut(&mut waiting.calls.iter().map(|call| &call.ask))
    }

    /// The next slice, or `None` when there is nothing to do, and the flight ends.
    fn next(&self) -> Option<Vec<Call<V>>> {
        let mut waiting = self.waiting();
        if waiting.calls.is_empty() {
            waiting.flying = false;
            return None;
        }
        let n = self.cut(&waiting).clamp(1, waiting.calls.len());
        let mut most = n;
        let fits = |(place, call): &(usize, &Call<V>)| {
            most = most.min(call.caller.company);
            *place < most
        };
        let n = waiting.calls.iter().enumerate().take_while(fits).count();
        Some(waiting.calls.drain(..n).collect())
    }

    /// Makes one trip; answers what is settled and returns what is to be repeated, with the same ids.
    async fn trip(&self, slice: Vec<Call<V>>) -> Vec<Call<V>> {
        let (asks, callers): (Vec<V::Ask>, Vec<_>) =
            slice.into_iter().map(|call| (call.ask, call.caller)).unzip();
        let answers = tokio::select! {
            biased;
            answers = self.verb.call(&asks) => answers,
            () = self.seam.sleep(self.call_timeout) => {
                let message = format!("no answer from the database within {:?}", self.call_timeout);
                Error::new(ErrorKind::UnknownOutcome, message).for_each(asks.len())
            }
        };
        if answers.len() != asks.len() {
            let message = format!("the adapter gave {} answers to {} calls", answers.len(), asks.len());
            let error = Error::new(ErrorKind::Conflict, message);
            callers.into_iter().for_each(|caller| drop(caller.answer.send(Err(error.clone()))));
            return Vec::new();
        }
        let now = self.seam.now();
        let splits = self.seam.mistake() != Some(Mistake::SliceNeverSplit);
        let mut again = Vec::new();
        let company = asks.len();
        for ((ask, mut caller), answer) in asks.into_iter().zip(callers).zip(answers) {
            match answer {
                Err(error) if error.is_shared() && company > 1 && now < caller.deadline && splits => {
                    caller.company = company.div_ceil(SPLIT);
                    again.push(Call { ask, caller });
                }
                Err(error) if transient(&error) && now < caller.deadline => {
                    caller.unknown |= error.retry() == Retry::SameId;
                    again.push(Call { ask, caller });
                }
                Err(error) if caller.unknown => drop(caller.answer.send(Err(still_unknown(error)))),
                answer => drop(caller.answer.send(answer)),
            }
        }
        again
    }
}

/// The task that makes the trips. `None` once it has ended by itself.
struct Flight<V: Verb>(Option<Arc<Group<V>>>);

impl<V: Verb> Flight<V> {
    async fn fly(mut self) {
        const FIRST_PAUSE: Duration = Duration::from_millis(5);
        const LONGEST_PAUSE: Duration = Duration::from_millis(500);
        let Some(group) = self.0.clone() else { return };
        let mut pause = FIRST_PAUSE;
        loop {
            // Before the slice is cut: who calls while the lane is taken comes along.
            let lane = group.give_way().await;
            group.gather().await;
            let Some(slice) = group.next() else { break };
            let calls = slice.len();
            let again = group.trip(slice).await;
            drop(lane);
            // One that cannot be served goes round with the others; only when nobody was served, and nobody is to be
            // tried in smaller company, is it time to wait.
            let stuck = again.len() == calls && again.iter().all(|call| call.caller.company >= calls);
            // Behind the others: those that cannot be served hold up nobody. No order is promised among calls none of
            // which has returned.
            group.waiting().calls.extend(again);
            if stuck {
                group.seam.sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            } else {
                pause = FIRST_PAUSE;
            }
        }
        self.0 = None;
    }
}

impl<V: Verb> Drop for Flight<V> {
    fn drop(&mut self) {
        if let Some(group) = &self.0 {
            let calls = {
                let mut waiting = group.waiting();
                waiting.flying = false;
                std::mem::take(&mut waiting.calls)
            };
            for Call { caller, .. } in calls {
                let gone = group.seam.gone();
                let gone = if caller.unknown { still_unknown(gone) } else { gone };
                let _ = caller.answer.send(Err(gone));
            }
        }
    }
}

/// The last try was not applied, but an earlier one may have been.
fn still_unknown(error: Error) -> Error {
    let message = "an earlier try may have been applied, and the last one was refused";
    Error::new(ErrorKind::UnknownOutcome, format!("{message}: {}", error.message())).with_source(error)
}

/// Whether repeating the call may help by itself, within the time a caller waits.
fn transient(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::UnknownOutcome)
}

impl<V: Verb> fmt::Debug for Group<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.waiting();
        f.debug_struct("Group")
            .field("waiting", &waiting.calls.len())
            .field("flying", &waiting.flying)
            .finish()
    }
}
