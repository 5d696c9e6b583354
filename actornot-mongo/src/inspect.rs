//! For people who look, and mend.

use std::collections::BTreeMap;
use std::time::Duration;

use actornot_core::{
    DeadLetter, DurabilityReport, EntityId, Error, ErrorKind, Headers, Inspect, Location, MessageId,
    Position, Snapshot, StoredMessage, Why,
};
use async_trait::async_trait;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, Timestamp, doc};

use crate::MongoQueue;
use crate::codec::{self, int, literal, name, small, text, unsigned};
use crate::connection::{Outcome, documents};
use crate::error::after_write;
use crate::row::{self, Place, Queued, Row};
use crate::statements::{self, Change, refuse, update, wake};
use crate::turn::{AGAIN, crowded};

#[async_trait]
impl Inspect for MongoQueue {
    async fn read(&self, entities: &[EntityId]) -> Result<Vec<Option<Snapshot>>, Error> {
        let names: Vec<Document> = entities.iter().map(name).collect();
        let filter = doc! { "_id": { "$in": names }, "gone": { "$exists": false } };
        let (_, rows) = self.snapshots(filter, 0).await?;
        Ok(entities
            .iter()
            .map(|entity| {
                rows.iter().find(|(found, _)| found == entity).map(|(_, snapshot)| snapshot.clone())
            })
            .collect())
    }

    async fn list(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(EntityId, Snapshot)>, Error> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        // No key is empty, so the empty text is before all of them.
        let after = doc! { "k": kind, "e": after.unwrap_or_default() };
        let range = doc! { "$gt": after, "$lt": { "k": kind, "e": Bson::MaxKey } };
        let filter = doc! { "_id": range, "gone": { "$exists": false } };
        let mut asked = limit as usize;
        loop {
            let (rows, mut found) = self.snapshots(filter.clone(), asked).await?;
            // A page that is not full would be taken for the last: others take the place of keys that are none.
            if found.len() >= limit as usize || rows < asked {
                found.truncate(limit as usize);
                return Ok(found);
            }
            asked = limit as usize + rows - found.len();
        }
    }

    async fn peek(&self, entity: &EntityId, limit: u32) -> Result<Vec<StoredMessage>, Error> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let db = &self.inner.connection;
        let ends = self.ends(entity).await?;
        let (id, limit) = (name(entity), i64::from(limit));
        let late = doc! { "$expr": { "$lte": ["$due", "$$NOW"] }, "d": id.clone() };
        // One parcel more: of the first a part may be settled.
        let rows = db.read(doc! { "aggregate": &db.messages, "cursor": {}, "pipeline": [
            { "$match": { "q": id, "_id": { "$nin": &ends.done } } }, { "$sort": { "seq": 1 } }, { "$limit": limit + 1 },
            { "$unionWith": { "coll": &db.messages, "pipeline": [
                { "$match": late }, { "$sort": { "due": 1, "seq": 1 } }, { "$limit": limit }] } },
        ] }).await?;
        let open = rows.into_iter().flat_map(row::queued).filter(|queued| !ends.is_settled(queued.place));
        Ok(open.map(|queued| queued.message).take(limit.unsigned_abs() as usize).collect())
    }

    async fn locate(&self, entity: &EntityId, ids: &[MessageId]) -> Result<Vec<Location>, Error> {
        let db = &self.inner.connection;
        let ends = self.ends(entity).await?;
        if !ends.bury.is_empty() {
            // Whoever is told that it is dead finds it among the dead letters; a role that only reads, a little later.
            match self.relay(&[entity]).await {
                Err(error) if error.kind() == ErrorKind::AccessDenied => {}
                relayed => relayed?,
            }
        }
        let wanted = doc! { "$in": ids.iter().map(MessageId::as_str).collect::<Vec<_>>() };
        let of = |place: &str| doc! { place: name(entity), "ids": &wanted };
        let rows = db
            .read(doc! { "find": &db.messages, "filter": { "$or": [of("e"), of("l")] },
            "projection": { "q": 1, "d": 1, "x": 1, "ids": 1 } })
            .await?;
        let mut found: BTreeMap<MessageId, Location> = BTreeMap::new();
        for row in rows {
            let (dead, queued) = (row.contains_key("x"), row.contains_key("q"));
            let delayed = row.contains_key("d");
            for Queued { place, message } in row::queued(row) {
                let location = match () {
                    () if dead || queued && ends.bury.contains(&(place.parcel, place.at)) => Location::Dead,
                    () if delayed || queued && !ends.is_settled(place) => Location::Queued,
                    () => continue,
                };
                // An id may be accepted anew while the letter of its first message is still there.
                if location == Location::Queued || !found.contains_key(&message.id) {
                    found.insert(message.id, location);
                }
            }
        }
        Ok(ids.iter().map(|id| found.get(id).copied().unwrap_or(Location::Gone)).collect())
    }

    async fn why(&self, entity: &EntityId) -> Result<Option<Why>, Error> {
        let rows = self.look(&[entity], 1).await?;
        let Some(row) = rows.into_iter().next().filter(|row| row.fence.is_some() && !row.gone) else {
            return Ok(None);
        };
        let pending = self.read(std::slice::from_ref(entity)).await?.into_iter().flatten().next();
        Ok(Some(Why { pending: pending.map_or(row.pending, |snapshot| snapshot.pending), ..why(row) }))
    }

    async fn dead_letters(
        &self,
        kind: &str,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, Error> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let db = &self.inner.connection;
        let filter = doc! { "x": kind, "no": { "$gt": timestamp(after.unwrap_or(0)) } };
        let rows = db
            .read(doc! { "find": &db.messages, "filter": filter, "sort": { "no": 1 },
            "limit": i64::from(limit) })
            .await?;
        rows.into_iter().map(dead_letter).collect()
    }

    async fn redrive(&self, letter: &DeadLetter, to: Position) -> Result<bool, Error> {
        let db = &self.inner.connection;
        let entity = &letter.entity;
        let mut set = doc! { "q": name(entity) };
        let mut change = doc! { "$unset": { "x": "", "no": "", "error": "", "attempts": "" } };
        // What fell due stands in the queue before the letter does.
        self.look(&[entity], 1).await?;
        let head = match to {
            Position::Tail => None,
            Position::Head => self.first(entity).await?,
        };
        match head {
            Some(first) => {
                set.insert("seq", Timestamp { time: first.time.saturating_sub(1), ..first });
            }
            None => {
                change.insert("$currentDate", doc! { "seq": { "$type": "timestamp" } });
            }
        }
        change.insert("$set", set);
        let filter = doc! { "x": entity.kind(), "no": timestamp(letter.number), "l": name(entity),
        "ids": letter.id.as_str() };
        let reply = db.write(update(&db.messages, vec![doc! { "q": filter, "u": change }])).await?;
        reply.check()?;
        if reply.n == 0 {
            return Ok(false);
        }
        let mut stages = statements::bump(1, true, None);
        if to == Position::Head {
            stages.push(doc! { "$set": { "deliveries": 0_i64, "charged": 0_i64 } });
        }
        self.edit(entity, stages, true).await?;
        Ok(true)
    }

    async fn pause(&self, entity: &EntityId, reason: &str) -> Result<(), Error> {
        let stages = vec![statements::fresh(), doc! { "$set": { "paused": literal(reason) } }];
        self.edit(entity, stages, true).await.map(|_| ())
    }

    async fn resume(&self, entity: &EntityId) -> Result<bool, Error> {
        let stages = vec![doc! { "$set": { "paused": "$$REMOVE", "wait": "$$REMOVE",
        "deliveries": 0_i64, "charged": 0_i64 } }];
        self.edit(entity, stages, false).await
    }

    async fn purge(&self, entity: &EntityId) -> Result<bool, Error> {
        let db = &self.inner.connection;
        let id = name(entity);
        for _ in 0..AGAIN {
            let row = self.look(&[entity], 1).await?.into_iter().next();
            let Some(row) = row.filter(|row| row.fence.is_some() && !row.gone) else { return Ok(false) };
            // Messages first: a call that ends here is repeated, and finds the entity still known.
            let all = |place: &str| {
                doc! { "q": { place: &id, "n": { "$exists": true } }, "multi": true, "u": statements::bury_stages() }
            };
            db.write(update(&db.messages, vec![all("e"), all("l")])).await?.check()?;
            let filter = doc! { "_id": id.clone(), "gone": { "$exists": false } };
            let statement = doc! { "q": filter, "u": purge(row.mark) };
            let reply = db.write(update(&db.entities, vec![statement])).await.map_err(after_write)?;
            match reply.outcome(0) {
                Outcome::Applied => return Ok(reply.n > 0),
                // Something was posted meanwhile: what its entity was told must stay true.
                Outcome::Refused => {}
                Outcome::Failed(error) => return Err(after_write(error)),
            }
        }
        Err(after_write(crowded()))
    }

    async fn doctor(&self) -> Result<DurabilityReport, Error> {
        self.report().await
    }
}

impl MongoQueue {
    /// How many there are, those that nobody can name included, and the others.
    async fn snapshots(
        &self,
        filter: Document,
        limit: usize,
    ) -> Result<(usize, Vec<(EntityId, Snapshot)>), Error> {
        let db = &self.inner.connection;
        let rows = db.read(snapshots(&db.entities, &db.messages, filter, limit)).await?;
        let entity = |row: &Document| row.get_document("_id").ok().and_then(codec::listed);
        let snapshot = |row| Snapshot { state: codec::state(row), pending: pending(row) };
        Ok((rows.len(), rows.iter().filter_map(|row| Some((entity(row)?, snapshot(row)))).collect()))
    }

    /// What commits settled and buried, and what is perhaps still stored as it was.
    async fn ends(&self, entity: &EntityId) -> Result<Ends, Error> {
        let db = &self.inner.connection;
        let rows = db
            .read(doc! { "find": &db.entities, "filter": { "_id": name(entity) },
            "projection": { "done": 1, "part": 1, "bury": 1 } })
            .await?;
        let row = rows.into_iter().next().unwrap_or_default();
        let bury = documents(&row, "bury");
        let Row { done, part, .. } = Row::decode(row);
        Ok(Ends { done, part, bury: bury.iter().filter_map(row::place).collect() })
    }

    /// Where the queue of an entity begins.
    async fn first(&self, entity: &EntityId) -> Result<Option<Timestamp>, Error> {
        let db = &self.inner.connection;
        let done = self.ends(entity).await?.done;
        let rows = db
            .read(doc! { "find": &db.messages, "filter": { "q": name(entity), "_id": { "$nin": done } },
            "sort": { "seq": 1 }, "limit": 1, "projection": { "seq": 1 } })
            .await?;
        Ok(rows.first().and_then(|row| row.get_timestamp("seq").ok()))
    }

    /// An edit of one entity; `false` if there is none, unless `create`.
    async fn edit(&self, entity: &EntityId, mut stages: Vec<Document>, create: bool) -> Result<bool, Error> {
        let db = &self.inner.connection;
        let mut filter = doc! { "_id": name(entity) };
        if !create {
            filter.insert("gone", doc! { "$exists": false });
        }
        stages.push(wake());
        let statement = doc! { "q": filter, "u": stages, "upsert": create };
        for _ in 0..AGAIN {
            let reply = db.write(update(&db.entities, vec![statement.clone()])).await?;
            reply.check()?;
            if !reply.duplicate(0) {
                return Ok(reply.n > 0);
            }
        }
        Err(crowded())
    }

    /// Whether this server refuses a statement in the ways that are counted on.
    pub(crate) async fn try_guard(&self) -> Result<(), Error> {
        let db = &self.inner.connection;
        let stages = vec![doc! { "$set": { "version": refuse() } }];
        let statement = doc! { "q": { "_id": "guard" }, "u": stages, "upsert": true };
        let mut change = Change { id: "guard".into(), ..Change::default() };
        change.inc.insert("version", 1);
        let reply = db.write(update(&db.meta, vec![statement, change.statement()])).await?;
        match (reply.outcome(0), reply.outcome(1)) {
            (Outcome::Refused, Outcome::Refused) => Ok(()),
            (Outcome::Failed(error), _) if error.kind() == ErrorKind::AccessDenied => Err(error),
            _ => Err(Error::new(
                ErrorKind::Incompatible,
                "this server reports a refused update in words that actornot-mongo does not know",
            )),
        }
    }
}

/// What is settled of an entity's queue, and what is dead.
struct Ends {
    done: Vec<ObjectId>,
    part: Option<(ObjectId, u32)>,
    bury: Vec<(ObjectId, u32)>,
}

impl Ends {
    fn is_settled(&self, place: Place) -> bool {
        let part = self.part.is_some_and(|(parcel, settled)| parcel == place.parcel && place.at < settled);
        part || self.done.contains(&place.parcel)
    }
}

/// What is queued and delayed, counted; the entity's own number only where that is too much to count, for a poster
/// that died between its message and its mark is not in it.
fn pending(row: &Document) -> u64 {
    let counted = int(row, "counted");
    unsigned(if int(row, "parcels") <= COUNTED { counted } else { counted.max(int(row, "pending")) })
}

fn timestamp(number: u64) -> Timestamp {
    let (time, increment) = (number >> 32, number & u64::from(u32::MAX));
    Timestamp {
        time: u32::try_from(time).unwrap_or(u32::MAX),
        increment: u32::try_from(increment).unwrap_or(u32::MAX),
    }
}

fn why(row: Row) -> Why {
    Why {
        pending: row.pending,
        fence: row.fence.unwrap_or_default(),
        locked_for: row.deadline.map(|deadline| {
            let left = if row.live { deadline - row.now } else { 0 };
            Duration::from_millis(unsigned(left))
        }),
        waiting: row.waiting().map(|(why, left)| (why, Duration::from_millis(unsigned(left)))),
        paused: row.paused,
        last_error: row.last_error,
        deliveries: row.deliveries,
        charged: row.charged,
        batch_limit: row.batch_limit,
    }
}

fn dead_letter(row: Document) -> Result<DeadLetter, Error> {
    let number = row.get_timestamp("no").map_or(0, |no| u64::from(no.time) << 32 | u64::from(no.increment));
    let entity = codec::entity(&row.get_document("l").cloned().unwrap_or_default())?;
    let (error, attempts) = (text(&row, "error"), small(int(&row, "attempts")));
    let message = codec::messages(row).into_iter().next();
    let (id, payload, headers) = message.map_or_else(
        || (MessageId::from_stored(""), String::new(), Headers::new()),
        |message| (message.id, message.payload, message.headers),
    );
    Ok(DeadLetter { number, entity, id, payload, headers, error, attempts })
}

/// So many parcels of each entity are counted for whoever looks.
const COUNTED: i64 = 100;

/// State and backlog of entities, in the order of their names; no limit if it is nought.
fn snapshots(entities: &str, messages: &str, filter: Document, limit: usize) -> Document {
    let some = |place: &str, condition: Document| {
        doc! { "$lookup": { "from": messages, "localField": "_id", "foreignField": place, "as": place,
        "let": { "done": { "$ifNull": ["$done", []] } }, "pipeline": [
            { "$match": condition }, { "$limit": COUNTED + 1 }, { "$project": { "n": 1 } }] } }
    };
    let unsettled = doc! { "$expr": { "$not": [{ "$in": ["$_id", "$$done"] }] } };
    let mut pipeline = vec![doc! { "$match": filter }, doc! { "$sort": { "_id": 1 } }];
    if limit > 0 {
        pipeline.push(doc! { "$limit": i64::try_from(limit).unwrap_or(i64::MAX) });
    }
    let settled = doc! { "$cond": [{ "$in": ["$part.parcel", "$q._id"] }, "$part.at", 0] };
    pipeline.extend([
        some("q", unsettled),
        some("d", doc! {}),
        doc! { "$project": { "state": 1, "version": 1, "state_version": 1, "pending": 1,
        "parcels": { "$add": [{ "$size": "$q" }, { "$size": "$d" }] },
        "counted": { "$subtract": [{ "$add": [{ "$sum": "$q.n" }, { "$sum": "$d.n" }] }, settled] } } },
    ]);
    doc! { "aggregate": entities, "cursor": {}, "pipeline": pipeline }
}

/// Takes everything from an entity but its fence, its mark and its last commit, unless it was told of a message since
/// it was looked at. The fence only rises, and the marks go on: nothing from before can be mistaken for what comes.
fn purge(mark: i64) -> Vec<Document> {
    let same = doc! { "$cond": [{ "$eq": ["$mark", mark] }, "$mark", refuse()] };
    vec![
        doc! { "$set": { "mark": same } },
        doc! { "$set": {
            "fence": { "$max": [{ "$toLong": "$$NOW" }, { "$add": ["$fence", 1_i64] }] },
            "queued": false, "pending": 0_i64, "handed": [], "bury": [], "since": "$$NOW", "gone": true,
            "deliveries": 0_i64, "charged": 0_i64, "version": 0_i64, "batch_limit": i64::from(u32::MAX),
        } },
        doc! { "$unset": ["nonce", "deadline", "wait", "paused", "last_error", "state", "state_version",
        "delayed_at", "counted", "part"] },
        wake(),
    ]
}
