//! Finds entities that want a run.

use std::time::Duration;

use actornot_core::{Cursor, Due, DueQuery, EntityId, Error};
use mongodb::bson::{Bson, Document, Timestamp, doc};

use crate::MongoQueue;
use crate::codec::{self, int, moment, name};
use crate::connection::documents;
use crate::statements;

/// So many queued messages are checked by each sweep for a poster that died before it told their entity.
const ORPHANS: i64 = 1000;

impl MongoQueue {
    pub(crate) async fn find_due(&self, query: &DueQuery) -> Result<Due, Error> {
        let db = &self.inner.connection;
        let after = query.after.as_ref().map(parse).transpose()?;
        let limit = query.limit as usize;
        let mut rows = db.read(self.due_command(query, after.as_ref())).await?;
        if self.relay_staged(&rows, limit).await? {
            // Their targets may be due now, and so may they.
            rows = db.read(self.due_command(query, after.as_ref())).await?;
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
            let entity = codec::entity(&row.get_document("_id").cloned().unwrap_or_default())?;
            due.after = moment(row, "wake_at").map(|wake| Cursor(format!("{wake}:{entity}")));
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
            staged.push(codec::entity(&row.get_document("_id").cloned().unwrap_or_default())?);
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

    fn due_command(&self, query: &DueQuery, after: Option<&(i64, EntityId)>) -> Document {
        let db = &self.inner.connection;
        let kinds = || doc! { "$in": &query.kinds };
        let over = doc! { "$lte": ["$wake_at", "$$NOW"] };
        let mut filter = doc! { "wake_at": { "$exists": true }, "_id.k": kinds(), "$expr": over };
        if let Some((wake, entity)) = after {
            let wake = codec::date(*wake);
            filter.insert(
                "$or",
                vec![
                    doc! { "wake_at": { "$gt": wake } },
                    doc! { "wake_at": wake, "_id": { "$gt": name(entity) } },
                ],
            );
        }
        // Something is queued, or a delayed message is due; what is only staged is relayed, and reported later.
        let unsettled = doc! { "$not": [{ "$in": ["$u", "$$done"] }] };
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
                "let": { "done": { "$ifNull": ["$done.u", []] } }, "pipeline": [
                { "$sort": { "seq": 1 } }, { "$match": { "$expr": unsettled } }, { "$limit": 1 },
                { "$project": { "_id": 1 } }] } },
            { "$project": { "wake_at": 1, "staged": statements::staged(), "ready": { "$and": [head.clone(), free] },
                "stale": { "$and": ["$queued", { "$not": [head] }] } } },
            { "$unionWith": { "coll": &db.entities, "pipeline": next } },
        ] }
    }

    /// G5: messages that were stored while their poster died before it told the entity. Each sweep goes on where the
    /// last one ended, so that the messages of one busy entity do not hide the rest.
    async fn orphans(&self, query: &DueQuery) -> Result<Vec<EntityId>, Error> {
        let db = &self.inner.connection;
        let from = self.inner.swept.lock().map(|from| *from).unwrap_or(Timestamp { time: 0, increment: 0 });
        let told = doc! { "$eq": [{ "$first": "$r.queued" }, true] };
        let settled = doc! { "$in": ["$u", { "$ifNull": [{ "$first": "$r.done.u" }, []] }] };
        let rows = db.read(doc! { "aggregate": &db.messages, "cursor": {}, "pipeline": [
            { "$match": { "q": { "$exists": true }, "seq": { "$gt": from } } },
            { "$sort": { "seq": 1 } }, { "$limit": ORPHANS },
            { "$lookup": { "from": &db.entities, "localField": "q", "foreignField": "_id", "as": "r", "pipeline": [
                { "$project": { "queued": 1, "done": 1 } }] } },
            { "$group": { "_id": null, "count": { "$sum": 1 }, "last": { "$max": "$seq" }, "orphans": { "$addToSet": {
                "$cond": [{ "$or": [told, settled] }, "$$REMOVE", "$q"] } } } },
        ] }).await?;
        let row = rows.into_iter().next().unwrap_or_default();
        let end = int(&row, "count") < ORPHANS;
        let last = row.get_timestamp("last").ok().filter(|_| !end);
        if let Ok(mut from) = self.inner.swept.lock() {
            *from = last.unwrap_or(Timestamp { time: 0, increment: 0 });
        }
        let mut orphans = Vec::new();
        for orphan in documents(&row, "orphans") {
            let entity = codec::entity(&orphan)?;
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

fn parse(cursor: &Cursor) -> Result<(i64, EntityId), Error> {
    let parts = cursor.0.split_once(':').and_then(|(wake, entity)| {
        let (kind, key) = entity.split_once('/')?;
        Some((wake.parse().ok()?, EntityId::new(kind, key).ok()?))
    });
    parts.ok_or_else(|| Error::invalid("cursor", "was not made by this adapter"))
}
