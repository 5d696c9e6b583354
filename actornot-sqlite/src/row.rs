//! The stored row of an entity, and what may become of it. No SQL here: the rules of the verbs, once.

use actornot_core::{EntityId, Error, Limits, NewMessage, Nonce, StoredMessage, Waiting};
use serde::ser::{Serialize, SerializeTuple, Serializer};
use serde::{Deserialize, Deserializer};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, ValueRef as _};

use crate::codec::{self, small, unsigned};
use crate::error::before_commit;

/// One entity's row; times in milliseconds of SQLite's clock. In the order in which it is loaded.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Row {
    pub(crate) id: i64,
    #[serde(deserialize_with = "positive")]
    pub(crate) fence: u64,
    pub(crate) nonce: Option<String>,
    pub(crate) deadline: Option<i64>,
    pub(crate) last_commit: Option<String>,
    /// What the current grant handed out and has not settled: sequence and id.
    #[serde(deserialize_with = "handed")]
    pub(crate) handed: Vec<(i64, String)>,
    #[serde(deserialize_with = "count")]
    pub(crate) deliveries: u32,
    #[serde(deserialize_with = "count")]
    pub(crate) charged: u32,
    #[serde(deserialize_with = "count")]
    pub(crate) batch_limit: u32,
    /// Queued and delayed.
    #[serde(deserialize_with = "positive")]
    pub(crate) pending: u64,
    #[serde(deserialize_with = "positive")]
    pub(crate) queued: u64,
    /// The highest sequence ever given, to a queued or a delayed message.
    pub(crate) tail: i64,
    /// Since when the head waits to be looked at; orders what is due.
    pub(crate) since: i64,
    pub(crate) delayed_at: Option<i64>,
    pub(crate) wait_why: Option<String>,
    pub(crate) wait_until: Option<i64>,
    pub(crate) paused: Option<String>,
    pub(crate) last_error: Option<String>,
    /// Zero after a purge: the row stays for its fence, but nobody sees it until the next post.
    pub(crate) known: i64,
}

// Nothing here fails on what somebody wrote by hand: one damaged row must not take its neighbours with it.

fn positive<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    i64::deserialize(from).map(unsigned)
}

fn count<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    i64::deserialize(from).map(small)
}

fn handed<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(i64, String)>, D::Error> {
    let text = String::deserialize(from)?;
    Ok(serde_json::from_str(&text).unwrap_or_else(|error| {
        tracing::warn!(%error, "stored hand-out does not decode; its lease runs out and it is handed out again");
        Vec::new()
    }))
}

impl Row {
    /// A row that was never stored. Its fence begins at the clock, so that it never goes back (G3).
    pub(crate) fn new(id: i64, now: i64) -> Self {
        Self {
            id,
            fence: unsigned(now),
            nonce: None,
            deadline: None,
            last_commit: None,
            handed: Vec::new(),
            deliveries: 0,
            charged: 0,
            batch_limit: u32::MAX,
            pending: 0,
            queued: 0,
            tail: 0,
            since: now,
            delayed_at: None,
            wait_why: None,
            wait_until: None,
            paused: None,
            last_error: None,
            known: 1,
        }
    }

    /// Locked by this grant, whether or not its lease has run out meanwhile.
    pub(crate) fn is_held_by(&self, nonce: Nonce) -> bool {
        self.deadline.is_some() && self.nonce.as_deref() == Some(&nonce.to_string())
    }

    /// A lease that still counts. One that ends later than the longest lease was left by a clock that was set back.
    pub(crate) fn is_leased(&self, now: i64) -> bool {
        let longest = codec::millis(Limits::LEASE);
        self.deadline.is_some_and(|deadline| now < deadline && deadline <= now.saturating_add(longest))
    }

    /// What it waits for, if that is not over.
    pub(crate) fn waiting(&self, now: i64) -> Option<(Waiting, i64)> {
        let until = self.wait_until.filter(|until| now < *until)?;
        let why = self.wait_why.as_deref().and_then(Waiting::parse).unwrap_or(Waiting::Backoff);
        Some((why, until - now))
    }

    /// Whether something may be handed out, lock aside.
    pub(crate) fn is_ready(&self, now: i64) -> bool {
        self.paused.is_none() && self.waiting(now).is_none() && self.queued > 0
    }

    /// When it wants a run (G5). Never while paused: it would be reported for ever, and no lock would be granted. From
    /// the beginning of time on while it is locked: `due` judges the lease, whose length says nothing when the clock was
    /// set back, and neither the next batch nor an extension moves it in the index.
    pub(crate) fn wake_at(&self) -> Option<i64> {
        if self.paused.is_some() {
            return None;
        }
        if self.deadline.is_some() {
            return Some(0);
        }
        let head = if self.queued > 0 { self.since } else { self.delayed_at? };
        Some(head.max(self.wait_until.unwrap_or(head)))
    }

    /// Takes over from a holder that never settled: what it was handed is suspect, so it is handed out one by one.
    pub(crate) fn take_over(&mut self) {
        if self.deadline.is_some() && !self.handed.is_empty() {
            self.batch_limit = 1;
        }
    }

    /// Counts a hand-out before it is run, so that a crash of the run is counted (G6).
    pub(crate) fn hand_out(&mut self, messages: &[(i64, StoredMessage)]) {
        self.handed = messages.iter().map(|(seq, message)| (*seq, message.id.to_string())).collect();
        self.deliveries = self.deliveries.saturating_add(1);
        if self.handed.len() == 1 {
            self.charged = self.charged.saturating_add(1);
        }
    }

    /// The hand-out was not run, and does not count.
    pub(crate) fn uncount(&mut self) {
        if self.handed.is_empty() {
            return;
        }
        self.deliveries = self.deliveries.saturating_sub(1);
        if self.handed.len() == 1 {
            self.charged = self.charged.saturating_sub(1);
        }
    }

    /// Lets go. The nonce stays: it tells a late duplicate of its grant from a new request.
    pub(crate) fn unlock(&mut self, now: i64) {
        self.deadline = None;
        self.handed.clear();
        self.since = now;
    }

    /// A message joins the queue or the delayed ones; its sequence.
    pub(crate) fn join(&mut self, due_at: Option<i64>, now: i64) -> i64 {
        self.known = 1;
        self.pending += 1;
        self.tail += 1;
        match due_at {
            Some(due_at) => self.delayed_at = Some(self.delayed_at.map_or(due_at, |first| first.min(due_at))),
            None => self.enter(1, now),
        }
        self.tail
    }

    /// So many messages entered the queue.
    pub(crate) fn enter(&mut self, count: u64, now: i64) {
        if self.queued == 0 {
            self.since = now;
        }
        self.queued += count;
    }

    /// So many messages left the queue for good.
    pub(crate) fn leave(&mut self, count: u64) {
        self.queued = self.queued.saturating_sub(count);
        self.pending = self.pending.saturating_sub(count);
    }
}

/// A row with its name and its place in the index of what is due, as `SAVE` binds it: a list, for names would be
/// written, parsed and compared for each row.
pub(crate) struct Saved<'a> {
    kind: &'a str,
    key: &'a str,
    row: &'a Row,
}

impl Serialize for Saved<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let row = self.row;
        let mut list = to.serialize_tuple(22)?;
        list.serialize_element(&row.id)?;
        list.serialize_element(self.kind)?;
        list.serialize_element(self.key)?;
        list.serialize_element(&row.fence)?;
        list.serialize_element(&row.nonce)?;
        list.serialize_element(&row.deadline)?;
        list.serialize_element(&row.last_commit)?;
        list.serialize_element(&row.handed)?;
        list.serialize_element(&row.deliveries)?;
        list.serialize_element(&row.charged)?;
        list.serialize_element(&row.batch_limit)?;
        list.serialize_element(&row.pending)?;
        list.serialize_element(&row.queued)?;
        list.serialize_element(&row.tail)?;
        list.serialize_element(&row.since)?;
        list.serialize_element(&row.delayed_at)?;
        list.serialize_element(&row.wait_why)?;
        list.serialize_element(&row.wait_until)?;
        list.serialize_element(&row.paused)?;
        list.serialize_element(&row.last_error)?;
        list.serialize_element(&row.known)?;
        list.serialize_element(&row.wake_at())?;
        list.end()
    }
}

impl<'a> Saved<'a> {
    pub(crate) fn new(entity: &'a EntityId, row: &'a Row) -> Self {
        Self { kind: entity.kind(), key: entity.key(), row }
    }
}

/// What is known of an entity's queue inside a transaction, without asking for it again. Begins empty where nothing was read: then it knows what joins, and that is all there is if nothing was queued.
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
