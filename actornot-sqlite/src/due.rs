//! Finds entities that want a run.

use std::time::Duration;

use actornot_core::{Cursor, Due, DueQuery, Error, Limits};
use sqlx::Row as _;

use crate::SqliteQueue;
use crate::codec::{self, json, millis, unsigned};
use crate::error::before_commit;
use crate::statements;

impl SqliteQueue {
    pub(crate) async fn find_due(&self, query: &DueQuery) -> Result<Due, Error> {
        let (wake, id) = match &query.after {
            None => (i64::MIN, i64::MIN),
            Some(cursor) => parse(cursor)?,
        };
        let kinds = json(&query.kinds);
        let limit = i64::from(query.limit);
        let moment = self.fetch(sqlx::query(statements::MOMENT)).await?;
        let moment = moment.first().ok_or_else(|| before_commit(sqlx::Error::RowNotFound))?;
        let now: i64 = moment.try_get("now").map_err(before_commit)?;
        let found = sqlx::query(statements::DUE)
            .bind(&kinds)
            .bind(wake)
            .bind(id)
            // One more than asked for tells whether there is a next page.
            .bind(limit.saturating_add(1))
            .bind(millis(Limits::LEASE))
            .bind(now);
        let rows = self.fetch(found).await?;
        let mut due = Due::default();
        for row in rows.iter().take(query.limit as usize) {
            let kind = codec::text(row, "kind").map_err(before_commit)?;
            due.entities.extend(codec::entity(&kind, row).map_err(before_commit)?);
            let wake: i64 = row.try_get("wake").map_err(before_commit)?;
            let id: i64 = row.try_get("id").map_err(before_commit)?;
            due.after = Some(Cursor(format!("{wake}:{id}")));
        }
        if rows.len() <= query.limit as usize {
            due.after = None;
        }
        let next = sqlx::query(statements::NEXT)
            .bind(&kinds)
            .bind(due.after.is_none())
            .bind(millis(Limits::LEASE))
            .bind(now);
        if let Some(row) = self.fetch(next).await?.first() {
            let next: Option<i64> = row.try_get("next").map_err(before_commit)?;
            due.next = next.map(|next| Duration::from_millis(unsigned(next)));
        }
        Ok(due)
    }
}

fn parse(cursor: &Cursor) -> Result<(i64, i64), Error> {
    let parts = cursor.0.split_once(':').and_then(|(wake, id)| Some((wake.parse().ok()?, id.parse().ok()?)));
    parts.ok_or_else(|| Error::invalid("cursor", "was not made by this adapter"))
}
