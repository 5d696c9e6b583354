//! Posts: look, insert, mark.

use std::collections::BTreeMap;

use actornot_core::{Admission, Enqueue, Enqueued, EntityId, Error, Grant, Inspect as _};
use mongodb::bson::doc;
use mongodb::bson::oid::ObjectId;

use crate::MongoQueue;
use crate::codec::{Incoming, Parcel, encode, name, parcels};
use crate::connection::{Outcome, Series};
use crate::error::after_write;
use crate::lock::{Step, answer};
use crate::row::{Place, Posted, Queued, Row, Seen};
use crate::slice::COMMAND_BYTES;
use crate::statements::{Write, concern, update, weakly};
use crate::turn::{AGAIN, crowded};

/// What became of an [`Incoming`]: where it is, or `None` for an id that was accepted before.
pub(crate) type Inserted = Result<Option<Place>, Error>;

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

impl MongoQueue {
    pub(crate) async fn enqueue_slice(
        &self,
        items: &[Enqueue],
    ) -> Result<Vec<Result<Enqueued, Error>>, Error> {
        let entities: Vec<&EntityId> = items.iter().map(|item| &item.entity).collect();
        // From here on, whoever holds one of them has to look.
        entities.iter().for_each(|entity| drop(self.inner.held.take(entity)));
        let most = items.iter().filter_map(|item| Some(item.lock.as_ref()?.max_batch)).max().unwrap_or(1);
        let state = items.iter().any(|item| item.lock.is_some());
        let mut series = self.inner.connection.series();
        let (mut rows, early) = match self.inner.recent.of(items) {
            Some(seen) => {
                let storing = self.store(items, &seen, &mut series);
                let (rows, stored) = tokio::join!(self.glance(&entities, state), storing);
                let stored = stored?;
                (rows.map_err(after_write)?, Some(stored))
            }
            None => (self.glance(&entities, state).await?, None),
        };
        // The queue is read only for a grant, or where a message has to join it first.
        let due = |row: &Row| row.staged || row.delayed_at.is_some_and(|at| at <= row.now);
        let reads = |(item, row): (&Enqueue, &Row)| {
            let grants = |nonce| row.is_held_by(nonce) || row.is_free(nonce);
            due(row) || item.lock.as_ref().is_some_and(|lock| !row.is_quiet() && grants(lock.nonce))
        };
        let reads: Vec<usize> = (0..)
            .zip(items.iter().zip(&rows))
            .filter(|(_, both)| reads(*both))
            .map(|(index, _)| index)
            .collect();
        for row in &mut rows {
            row.complete = row.is_quiet();
        }
        let mut stored = match early {
            Some(mut stored) => {
                // G2: what fell due stands before what was stored without a look.
                let late = entities.iter().zip(&rows).zip(&stored).filter(|((_, row), _)| due(row));
                let late: Vec<(&EntityId, &[Queued])> =
                    late.map(|((entity, _), stored)| (*entity, stored.own.as_slice())).collect();
                self.fall_in(&late).await.map_err(after_write)?;
                self.look_again(items, &mut stored, &mut rows, &reads, most).await.map_err(after_write)?;
                stored
            }
            None => {
                let entities: Vec<&EntityId> =
                    reads.iter().filter_map(|index| entities.get(*index).copied()).collect();
                for (index, row) in reads.iter().zip(self.look(&entities, most).await?) {
                    rows.get_mut(*index).into_iter().for_each(|slot| *slot = row.clone());
                }
                let seen: Vec<Seen> = rows.iter().map(Seen::from).collect();
                self.store(items, &seen, &mut series).await?
            }
        };
        let answers =
            self.mark(items, &mut stored, &mut rows, most, &mut series).await.map_err(after_write)?;
        for ((item, row), stored) in items.iter().zip(&rows).zip(&stored) {
            self.inner.recent.keep(&item.entity, row, &stored.posted);
        }
        Ok(answers)
    }

    /// G1, G2, G7: stores messages, byte for byte, whose ids were not accepted within their retention.
    pub(crate) async fn insert(
        &self,
        messages: &[Incoming<'_>],
        series: &mut Series,
    ) -> Result<Vec<Inserted>, Error> {
        let mut inserted: Vec<Inserted> = messages.iter().map(|_| Ok(None)).collect();
        // The second parcel of an entity waits for what becomes of the first: that may be inserted once more.
        for (round, parcels) in parcels(messages).into_iter().enumerate() {
            let known = self.insert_some(messages, parcels, &mut inserted, series).await;
            let known = if round == 0 { known? } else { known.map_err(after_write)? };
            if known.is_empty() {
                continue;
            }
            let forgotten = self.forget_ids(messages, &known).await.map_err(after_write)?;
            // One id of many is known, or the one of a parcel was.
            let again = known.into_iter().filter(|parcel| forgotten || parcel.len() > 1).flatten();
            let alone = again.map(|index| vec![index]).collect();
            self.insert_some(messages, alone, &mut inserted, series).await.map_err(after_write)?;
        }
        Ok(inserted)
    }

    /// Known, but perhaps no longer within the retention: the server's own sweep comes once in a minute. Whether there
    /// were such.
    async fn forget_ids(&self, messages: &[Incoming<'_>], parcels: &[Parcel]) -> Result<bool, Error> {
        let db = &self.inner.connection;
        let each = parcels.iter().filter_map(|parcel| {
            let all = || parcel.iter().filter_map(|index| messages.get(*index));
            let ids: Vec<&str> = all().map(|incoming| incoming.message.id.as_str()).collect();
            let expired = doc! { "e": name(all().next()?.entity), "ids": { "$in": ids },
            "expires": { "$exists": true }, "$expr": { "$lte": ["$expires", "$$NOW"] } };
            Some(doc! { "q": expired, "limit": 0 })
        });
        let delete = doc! { "delete": &db.messages, "deletes": each.collect::<Vec<_>>(), "ordered": false,
        "writeConcern": concern() };
        let deleted = db.write(delete).await?;
        deleted.check()?;
        Ok(deleted.n > 0)
    }

    /// Those that hold an id which is known, and were not inserted.
    async fn insert_some(
        &self,
        messages: &[Incoming<'_>],
        parcels: Vec<Parcel>,
        inserted: &mut [Inserted],
        series: &mut Series,
    ) -> Result<Vec<Parcel>, Error> {
        let db = &self.inner.connection;
        let (mut rest, mut known, mut written) = (parcels.into_iter().peekable(), Vec::new(), false);
        while rest.peek().is_some() {
            let (mut bytes, mut rows, mut these) = (0, Vec::new(), Vec::new());
            let size = |parcel: &Parcel| {
                let all = parcel.iter().filter_map(|index| messages.get(*index));
                all.map(|incoming| 2048 + incoming.size()).sum::<usize>()
            };
            while let Some(parcel) =
                rest.next_if(|next| rows.is_empty() || bytes + size(next) <= COMMAND_BYTES)
            {
                bytes += size(&parcel);
                let id = ObjectId::new();
                rows.push(encode(messages, &parcel, id));
                these.push((parcel, id));
            }
            let command = doc! { "insert": &db.messages, "documents": rows, "ordered": false,
            "writeConcern": series.concern() };
            let reply = db.write(command).await;
            let reply = if written { reply.map_err(after_write)? } else { reply? };
            written = true;
            series.add(&reply)?;
            for (position, (indexes, parcel)) in these.into_iter().enumerate() {
                if reply.duplicate(position) {
                    known.push(indexes);
                    continue;
                }
                let failed = reply.failed(position).map(after_write);
                let of = u32::try_from(indexes.len()).unwrap_or(u32::MAX);
                for (at, index) in (0..).zip(indexes) {
                    let Some(slot) = inserted.get_mut(index) else { continue };
                    *slot = failed.clone().map_or(Ok(Some(Place { parcel, at, of })), Err);
                }
            }
        }
        Ok(known)
    }

    /// Inserts what is new and has room.
    async fn store(
        &self,
        items: &[Enqueue],
        rows: &[Seen],
        series: &mut Series,
    ) -> Result<Vec<Stored>, Error> {
        // Only where the limit matters, what is there is counted, and ids are asked for: they do not count twice.
        let left = |item: &Enqueue, row: &Seen| item.backlog_limit.saturating_sub(row.pending);
        let tight = items.iter().zip(rows).filter(|(item, row)| item.messages.len() as u64 > left(item, row));
        let tight: Vec<EntityId> = tight.map(|(item, _)| item.entity.clone()).collect();
        let mut counted = BTreeMap::new();
        if !tight.is_empty() {
            let seen = self.read(&tight).await?;
            counted.extend(
                tight.into_iter().zip(seen).filter_map(|(entity, seen)| Some((entity, seen?.pending))),
            );
        }
        let room = |item: &Enqueue, row: &Seen| {
            item.backlog_limit.saturating_sub(counted.get(&item.entity).copied().unwrap_or(row.pending))
        };
        let tight = items.iter().zip(rows).filter(|(item, row)| item.messages.len() as u64 > room(item, row));
        let mut known = self.known(tight.map(|(item, _)| item)).await?;
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
        let inserted = self.insert(&incoming, series).await?;
        for ((incoming, inserted), (index, place)) in incoming.iter().zip(inserted).zip(places) {
            let Some(stored) = stored.get_mut(index) else { continue };
            match inserted {
                Err(error) => stored.failed = Some(error),
                Ok(None) => {
                    if let Some(admission) = stored.admissions.get_mut(place) {
                        *admission = Admission::Duplicate;
                    }
                }
                Ok(Some(place)) => {
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
                            stored.own.push(Queued { place, message });
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
        series: &mut Series,
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
            // If the messages are on a majority: a grant may be lost with its server, and is then another's; but what is only
            // told would wait for a sweep, and who reads behind this call shall find the entity.
            let weak = |(index, step): &(usize, Step)| {
                let is_new = rows.get(*index).is_none_or(|row| row.fence.is_none() || row.gone);
                matches!(step, Step::Grant(..)) && !is_new && !stored.get(*index).is_none_or(Stored::is_known)
            };
            let durably = if !series.is_weak() && steps.iter().all(weak) { weakly } else { update };
            let outcomes = self.inner.connection.apply(writes, durably, series).await?;
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
