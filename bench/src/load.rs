//! Messages from many posters over many keys, through one mailbox of one process.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actornot_core::{Actornot, Config, EntityId, ErrorKind, LockableQueue, MailboxPoster, Snapshot};
use tokio::task::JoinSet;

use crate::Result;
use crate::backend::{Kind, Place};
use crate::counted::Counted;
use crate::counter::{Add, Counter, Total};
use crate::latency::Latency;

/// Whoever waits longer than this for what was accepted has lost it.
const DRAINED: Duration = Duration::from_secs(120);
/// Whoever was told that the backlog is full waits so long.
const REFUSED: Duration = Duration::from_millis(10);

#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) keys: u64,
    pub(crate) posters: usize,
    /// Posts go on for this long,
    pub(crate) time: Duration,
    /// or until there were so many.
    pub(crate) messages: u64,
    /// Whether messages have ids of their poster's.
    pub(crate) ids: bool,
    /// Bytes that payloads and states carry besides.
    pub(crate) ballast: usize,
    /// Whether to note how long each post took, which takes memory.
    pub(crate) timed: bool,
}

impl Load {
    pub(crate) fn new(keys: u64, posters: usize, time: Duration) -> Self {
        Self { keys, posters, time, messages: u64::MAX, ids: false, ballast: 0, timed: true }
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) accepted: u64,
    /// Messages a second, from the first post to the last commit.
    pub(crate) rate: f64,
    trips: u64,
    pub(crate) post: Latency,
}

impl Ran {
    /// Calls of the adapter for each message.
    pub(crate) fn trips(&self) -> f64 {
        self.trips as f64 / self.accepted as f64
    }
}

/// A mailbox of a process of its own, as its users build it.
pub(crate) struct Station {
    pub(crate) queue: Arc<Counted>,
    pub(crate) mailbox: MailboxPoster<Counter>,
    system: Actornot,
    /// How often each key was accepted.
    accepted: Vec<AtomicU64>,
    posted: AtomicU64,
}

impl Station {
    pub(crate) async fn open(kind: Kind, place: &Place, keys: u64) -> Result<Arc<Self>> {
        Self::open_with(kind, place, keys, |_| ()).await
    }

    pub(crate) async fn open_with(
        kind: Kind,
        place: &Place,
        keys: u64,
        change: impl FnOnce(&mut Config),
    ) -> Result<Arc<Self>> {
        let queue = Counted::new(kind.open(place).await?);
        let shared: Arc<dyn LockableQueue> = queue.clone();
        let system = Actornot::builder(shared).runner(Counter).configure(change).build()?;
        let mailbox = system.mailbox::<Counter>()?;
        let accepted = (0..keys).map(|_| AtomicU64::new(0)).collect();
        Ok(Arc::new(Self { queue, mailbox, system, accepted, posted: AtomicU64::new(0) }))
    }

    /// Posts until the time is over or enough were posted, and waits for the last commit.
    pub(crate) async fn run(self: &Arc<Self>, load: &Load) -> Result<Ran> {
        let trips = self.queue.trips();
        let began = Instant::now();
        let (posted, post) = self.post(load).await?;
        let wanted = self.accepted();
        let drained = tokio::time::timeout(DRAINED, self.queue.until(wanted)).await;
        let elapsed = began.elapsed();
        drained.map_err(|_| format!("{} of {wanted} messages were committed", self.queue.committed()))?;
        Ok(Ran {
            accepted: posted,
            rate: posted as f64 / elapsed.as_secs_f64(),
            trips: self.queue.trips() - trips,
            post,
        })
    }

    /// Posts only; answers how many were accepted, and how long each of a part of them took.
    pub(crate) async fn post(self: &Arc<Self>, load: &Load) -> Result<(u64, Latency)> {
        let before = self.accepted();
        let began = Instant::now();
        let last = self.posted.load(Ordering::Relaxed).saturating_add(load.messages);
        let mut tasks = JoinSet::new();
        for _ in 0..load.posters {
            let (station, load) = (self.clone(), load.clone());
            tasks.spawn(async move { station.poster(&load, began, last).await });
        }
        let mut times = Vec::new();
        while let Some(task) = tasks.join_next().await {
            times.append(&mut task??);
        }
        Ok((self.accepted() - before, Latency::of(&times)))
    }

    async fn poster(&self, load: &Load, began: Instant, last: u64) -> Result<Vec<Duration>> {
        let ballast = "x".repeat(load.ballast);
        let mut times = Vec::new();
        while began.elapsed() < load.time {
            let number = self.posted.fetch_add(1, Ordering::Relaxed);
            if number >= last {
                break;
            }
            let place = number % load.keys;
            let sent = Instant::now();
            loop {
                let add = Add { delta: 1, ballast: ballast.clone() };
                let mut post = self.mailbox.post(key(place), add);
                if load.ids {
                    post = post.id(format!("evt_{number:012}"));
                }
                match post.await {
                    // Posts may outrun the handlers up to the limit. Who posts tries again, and that counts as waiting.
                    Err(error) if matches!(error.kind(), ErrorKind::BacklogFull { .. }) => {
                        tokio::time::sleep(REFUSED).await;
                    }
                    posted => break drop(posted?),
                }
            }
            if load.timed {
                times.push(sent.elapsed());
            }
            if let Some(accepted) = self.accepted.get(place as usize) {
                accepted.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(times)
    }

    fn accepted(&self) -> u64 {
        self.accepted.iter().map(|accepted| accepted.load(Ordering::Relaxed)).sum()
    }

    /// How often each key was accepted.
    pub(crate) fn counts(&self) -> Vec<u64> {
        self.accepted.iter().map(|accepted| accepted.load(Ordering::Relaxed)).collect()
    }

    /// A run counts only when every state equals what was accepted. Ends the mailbox.
    pub(crate) async fn close(&self) -> Result<()> {
        self.judge(&self.counts()).await?;
        self.system.close().await;
        Ok(())
    }

    /// Compares every state with what it must be.
    pub(crate) async fn judge(&self, expected: &[u64]) -> Result<()> {
        let mut wrong = Vec::new();
        for first in (0..expected.len()).step_by(500) {
            let places: Vec<usize> = (first..expected.len().min(first + 500)).collect();
            let entities: Vec<EntityId> = places
                .iter()
                .map(|&place| EntityId::new("counter", key(place as u64)))
                .collect::<Result<_, _>>()?;
            for (place, snapshot) in places.into_iter().zip(self.mailbox.queue().read(&entities).await?) {
                let state = snapshot.and_then(|snapshot| snapshot.state);
                let total: Total =
                    state.map_or(Ok(Total::default()), |state| serde_json::from_str(&state.json))?;
                if total.value != expected[place] {
                    wrong.push(format!(
                        "{} has {}, accepted were {}",
                        key(place as u64),
                        total.value,
                        expected[place]
                    ));
                }
            }
        }
        match wrong.first() {
            None => Ok(()),
            Some(first) => Err(format!("{} states are wrong: {first}", wrong.len()).into()),
        }
    }

    /// Waits until nothing is pending at any of these keys. Nobody posts any more, so one that was seen empty is not looked
    /// at again, and few at a time: a look at all of them would take the database from those who work.
    pub(crate) async fn drained(&self, keys: u64) -> Result<()> {
        let entities = (0..keys).map(|place| EntityId::new("counter", key(place)));
        let mut open: VecDeque<EntityId> = entities.collect::<Result<_, _>>()?;
        while !open.is_empty() {
            let some: Vec<EntityId> = open.drain(..open.len().min(16)).collect();
            let seen = self.mailbox.queue().read(&some).await?;
            let empty = open.len();
            let pending = |snapshot: Option<Snapshot>| snapshot.is_some_and(|snapshot| snapshot.pending > 0);
            open.extend(
                some.into_iter().zip(seen).filter_map(|(entity, seen)| pending(seen).then_some(entity)),
            );
            if open.len() > empty {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(())
    }
}

pub(crate) fn key(place: u64) -> String {
    format!("k{place}")
}
