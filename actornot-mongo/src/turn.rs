//! When a call gets its turn: a place in the pool, within its patience.
//!
//! The driver lets callers wait for a connection without a limit, and whoever gives up there cannot tell whether it had
//! one. So they wait here, where nothing was sent.

use std::time::Duration;

use actornot_core::{Error, ErrorKind};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How often a verb looks again when others changed its entities between its look and its write.
pub(crate) const AGAIN: usize = 64;

/// The line in front of the pool.
pub(crate) struct Line {
    places: Semaphore,
    patience: Duration,
}

impl Line {
    pub(crate) fn new(places: u32, patience: Duration) -> Self {
        Self { places: Semaphore::new(places as usize), patience }
    }

    pub(crate) async fn turn(&self) -> Result<SemaphorePermit<'_>, Error> {
        let waited = tokio::time::timeout(self.patience, self.places.acquire()).await;
        waited.ok().and_then(Result::ok).ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "all connections to MongoDB were in use for too long")
        })
    }
}

/// Others were quicker each time.
pub(crate) fn crowded() -> Error {
    Error::new(ErrorKind::Unavailable, "others changed the entity before each of many attempts")
}
