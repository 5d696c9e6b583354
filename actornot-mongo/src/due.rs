//! Finds entities that want a run, and brings what commits have staged to where it goes.

use std::collections::BTreeMap;
use std::time::Duration;

use actornot_core::{Cursor, Due, DueQuery, EntityId, Error, MessageId, NewMessage};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, Timestamp, doc};

use crate::MongoQueue;
use crate::codec::{self, Incoming, int, millis, moment, name, text};
use crate::connection::{Series, documents};
use crate::row::{self, Place, Queued};
use crate::slice::COMMAND_BYTES;
use crate::statements::{self, concern, update};
use crate::turn::AGAIN;

/// So many queued messages are checked by each sweep for a poster that died before it told their entity.
const ORPHANS: i64 = 1000;

/// G4: a relayed id outlives every relayer that is still under way with it.
const RELAYER_MS: i64 = 600_000;

impl MongoQueue {
    pub(crate) async fn find_due(&self, query: &DueQuery) -> Result<Due, Error> {
        let db = &self.inner.connection;
        let after = query.after.as_ref().map(parse).transpose()?;
        let limit = query.limit as usize;
        // As the primary holds it: whoever was granted an entity a moment ago shall not be reported.
        let mut rows = db.look(self.due_command(query, after.as_ref()), usize::MAX).await?.0;
        if self.relay_staged(&rows, limit).await? {
            // Their targets may be due now, and so may they.
            rows = db.look(self.due_command(query, after.as_ref()), usize::MAX).await?.0;
        }
        let mut due = Due::default();
        let (mut stale, mut found) = (Vec::new(), 0);
        for row in &rows {
            if row.contains_key("next") {
                due.next = Some(Duration::from_millis(codec::unsigned(int(row, "next"))));
                continue;
            }
            found += 1;
            if found > limit {
                break;
            }
            let name = row.get_document("_id").cloned().unwrap_or_default();
            let place = |wake| Cursor(format!("{wake}:{}/{}", text(&name, "k"), text(&name, "e")));
            due.after = moment(row, "wake_at").map(place);
            let Some(entity) = codec::listed(&name) else { continue };
            if row.get_bool("stale").unwrap_or(false) {
                stale.push(entity.clone());
            }
            if row.get_bool("ready").unwrap_or(false) {
                due.entities.push(entity);
            }
        }
        if found <= limit {
            due.after = None;
        }
        if !stale.is_empty() {
            // Told of a message that another had handled before: set right, or each sweep would find it again.
            let stale: Vec<&EntityId> = stale.iter().collect();
            for (entity, row) in stale.iter().zip(self.look(&stale, 1).await?) {
                if row.head.is_empty() && row.queued {
                    self.mend(entity, &row).await?;
                }
            }
        }
        if query.after.is_none() {
            for entity in self.orphans(query).await? {
                if due.entities.len() < limit && !due.entities.contains(&entity) {
                    due.entities.push(entity);
                }
            }
        }
        Ok(due)
    }

    /// G4: carries on what a crash has left staged; says whether there was anything.
    async fn relay_staged(&self, rows: &[Document], limit: usize) -> Result<bool, Error> {
        let mut staged = Vec::new();
        for row in rows.iter().take(limit).filter(|row| row.get_bool("staged").unwrap_or(false)) {
            staged.extend(row.get_document("_id").ok().and_then(codec::listed));
        }
        if staged.is_empty() {
            return Ok(false);
        }
        // G5, G8: one that cannot be carried on does not hide what is due.
        let relayed = self.relay(&staged.iter().collect::<Vec<&EntityId>>()).await;
        if let Err(error) = &relayed {
            tracing::warn!(%error, "what commits have staged was not carried on; the next sweep tries again");
        }
        Ok(relayed.is_ok())
    }

    fn due_command(&self, query: &DueQuery, after: Option<&(i64, Document)>) -> Document {
        let db = &self.inner.connection;
        let kinds = || doc! { "$in": &query.kinds };
        let over = doc! { "$lte": ["$wake_at", "$$NOW"] };
        let mut filter = doc! { "wake_at": { "$exists": true }, "_id.k": kinds(), "$expr": over };
        if let Some((wake, name)) = after {
            let wake = codec::date(*wake);
            filter.insert(
                "$or",
                vec![doc! { "wake_at": { "$gt": wake } }, doc! { "wake_at": wake, "_id": { "$gt": name } }],
            );
        }
        // Something is queued, or a delayed message is due; what is only staged is relayed, and reported later.
        let unsettled = doc! { "$not": [{ "$in": ["$_id", "$$done"] }] };
        let head = doc! { "$or": [{ "$gt": [{ "$size": "$head" }, 0] }, { "$and": [
        { "$gt": ["$delayed_at", Bson::Null] }, { "$lte": ["$delayed_at", "$$NOW"] }] }] };
        let free =
            doc! { "$not": [{ "$or": [statements::live(), statements::paused(), statements::waiting()] }] };
        let next = vec![
            doc! { "$match": { "wake_at": { "$exists": true }, "_id.k": kinds(),
            "$expr": { "$gt": ["$wake_at", "$$NOW"] } } },
            doc! { "$sort": { "wake_at": 1, "_id": 1 } },
            doc! { "$limit": 1 },
            doc! { "$project": { "_id": 0, "next": { "$subtract": ["$wake_at", "$$NOW"] } } },
        ];
        doc! { "aggregate": &db.entities, "cursor": {}, "pipeline": [
            { "$match": filter }, { "$sort": { "wake_at": 1, "_id": 1 } },
            // One more than asked for tells whether there is a next page.
            { "$limit": i64::from(query.limit) + 1 },
            { "$lookup": { "from": &db.messages, "localField": "_id", "foreignField": "q", "as": "head",
                "let": { "done": { "$ifNull": ["$done", []] } }, "pipeline": [
                { "$sort": { "seq": 1 } }, { "$match": { "$expr": unsettled } }, { "$limit": 1 },
                { "$project": { "_id": 1 } }] } },
            { "$project": { "wake_at": 1, "staged": statements::staged(), "ready": { "$and": [head.clone(), free] },
                "stale": { "$and": ["$queued", { "$not": [head] }] } } },
            { "$unionWith": { "coll": &db.entities, "pipeline": next } },
        ] }
    }

    /// G5: messages that were stored while their poster died before it told the entity. Each sweep goes on where the
    /// last one ended, in the order of names, so that the messages of one busy entity do not hide the rest.
    async fn orphans(&self, query: &DueQuery) -> Result<Vec<EntityId>, Error> {
        let db = &self.inner.connection;
        let any = || doc! { "$exists": true };
        let from = self.inner.swept.lock().map(|from| from.clone()).ok().flatten();
        let told = doc! { "$eq": [{ "$first": "$r.queued" }, true] };
        let settled = doc! { "$setIsSubset": ["$parcels", { "$ifNull": [{ "$first": "$r.done" }, []] }] };
        let command = doc! { "aggregate": &db.messages, "cursor": {}, "hint": "queue", "pipeline": [
            { "$match": { "q": from.unwrap_or_else(any) } }, { "$sort": { "q": 1, "seq": 1 } }, { "$limit": ORPHANS },
            { "$group": { "_id": "$q", "parcels": { "$push": "$_id" } } },
            { "$lookup": { "from": &db.entities, "localField": "_id", "foreignField": "_id", "as": "r", "pipeline": [
                { "$project": { "queued": 1, "done": 1 } }] } },
            { "$group": { "_id": null, "count": { "$sum": { "$size": "$parcels" } }, "first": { "$min": "$_id" },
                "last": { "$max": "$_id" }, "orphans": { "$addToSet": {
                    "$cond": [{ "$or": [told, settled] }, "$$REMOVE", "$_id"] } } } },
        ] };
        let (rows, _) = db.look(command, usize::MAX).await?;
        let row = rows.into_iter().next().unwrap_or_default();
        let end = int(&row, "count") < ORPHANS;
        if let Ok(mut from) = self.inner.swept.lock() {
            // Of the last one not all was seen, unless that was all there was to see.
            let whole = row.get("first") == row.get("last");
            let next = row.get("last").map(|last| doc! { if whole { "$gt" } else { "$gte" }: last.clone() });
            *from = next.filter(|_| !end);
        }
        let mut orphans = Vec::new();
        for orphan in documents(&row, "orphans") {
            let Some(entity) = codec::listed(&orphan) else { continue };
            if query.kinds.iter().any(|kind| kind == entity.kind()) {
                orphans.push(entity);
            }
        }
        if orphans.is_empty() {
            return Ok(orphans);
        }
        // Nobody counted them: from here on they are found by the entity's own index, and not granted twice.
        let rows = self.look(&orphans.iter().collect::<Vec<_>>(), 1).await?;
        let ready = |row: &crate::row::Row| {
            !row.live && row.paused.is_none() && row.waiting().is_none() && !row.head.is_empty()
        };
        Ok(orphans.into_iter().zip(rows).filter(|(_, row)| ready(row)).map(|(entity, _)| entity).collect())
    }
}

impl MongoQueue {
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
            letters.extend(documents(row, "bury").into_iter().map(|letter| (sender.clone(), letter)));
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
        self.inter(letters).await?;
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
            let inserted = self.insert(&incoming, &mut Series::default()).await?;
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
            let of = |field: &str| -> Vec<Bson> {
                documents(row, field).iter().filter_map(|entry| entry.get("n").cloned()).collect()
            };
            let without = |field: &str| {
                let gone = doc! { "$in": ["$$this.n", of(field)] };
                doc! { "$filter": { "input": format!("${field}"), "cond": { "$not": [gone] } } }
            };
            let stages = vec![
                doc! { "$set": { "outbox": without("outbox"), "bury": without("bury") } },
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
            let (entity, id) = (name(incoming.entity), incoming.message.id.as_str());
            Some(doc! { "e": entity, "ids": id, "hold": incoming.hold.clone()? })
        });
        let (queue, held) = (self.clone(), held.collect());
        tokio::spawn(async move {
            if let Err(error) = queue.let_go(held).await {
                tracing::debug!(%error, "the ids of relayed messages stay remembered");
            }
        });
        Ok(())
    }

    /// A dead letter becomes a document of its own, without the memory of its id, which its parcel keeps. Its name was given
    /// at the commit, so that it is made once.
    async fn inter(&self, letters: Vec<(Document, Document)>) -> Result<(), Error> {
        if letters.is_empty() {
            return Ok(());
        }
        let db = &self.inner.connection;
        let parcel = |letter: &Document| letter.get_object_id("parcel").unwrap_or_default();
        let parcels: Vec<ObjectId> = letters.iter().map(|(_, letter)| parcel(letter)).collect();
        let filter = doc! { "_id": { "$in": parcels }, "q": { "$exists": true } };
        let found = db.read(doc! { "find": &db.messages, "filter": filter }).await?;
        let found: BTreeMap<Place, Queued> = found
            .into_iter()
            .flat_map(row::queued)
            .map(|queued| (Place { of: 0, ..queued.place }, queued))
            .collect();
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for (entity, letter) in letters {
            let place = Place { parcel: parcel(&letter), at: codec::small(int(&letter, "at")), of: 0 };
            // Another has brought it where it goes, and then its parcel was forgotten.
            let Some(Queued { message, .. }) = found.get(&place) else { continue };
            bytes += 2048 + message.payload.len() + codec::size(&message.headers);
            if bytes > COMMAND_BYTES && !rows.is_empty() {
                self.insert_letters(std::mem::take(&mut rows)).await?;
                bytes = 0;
            }
            rows.push(doc! {
                "_id": letter.get("n").cloned().unwrap_or(Bson::Null), "x": text(&entity, "k"), "l": entity,
                // The server draws it.
                "no": Timestamp { time: 0, increment: 0 }, "error": text(&letter, "error"),
                "attempts": int(&letter, "attempts"), "keep": RELAYER_MS, "n": 1_i64,
                "ids": [message.id.as_str()], "payloads": [message.payload.as_str()],
                "headers": [codec::headers(&message.headers)],
            });
        }
        if rows.is_empty() { Ok(()) } else { self.insert_letters(rows).await }
    }

    /// Those that others have inserted are there.
    async fn insert_letters(&self, rows: Vec<Document>) -> Result<(), Error> {
        let db = &self.inner.connection;
        let command =
            doc! { "insert": &db.messages, "documents": rows, "ordered": false, "writeConcern": concern() };
        db.write(command).await?.check()
    }

    /// G7: the outbox names them no more; from now on they expire.
    async fn let_go(&self, held: Vec<Document>) -> Result<(), Error> {
        if held.is_empty() {
            return Ok(());
        }
        let db = &self.inner.connection;
        let later = doc! { "$add": ["$$NOW", RELAYER_MS] };
        let expires =
            doc! { "$cond": [{ "$gt": ["$over", Bson::Null] }, { "$max": ["$over", later] }, "$$REMOVE"] };
        let each = |held| doc! { "q": held, "u": [{ "$unset": "hold" }, { "$set": { "expires": expires.clone() } }] };
        db.write(update(&db.messages, held.into_iter().map(each).collect())).await?.check()
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
    let duration = |field: &str| std::time::Duration::from_millis(codec::unsigned(int(send, field)));
    NewMessage {
        id: MessageId::from_stored(text(send, "id")),
        payload: text(send, "payload"),
        headers: codec::decode_headers(send.get("headers").unwrap_or(&Bson::Null)),
        delay: duration("delay"),
        retention: duration("keep"),
    }
}

fn parse(cursor: &Cursor) -> Result<(i64, Document), Error> {
    let parts = cursor.0.split_once(':').and_then(|(wake, entity)| {
        let (kind, key) = entity.split_once('/')?;
        Some((wake.parse().ok()?, doc! { "k": kind, "e": key }))
    });
    parts.ok_or_else(|| Error::invalid("cursor", "was not made by this adapter"))
}
