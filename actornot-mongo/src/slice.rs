//! Looks: what is stored of a whole slice of entities, and of what is queued at them.

use std::collections::{BTreeMap, BTreeSet};

use actornot_core::{EntityId, Error, ErrorKind};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, doc};
use tokio::task::JoinSet;

use crate::MongoQueue;
use crate::codec::{self, name};
use crate::row::{self, Queued, Row};
use crate::statements::{self, weakly};
use crate::turn::AGAIN;

/// One command holds at most 16 MB; the rest is left for names and headers.
pub(crate) const COMMAND_BYTES: usize = 8 << 20;

impl MongoQueue {
    /// Which of these ids were accepted and are remembered.
    pub(crate) async fn known(&self, ids: Vec<Document>) -> Result<BTreeSet<(EntityId, String)>, Error> {
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

    /// One row for each entity, in order, behind everything that was due and staged.
    pub(crate) async fn look(&self, entities: &[&EntityId], most: u32) -> Result<Vec<Row>, Error> {
        self.look_behind(&entities.iter().map(|entity| (*entity, 0)).collect::<Vec<_>>(), most).await
    }

    /// A look behind so many of the messages that each entity's holder was handed, and is about to settle.
    pub(crate) async fn look_behind(
        &self,
        wanted: &[(&EntityId, usize)],
        most: u32,
    ) -> Result<Vec<Row>, Error> {
        let entities: Vec<&EntityId> = wanted.iter().map(|(entity, _)| *entity).collect();
        let db = &self.inner.connection;
        for again in 0.. {
            let found = self.entities(&entities, true).await?;
            let rows = self.queues(wanted, found, most).await?;
            let which = |wanted: fn(&Row) -> bool| -> Vec<&EntityId> {
                entities.iter().zip(&rows).filter(|(_, row)| wanted(row)).map(|(entity, _)| *entity).collect()
            };
            let late = which(|row| row.late.is_some_and(|(_, over)| over));
            let staged = which(|row| row.staged);
            if again > AGAIN || late.is_empty() && staged.is_empty() {
                return Ok(rows);
            }
            if !late.is_empty() {
                let late = late.into_iter().map(name).collect();
                db.write(statements::promote(&db.messages, late)).await?.check()?;
            }
            if !staged.is_empty() {
                self.relay(&staged).await?;
            }
        }
        Ok(Vec::new())
    }

    /// The rows alone, in order: no queue is read, nothing is promoted or relayed.
    pub(crate) async fn glance(&self, entities: &[&EntityId], state: bool) -> Result<Vec<Row>, Error> {
        Ok(self.entities(entities, state).await?.into_iter().map(Row::decode).collect())
    }

    /// The documents of these entities, in order, each with the server's clock; of one that was never stored, only that.
    async fn entities(&self, entities: &[&EntityId], state: bool) -> Result<Vec<Document>, Error> {
        let db = &self.inner.connection;
        let names = entities.iter().map(|entity| name(entity)).collect();
        let found = db.look(statements::entities(&db.entities, names, state), usize::MAX).await?.0;
        let mut found: BTreeMap<EntityId, Document> =
            found.into_iter().map(|row| Ok((entity_of(&row, "_id")?, row))).collect::<Result<_, Error>>()?;
        let clock = match entities.iter().all(|entity| found.contains_key(*entity)) {
            true => Document::new(),
            false => db.look(statements::clock(&db.meta), usize::MAX).await?.0.pop().ok_or_else(|| {
                let gone = "the installed layout is gone; was the database dropped, or its collections changed by hand?";
                Error::new(ErrorKind::Incompatible, gone)
            })?,
        };
        Ok(entities.iter().map(|entity| found.remove(*entity).unwrap_or_else(|| clock.clone())).collect())
    }

    /// The slice as a whole where its queues are short, and the rest entity by entity.
    async fn queues(
        &self,
        wanted: &[(&EntityId, usize)],
        found: Vec<Document>,
        most: u32,
    ) -> Result<Vec<Row>, Error> {
        let db = &self.inner.connection;
        let most = most.max(1) as usize;
        // A few more than one look needs: what was posted and not counted yet, and what was settled and not removed.
        let short = most.saturating_mul(2).saturating_add(64);
        let (mut rows, mut waits, mut going, mut limit) = (Vec::new(), BTreeMap::new(), Vec::new(), short);
        for (index, ((entity, settles), row)) in wanted.iter().zip(found).enumerate() {
            let row = Row::decode(row);
            let pending = usize::try_from(row.pending).unwrap_or(usize::MAX);
            if pending <= short {
                limit = limit.saturating_add(pending).saturating_add(row.done.len());
                going.extend(row.going(*settles));
                waits.insert(*entity, (index, Waits::default()));
            }
            rows.push(row);
        }
        let mut long: BTreeSet<usize> = (0..rows.len()).collect();
        if !waits.is_empty() {
            let names = waits.keys().map(|entity| name(entity)).collect();
            let command = statements::waits(&db.messages, names, going, limit);
            let (messages, whole) = db.look(command, statements::HEAD_BYTES).await?;
            if whole && messages.len() < limit {
                for message in messages {
                    let place = if message.contains_key("q") { "q" } else { "d" };
                    let entity = entity_of(&message, place)?;
                    if let Some((_, waits)) = waits.get_mut(&entity) {
                        let list = if place == "q" { &mut waits.queue } else { &mut waits.late };
                        list.push(message);
                    }
                }
                for (index, waits) in waits.into_values() {
                    long.remove(&index);
                    if let Some(row) = rows.get_mut(index) {
                        waits.join(row, most, most);
                    }
                }
            }
        }
        let mut reads = JoinSet::new();
        for index in long {
            if let (Some((entity, settles)), Some(row)) = (wanted.get(index), rows.get(index)) {
                let going = row.going(*settles);
                let command = statements::queue(&db.messages, name(entity), going, &row.done, most);
                let queue = self.clone();
                let read = async move { queue.inner.connection.look(command, statements::HEAD_BYTES).await };
                reads.spawn(async move { (index, read.await) });
            }
        }
        while let Some(read) = reads.join_next().await {
            let (index, read) = read.map_err(|_| Error::new(ErrorKind::Unavailable, "a read was ended"))?;
            let (messages, whole) = read?;
            let (left, messages): (Vec<_>, Vec<Document>) =
                messages.into_iter().partition(|message| message.contains_key("left"));
            let (late, queue): (Vec<_>, Vec<_>) =
                messages.into_iter().partition(|message| message.contains_key("due"));
            let rest = if whole { most.saturating_sub(1) } else { 0 };
            let waits = Waits { queue, late, left };
            if let Some(row) = rows.get_mut(index) {
                waits.join(row, most, rest);
                row.more = !whole;
            }
        }
        Ok(rows)
    }

    /// What these hand-outs hold, in their order; without what is no longer stored.
    pub(crate) async fn stored(
        &self,
        wanted: &[(&EntityId, &[(String, ObjectId)])],
    ) -> Result<Vec<Vec<Queued>>, Error> {
        let db = &self.inner.connection;
        let ids = wanted
            .iter()
            .flat_map(|(entity, handed)| handed.iter().map(|(id, _)| codec::message_name(entity, id)));
        let ids: Vec<Document> = ids.collect();
        if ids.is_empty() {
            return Ok(wanted.iter().map(|_| Vec::new()).collect());
        }
        let filter = doc! { "_id": { "$in": ids }, "q": { "$exists": true } };
        let (rows, _) = db.look(doc! { "find": &db.messages, "filter": filter }, usize::MAX).await?;
        let found: BTreeMap<ObjectId, Queued> =
            rows.into_iter().map(row::queued).map(|queued| (queued.u, queued)).collect();
        let batch = |handed: &[(String, ObjectId)]| {
            handed.iter().filter_map(|(_, u)| found.get(u).cloned()).collect()
        };
        Ok(wanted.iter().map(|(_, handed)| batch(handed)).collect())
    }

    /// G7: settled messages become tombstones. By `_id`: the queue may be long. Nobody waits for a majority: the commit
    /// that names them no more does.
    pub(crate) async fn forget(&self, settled: &[(Document, ObjectId)]) -> Result<(), Error> {
        if settled.is_empty() {
            return Ok(());
        }
        let db = &self.inner.connection;
        let (ids, us): (Vec<Document>, Vec<ObjectId>) = settled.iter().cloned().unzip();
        let filter = doc! { "_id": { "$in": ids }, "u": { "$in": us }, "q": { "$exists": true } };
        let update = weakly(
            &db.messages,
            vec![doc! { "q": filter, "multi": true, "u": statements::bury_stages(), "hint": "_id_" }],
        );
        db.write(update).await?.check()
    }
}

/// What was found at one entity.
#[derive(Default)]
struct Waits {
    queue: Vec<Document>,
    late: Vec<Document>,
    /// Settled messages that are still stored, if they are not in the queue.
    left: Vec<Document>,
}

impl Waits {
    /// `complete`: if no more than so many are queued, these are all.
    fn join(mut self, row: &mut Row, most: usize, complete: usize) {
        let done: BTreeSet<ObjectId> = row.done.iter().map(|(_, u)| *u).collect();
        self.queue.sort_by_key(|message| {
            message.get_timestamp("seq").map(|seq| (seq.time, seq.increment)).unwrap_or_default()
        });
        let (settled, head): (Vec<_>, Vec<_>) =
            self.queue.into_iter().partition(|message| done.contains(&u(message)));
        row.complete = head.len() <= complete;
        row.head = head.into_iter().take(most).map(row::queued).collect();
        // A redriven letter has the id of what was settled, and is another incarnation.
        let left: BTreeSet<ObjectId> = settled.iter().chain(&self.left).map(u).collect();
        row.left = Some(row.done.iter().filter(|(_, u)| left.contains(u)).cloned().collect());
        let late = self.late.iter().filter_map(|message| codec::moment(message, "due")).min();
        row.late = late.map(|due| (due, due <= row.now));
    }
}

fn u(row: &Document) -> ObjectId {
    row.get_object_id("u").unwrap_or_default()
}

fn entity_of(row: &Document, field: &str) -> Result<EntityId, Error> {
    row.get_document(field).map_or_else(|_| codec::entity(&Document::new()), codec::entity)
}
