//! What a verb may want to know besides the rows of its slice: read with them, in the same hand-over.

use actornot_core::{EntityId, Error, MessageId};

use crate::codec::json;
use crate::connection::Tx;
use crate::statements;

/// Nothing, unless it is named.
#[derive(Default)]
pub(crate) struct Wants<'a> {
    /// Which of these ids were accepted before.
    pub(crate) ids: Vec<(&'a EntityId, &'a MessageId)>,
    /// The states of those that may be granted.
    pub(crate) states: Vec<&'a EntityId>,
    /// The heads of queues, with how many of what was handed out are about to be settled.
    pub(crate) queues: Vec<(&'a EntityId, usize)>,
    /// How many messages of each.
    pub(crate) most: u32,
}

/// Where the answers stand.
pub(crate) struct Places {
    pub(crate) rows: usize,
    pub(crate) ids: Option<usize>,
    pub(crate) states: Option<usize>,
    pub(crate) queues: Option<usize>,
}

impl Wants<'_> {
    /// How many messages are read of each queue.
    pub(crate) fn limit(&self) -> i64 {
        let settles = self.queues.iter().map(|(_, settles)| *settles).max().unwrap_or(0);
        i64::from(self.most).saturating_add(i64::try_from(settles).unwrap_or(i64::MAX))
    }

    /// Asks for it, and for the rows of these.
    pub(crate) fn ask(&self, tx: &mut Tx, entities: &[&EntityId]) -> Result<Places, Error> {
        let rows = tx.add(statements::LOAD, [names(entities).into()])?;
        let mut places = Places { rows, ids: None, states: None, queues: None };
        if !self.ids.is_empty() {
            let ids = self.ids.iter().map(|(entity, id)| [entity.kind(), entity.key(), id.as_str()]);
            places.ids = Some(tx.add(statements::SEEN, [json(&ids.collect::<Vec<_>>()).into()])?);
        }
        if !self.states.is_empty() {
            places.states = Some(tx.add(statements::STATES, [names(&self.states).into()])?);
        }
        if !self.queues.is_empty() {
            let last = |settles: usize| settles.checked_sub(1).map(|last| format!("$[{last}][0]"));
            let queues = self.queues.iter();
            let queues = queues.map(|(entity, settles)| (entity.kind(), entity.key(), last(*settles)));
            let queues = json(&queues.collect::<Vec<_>>());
            places.queues = Some(tx.add(statements::QUEUES, [queues.into(), self.limit().into()])?);
        }
        Ok(places)
    }
}

fn names(entities: &[&EntityId]) -> String {
    json(&entities.iter().map(|entity| [entity.kind(), entity.key()]).collect::<Vec<_>>())
}
