//! What comes back about an entity: one row for the answer, and one for each message that is handed out.

use std::collections::BTreeMap;
use std::time::Duration;

use actornot_core::{EntityId, Error, Grant, HandedOut, Lease, LockRequest, StoredMessage, StoredState};
use serde::Deserialize;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::codec::{self, small, unsigned};
use crate::error::applied;

/// What the server says about a grant, or a commit that goes on or lets go. Fields of the other kinds are absent.
///
/// Numbers as PostgreSQL has them: one below zero, written by hand, must not cost the slice its answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Stored {
    fence: i64,
    deliveries: i64,
    charged: i64,
    batch_limit: i64,
    version: Option<i64>,
    state_version: Option<i64>,
    next_due_ms: Option<i64>,
}

/// All that came back for one item of the slice.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The word for it: `grant`, `continue`, `released`, `lost`, `conflict`; nothing where no grant was given.
    pub(crate) part: String,
    pub(crate) stored: Stored,
    /// One for each message of an `enqueue`.
    pub(crate) admissions: Vec<String>,
    state: Option<String>,
    pub(crate) messages: Vec<StoredMessage>,
}

/// Answers of a verb that writes, by the number of their item.
pub(crate) fn answers(rows: &[PgRow]) -> Result<BTreeMap<usize, Answer>, Error> {
    let mut answers: BTreeMap<usize, Answer> = BTreeMap::new();
    for row in rows {
        let Ok(item) = usize::try_from(row.try_get::<i32, _>("item").map_err(applied)?) else { continue };
        let entry = answers.entry(item).or_default();
        let part: String = row.try_get("part").map_err(applied)?;
        match part.as_str() {
            "message" => entry.messages.push(codec::message(row).map_err(applied)?),
            "enqueued" => entry.admissions = decode(row)?,
            _ => {
                entry.part = part;
                entry.stored = decode::<Option<Stored>>(row)?.unwrap_or_default();
                entry.state = row.try_get("payload").map_err(applied)?;
            }
        }
    }
    Ok(answers)
}

fn decode<T: for<'a> Deserialize<'a>>(row: &PgRow) -> Result<T, Error> {
    let text: Option<&str> = row.try_get("answer").map_err(applied)?;
    serde_json::from_str(text.unwrap_or("null")).map_err(|error| applied(sqlx::Error::Decode(error.into())))
}

impl Answer {
    /// The grant, if one was given. Never an empty one: its messages were deleted by hand.
    pub(crate) fn grant(self, entity: &EntityId, request: &LockRequest) -> Option<Grant> {
        if self.part != "grant" || self.messages.is_empty() {
            return None;
        }
        let lease = Lease {
            entity: entity.clone(),
            nonce: request.nonce,
            fence: self.stored.fence(),
            length: request.length,
        };
        let state = self.state.map(|json| StoredState {
            json,
            version: unsigned(self.stored.version.unwrap_or_default()),
            state_version: small(self.stored.state_version.unwrap_or_default()),
        });
        Some(Grant { lease, state, batch: self.stored.batch(self.messages) })
    }
}

impl Stored {
    pub(crate) fn fence(&self) -> u64 {
        unsigned(self.fence)
    }

    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.next_due_ms.map(|ms| Duration::from_millis(unsigned(ms)))
    }

    /// What goes to the runner.
    pub(crate) fn batch(&self, messages: Vec<StoredMessage>) -> HandedOut {
        HandedOut {
            messages,
            deliveries: small(self.deliveries),
            charged: small(self.charged),
            batch_limit: small(self.batch_limit),
        }
    }
}
