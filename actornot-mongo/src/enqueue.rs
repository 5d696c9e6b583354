//! Posts: look, insert, mark.

use std::collections::{BTreeMap, BTreeSet};

use actornot_core::{Admission, Enqueue, Enqueued, EntityId, Error, Grant, Inspect as _};
use mongodb::bson::{Document, doc};

use crate::MongoQueue;
use crate::codec::{self, name};
use crate::connection::Outcome;
use crate::error::after_write;
use crate::lock::{Step, answer};
use crate::row::{Queued, Row};
use crate::slice::Incoming;
use crate::statements::{self, update, wake};
use crate::turn::{AGAIN, crowded};

/// What became of the messages of an item, and what its entity must be told.
#[derive(Default)]
struct Stored {
    admissions: Vec<Admission>,
    failed: Option<Error>,
    own: Vec<Queued>,
    count: i64,
    queued: bool,
    due: Option<i64>,
}

impl Stored {
    fn is_known(&self) -> bool {
        self.admissions.contains(&Admission::Duplicate)
    }
}

impl MongoQueue {
    pub(crate) async fn enqueue_slice(
        &self,
        items: &[Enqueue],
    ) -> Result<Vec<Result<Enqueued, Error>>, Error> {
        let entities: Vec<&EntityId> = items.iter().map(|item| &item.entity).collect();
        let most = items.iter().filter_map(|item| Some(item.lock.as_ref()?.max_batch)).max().unwrap_or(1);
        let mut rows = self.look(&entities, most).await?;
        let mut stored = self.store(items, &rows).await?;
        self.mark(items, &mut stored, &mut rows, most).await.map_err(after_write)
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
                    stored.count += 1;
                    match incoming.due() {
                        Some(due) => stored.due = Some(stored.due.map_or(due, |first| first.min(due))),
                        None => {
                            stored.queued = true;
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

    /// Which of these ids were accepted and are remembered.
    async fn known(&self, ids: Vec<Document>) -> Result<BTreeSet<(EntityId, String)>, Error> {
        let db = &self.inner.connection;
        if ids.is_empty() {
            return Ok(BTreeSet::new());
        }
        let kept = doc! { "$or": [{ "expires": { "$exists": false } }, { "$expr": { "$gt": ["$expires", "$$NOW"] } }] };
        let filter = doc! { "$and": [{ "_id": { "$in": ids } }, kept] };
        let rows =
            db.read(doc! { "find": &db.messages, "filter": filter, "projection": { "_id": 1 } }).await?;
        rows.iter()
            .map(|row| {
                let id = row.get_document("_id").cloned().unwrap_or_default();
                Ok((
                    codec::entity(&id.get_document("e").cloned().unwrap_or_default())?,
                    codec::text(&id, "i"),
                ))
            })
            .collect()
    }

    /// Tells the entities, and takes the locks that are wanted.
    async fn mark(
        &self,
        items: &[Enqueue],
        stored: &mut [Stored],
        rows: &mut [Row],
        most: u32,
    ) -> Result<Vec<Result<Enqueued, Error>>, Error> {
        let db = &self.inner.connection;
        let mut answers: Vec<Option<Result<Enqueued, Error>>> = items.iter().map(|_| None).collect();
        // Of a known id we cannot tell where it is now, and whether anybody was told: look again.
        let known = stored.iter().enumerate().filter(|(_, stored)| stored.is_known());
        let known: Vec<usize> = known.map(|(index, _)| index).collect();
        self.look_again(items, stored, rows, &known, most).await?;
        let mut open: Vec<usize> = (0..items.len()).collect();
        for _ in 0..AGAIN {
            let mut steps = Vec::with_capacity(open.len());
            for index in &open {
                if let (Some(item), Some(stored), Some(row)) =
                    (items.get(*index), stored.get(*index), rows.get(*index))
                {
                    steps.push((*index, step(item, stored, row)));
                }
            }
            let statements: Vec<Document> = steps.iter().zip(&open).filter_map(|((_, (_, stages)), index)| {
                Some(doc! { "q": { "_id": name(&items.get(*index)?.entity) }, "u": stages.clone(), "upsert": true })
            }).collect();
            let reply = db.write(update(&db.entities, statements)).await?;
            let (mut moved, mut granted) = (Vec::new(), Vec::new());
            for (position, (index, (step, _))) in steps.into_iter().enumerate() {
                match reply.outcome(position) {
                    Outcome::Applied => granted.push((index, step)),
                    Outcome::Refused(_) => moved.push(index),
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
                    Some(request) => answer(self, &item.entity, request, row, step).await?,
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

/// What to do with the entity of an item: the stages of its update.
fn step(item: &Enqueue, stored: &Stored, row: &Row) -> (Step, Vec<Document>) {
    let queued = stored.queued || stored.is_known() && !row.head.is_empty();
    // Whoever stored a known id may have died before it told the entity, of a delayed message too.
    let late = row.late.filter(|_| stored.is_known()).map(|(due, _)| due);
    let bump = statements::bump(stored.count, queued, stored.due.into_iter().chain(late).min());
    let Some(request) = &item.lock else { return (Step::None, [bump, vec![wake()]].concat()) };
    let mut head = row.head.clone();
    if !row.more {
        head.extend(stored.own.iter().cloned());
    }
    match Step::of(row, request, head) {
        Step::None if row.live && !row.is_held_by(request.nonce) => {
            let guard = doc! { "$cond": [statements::live(), "$mark", statements::refuse("moved")] };
            (Step::None, [vec![doc! { "$set": { "mark": guard } }], bump, vec![wake()]].concat())
        }
        Step::None => (Step::None, [bump, vec![wake()]].concat()),
        step => {
            let stages = step.stages(row, request, bump);
            (step, stages)
        }
    }
}
