//! What comes back about an entity: one row for the answer, and one for each message that is handed out.

use std::collections::BTreeMap;

use actornot_core::{EntityId, Error, Grant, HandedOut, Lease, LockRequest, StoredMessage, StoredState};
use serde::Deserialize;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::codec;
use crate::error::answer;

/// What the server says about a grant, or a commit that goes on or lets go. Fields of the other kinds are absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Stored {
    pub(crate) fence: u64,
    pub(crate) deliveries: u64,
    pub(crate) charged: u64,
    pub(crate) batch_limit: u64,
    version: Option<u64>,
    state_version: Option<u64>,
    pub(crate) next_due_ms: Option<u64>,
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

/// Answers by the number of their item.
pub(crate) fn answers(rows: &[PgRow]) -> Result<BTreeMap<usize, Answer>, Error> {
    let mut answers: BTreeMap<usize, Answer> = BTreeMap::new();
    for row in rows {
        let Ok(item) = usize::try_from(row.try_get::<i32, _>("item").map_err(answer)?) else { continue };
        let entry = answers.entry(item).or_default();
        let part: String = row.try_get("part").map_err(answer)?;
        match part.as_str() {
            "message" => entry.messages.push(codec::message(row).map_err(answer)?),
            "enqueued" => entry.admissions = decode(row)?,
            _ => {
                entry.part = part;
                entry.stored = decode::<Option<Stored>>(row)?.unwrap_or_default();
                entry.state = row.try_get("payload").map_err(answer)?;
            }
        }
    }
    Ok(answers)
}

fn decode<T: for<'a> Deserialize<'a>>(row: &PgRow) -> Result<T, Error> {
    let text: Option<&str> = row.try_get("answer").map_err(answer)?;
    serde_json::from_str(text.unwrap_or("null")).map_err(|error| answer(sqlx::Error::Decode(error.into())))
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
            fence: self.stored.fence,
            length: request.length,
        };
        let state = self.state.map(|json| StoredState {
            json,
            version: self.stored.version.unwrap_or_default(),
            state_version: small(self.stored.state_version.unwrap_or_default()),
        });
        Some(Grant { lease, state, batch: self.stored.batch(self.messages) })
    }
}

impl Stored {
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

fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
