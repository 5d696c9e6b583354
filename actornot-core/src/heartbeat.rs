//! Keeps the leases of long runs alive, whatever their handlers do to their threads.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::seam::Seam;
use crate::{Error, ErrorKind, Heartbeat, Lease, LockableQueue, Nonce};

/// The leases of this process, and the thread that renews them.
///
/// The thread starts with the first lease and ends when there has been none for a while. It opens its connection only
/// when a lease first has a third of its length behind it, so that short runs cost no query and no connection.
pub(crate) struct Heartbeats {
    queue: Arc<dyn LockableQueue>,
    seam: Arc<dyn Seam>,
    beats: Mutex<Beats>,
    /// The thread sleeps until the next beat; this tells it of an earlier one.
    earlier: Notify,
}

#[derive(Default)]
struct Beats {
    leases: BTreeMap<Nonce, Beat>,
    running: bool,
    /// End as soon as there is nothing left to renew.
    closing: bool,
    /// When the thread will look next.
    next: Option<Instant>,
}

struct Beat {
    lease: Lease,
    /// When it is to be renewed.
    at: Instant,
    /// After this it is renewed no more, so that an endless run does not hold its entity for ever.
    until: Instant,
    lost: Arc<watch::Sender<bool>>,
}

/// Renews a lease until it is dropped.
pub(crate) struct Kept {
    heartbeats: Arc<Heartbeats>,
    nonce: Nonce,
}

impl Heartbeats {
    pub(crate) fn new(queue: Arc<dyn LockableQueue>, seam: Arc<dyn Seam>) -> Arc<Self> {
        Arc::new(Self { queue, seam, beats: Mutex::default(), earlier: Notify::new() })
    }

    fn beats(&self) -> MutexGuard<'_, Beats> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews a lease for as long as the answer lives, but not after `until`; sets `lost` when it is somebody else's.
    pub(crate) fn keep(
        self: &Arc<Self>,
        lease: &Lease,
        until: Instant,
        lost: Arc<watch::Sender<bool>>,
    ) -> Kept {
        let at = self.seam.now() + lease.length / 3;
        let (start, earlier) = {
            let mut beats = self.beats();
            beats.leases.insert(lease.nonce, Beat { lease: lease.clone(), at, until, lost });
            let start = !std::mem::replace(&mut beats.running, true);
            (start, !start && beats.next.is_some_and(|next| at < next))
        };
        if start {
            let running = Running(Some(self.clone()));
            self.seam.spawn_heartbeat(Box::pin(running.run()));
        } else if earlier {
            self.earlier.notify_one();
        }
        Kept { heartbeats: self.clone(), nonce: lease.nonce }
    }

    /// When to look next; `None`: there was nothing to renew for a while, and the thread has ended.
    fn plan(&self, now: Instant, idle_since: &mut Option<Instant>) -> Option<Duration> {
        const LINGER: Duration = Duration::from_secs(10);
        let mut beats = self.beats();
        let next = beats.leases.values().filter(|beat| now < beat.until).map(|beat| beat.at).min();
        *idle_since = if next.is_some() { None } else { idle_since.or(Some(now)) };
        if idle_since.is_some_and(|since| beats.closing || now >= since + LINGER) {
            beats.running = false;
            return None;
        }
        let next = next.unwrap_or(now + LINGER);
        beats.next = Some(next);
        Some(next.saturating_duration_since(now))
    }

    /// No new leases will come: ends the thread when the last one is gone.
    pub(crate) fn close(&self) {
        self.beats().closing = true;
        self.earlier.notify_one();
    }

    /// Renews every lease whose time has come, in one trip.
    async fn beat(&self, connection: &mut Option<Box<dyn Heartbeat>>, now: Instant) {
        let leases: Vec<Lease> = {
            let mut beats = self.beats();
            let due = beats.leases.values_mut().filter(|beat| beat.at <= now && now < beat.until);
            due.map(|beat| {
                // Whatever comes of this one, the next is on time; a failure is repeated sooner.
                beat.at = now + beat.lease.length / 3;
                beat.lease.clone()
            })
            .collect()
        };
        let Some(shortest) = leases.iter().map(|lease| lease.length).min() else { return };
        let answers = tokio::select! {
            answers = self.extend(connection, &leases) => answers,
            () = self.seam.sleep(shortest / 3) => {
                Error::new(ErrorKind::UnknownOutcome, "no answer to a heartbeat").for_each(leases.len())
            }
        };
        let mut beats = self.beats();
        for (lease, answer) in leases.iter().zip(answers) {
            let Some(beat) = beats.leases.get_mut(&lease.nonce) else { continue };
            match answer {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!(entity = %lease.entity, "the lock was lost while it was being used");
                    beat.lost.send_replace(true);
                    beat.until = now;
                }
                Err(error) => {
                    tracing::warn!(entity = %lease.entity, %error, "a lease could not be renewed; trying again");
                    *connection = None;
                    beat.at = self.seam.now() + lease.length / 12;
                }
            }
        }
    }

    async fn extend(
        &self,
        connection: &mut Option<Box<dyn Heartbeat>>,
        leases: &[Lease],
    ) -> Vec<Result<bool, Error>> {
        if connection.is_none() {
            match self.queue.heartbeat().await {
                Ok(opened) => *connection = Some(opened),
                Err(error) => return error.for_each(leases.len()),
            }
        }
        match connection {
            Some(connection) => connection.extend_lock(leases).await,
            None => Vec::new(),
        }
    }
}

/// The heartbeat's task. `None` once it has ended by itself; dropped before that, the next lease starts another.
struct Running(Option<Arc<Heartbeats>>);

impl Running {
    async fn run(mut self) {
        let Some(heartbeats) = self.0.clone() else { return };
        let mut connection: Option<Box<dyn Heartbeat>> = None;
        let mut idle_since: Option<Instant> = None;
        loop {
            let now = heartbeats.seam.now();
            let Some(wait) = heartbeats.plan(now, &mut idle_since) else { break };
            if wait.is_zero() {
                heartbeats.beat(&mut connection, now).await;
                continue;
            }
            tokio::select! {
                () = heartbeats.seam.sleep(wait) => {}
                () = heartbeats.earlier.notified() => {}
            }
        }
        self.0 = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(heartbeats) = &self.0 {
            heartbeats.beats().running = false;
        }
    }
}

impl Kept {
    /// The server has just renewed the lease by itself.
    pub(crate) fn renewed(&self, until: Instant) {
        let now = self.heartbeats.seam.now();
        if let Some(beat) = self.heartbeats.beats().leases.get_mut(&self.nonce) {
            beat.at = now + beat.lease.length / 3;
            beat.until = until;
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.heartbeats.beats().leases.remove(&self.nonce);
    }
}

impl fmt::Debug for Heartbeats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeats").field("leases", &self.beats().leases.len()).finish_non_exhaustive()
    }
}
