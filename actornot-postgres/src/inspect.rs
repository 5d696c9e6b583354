//! For people who look, and mend.

use std::time::Duration;

use actornot_core::{
    DeadLetter, DurabilityReport, EntityId, Error, Inspect, Location, MessageId, Position, Snapshot,
    StoredMessage, Waiting, Why,
};
use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::PostgresQueue;
use crate::codec::{self, json, small, unsigned};
use crate::connection::Value;
use crate::error::{answer, applied};
use crate::statements::Verb;

#[async_trait]
impl Inspect for PostgresQueue {
    async fn read(&self, entities: &[EntityId]) -> Result<Vec<Option<Snapshot>>, Error> {
        let names: Vec<[&str; 2]> = entities.iter().map(|entity| [entity.kind(), entity.key()]).collect();
        let rows = self.server.call(Verb::Read, &[Value::Text(&json(&names))]).await?;
        let mut found = vec![None; entities.len()];
        for row in &rows {
            if let Some(slot) = item(row)?.and_then(|index| found.get_mut(index)) {
                *slot = Some(snapshot(row).map_err(answer)?);
            }
        }
        Ok(found)
    }

    async fn list(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(EntityId, Snapshot)>, Error> {
        // No key is empty, so the empty text is before all of them.
        let after = after.unwrap_or_default();
        let mut asked = limit as usize;
        loop {
            let number = Value::Number(i64::try_from(asked).unwrap_or(i64::MAX));
            let rows = self.server.call(Verb::List, &[Value::Text(kind), Value::Text(after), number]).await?;
            let mut found = Vec::new();
            for row in &rows {
                if let Some(entity) = codec::entity(kind, row).map_err(answer)? {
                    found.push((entity, snapshot(row).map_err(answer)?));
                }
            }
            // A page that is not full would be taken for the last: others take the place of keys that are none.
            if found.len() >= limit as usize || rows.len() < asked {
                found.truncate(limit as usize);
                return Ok(found);
            }
            asked = limit as usize + rows.len() - found.len();
        }
    }

    async fn peek(&self, entity: &EntityId, limit: u32) -> Result<Vec<StoredMessage>, Error> {
        let [kind, key] = name(entity);
        let rows = self.server.call(Verb::Peek, &[kind, key, Value::Number(i64::from(limit))]).await?;
        rows.iter().map(|row| codec::message(row).map_err(answer)).collect()
    }

    async fn locate(&self, entity: &EntityId, ids: &[MessageId]) -> Result<Vec<Location>, Error> {
        let names: Vec<&str> = ids.iter().map(MessageId::as_str).collect();
        let [kind, key] = name(entity);
        let rows = self.server.call(Verb::Locate, &[kind, key, Value::Texts(names)]).await?;
        let mut found = vec![Location::Gone; ids.len()];
        for row in &rows {
            if let Some(slot) = item(row)?.and_then(|index| found.get_mut(index)) {
                *slot = match row.try_get("place").map_err(answer)? {
                    "queued" => Location::Queued,
                    "dead" => Location::Dead,
                    _ => Location::Gone,
                };
            }
        }
        Ok(found)
    }

    async fn why(&self, entity: &EntityId) -> Result<Option<Why>, Error> {
        let rows = self.server.call(Verb::Why, &name(entity)).await?;
        rows.first().map(|row| why(row).map_err(answer)).transpose()
    }

    async fn dead_letters(
        &self,
        kind: &str,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, Error> {
        let after = i64::try_from(after.unwrap_or(0)).unwrap_or(i64::MAX);
        let values = [Value::Text(kind), Value::Number(after), Value::Number(i64::from(limit))];
        let rows = self.server.call(Verb::DeadLetters, &values).await?;
        rows.iter().filter_map(|row| dead_letter(kind, row).map_err(answer).transpose()).collect()
    }

    async fn redrive(&self, letter: &DeadLetter, to: Position) -> Result<bool, Error> {
        let Ok(number) = i64::try_from(letter.number) else { return Ok(false) };
        let [kind, key] = name(&letter.entity);
        let values = [kind, key, Value::Number(number), Value::Flag(to == Position::Head)];
        self.edit(Verb::Redrive, &values).await
    }

    async fn pause(&self, entity: &EntityId, reason: &str) -> Result<(), Error> {
        let [kind, key] = name(entity);
        self.edit(Verb::Pause, &[kind, key, Value::Text(reason)]).await.map(drop)
    }

    async fn resume(&self, entity: &EntityId) -> Result<bool, Error> {
        self.edit(Verb::Resume, &name(entity)).await
    }

    async fn purge(&self, entity: &EntityId) -> Result<bool, Error> {
        self.edit(Verb::Purge, &name(entity)).await
    }

    async fn doctor(&self) -> Result<DurabilityReport, Error> {
        self.report().await
    }
}

impl PostgresQueue {
    /// Calls what answers whether something was there to be changed.
    async fn edit(&self, verb: Verb, values: &[Value<'_>]) -> Result<bool, Error> {
        let rows = self.server.call(verb, values).await?;
        let done = rows.first().map(|row| row.try_get("done")).transpose().map_err(applied)?;
        Ok(done.unwrap_or(false))
    }
}

fn name(entity: &EntityId) -> [Value<'_>; 2] {
    [Value::Text(entity.kind()), Value::Text(entity.key())]
}

/// The place in the slice that a row answers.
fn item(row: &PgRow) -> Result<Option<usize>, Error> {
    Ok(usize::try_from(row.try_get::<i64, _>("item").map_err(answer)?).ok())
}

fn snapshot(row: &PgRow) -> Result<Snapshot, sqlx::Error> {
    Ok(Snapshot { state: codec::state(row)?, pending: unsigned(row.try_get("pending")?) })
}

fn why(row: &PgRow) -> Result<Why, sqlx::Error> {
    let time = |column| {
        let ms: Option<i64> = row.try_get(column)?;
        Ok::<_, sqlx::Error>(ms.map(|ms| Duration::from_millis(unsigned(ms))))
    };
    let reason: Option<&str> = row.try_get("wait_why")?;
    let reason = reason.and_then(Waiting::parse).unwrap_or(Waiting::Backoff);
    Ok(Why {
        pending: unsigned(row.try_get("pending")?),
        fence: unsigned(row.try_get("fence")?),
        locked_for: time("locked_ms")?,
        waiting: time("waiting_ms")?.map(|left| (reason, left)),
        paused: row.try_get("paused")?,
        last_error: row.try_get("last_error")?,
        deliveries: small(row.try_get("deliveries")?),
        charged: small(row.try_get("charged")?),
        batch_limit: small(row.try_get("batch_limit")?),
    })
}

fn dead_letter(kind: &str, row: &PgRow) -> Result<Option<DeadLetter>, sqlx::Error> {
    let Some(entity) = codec::entity(kind, row)? else { return Ok(None) };
    Ok(Some(DeadLetter {
        number: unsigned(row.try_get("number")?),
        entity,
        id: codec::message_id(row)?,
        payload: row.try_get("payload")?,
        headers: codec::decode_headers(row.try_get("headers")?),
        error: row.try_get("error")?,
        attempts: small(row.try_get("attempts")?),
    }))
}
