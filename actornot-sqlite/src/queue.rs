//! What is known of an entity's queue inside a transaction, without asking for it again.

use actornot_core::{Error, NewMessage, StoredMessage};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, ValueRef as _};

use crate::codec;
use crate::error::before_commit;

/// Begins empty where nothing was read: then it knows what joins, and that is all there is if nothing was queued.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// How many were asked for, from the first on, if it was read.
    limit: Option<usize>,
    /// What was read; without its message where that was not needed.
    read: Vec<(i64, Option<StoredMessage>)>,
    /// So many were read at first.
    found: usize,
    joined: Vec<(i64, Option<StoredMessage>)>,
}

impl Queue {
    /// One whose first messages are being read.
    pub(crate) fn read(limit: i64) -> Self {
        Self { limit: usize::try_from(limit).ok(), ..Self::default() }
    }

    /// The next message that was read.
    pub(crate) fn push(&mut self, row: &SqliteRow) -> Result<(), Error> {
        let seq = row.try_get("seq").map_err(before_commit)?;
        let bare = row.try_get_raw("payload").map_err(before_commit)?.is_null();
        let message = if bare { None } else { Some(codec::message(row).map_err(before_commit)?) };
        self.read.push((seq, message));
        self.found += 1;
        Ok(())
    }

    /// A message that this transaction puts at the tail; without it where nobody will ask.
    pub(crate) fn joined(&mut self, seq: i64, message: Option<&NewMessage>) {
        let message = message.map(|message| StoredMessage {
            id: message.id.clone(),
            payload: message.payload.clone(),
            headers: message.headers.clone(),
        });
        self.joined.push((seq, message));
    }

    /// A message that this transaction settles.
    pub(crate) fn left(&mut self, seq: i64) {
        self.read.retain(|(read, _)| *read != seq);
    }

    /// Whether it was read to its end.
    fn is_whole(&self) -> bool {
        self.limit.is_some_and(|limit| self.found < limit)
    }

    /// Whether a message was stored before this transaction, if that is known.
    pub(crate) fn held(&self, seq: i64) -> Option<bool> {
        let read = self.read.iter().any(|(read, _)| *read == seq);
        if read { Some(true) } else { self.is_whole().then_some(false) }
    }

    /// The first `count`, of `queued` by the row's account; `None` if they must be read.
    pub(crate) fn head(&self, count: u32, queued: u64) -> Option<Vec<(i64, StoredMessage)>> {
        let count = usize::try_from(queued.min(u64::from(count))).unwrap_or(usize::MAX);
        let alone =
            self.limit.is_none() && usize::try_from(queued).is_ok_and(|queued| queued == self.joined.len());
        let joined = if alone || self.is_whole() { self.joined.as_slice() } else { &[] };
        let known = self.read.iter().chain(joined).take(count);
        let head: Option<Vec<_>> = known.map(|(seq, message)| Some((*seq, message.clone()?))).collect();
        // Fewer than the row says: somebody deleted some by hand, or they were not read.
        head.filter(|head| head.len() == count)
    }
}
