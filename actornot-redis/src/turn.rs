//! When a call gets its turn: how long it waits for a connection and for what is only passing, and when it gives up.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use actornot_core::{Error, ErrorKind};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, PushInfo, PushKind};
use tokio::time::{Instant, timeout};

use crate::error;

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// A connection that was idle for so long is asked whether it still lives before it is used: one more trip.
const IDLE: Duration = Duration::from_secs(1);

/// A silent node gets this part of the patience before the call is told; no node gets less when it is asked for the map.
pub(crate) const GLANCE: u32 = 10;

/// How much of its patience a call has left.
pub(crate) struct Turn {
    until: Instant,
    pause: Duration,
}

impl Turn {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { until: Instant::now() + patience, pause: Duration::from_millis(5) }
    }

    pub(crate) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Waits a moment before the next try; `false` if there is no time for one.
    pub(crate) async fn again(&mut self) -> bool {
        let left = self.left();
        if left.is_zero() {
            return false;
        }
        tokio::time::sleep(self.pause.min(left)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}

/// One node, and the connection to it.
pub(crate) struct Node {
    name: String,
    info: ConnectionInfo,
    patience: Duration,
    connection: Arc<tokio::sync::Mutex<Option<Open>>>,
    /// A call has spent its patience on it in vain, and nothing came from it since.
    silent: Arc<AtomicBool>,
}

/// A connection that is shared by all calls.
#[derive(Clone)]
pub(crate) struct Open {
    pub(crate) connection: MultiplexedConnection,
    closed: Arc<AtomicBool>,
    used: Arc<Mutex<Instant>>,
}

impl Node {
    pub(crate) fn new((host, port): &(String, u16), info: ConnectionInfo, patience: Duration) -> Self {
        let name = format!("{host}:{port}");
        Self { name, info, patience, connection: Arc::default(), silent: Arc::default() }
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    pub(crate) fn fell_silent(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    pub(crate) fn answered(&self, open: &Open) {
        self.silent.store(false, Ordering::Relaxed);
        *open.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// The connection, opened anew if it does not live. A silent node is tried for a moment only, and by one call at a
    /// time: the others of a slice wait for it.
    pub(crate) async fn connection(&self, turn: &Turn) -> Result<Open, Error> {
        let late = || Error::new(ErrorKind::Unavailable, format!("{}: cannot connect in time", self.name));
        let silent = self.is_silent();
        let wait = turn.left().max(Duration::from_millis(1));
        let mut slot = if silent {
            self.connection.clone().try_lock_owned().map_err(|_| late())?
        } else {
            timeout(wait, self.connection.clone().lock_owned()).await.map_err(|_| late())?
        };
        // Half, so that there is time for another one.
        if let Some(open) = &*slot
            && open.lives(turn.left() / 2).await
        {
            return Ok(open.clone());
        }
        *slot = None;
        let (name, info, patience) = (self.name.clone(), self.info.clone(), self.patience);
        let heard = self.silent.clone();
        // A task, so that a call that waits for a moment only, or is dropped, does not end it.
        let attempt = tokio::spawn(async move {
            // Bounded here, for the driver's own bounds do not cover looking up a name.
            let opened = timeout(patience, Open::new(info, &name)).await.ok()?;
            if let Ok(open) = &opened {
                heard.store(false, Ordering::Relaxed);
                *slot = Some(open.clone());
            }
            Some(opened)
        });
        let left = turn.left().max(Duration::from_millis(1));
        let wait = if silent { left.min(self.patience / GLANCE) } else { left };
        let opened = match timeout(wait, attempt).await {
            Ok(Ok(Some(opened))) => opened,
            _ => Err(late()),
        };
        if opened.is_err() && turn.left().is_zero() {
            self.fell_silent();
        }
        opened
    }
}

impl Open {
    async fn new(info: ConnectionInfo, name: &str) -> Result<Self, Error> {
        let closed = Arc::new(AtomicBool::new(false));
        let told = closed.clone();
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let config = config.set_push_sender(move |info: PushInfo| {
            if info.kind == PushKind::Disconnection {
                told.store(true, Ordering::Relaxed);
            }
            Ok::<(), redis::aio::SendError>(())
        });
        let client = Client::open(info).map_err(|error| error::connecting(&error, name))?;
        let connection = client.get_multiplexed_async_connection_with_config(&config).await;
        let connection = connection.map_err(|error| error::connecting(&error, name))?;
        Ok(Self { connection, closed, used: Arc::new(Mutex::new(Instant::now())) })
    }

    /// It is not used again.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Whether it may be used: it was not closed, and what is in between has not forgotten it.
    async fn lives(&self, wait: Duration) -> bool {
        if self.closed.load(Ordering::Relaxed) {
            return false;
        }
        if self.used.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < IDLE {
            return true;
        }
        let mut connection = self.connection.clone();
        let mut ping = redis::Pipeline::new();
        ping.cmd("PING");
        // Also an error says that somebody is there.
        let lives =
            timeout(wait, connection.send_packed_commands(&ping, 0, 1)).await.is_ok_and(|pong| pong.is_ok());
        if lives {
            *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
        lives
    }
}

pub(crate) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// All of them at once, in this task, so that dropping the call drops all of it.
pub(crate) async fn all<T>(futures: Vec<Boxed<'_, T>>) -> Vec<T> {
    let mut waiting: Vec<_> = futures.into_iter().map(Some).collect();
    let mut done: Vec<Option<T>> = waiting.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for (future, done) in waiting.iter_mut().zip(&mut done) {
            let Some(running) = future else { continue };
            match running.as_mut().poll(cx) {
                Poll::Ready(value) => {
                    *done = Some(value);
                    *future = None;
                }
                Poll::Pending => pending = true,
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    done.into_iter().flatten().collect()
}
