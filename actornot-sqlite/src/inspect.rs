//! For people who look, and mend.

use std::time::Duration;

use actornot_core::{
    DeadLetter, DurabilityReport, EntityId, Error, Inspect, Location, MessageId, Position, Snapshot,
    StoredMessage, Why,
};
use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::SqliteQueue;
use crate::codec::{self, json, small, unsigned};
use crate::error::before_commit;
use crate::row::Row;
use crate::slice::{Slice, at};
use crate::statements;

#[async_trait]
impl Inspect for SqliteQueue {
    async fn read(&self, entities: &[EntityId]) -> Result<Vec<Option<Snapshot>>, Error> {
        let names: Vec<[&str; 2]> = entities.iter().map(|entity| [entity.kind(), entity.key()]).collect();
        let rows = self.fetch(sqlx::query(statements::READ).bind(json(&names))).await?;
        let positions: Vec<usize> = (0..entities.len()).collect();
        let mut found = vec![None; entities.len()];
        for row in &rows {
            if let Some(slot) = at(&positions, row)?.and_then(|index| found.get_mut(*index)) {
                *slot = Some(snapshot(row).map_err(before_commit)?);
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
            let query = sqlx::query(statements::LIST).bind(kind.to_owned()).bind(after.to_owned());
            let rows = self.fetch(query.bind(i64::try_from(asked).unwrap_or(i64::MAX))).await?;
            let mut found = Vec::new();
            for row in &rows {
                if let Some(entity) = codec::entity(kind, row).map_err(before_commit)? {
                    found.push((entity, snapshot(row).map_err(before_commit)?));
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
        let query =
            sqlx::query(statements::PEEK).bind(entity.kind().to_owned()).bind(entity.key().to_owned());
        let rows = self.fetch(query.bind(i64::from(limit))).await?;
        rows.iter().map(|row| codec::message(row).map_err(before_commit)).collect()
    }

    async fn locate(&self, entity: &EntityId, ids: &[MessageId]) -> Result<Vec<Location>, Error> {
        let names: Vec<&str> = ids.iter().map(MessageId::as_str).collect();
        let query =
            sqlx::query(statements::LOCATE).bind(entity.kind().to_owned()).bind(entity.key().to_owned());
        let rows = self.fetch(query.bind(json(&names))).await?;
        let positions: Vec<usize> = (0..ids.len()).collect();
        let mut found = vec![Location::Gone; ids.len()];
        for row in &rows {
            if let Some(slot) = at(&positions, row)?.and_then(|index| found.get_mut(*index)) {
                *slot = match row.try_get::<i64, _>("place").map_err(before_commit)? {
                    2 => Location::Queued,
                    1 => Location::Dead,
                    _ => Location::Gone,
                };
            }
        }
        Ok(found)
    }

    async fn why(&self, entity: &EntityId) -> Result<Option<Why>, Error> {
        let names = json(&[[entity.kind(), entity.key()]]);
        let rows = self.fetch(sqlx::query(statements::LOAD).bind(names)).await?;
        let Some(found) = rows.first() else { return Ok(None) };
        let now: i64 = found.try_get("now").map_err(before_commit)?;
        let mut rows = codec::found::<(usize, Row)>(found)?.into_iter();
        Ok(rows.next().filter(|(_, row)| row.known != 0).map(|(_, row)| why(row, now)))
    }

    async fn dead_letters(
        &self,
        kind: &str,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, Error> {
        let after = i64::try_from(after.unwrap_or(0)).unwrap_or(i64::MAX);
        let query = sqlx::query(statements::DEAD).bind(kind.to_owned()).bind(after).bind(i64::from(limit));
        let rows = self.fetch(query).await?;
        rows.iter().filter_map(|row| dead_letter(kind, row).map_err(before_commit).transpose()).collect()
    }

    async fn redrive(&self, letter: &DeadLetter, to: Position) -> Result<bool, Error> {
        let mut slice = Slice::load(&self.inner.writer, [&letter.entity].into()).await?;
        let Ok(number) = i64::try_from(letter.number) else { return Ok(false) };
        let now = slice.now;
        let Some(row) = slice.row(&letter.entity) else { return Ok(false) };
        let id = row.id;
        row.tail += 1;
        let tail = row.tail;
        let seq = match to {
            Position::Tail => tail,
            Position::Head => {
                let first = sqlx::query_scalar(statements::FIRST).bind(id);
                let first: Option<i64> =
                    first.fetch_one(slice.tx.connection().await?).await.map_err(before_commit)?;
                first.map_or(tail, |first| first - 1)
            }
        };
        let revive = sqlx::query(statements::REVIVE).bind(number).bind(id).bind(seq);
        let revived =
            revive.execute(slice.tx.connection().await?).await.map_err(before_commit)?.rows_affected();
        if revived == 0 {
            return Ok(false);
        }
        for statement in [statements::LOOK_FOR, statements::REVIVED] {
            let moved = sqlx::query(statement).bind(number).bind(id);
            moved.execute(slice.tx.connection().await?).await.map_err(before_commit)?;
        }
        if let Some(row) = slice.row(&letter.entity) {
            row.enter(1, now);
            row.pending += 1;
            if to == Position::Head {
                // A new head has not been handed out yet; the next one in line starts over with it. Also while a run
                // of the old head is under way, for a run that fails would leave its attempts to whoever is the head.
                (row.deliveries, row.charged) = (0, 0);
            }
        }
        slice.commit().await?;
        Ok(true)
    }

    async fn pause(&self, entity: &EntityId, reason: &str) -> Result<(), Error> {
        let mut slice = Slice::load(&self.inner.writer, [entity].into()).await?;
        let row = slice.row_or_new(entity);
        row.known = 1;
        row.paused = Some(reason.to_owned());
        slice.commit().await
    }

    async fn resume(&self, entity: &EntityId) -> Result<bool, Error> {
        let mut slice = Slice::load(&self.inner.writer, [entity].into()).await?;
        let Some(row) = slice.row(entity).filter(|row| row.known != 0) else { return Ok(false) };
        (row.paused, row.wait_why, row.wait_until) = (None, None, None);
        (row.deliveries, row.charged) = (0, 0);
        slice.commit().await?;
        Ok(true)
    }

    async fn purge(&self, entity: &EntityId) -> Result<bool, Error> {
        let mut slice = Slice::load(&self.inner.writer, [entity].into()).await?;
        let now = slice.now;
        let Some(row) = slice.row(entity).filter(|row| row.known != 0) else { return Ok(false) };
        let fresh = Row::new(row.id, now);
        // The fence only rises, and the sequence goes on: nothing from before can be mistaken for what comes.
        *row = Row {
            fence: fresh.fence.max(row.fence + 1),
            tail: row.tail,
            last_commit: row.last_commit.take(),
            known: 0,
            ..fresh
        };
        let id = row.id;
        for statement in statements::PURGE {
            sqlx::query(statement)
                .bind(id)
                .execute(slice.tx.connection().await?)
                .await
                .map_err(before_commit)?;
        }
        slice.commit().await?;
        Ok(true)
    }

    async fn doctor(&self) -> Result<DurabilityReport, Error> {
        self.report().await
    }
}

fn snapshot(row: &SqliteRow) -> Result<Snapshot, sqlx::Error> {
    Ok(Snapshot { state: codec::state(row)?, pending: unsigned(row.try_get("pending")?) })
}

fn why(row: Row, now: i64) -> Why {
    Why {
        pending: row.pending,
        fence: row.fence,
        locked_for: row.deadline.map(|deadline| {
            let left = if row.is_leased(now) { deadline - now } else { 0 };
            Duration::from_millis(unsigned(left))
        }),
        waiting: row.waiting(now).map(|(why, left)| (why, Duration::from_millis(unsigned(left)))),
        paused: row.paused,
        last_error: row.last_error,
        deliveries: row.deliveries,
        charged: row.charged,
        batch_limit: row.batch_limit,
    }
}

fn dead_letter(kind: &str, row: &SqliteRow) -> Result<Option<DeadLetter>, sqlx::Error> {
    let Some(entity) = codec::entity(kind, row)? else { return Ok(None) };
    Ok(Some(DeadLetter {
        number: unsigned(row.try_get("number")?),
        entity,
        id: codec::message_id(row)?,
        payload: codec::text(row, "payload")?,
        headers: codec::decode_headers(row)?,
        error: codec::text(row, "error")?,
        attempts: small(row.try_get("attempts")?),
    }))
}
