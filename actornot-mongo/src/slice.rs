//! What goes in and out for a whole slice in one trip: looks, inserts, and what is relayed between entities.

use std::collections::{BTreeMap, BTreeSet};

use actornot_core::{EntityId, Error, Headers, MessageId, NewMessage};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, Timestamp, doc};

use crate::MongoQueue;
use crate::codec::{self, int, millis, name, text};
use crate::connection::documents;
use crate::error::after_write;
use crate::row::{self, Queued, Row};
use crate::statements::{self, concern, update};
use crate::turn::AGAIN;

/// One command holds at most 16 MB; the rest is left for names and headers.
pub(crate) const COMMAND_BYTES: usize = 8 << 20;

/// Of so many messages about to be settled, a look leaves the payload out.
const GOING: usize = 128;

/// G4: a relayed id outlives every relayer that is still under way with it.
const RELAYER_MS: i64 = 600_000;

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

impl MongoQueue {
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
            let rows = self.rows(wanted, most).await?;
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

    /// The slice as a whole where its queues are short, and the rest entity by entity.
    async fn rows(&self, wanted: &[(&EntityId, usize)], most: u32) -> Result<Vec<Row>, Error> {
        let db = &self.inner.connection;
        let names: Vec<Document> = wanted.iter().map(|(entity, _)| name(entity)).collect();
        let mut found = db.read(statements::rows(&db.meta, &db.entities, names.clone())).await?;
        let clock = found.pop().filter(|clock| !clock.contains_key("_id")).ok_or_else(|| {
            Error::new(
                actornot_core::ErrorKind::Incompatible,
                "the installed layout is gone; was the database dropped, or its collections changed by hand?",
            )
        })?;
        let found: BTreeMap<EntityId, Document> =
            found.into_iter().map(|row| Ok((entity_of(&row, "_id")?, row))).collect::<Result<_, Error>>()?;
        let most = i64::from(most.max(1));
        // A few more than one look needs: what was posted and not counted yet, and what was settled and not removed.
        let short = most.saturating_mul(2).saturating_add(64);
        let mut rows: Vec<Option<Row>> = wanted.iter().map(|_| None).collect();
        let (mut shallow, mut going, mut limit) = (BTreeMap::new(), Vec::new(), short);
        for (index, (entity, settles)) in wanted.iter().enumerate() {
            let row = found.get(*entity).unwrap_or(&clock);
            let pending = int(row, "pending").max(0);
            if pending <= short {
                let done = documents(row, "done").len();
                limit = limit.saturating_add(pending).saturating_add(i64::try_from(done).unwrap_or(i64::MAX));
                going.extend(documents(row, "handed").iter().take(*settles).map(u));
                shallow.insert(*entity, (index, *settles, Waits::default()));
            }
        }
        if !shallow.is_empty() {
            let names = shallow.keys().map(|entity| name(entity)).collect();
            // The server looks each message up in the list: a long one costs more than a payload.
            let bare = if going.len() <= GOING { going.clone() } else { Vec::new() };
            let limit = limit.min(i64::from(i32::MAX));
            let command = statements::waits(&db.messages, names, bare, limit);
            let messages = db.read_some(command, statements::HEAD_BYTES as usize).await?;
            if let Some(messages) = messages.filter(|messages| (messages.len() as i64) < limit) {
                for message in messages {
                    let place = if message.contains_key("q") { "q" } else { "d" };
                    let entity = entity_of(&message, place)?;
                    if let Some((_, _, waits)) = shallow.get_mut(&entity) {
                        let list = if place == "q" { &mut waits.queue } else { &mut waits.late };
                        list.push(message);
                    }
                }
                for (entity, (index, settles, waits)) in shallow {
                    let row = found.get(entity).unwrap_or(&clock).clone();
                    set(&mut rows, index, Row::decode(&waits.join(row, settles, most)));
                }
            }
        }
        let deep: Vec<usize> =
            (0..rows.len()).filter(|index| matches!(rows.get(*index), Some(None))).collect();
        if !deep.is_empty() {
            let settles = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            let names = deep.iter().filter_map(|index| wanted.get(*index));
            let names = names.map(|(entity, count)| (name(entity), settles(*count))).collect();
            let command = statements::look(&db.meta, &db.entities, &db.messages, names, most);
            for (index, row) in deep.into_iter().zip(db.read(command).await?) {
                set(&mut rows, index, Row::decode(&row));
            }
        }
        rows.into_iter().collect::<Option<_>>().ok_or_else(|| {
            Error::new(actornot_core::ErrorKind::Unavailable, "MongoDB did not return every entity of a look")
        })
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
        let rows = db.read(doc! { "find": &db.messages, "filter": filter }).await?;
        let found: BTreeMap<ObjectId, Queued> =
            rows.iter().map(row::queued).map(|queued| (queued.u, queued)).collect();
        let batch = |handed: &[(String, ObjectId)]| {
            handed.iter().filter_map(|(_, u)| found.get(u).cloned()).collect()
        };
        Ok(wanted.iter().map(|(_, handed)| batch(handed)).collect())
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

    /// G7: settled messages become tombstones. By `_id`: the queue may be long.
    pub(crate) async fn forget(&self, settled: &[(Document, ObjectId)]) -> Result<(), Error> {
        if settled.is_empty() {
            return Ok(());
        }
        let db = &self.inner.connection;
        let (ids, us): (Vec<Document>, Vec<ObjectId>) = settled.iter().cloned().unzip();
        let filter = doc! { "_id": { "$in": ids }, "u": { "$in": us }, "q": { "$exists": true } };
        let update =
            update(&db.messages, vec![doc! { "q": filter, "multi": true, "u": statements::bury_stages() }]);
        db.write(update).await?.check()
    }

    /// G4: brings the staged sends of these entities to their targets, and their dead letters to theirs. Anybody may,
    /// twice or at once.
    pub(crate) async fn relay(&self, entities: &[&EntityId]) -> Result<(), Error> {
        let db = &self.inner.connection;
        let names: Vec<Document> = entities.iter().map(|entity| name(entity)).collect();
        let rows = db
            .read(doc! { "aggregate": &db.entities, "cursor": {}, "pipeline": [
            { "$match": { "_id": { "$in": names } } },
            { "$project": { "outbox": 1, "bury": 1, "now": "$$NOW" } }] })
            .await?;
        let (mut letters, mut sends) = (Vec::new(), Vec::new());
        for row in &rows {
            let sender = row.get_document("_id").cloned().unwrap_or_default();
            letters.extend(documents(row, "bury").iter().map(|letter| inter(&sender, letter)));
            for send in documents(row, "outbox") {
                let target = codec::entity(&send.get_document("e").cloned().unwrap_or_default())?;
                sends.push((
                    sender.clone(),
                    target,
                    decode(&send),
                    codec::moment(row, "now").unwrap_or_default(),
                ));
            }
        }
        if !letters.is_empty() {
            db.write(update(&db.messages, letters)).await?.check()?;
        }
        let incoming: Vec<Incoming<'_>> = sends
            .iter()
            .map(|(sender, target, message, now)| Incoming {
                entity: target,
                message,
                now: *now,
                hold: Some(sender.clone()),
            })
            .collect();
        let mut marks: Vec<Document> = Vec::new();
        if !incoming.is_empty() {
            let inserted = self.insert(&incoming).await?;
            // How many are new, whether one may be run at once, and when the first delayed one is due.
            let mut targets: BTreeMap<&EntityId, (i64, bool, Option<i64>)> = BTreeMap::new();
            for (incoming, inserted) in incoming.iter().zip(inserted) {
                let (count, queued, due) = targets.entry(incoming.entity).or_default();
                *count += i64::from(inserted?.is_some());
                match incoming.due() {
                    Some(at) => *due = Some(due.map_or(at, |first| first.min(at))),
                    None => *queued = true,
                }
            }
            marks.extend(targets.into_iter().map(|(target, (count, queued, due))| {
                let mut stages = statements::bump(count, queued, due);
                stages.push(statements::wake());
                doc! { "q": { "_id": name(target) }, "u": stages, "upsert": true }
            }));
        }
        let clear = rows.iter().map(|row| {
            let of = |field: &str, key: &str| -> Vec<Bson> {
                documents(row, field).iter().filter_map(|entry| entry.get(key).cloned()).collect()
            };
            let without = |field: &str, key: &str| {
                let gone = doc! { "$in": [format!("$$this.{key}"), of(field, key)] };
                doc! { "$filter": { "input": format!("${field}"), "cond": { "$not": [gone] } } }
            };
            let stages = vec![
                doc! { "$set": { "outbox": without("outbox", "n"), "bury": without("bury", "u") } },
                statements::wake(),
            ];
            doc! { "q": { "_id": row.get("_id").cloned().unwrap_or(Bson::Null) }, "u": stages }
        });
        marks.extend(clear);
        if marks.is_empty() {
            return Ok(());
        }
        for _ in 0..AGAIN {
            // In order, and no further than an error: the outbox is cleared when the targets were told.
            let mut command = update(&db.entities, marks.clone());
            command.insert("ordered", true);
            let reply = db.write(command).await?;
            reply.check()?;
            // Two created the same entity. What was told before it is not told twice.
            match (0..marks.len()).find(|index| reply.duplicate(*index)) {
                Some(told) => drop(marks.drain(..told)),
                None => break,
            }
        }
        let held = incoming.iter().filter_map(|incoming| {
            Some((codec::message_name(incoming.entity, incoming.message.id.as_str()), incoming.hold.clone()?))
        });
        let (queue, held) = (self.clone(), held.collect());
        tokio::spawn(async move {
            if let Err(error) = queue.let_go(held).await {
                tracing::debug!(%error, "the ids of relayed messages stay remembered");
            }
        });
        Ok(())
    }

    /// G7: the outbox names them no more; from now on they expire.
    async fn let_go(&self, held: Vec<(Document, Document)>) -> Result<(), Error> {
        if held.is_empty() {
            return Ok(());
        }
        let db = &self.inner.connection;
        let later = doc! { "$add": ["$$NOW", RELAYER_MS] };
        let expires =
            doc! { "$cond": [{ "$gt": ["$over", Bson::Null] }, { "$max": ["$over", later] }, "$$REMOVE"] };
        let each = |(id, hold): (Document, Document)| {
            doc! { "q": { "_id": id, "hold": hold },
            "u": [{ "$unset": "hold" }, { "$set": { "expires": expires.clone() } }] }
        };
        db.write(update(&db.messages, held.into_iter().map(each).collect())).await?.check()
    }
}

/// What was found at one entity by a look at the whole slice.
#[derive(Default)]
struct Waits {
    queue: Vec<Document>,
    late: Vec<Document>,
}

impl Waits {
    /// Beside its document, as [`statements::look`] puts it.
    fn join(mut self, mut row: Document, settles: usize, most: i64) -> Document {
        let done: BTreeSet<ObjectId> = documents(&row, "done").iter().map(u).collect();
        let going: BTreeSet<ObjectId> = documents(&row, "handed").iter().take(settles).map(u).collect();
        self.queue.sort_by_key(|message| {
            message.get_timestamp("seq").map(|seq| (seq.time, seq.increment)).unwrap_or_default()
        });
        let (left, mut head): (Vec<_>, Vec<_>) =
            self.queue.into_iter().partition(|message| done.contains(&u(message)));
        head.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        for message in &mut head {
            let goes = going.contains(&u(message));
            message.extend(doc! { "bare": goes, "size": i64::from(!goes) });
        }
        let now = codec::moment(&row, "now").unwrap_or_default();
        let late = self.late.iter().filter_map(|message| codec::moment(message, "due")).min();
        let late = late.map(|due| doc! { "due": codec::date(due), "over": due <= now });
        row.extend(doc! { "head": head, "left": left, "late": late.into_iter().collect::<Vec<_>>() });
        row
    }
}

fn u(row: &Document) -> ObjectId {
    row.get_object_id("u").unwrap_or_default()
}

fn entity_of(row: &Document, field: &str) -> Result<EntityId, Error> {
    codec::entity(&row.get_document(field).cloned().unwrap_or_default())
}

fn set(rows: &mut [Option<Row>], index: usize, row: Row) {
    if let Some(slot) = rows.get_mut(index) {
        *slot = Some(row);
    }
}

/// A dead letter leaves the queue in place: its payload is never copied.
fn inter(entity: &Document, letter: &Document) -> Document {
    let u = letter.get_object_id("u").unwrap_or_default();
    let kind = text(entity, "k");
    let (error, attempts) = (text(letter, "error"), int(letter, "attempts"));
    doc! {
        "q": { "_id": { "e": entity.clone(), "i": text(letter, "i") }, "u": u, "q": entity.clone() },
        "u": { "$set": { "x": kind, "error": error, "attempts": attempts }, "$unset": { "q": "", "seq": "" },
               "$currentDate": { "no": { "$type": "timestamp" } } },
    }
}

/// A send as the outbox holds it.
pub(crate) fn stage(envelope: &actornot_core::Envelope) -> Document {
    let message = &envelope.message;
    doc! {
        "n": ObjectId::new(), "e": name(&envelope.entity), "id": message.id.as_str(),
        "payload": message.payload.as_str(), "headers": codec::headers(&message.headers),
        "keep": millis(message.retention), "delay": millis(message.delay),
    }
}

fn decode(send: &Document) -> NewMessage {
    let stored = codec::message(send);
    let duration = |field: &str| std::time::Duration::from_millis(codec::unsigned(int(send, field)));
    NewMessage {
        id: MessageId::from_stored(text(send, "id")),
        payload: stored.payload,
        headers: stored.headers,
        delay: duration("delay"),
        retention: duration("keep"),
    }
}

pub(crate) fn size(headers: &Headers) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
}
