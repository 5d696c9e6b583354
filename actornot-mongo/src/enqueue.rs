//! Posts: look, insert, mark.

use std::collections::BTreeMap;

use actornot_core::{
    Admission, Enqueue, Enqueued, EntityId, Error, Grant, Headers, Inspect as _, NewMessage,
};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, Timestamp, doc};

use crate::MongoQueue;
use crate::codec::{self, millis, name};
use crate::connection::Outcome;
use crate::error::after_write;
use crate::lock::{Step, answer};
use crate::row::{Posted, Queued, Row};
use crate::slice::COMMAND_BYTES;
use crate::statements::{Write, concern, update, weakly};
use crate::turn::{AGAIN, crowded};

/// A message on its way in.
pub(crate) struct Incoming<'a> {
    pub(crate) entity: &'a EntityId,
    pub(crate) message: &'a NewMessage,
    /// The server's clock, as a look returned it.
    pub(crate) now: i64,
    /// Who sent it, while its outbox still names it.
    pub(crate) hold: Option<Document>,
}

impl Incoming<'_> {
    /// When it is due, if it is delayed.
    pub(crate) fn due(&self) -> Option<i64> {
        (!self.message.delay.is_zero()).then(|| self.now.saturating_add(millis(self.message.delay)))
    }

    fn encode(&self, u: ObjectId) -> Document {
        let message = self.message;
        let mut row = doc! {
            "_id": codec::message_name(self.entity, message.id.as_str()), "u": u,
            "at": codec::date(self.now), "keep": millis(message.retention),
            // The server draws it while it inserts: the only order (G2).
            "seq": Timestamp { time: 0, increment: 0 },
            "payload": message.payload.as_str(), "headers": codec::headers(&message.headers),
        };
        match self.due() {
            Some(due) => row.extend(doc! { "d": name(self.entity), "due": codec::date(due) }),
            None => _ = row.insert("q", name(self.entity)),
        }
        if let Some(hold) = &self.hold {
            row.insert("hold", hold.clone());
        }
        row
    }
}

/// What became of an [`Incoming`]: its incarnation, or `None` for an id that was accepted before.
pub(crate) type Inserted = Result<Option<ObjectId>, Error>;

/// What became of the messages of an item, and what its entity must be told.
#[derive(Default)]
struct Stored {
    admissions: Vec<Admission>,
    failed: Option<Error>,
    own: Vec<Queued>,
    posted: Posted,
}

impl Stored {
    fn is_known(&self) -> bool {
        self.admissions.contains(&Admission::Duplicate)
    }

    /// What its entity must be told.
    fn posted(&self, row: &Row) -> Posted {
        let Posted { count, queued, due } = self.posted;
        if !self.is_known() {
            return Posted { count, queued, due };
        }
        // Whoever stored a known id may have died before it told the entity, of a delayed message too.
        let late = row.late.map(|(due, _)| due);
        Posted { count, queued: queued || !row.head.is_empty(), due: due.into_iter().chain(late).min() }
    }
}

pub(crate) fn size(headers: &Headers) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
}

impl MongoQueue {
    pub(crate) async fn enqueue_slice(
        &self,
        items: &[Enqueue],
    ) -> Result<Vec<Result<Enqueued, Error>>, Error> {
        let entities: Vec<&EntityId> = items.iter().map(|item| &item.entity).collect();
        // From here on, whoever holds one of them has to look.
        entities.iter().for_each(|entity| drop(self.inner.held.take(entity)));
        let most = items.iter().filter_map(|item| Some(item.lock.as_ref()?.max_batch)).max().unwrap_or(1);
        let mut rows = self.glance(&entities, items.iter().any(|item| item.lock.is_some())).await?;
        // The queue is read only for a grant, or where a message has to join it first.
        let reads = |(item, row): (&Enqueue, &Row)| {
            let due = row.staged || row.delayed_at.is_some_and(|at| at <= row.now);
            let grants = |nonce| row.is_held_by(nonce) || row.is_free(nonce);
            due || item.lock.as_ref().is_some_and(|lock| !row.is_quiet() && grants(lock.nonce))
        };
        let reads: Vec<usize> = (0..)
            .zip(items.iter().zip(&rows))
            .filter(|(_, both)| reads(*both))
            .map(|(index, _)| index)
            .collect();
        for row in &mut rows {
            row.complete = row.is_quiet();
        }
        if !reads.is_empty() {
            let entities: Vec<&EntityId> =
                reads.iter().filter_map(|index| entities.get(*index).copied()).collect();
            for (index, row) in reads.iter().zip(self.look(&entities, most).await?) {
                rows.get_mut(*index).into_iter().for_each(|slot| *slot = row.clone());
            }
        }
        let mut stored = self.store(items, &rows).await?;
        self.mark(items, &mut stored, &mut rows, most).await.map_err(after_write)
    }

    /// G1, G2, G7: stores messages, byte for byte, whose ids were not accepted within their retention.
    pub(crate) async fn insert(&self, messages: &[Incoming<'_>]) -> Result<Vec<Inserted>, Error> {
        let all: Vec<usize> = (0..messages.len()).collect();
        let mut inserted: Vec<Inserted> = messages.iter().map(|_| Ok(None)).collect();
        self.insert_some(messages, &all, &mut inserted).await?;
        let known = |inserted: &[Inserted]| -> Vec<usize> {
            all.iter().copied().filter(|index| matches!(inserted.get(*index), Some(Ok(None)))).collect()
        };
        let known = known(&inserted);
        if known.is_empty() {
            return Ok(inserted);
        }
        // Known, but perhaps no longer within the retention: the server's own sweep comes once in a minute.
        let db = &self.inner.connection;
        let ids = known.iter().filter_map(|index| messages.get(*index));
        let ids: Vec<Document> =
            ids.map(|incoming| codec::message_name(incoming.entity, incoming.message.id.as_str())).collect();
        let expired = doc! { "_id": { "$in": ids }, "expires": { "$exists": true },
        "$expr": { "$lte": ["$expires", "$$NOW"] } };
        let delete = doc! { "delete": &db.messages, "deletes": [{ "q": expired, "limit": 0 }],
        "writeConcern": concern() };
        let deleted = db.write(delete).await.map_err(after_write)?;
        if deleted.n > 0 {
            self.insert_some(messages, &known, &mut inserted).await.map_err(after_write)?;
        }
        Ok(inserted)
    }

    async fn insert_some(
        &self,
        messages: &[Incoming<'_>],
        which: &[usize],
        inserted: &mut [Inserted],
    ) -> Result<(), Error> {
        let db = &self.inner.connection;
        let (mut rest, mut written) = (which, false);
        while !rest.is_empty() {
            let (mut bytes, mut rows, mut names) = (0, Vec::new(), Vec::new());
            for index in rest {
                let Some(incoming) = messages.get(*index) else { continue };
                bytes += 2048 + incoming.message.payload.len() + size(&incoming.message.headers);
                if bytes > COMMAND_BYTES && !rows.is_empty() {
                    break;
                }
                let u = ObjectId::new();
                names.push((*index, u));
                rows.push(incoming.encode(u));
            }
            rest = rest.get(names.len()..).unwrap_or_default();
            let command = doc! { "insert": &db.messages, "documents": rows, "ordered": false,
            "writeConcern": concern() };
            let reply = db.write(command).await;
            let reply = if written { reply.map_err(after_write)? } else { reply? };
            written = true;
            for (position, (index, u)) in names.into_iter().enumerate() {
                let Some(slot) = inserted.get_mut(index) else { continue };
                *slot = match reply.failed(position) {
                    Some(error) => Err(after_write(error)),
                    None => Ok((!reply.duplicate(position)).then_some(u)),
                };
            }
        }
        Ok(())
    }

    /// Inserts what is new and has room.
    async fn store(&self, items: &[Enqueue], rows: &[Row]) -> Result<Vec<Stored>, Error> {
        // Only where the limit matters, what is there is counted, and ids are asked for: they do not count twice.
        let left = |item: &Enqueue, row: &Row| item.backlog_limit.saturating_sub(row.pending);
        let tight = items.iter().zip(rows).filter(|(item, row)| item.messages.len() as u64 > left(item, row));
        let tight: Vec<EntityId> = tight.map(|(item, _)| item.entity.clone()).collect();
        let mut counted = BTreeMap::new();
        if !tight.is_empty() {
            let seen = self.read(&tight).await?;
            counted.extend(
                tight.into_iter().zip(seen).filter_map(|(entity, seen)| Some((entity, seen?.pending))),
            );
        }
        let room = |item: &Enqueue, row: &Row| {
            item.backlog_limit.saturating_sub(counted.get(&item.entity).copied().unwrap_or(row.pending))
        };
        let tight = items.iter().zip(rows).filter(|(item, row)| item.messages.len() as u64 > room(item, row));
        let mut known = self
            .known(
                tight
                    .flat_map(|(item, _)| {
                        item.messages
                            .iter()
                            .map(|message| codec::message_name(&item.entity, message.id.as_str()))
                    })
                    .collect(),
            )
            .await?;
        let mut stored: Vec<Stored> = items.iter().map(|_| Stored::default()).collect();
        let (mut incoming, mut places) = (Vec::new(), Vec::new());
        for (index, (item, row)) in items.iter().zip(rows).enumerate() {
            let Some(stored) = stored.get_mut(index) else { continue };
            let (room, mut taken) = (room(item, row), 0);
            let is_tight = item.messages.len() as u64 > room;
            for message in &item.messages {
                let id = (item.entity.clone(), message.id.to_string());
                if is_tight && known.contains(&id) {
                    stored.admissions.push(Admission::Duplicate);
                } else if taken >= room {
                    stored.admissions.push(Admission::Full);
                } else {
                    taken += 1;
                    known.insert(id);
                    places.push((index, stored.admissions.len()));
                    stored.admissions.push(Admission::Accepted);
                    incoming.push(Incoming { entity: &item.entity, message, now: row.now, hold: None });
                }
            }
        }
        if incoming.is_empty() {
            return Ok(stored);
        }
        // What the last commit settled, and has not become a tombstone yet.
        let inserted = self.insert(&incoming).await?;
        for ((incoming, inserted), (index, place)) in incoming.iter().zip(inserted).zip(places) {
            let Some(stored) = stored.get_mut(index) else { continue };
            match inserted {
                Err(error) => stored.failed = Some(error),
                Ok(None) => {
                    if let Some(admission) = stored.admissions.get_mut(place) {
                        *admission = Admission::Duplicate;
                    }
                }
                Ok(Some(u)) => {
                    let posted = &mut stored.posted;
                    posted.count += 1;
                    match incoming.due() {
                        Some(due) => posted.due = Some(posted.due.map_or(due, |first| first.min(due))),
                        None => {
                            posted.queued = true;
                            let message = actornot_core::StoredMessage {
                                id: incoming.message.id.clone(),
                                payload: incoming.message.payload.clone(),
                                headers: incoming.message.headers.clone(),
                            };
                            stored.own.push(Queued { u, message });
                        }
                    }
                }
            }
        }
        Ok(stored)
    }

    /// Tells the entities, and takes the locks that are wanted.
    async fn mark(
        &self,
        items: &[Enqueue],
        stored: &mut [Stored],
        rows: &mut [Row],
        most: u32,
    ) -> Result<Vec<Result<Enqueued, Error>>, Error> {
        let mut answers: Vec<Option<Result<Enqueued, Error>>> = items.iter().map(|_| None).collect();
        // Of a known id we cannot tell where it is now, and whether anybody was told: look again.
        let known = stored.iter().enumerate().filter(|(_, stored)| stored.is_known());
        let known: Vec<usize> = known.map(|(index, _)| index).collect();
        self.look_again(items, stored, rows, &known, most).await?;
        let mut open: Vec<usize> = (0..items.len()).collect();
        for _ in 0..AGAIN {
            let (mut steps, mut writes) = (Vec::with_capacity(open.len()), Vec::with_capacity(open.len()));
            for index in &open {
                if let (Some(item), Some(stored), Some(row)) =
                    (items.get(*index), stored.get(*index), rows.get(*index))
                {
                    let (step, write) = step(item, stored, row);
                    steps.push((*index, step));
                    writes.push(write);
                }
            }
            // The messages are on a majority. A grant may be lost with its server, and is then another's; but what is only
            // told would wait for a sweep, and who reads behind this call shall find the entity.
            let weak = |(index, step): &(usize, Step)| {
                let is_new = rows.get(*index).is_none_or(|row| row.fence.is_none() || row.gone);
                matches!(step, Step::Grant(..)) && !is_new && !stored.get(*index).is_none_or(Stored::is_known)
            };
            let outcomes = self
                .inner
                .connection
                .apply(writes, if steps.iter().all(weak) { weakly } else { update })
                .await?;
            let (mut moved, mut granted) = (Vec::new(), Vec::new());
            for ((index, step), outcome) in steps.into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Applied => granted.push((index, step)),
                    Outcome::Refused => moved.push(index),
                    Outcome::Failed(error) => {
                        if let Some(slot) = answers.get_mut(index) {
                            *slot = Some(Err(after_write(error)));
                        }
                    }
                }
            }
            for (index, step) in granted {
                let (Some(item), Some(row), Some(stored), Some(slot)) =
                    (items.get(index), rows.get(index), stored.get(index), answers.get_mut(index))
                else {
                    continue;
                };
                let grant: Option<Grant> = match &item.lock {
                    Some(request) => {
                        answer(self, &item.entity, request, row, step, Some(&stored.posted(row))).await?
                    }
                    None => None,
                };
                *slot = Some(match &stored.failed {
                    Some(error) => Err(error.clone()),
                    None => Ok(Enqueued { admissions: stored.admissions.clone(), grant }),
                });
            }
            open = moved;
            if open.is_empty() {
                break;
            }
            self.look_again(items, stored, rows, &open, most).await?;
        }
        Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(crowded()))).collect())
    }

    async fn look_again(
        &self,
        items: &[Enqueue],
        stored: &mut [Stored],
        rows: &mut [Row],
        which: &[usize],
        most: u32,
    ) -> Result<(), Error> {
        if which.is_empty() {
            return Ok(());
        }
        let entities: Vec<&EntityId> =
            which.iter().filter_map(|index| Some(&items.get(*index)?.entity)).collect();
        for (index, row) in which.iter().zip(self.look(&entities, most).await?) {
            if let (Some(slot), Some(stored)) = (rows.get_mut(*index), stored.get_mut(*index)) {
                *slot = row;
                // It is in the look, or somebody has handled it since: never hand it out from memory.
                stored.own.clear();
            }
        }
        Ok(())
    }
}

/// What to do with the entity of an item, and the update that does it.
fn step(item: &Enqueue, stored: &Stored, row: &Row) -> (Step, Write) {
    let posted = stored.posted(row);
    let Some(request) = &item.lock else { return (Step::None, posted.write(&item.entity, row, false)) };
    let mut head = row.head.clone();
    if !row.more {
        head.extend(stored.own.iter().cloned());
    }
    match Step::of(row, request, head) {
        Step::None => {
            let locked = row.live && !row.is_held_by(request.nonce);
            (Step::None, posted.write(&item.entity, row, locked))
        }
        step => {
            let write = step.write(&item.entity, row, request, Some(&posted));
            (step, write)
        }
    }
}
