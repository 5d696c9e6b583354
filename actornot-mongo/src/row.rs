//! What a look at an entity brings back, and what follows from it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use actornot_core::{Enqueue, EntityId, HandedOut, Limits, Nonce, StoredMessage, StoredState, Waiting};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, doc};

use crate::codec::{self, date, int, moment, name, optional, small, unsigned};
use crate::connection::documents;
use crate::statements::{self, Change, Write, refuse, wake};

/// An entity remembers so many messages that were settled, without anybody having seen that they are gone.
pub(crate) const DONE: usize = 32;

/// Where a message is stored: in which parcel, behind how many others, and how many there are. A parcel joins a queue
/// once, so this names a message where an id does not: that may be accepted anew after its retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) parcel: ObjectId,
    pub(crate) at: u32,
    pub(crate) of: u32,
}

impl Place {
    pub(crate) fn is_last(&self) -> bool {
        self.at.saturating_add(1) >= self.of
    }
}

/// A queued message.
#[derive(Debug, Clone)]
pub(crate) struct Queued {
    pub(crate) place: Place,
    pub(crate) message: StoredMessage,
}

/// One entity as the primary holds it; times in milliseconds of the server's clock.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) now: i64,
    /// None: it was never stored.
    pub(crate) fence: Option<u64>,
    pub(crate) gone: bool,
    pub(crate) nonce: Option<String>,
    pub(crate) deadline: Option<i64>,
    pub(crate) live: bool,
    pub(crate) last_commit: Option<String>,
    /// The one before it.
    pub(crate) commit_before: Option<String>,
    pub(crate) handed: Vec<(String, Place)>,
    pub(crate) deliveries: u32,
    pub(crate) charged: u32,
    /// The message at the head that the counters belong to: its parcel, and where it stands there.
    pub(crate) counted: Option<(ObjectId, u32)>,
    pub(crate) batch_limit: u32,
    pub(crate) pending: u64,
    pub(crate) mark: i64,
    pub(crate) queued: bool,
    pub(crate) delayed_at: Option<i64>,
    wait: Option<(Waiting, i64)>,
    pub(crate) paused: Option<String>,
    pub(crate) last_error: Option<String>,
    pub(crate) staged: bool,
    pub(crate) state: Option<StoredState>,
    /// What is queued, in order, as far as it fits into one row.
    pub(crate) head: Vec<Queued>,
    /// More is queued than `head` has, and was left out for its size. Without what the commit that asked settles.
    pub(crate) more: bool,
    /// Nothing is queued but `head`.
    pub(crate) complete: bool,
    /// Parcels that earlier commits settled, and that are perhaps still stored.
    pub(crate) done: Vec<ObjectId>,
    /// Of these, what is; nothing can be said if the queue was not read.
    pub(crate) left: Option<Vec<ObjectId>>,
    /// The parcel of which a part is settled, and how much.
    pub(crate) part: Option<(ObjectId, u32)>,
    /// When the first delayed message is due, and whether that is over.
    pub(crate) late: Option<(i64, bool)>,
}

impl Row {
    /// From its document; nothing is known of its queue.
    pub(crate) fn decode(row: Document) -> Self {
        let wait = row.get_document("wait").ok().and_then(|wait| {
            let why = wait.get_str("why").ok().and_then(Waiting::parse).unwrap_or(Waiting::Backoff);
            Some((why, moment(wait, "until")?))
        });
        let stored = row.contains_key("fence");
        let done = row.get_array("done").map(Vec::as_slice).unwrap_or_default();
        let done = done.iter().filter_map(Bson::as_object_id).collect();
        let place = |field: &str| row.get_document(field).ok().and_then(place);
        let (counted, part) = (place("counted"), place("part"));
        let (now, deadline) = (moment(&row, "now").unwrap_or_default(), moment(&row, "deadline"));
        Self {
            now,
            fence: stored.then(|| unsigned(int(&row, "fence"))),
            gone: row.get_bool("gone").unwrap_or(false),
            nonce: optional(&row, "nonce"),
            deadline,
            // One that ends later than the longest lease was left by a clock that was set back (G3).
            live: deadline
                .is_some_and(|at| now < at && at <= now.saturating_add(codec::millis(Limits::LEASE))),
            last_commit: optional(&row, "last_commit"),
            commit_before: optional(&row, "commit_before"),
            handed: documents(&row, "handed").iter().flat_map(places).collect(),
            deliveries: small(int(&row, "deliveries")),
            charged: small(int(&row, "charged")),
            counted,
            batch_limit: if stored { small(int(&row, "batch_limit")) } else { u32::MAX },
            pending: unsigned(int(&row, "pending")),
            mark: int(&row, "mark"),
            queued: row.get_bool("queued").unwrap_or(false),
            delayed_at: moment(&row, "delayed_at"),
            wait,
            paused: optional(&row, "paused"),
            last_error: optional(&row, "last_error"),
            staged: row.get_bool("staged").unwrap_or(false),
            state: codec::state(&row),
            done,
            part,
            head: Vec::new(),
            more: false,
            complete: false,
            left: None,
            late: None,
        }
    }

    /// The parcels that a commit which settles so many takes away.
    pub(crate) fn going(&self, settles: usize) -> impl Iterator<Item = ObjectId> {
        let last = |(_, place): &(String, Place)| place.is_last().then_some(place.parcel);
        self.handed.iter().take(settles).filter_map(last)
    }

    /// How many parcels hold about so many messages, if they are like those that were handed out last.
    pub(crate) fn parcels(&self, messages: usize) -> usize {
        let parcels = self.handed.chunk_by(|(_, one), (_, next)| one.parcel == next.parcel).count();
        match parcels {
            0 => 16,
            parcels => messages.saturating_mul(parcels).div_ceil(self.handed.len()).saturating_add(2),
        }
    }

    /// Nothing is known to be queued, due or under way, so a grant may go without reading the queue: whoever has stored a
    /// message and not told the entity has not been answered, and the order leaves him free (G2).
    pub(crate) fn is_quiet(&self) -> bool {
        let done = self.done.len() < DONE;
        !self.queued && self.deadline.is_none() && self.delayed_at.is_none() && !self.staged && done
    }

    /// Locked by this grant, whether or not its lease has run out meanwhile.
    pub(crate) fn is_held_by(&self, nonce: Nonce) -> bool {
        self.deadline.is_some() && self.nonce.as_deref() == Some(&nonce.to_string())
    }

    /// It says that something is queued, or delayed until a moment, and nothing is.
    pub(crate) fn is_mistaken(&self) -> bool {
        let first = self.late.map(|(due, _)| due);
        self.head.is_empty() && self.queued
            || self.delayed_at.is_some_and(|at| first.is_none_or(|due| at < due))
    }

    /// What it waits for, if that is not over.
    pub(crate) fn waiting(&self) -> Option<(Waiting, i64)> {
        let (why, until) = self.wait?;
        (self.now < until).then(|| (why, until - self.now))
    }

    /// Whether this request may be granted, if something is queued.
    pub(crate) fn is_free(&self, nonce: Nonce) -> bool {
        let released = self.nonce.as_deref() == Some(&nonce.to_string());
        !released && !self.live && self.paused.is_none() && self.waiting().is_none()
    }

    /// The limit in force for a new grant. What a holder was handed and never settled is suspect, so it is handed
    /// out one by one.
    pub(crate) fn limit(&self) -> u32 {
        if self.deadline.is_some() && !self.handed.is_empty() { 1 } else { self.batch_limit.max(1) }
    }

    /// The counters behind a hand-out of this batch, as `statements::hand` counts.
    pub(crate) fn counts(&self, batch: &[Queued], settled: bool) -> (u32, u32) {
        let same = !settled && self.counted.is_some() && self.counted == head(batch);
        let (deliveries, charged) = if same { (self.deliveries, self.charged) } else { (0, 0) };
        (deliveries.saturating_add(1), charged.saturating_add(u32::from(batch.len() == 1)))
    }

    /// As it is behind a grant that handed out all there was, for the commit; without its state.
    pub(crate) fn granted(&self, nonce: Nonce, fence: u64, batch: &[Queued], marks: i64) -> Self {
        let (deliveries, charged) = self.counts(batch, false);
        Self {
            fence: Some(fence),
            nonce: Some(nonce.to_string()),
            deadline: Some(self.now),
            handed: batch.iter().map(|queued| (queued.message.id.to_string(), queued.place)).collect(),
            deliveries,
            charged,
            mark: self.mark + marks,
            queued: true,
            state: None,
            head: Vec::new(),
            ..self.clone()
        }
    }

    /// How long until it wants to be looked at, as it stands.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        if self.paused.is_some() {
            return None;
        }
        let head = if self.queued || !self.head.is_empty() { 0 } else { self.late?.0 - self.now };
        let wait = self.waiting().map_or(0, |(_, left)| left);
        Some(Duration::from_millis(unsigned(head.max(wait))))
    }
}

/// Messages that were posted: so many, whether one may be run at once, and when the first delayed one is due.
#[derive(Default)]
pub(crate) struct Posted {
    pub(crate) count: i64,
    pub(crate) queued: bool,
    pub(crate) due: Option<i64>,
}

impl Posted {
    /// For an entity in whatever state.
    pub(crate) fn stages(&self) -> Vec<Document> {
        statements::bump(self.count, self.queued, self.due)
    }

    /// For one that is bound to its row.
    pub(crate) fn tell(&self, row: &Row, change: &mut Change) {
        match row.fence {
            None => change.set.extend(doc! { "mark": 1_i64, "pending": self.count }),
            Some(_) => change.inc.extend(doc! { "mark": 1_i64, "pending": self.count }),
        }
        if self.queued {
            change.set.insert("queued", true);
        }
        if let Some(due) = self.due {
            change.min.insert("delayed_at", date(due));
        }
    }

    /// The update that tells an entity. Where it wakes does not change if it is locked or has a queue already, and is
    /// now if it was idle; the rest is the server's to compute.
    pub(crate) fn write(&self, entity: &EntityId, row: &Row, locked: bool) -> Write {
        let mut change = Change::of(entity);
        let idle = row.paused.is_none() && row.wait.is_none() && !row.staged;
        match row.fence {
            _ if self.due.is_some() || !self.queued || row.gone => return self.anyhow(entity, locked),
            Some(_) if locked => change.when("deadline", true),
            Some(_) if row.queued => _ = change.filter.insert("queued", true),
            Some(_) if row.deadline.is_some() => change.when("deadline", true),
            Some(_) if idle => {
                // Not its fence: what is said of many in the same words costs the least.
                change.filter.extend(doc! { "queued": false, "outbox": [], "bury": [] });
                ["deadline", "paused", "wait", "gone"]
                    .into_iter()
                    .for_each(|field| change.when(field, false));
                change.now.extend(["since", "wake_at"]);
            }
            None => {
                change.create(row.now);
                change.now.push("wake_at");
            }
            Some(_) => return self.anyhow(entity, locked),
        }
        self.tell(row, &mut change);
        Write::Change(change.into())
    }

    fn anyhow(&self, entity: &EntityId, locked: bool) -> Write {
        let guard = doc! { "$cond": [statements::locked(), "$mark", refuse()] };
        let guard = if locked { vec![doc! { "$set": { "mark": guard } }] } else { Vec::new() };
        let stages = [guard, self.stages(), vec![wake()]].concat();
        Write::Whole(doc! { "q": { "_id": name(entity) }, "u": stages, "upsert": true })
    }
}

/// What a post must know of its entity before it stores its messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) now: i64,
    pub(crate) pending: u64,
}

impl From<&Row> for Seen {
    fn from(row: &Row) -> Self {
        Self { now: row.now, pending: row.pending }
    }
}

/// What posts of the last second have seen of their entities, so that the next one stores its messages while it looks.
/// All that hangs on it is how much room there is, and where a second begins: the order comes from the server.
#[derive(Default)]
pub(crate) struct Recent(Mutex<BTreeMap<EntityId, (Instant, Seen)>>);

/// So many are remembered; then all are forgotten.
const RECENT: usize = 4096;

/// So much room must be left: others may have posted meanwhile.
const ROOM: u64 = 4096;

impl Recent {
    /// Nothing is remembered where something is delayed or staged, which goes before what is posted.
    pub(crate) fn keep(&self, entity: &EntityId, row: &Row, posted: &Posted) {
        let Ok(mut recent) = self.0.lock() else { return };
        if row.delayed_at.is_some() || row.staged || posted.due.is_some() {
            recent.remove(entity);
            return;
        }
        if recent.len() >= RECENT {
            recent.clear();
        }
        let pending = row.pending.saturating_add(unsigned(posted.count));
        recent.insert(entity.clone(), (Instant::now(), Seen { now: row.now, pending }));
    }

    /// What is known of all of them; none if one of them has to be looked at first.
    pub(crate) fn of(&self, items: &[Enqueue]) -> Option<Vec<Seen>> {
        let recent = self.0.lock().ok()?;
        let seen = |item: &Enqueue| {
            let (at, seen) = recent.get(&item.entity)?;
            let age = at.elapsed();
            let taken = seen.pending.saturating_add(item.messages.len() as u64).saturating_add(ROOM);
            let fits = age < Duration::from_secs(1) && taken <= item.backlog_limit;
            let delayed = item.messages.iter().any(|message| !message.delay.is_zero());
            (fits && !delayed).then(|| Seen { now: seen.now.saturating_add(codec::millis(age)), ..*seen })
        };
        items.iter().map(seen).collect()
    }
}

/// The messages of a parcel.
pub(crate) fn queued(row: Document) -> impl Iterator<Item = Queued> {
    let parcel = row.get_object_id("_id").unwrap_or_default();
    let messages = codec::messages(row);
    let of = u32::try_from(messages.len()).unwrap_or(u32::MAX);
    (0..).zip(messages).map(move |(at, message)| Queued { place: Place { parcel, at, of }, message })
}

/// The message that counters belong to.
fn head(batch: &[Queued]) -> Option<(ObjectId, u32)> {
    batch.first().map(|first| (first.place.parcel, first.place.at))
}

/// Where in a parcel, as it is stored.
pub(crate) fn within((parcel, at): (ObjectId, u32)) -> Document {
    doc! { "parcel": parcel, "at": i64::from(at) }
}

/// The same, as it is read.
pub(crate) fn place(stored: &Document) -> Option<(ObjectId, u32)> {
    Some((stored.get_object_id("parcel").ok()?, small(int(stored, "at"))))
}

/// What is told of a hand-out: whose counters these are, and what it holds, parcel by parcel.
pub(crate) fn entries(batch: &[Queued]) -> Document {
    let parcels = batch.chunk_by(|one, next| one.place.parcel == next.place.parcel).filter_map(|part| {
        let first = part.first()?.place;
        let ids: Vec<&str> = part.iter().map(|queued| queued.message.id.as_str()).collect();
        Some(
            doc! { "parcel": first.parcel, "at": i64::from(first.at), "of": i64::from(first.of), "ids": ids },
        )
    });
    let mut entries = doc! { "handed": parcels.collect::<Vec<_>>() };
    entries.extend(head(batch).map(|head| ("counted".to_owned(), within(head).into())));
    entries
}

/// One entry of these, message by message.
fn places(entry: &Document) -> Vec<(String, Place)> {
    let (Some((parcel, at)), of) = (place(entry), small(int(entry, "of"))) else { return Vec::new() };
    let ids = entry.get_array("ids").map(Vec::as_slice).unwrap_or_default();
    let ids = ids.iter().filter_map(Bson::as_str);
    (at..).zip(ids).map(|(at, id)| (id.to_owned(), Place { parcel, at, of })).collect()
}

/// What goes to the runner.
pub(crate) fn batch(messages: Vec<Queued>, (deliveries, charged): (u32, u32), batch_limit: u32) -> HandedOut {
    let messages = messages.into_iter().map(|queued| queued.message).collect();
    HandedOut { messages, deliveries, charged, batch_limit }
}
