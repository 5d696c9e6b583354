//! When a call gets its turn: a connection of the pool, within its patience.
//!
//! A pool of our own, for one rule: a connection goes back only after the whole answer was read. Whoever drops a call
//! drops its connection with it, so that no later call can read a stranger's answer or meet an open transaction.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actornot_core::{Error, ErrorKind};
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::Target;
use crate::error;

/// A connection that was idle for so long is asked whether it still lives before it is used: one more trip.
const IDLE: Duration = Duration::from_secs(1);

/// The open connections that nobody uses, and room for more.
pub(crate) struct Pool {
    room: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Idle>>>,
}

struct Idle {
    connection: PgConnection,
    since: Instant,
}

impl Pool {
    pub(crate) fn new(connections: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS))), idle: Arc::default() }
    }

    /// Waits for a connection, and opens one if need be.
    ///
    /// # Cancel safety
    /// Nothing is held.
    pub(crate) async fn turn(&self, target: &Target, deadline: Deadline) -> Result<Turn, Error> {
        let permit = timeout_at(deadline.0, self.room.clone().acquire_owned()).await;
        let permit = permit.ok().and_then(Result::ok).ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "earlier calls of this process hold all connections")
        })?;
        let connection = match self.living(deadline).await {
            Some(connection) => connection,
            None => connect(target, deadline).await?,
        };
        Ok(Turn { connection, idle: self.idle.clone(), _permit: permit })
    }

    /// One that nobody uses and that still lives.
    async fn living(&self, deadline: Deadline) -> Option<PgConnection> {
        let mut idle = self.take()?;
        if idle.since.elapsed() < IDLE {
            return Some(idle.connection);
        }
        // One that is silent, as behind a firewall that forgot it, must leave time to open another.
        if let Ok(Ok(())) = timeout(deadline.left() / 2, idle.connection.ping()).await {
            return Some(idle.connection);
        }
        self.forget();
        None
    }

    /// The one that was used last: those that are not needed stay idle.
    fn take(&self) -> Option<Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Closes what nobody uses: one connection that broke is seldom alone.
    pub(crate) fn forget(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A connection for one call. Dropped, it is closed; [`done`](Self::done) gives it back.
pub(crate) struct Turn {
    pub(crate) connection: PgConnection,
    idle: Arc<Mutex<Vec<Idle>>>,
    _permit: OwnedSemaphorePermit,
}

impl Turn {
    /// The whole answer was read, and no transaction is open.
    pub(crate) fn done(self) {
        let idle = Idle { connection: self.connection, since: Instant::now() };
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(idle);
    }
}

/// Connects; tries again while the server cannot be reached.
async fn connect(target: &Target, deadline: Deadline) -> Result<PgConnection, Error> {
    let mut pause = Duration::from_millis(20);
    loop {
        let failed = match timeout_at(deadline.0, target.options.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(failed)) => error::named(error::before(failed), &target.place),
            Err(_) => {
                let late = Error::new(ErrorKind::Unavailable, "the server did not answer in time");
                return Err(error::named(late, &target.place));
            }
        };
        if failed.kind() != ErrorKind::Unavailable || !deadline.pause(pause).await {
            return Err(failed);
        }
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// When a call answers at the latest.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(pub(crate) Instant);

impl Deadline {
    pub(crate) fn after(patience: Duration) -> Self {
        Self(Instant::now() + patience)
    }

    fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Waits for the next try; `false` when there is none.
    pub(crate) async fn pause(self, pause: Duration) -> bool {
        let again = self.left() > pause;
        if again {
            tokio::time::sleep(pause).await;
        }
        again
    }
}
