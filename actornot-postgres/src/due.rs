//! Finds entities that want a run.

use std::time::Duration;

use actornot_core::{Cursor, Due, DueQuery, Error};
use sqlx::Row as _;

use crate::PostgresQueue;
use crate::codec::{self, unsigned};
use crate::connection::Value;
use crate::error::answer;
use crate::statements::Verb;

impl PostgresQueue {
    pub(crate) async fn find_due(&self, query: &DueQuery) -> Result<Due, Error> {
        let (wake, id) = match &query.after {
            None => (-1, -1),
            Some(cursor) => parse(cursor)?,
        };
        let kinds: Vec<&str> = query.kinds.iter().map(String::as_str).collect();
        // One more than asked for tells whether there is a next page.
        let limit = i64::from(query.limit) + 1;
        let values = [Value::Texts(kinds), Value::Number(wake), Value::Number(id), Value::Number(limit)];
        let mut due = Due::default();
        let (mut seen, mut more) = (0, false);
        for row in &self.server.call(Verb::Due, &values).await? {
            let Some(id) = row.try_get::<Option<i64>, _>("id").map_err(answer)? else {
                let next: Option<i64> = row.try_get("next_ms").map_err(answer)?;
                due.next = next.map(|next| Duration::from_millis(unsigned(next)));
                continue;
            };
            if seen == query.limit {
                more = true;
                continue;
            }
            seen += 1;
            let kind: &str = row.try_get("kind").map_err(answer)?;
            due.entities.extend(codec::entity(kind, row).map_err(answer)?);
            let wake: i64 = row.try_get("wake").map_err(answer)?;
            due.after = Some(Cursor(format!("{wake}:{id}")));
        }
        if !more {
            due.after = None;
        }
        Ok(due)
    }
}

fn parse(cursor: &Cursor) -> Result<(i64, i64), Error> {
    let parts = cursor.0.split_once(':').and_then(|(wake, id)| Some((wake.parse().ok()?, id.parse().ok()?)));
    parts.ok_or_else(|| Error::invalid("cursor", "was not made by this adapter"))
}
