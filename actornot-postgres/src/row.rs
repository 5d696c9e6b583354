//! What comes back about an entity: one row for the answer, and one for each parcel of which messages are handed out.

use std::collections::BTreeMap;
use std::time::Duration;

use actornot_core::{EntityId, Error, Grant, HandedOut, Lease, LockRequest, StoredMessage, StoredState};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::codec::{self, small, unsigned};
use crate::error::applied;

/// What the server says about a grant, or a commit that goes on: fence, deliveries, charged, batch limit, and of the
/// state version and shape; or about one that lets go: the milliseconds until it is due, if it will be.
///
/// Numbers as PostgreSQL has them: one below zero, written by hand, must not cost the slice its answer.
#[derive(Debug, Default)]
pub(crate) struct Stored(Vec<Option<i64>>);

/// All that came back for one item of the slice.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The word for it: `grant`, `continue`, `released`, `lost`, `conflict`; nothing where no grant was given.
    pub(crate) part: String,
    pub(crate) stored: Stored,
    state: Option<String>,
    pub(crate) messages: Vec<StoredMessage>,
}

/// Answers of a verb that writes.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// By the number of their item.
    pub(crate) of: BTreeMap<usize, Answer>,
    /// A letter for each message of an `enqueue`; `None`: all were accepted.
    pub(crate) admissions: Option<String>,
}

pub(crate) fn answers(rows: &[PgRow]) -> Result<Answers, Error> {
    let mut answers = Answers::default();
    for row in rows {
        let part: &str = row.try_get("part").map_err(applied)?;
        if part == "admissions" {
            answers.admissions = row.try_get("said").map_err(applied)?;
            continue;
        }
        let Ok(item) = usize::try_from(row.try_get::<i32, _>("item").map_err(applied)?) else { continue };
        let entry = answers.of.entry(item).or_default();
        match part {
            "parcel" => entry.messages.extend(codec::parcel(row).map_err(applied)?),
            _ => {
                entry.part = part.to_owned();
                let numbers: Option<Vec<Option<i64>>> = row.try_get("numbers").map_err(applied)?;
                entry.stored = Stored(numbers.unwrap_or_default());
                entry.state = row.try_get("said").map_err(applied)?;
            }
        }
    }
    Ok(answers)
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
            version: unsigned(self.stored.number(4)),
            state_version: small(self.stored.number(5)),
        });
        Some(Grant { lease, state, batch: self.stored.batch(self.messages) })
    }
}

impl Stored {
    fn number(&self, place: usize) -> i64 {
        self.0.get(place).copied().flatten().unwrap_or_default()
    }

    pub(crate) fn fence(&self) -> u64 {
        unsigned(self.number(0))
    }

    pub(crate) fn next_due(&self) -> Option<Duration> {
        let ms = self.0.first().copied().flatten()?;
        Some(Duration::from_millis(unsigned(ms)))
    }

    /// What goes to the runner.
    pub(crate) fn batch(&self, messages: Vec<StoredMessage>) -> HandedOut {
        HandedOut {
            messages,
            deliveries: small(self.number(1)),
            charged: small(self.number(2)),
            batch_limit: small(self.number(3)),
        }
    }
}
