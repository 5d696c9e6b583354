//! Looks: what is stored of a whole slice of entities, and of what is queued at them.

use std::collections::{BTreeMap, BTreeSet};

use actornot_core::{Enqueue, EntityId, Error, ErrorKind};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, doc};
use tokio::task::JoinSet;

use crate::MongoQueue;
use crate::codec::{self, PARCEL, name};
use crate::row::{self, Place, Queued, Row};
use crate::statements::{self, update, weakly};
use crate::turn::AGAIN;

/// One command holds at most 16 MB; the rest is left for names and headers.
pub(crate) const COMMAND_BYTES: usize = 8 << 20;

impl MongoQueue {
    /// Which ids of these were accepted and are remembered, and perhaps others.
    pub(crate) async fn known(
        &self,
        items: impl Iterator<Item = &Enqueue>,
    ) -> Result<BTreeSet<(EntityId, String)>, Error> {
        let db = &self.inner.connection;
        let each = items.map(|item| {
            let ids: Vec<&str> = item.messages.iter().map(|message| message.id.as_str()).collect();
            doc! { "e": name(&item.entity), "ids": { "$in": ids } }
        });
        let each: Vec<Document> = each.collect();
        if each.is_empty() {
            return Ok(BTreeSet::new());
        }
        let kept = doc! { "$or": [{ "expires": { "$exists": false } }, { "$expr": { "$gt": ["$expires", "$$NOW"] } }] };
        let filter = doc! { "$and": [{ "$or": each }, kept] };
        let rows = db
            .read(
                doc! { "find": &db.messages, "filter": filter, "projection": { "_id": 0, "e": 1, "ids": 1 } },
            )
            .await?;
        let mut known = BTreeSet::new();
        for row in rows {
            let entity = entity_of(&row, "e")?;
            known.extend(
                codec::messages(row).into_iter().map(|message| (entity.clone(), message.id.to_string())),
            );
        }
        Ok(known)
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

    /// Lets what is due and staged at these join their queues, and then these once more, which were stored before a look.
    pub(crate) async fn fall_in(&self, stored: &[(&EntityId, &[Queued])]) -> Result<(), Error> {
        let mut parcels: Vec<ObjectId> =
            stored.iter().flat_map(|(_, own)| own.iter().map(|queued| queued.place.parcel)).collect();
        parcels.dedup();
        if parcels.is_empty() {
            return Ok(());
        }
        self.look(&stored.iter().map(|(entity, _)| *entity).collect::<Vec<_>>(), 1).await?;
        // One by one, in their order.
        let last = |parcel: ObjectId| {
            doc! { "q": { "_id": parcel, "q": { "$exists": true } },
            "u": { "$currentDate": { "seq": { "$type": "timestamp" } } } }
        };
        let db = &self.inner.connection;
        db.write(update(&db.messages, parcels.into_iter().map(last).collect())).await?.check()
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
                        waits.join(row, most, true);
                    }
                }
            }
        }
        let mut reads = JoinSet::new();
        for index in long {
            if let (Some((entity, settles)), Some(row)) = (wanted.get(index), rows.get(index)) {
                let (queue, name, done) = (self.clone(), name(entity), row.done.clone());
                let (going, parcels) = (row.going(*settles).collect::<Vec<_>>(), row.parcels(most).min(most));
                reads.spawn(async move { (index, queue.queue(name, &done, &going, parcels, most).await) });
            }
        }
        while let Some(read) = reads.join_next().await {
            let (index, read) = read.map_err(|_| Error::new(ErrorKind::Unavailable, "a read was ended"))?;
            let (waits, all, whole) = read?;
            if let Some(row) = rows.get_mut(index) {
                waits.join(row, most, all);
                row.more = !whole;
            }
        }
        Ok(rows)
    }

    /// The head of one long queue, so many messages, which may be in so many parcels; whether that is all there is, and
    /// whether nothing was left out for its size.
    async fn queue(
        &self,
        name: Document,
        done: &[ObjectId],
        going: &[ObjectId],
        mut parcels: usize,
        most: usize,
    ) -> Result<(Waits, bool, bool), Error> {
        let db = &self.inner.connection;
        loop {
            let command = statements::queue(&db.messages, name.clone(), going, done, parcels);
            let (messages, whole) = db.look(command, statements::HEAD_BYTES).await?;
            let (left, messages): (Vec<_>, Vec<Document>) =
                messages.into_iter().partition(|message| message.contains_key("left"));
            let (late, queue): (Vec<_>, Vec<_>) =
                messages.into_iter().partition(|message| message.contains_key("due"));
            let found = queue.len();
            let waits = Waits { queue, late, left };
            // Of the first a part may be settled.
            if !whole || found < parcels || parcels == most || waits.messages() >= most + PARCEL.0 {
                return Ok((waits, whole && found < parcels, whole));
            }
            parcels = most;
        }
    }

    /// What these hand-outs hold, in their order; without what is no longer stored.
    pub(crate) async fn stored(&self, handed: &[(String, Place)]) -> Result<Vec<Queued>, Error> {
        let db = &self.inner.connection;
        let parcels: BTreeSet<ObjectId> = handed.iter().map(|(_, place)| place.parcel).collect();
        if parcels.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<ObjectId> = parcels.into_iter().collect();
        let filter = doc! { "_id": { "$in": ids }, "q": { "$exists": true } };
        let (rows, _) = db.look(doc! { "find": &db.messages, "filter": filter }, usize::MAX).await?;
        let found: BTreeMap<Place, Queued> =
            rows.into_iter().flat_map(row::queued).map(|queued| (queued.place, queued)).collect();
        Ok(handed.iter().filter_map(|(_, place)| found.get(place).cloned()).collect())
    }

    /// G7: settled parcels become the memory of their ids. By `_id`: the queue may be long. Nobody waits for a majority: the
    /// commit that names them no more does.
    pub(crate) async fn forget(&self, settled: &[ObjectId]) -> Result<(), Error> {
        if settled.is_empty() {
            return Ok(());
        }
        let db = &self.inner.connection;
        let filter = doc! { "_id": { "$in": settled }, "q": { "$exists": true } };
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
    fn messages(&self) -> usize {
        let count = |parcel: &Document| usize::try_from(codec::int(parcel, "n")).unwrap_or_default();
        self.queue.iter().map(count).sum()
    }

    /// `all`: nothing else is queued.
    fn join(mut self, row: &mut Row, most: usize, all: bool) {
        let done: BTreeSet<ObjectId> = row.done.iter().copied().collect();
        self.queue.sort_by_key(|parcel| {
            parcel.get_timestamp("seq").map(|seq| (seq.time, seq.increment)).unwrap_or_default()
        });
        let (settled, head): (Vec<_>, Vec<_>) =
            self.queue.into_iter().partition(|parcel| done.contains(&u(parcel)));
        let part = row.part;
        let is_open = |queued: &Queued| {
            part.is_none_or(|(parcel, settled)| queued.place.parcel != parcel || queued.place.at >= settled)
        };
        let mut head = head.into_iter().flat_map(row::queued).filter(is_open);
        row.head = head.by_ref().take(most).collect();
        row.complete = all && head.next().is_none();
        let left: BTreeSet<ObjectId> = settled.iter().chain(&self.left).map(u).collect();
        row.left = Some(row.done.iter().filter(|parcel| left.contains(parcel)).copied().collect());
        let late = self.late.iter().filter_map(|parcel| codec::moment(parcel, "due")).min();
        row.late = late.map(|due| (due, due <= row.now));
    }
}

fn u(parcel: &Document) -> ObjectId {
    parcel.get_object_id("_id").unwrap_or_default()
}

fn entity_of(row: &Document, field: &str) -> Result<EntityId, Error> {
    row.get_document(field).map_or_else(|_| codec::entity(&Document::new()), codec::entity)
}
