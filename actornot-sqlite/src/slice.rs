//! The rows of one slice inside one transaction: loaded at once, decided on in memory, written back at once.

use std::collections::{BTreeMap, BTreeSet};

use actornot_core::{Admission, EntityId, Error, MessageId, NewMessage, StoredMessage, StoredState};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::codec::{self, Bytes, json, millis};
use crate::connection::{Tx, Writer};
use crate::error::before_commit;
use crate::row::{Queue, Row, Saved};
use crate::statements;

/// So many expired ids are forgotten for each one that is remembered.
const FORGET_EACH: usize = 4;

/// What a verb wants to know besides the rows: read with them, in the same hand-over.
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

pub(crate) struct Slice {
    pub(crate) tx: Tx,
    /// SQLite's clock, read behind the write lock.
    pub(crate) now: i64,
    last_id: i64,
    rows: BTreeMap<EntityId, Row>,
    stored: BTreeMap<i64, Row>,
    /// Ids that are remembered, and whether their retention is not over.
    seen: BTreeMap<(i64, MessageId), bool>,
    pub(crate) states: BTreeMap<i64, StoredState>,
    /// What is known of the queues, by row.
    pub(crate) queues: BTreeMap<i64, Queue>,
    remember: Vec<(i64, String, i64, i64)>,
    renew: Vec<(i64, String, i64)>,
    append: Vec<(i64, i64, String, usize, usize, String)>,
    delay: Vec<(i64, i64, String, usize, usize, String, i64)>,
    bytes: Bytes,
    delayed_bytes: Bytes,
}

impl Slice {
    /// Begins, loads the rows of these entities, and promotes what fell due.
    pub(crate) async fn load(writer: &Writer, entities: BTreeSet<&EntityId>) -> Result<Self, Error> {
        Self::load_with(writer, entities, Wants::default()).await
    }

    /// The same, with what a verb wants besides.
    pub(crate) async fn load_with(
        writer: &Writer,
        entities: BTreeSet<&EntityId>,
        wants: Wants<'_>,
    ) -> Result<Self, Error> {
        let entities: Vec<&EntityId> = entities.into_iter().collect();
        let mut tx = writer.begin().await?;
        let places = wants.ask(&mut tx, &entities)?;
        let answers = tx.run().await?;
        let mut slice = Self::empty(tx);
        slice.learn_rows(&entities, answers.rows(Some(places.rows)))?;
        slice.learn_ids(&wants, answers.rows(places.ids))?;
        slice.learn_states(&wants, answers.rows(places.states))?;
        slice.learn_queues(&wants, answers.rows(places.queues))?;
        slice.promote().await?;
        Ok(slice)
    }

    fn empty(tx: Tx) -> Self {
        Self {
            tx,
            now: 0,
            last_id: 0,
            rows: BTreeMap::new(),
            stored: BTreeMap::new(),
            seen: BTreeMap::new(),
            states: BTreeMap::new(),
            queues: BTreeMap::new(),
            remember: Vec::new(),
            renew: Vec::new(),
            append: Vec::new(),
            delay: Vec::new(),
            bytes: Bytes::default(),
            delayed_bytes: Bytes::default(),
        }
    }

    fn learn_rows(&mut self, entities: &[&EntityId], answer: &[SqliteRow]) -> Result<(), Error> {
        for loaded in answer {
            self.now = loaded.try_get("now").map_err(before_commit)?;
            self.last_id = loaded.try_get("last_id").map_err(before_commit)?;
            for (position, row) in codec::found::<(usize, Row)>(loaded)? {
                let Some(entity) = entities.get(position) else { continue };
                self.stored.insert(row.id, row.clone());
                self.rows.insert((*entity).clone(), row);
            }
        }
        Ok(())
    }

    fn learn_ids(&mut self, wants: &Wants<'_>, answer: &[SqliteRow]) -> Result<(), Error> {
        for found in answer {
            for (position, counts) in codec::found::<(usize, u8)>(found)? {
                let Some((entity, id)) = wants.ids.get(position) else { continue };
                self.seen.extend(self.rows.get(*entity).map(|row| ((row.id, (*id).clone()), counts != 0)));
            }
        }
        Ok(())
    }

    fn learn_states(&mut self, wants: &Wants<'_>, answer: &[SqliteRow]) -> Result<(), Error> {
        for row in answer {
            let Some(entity) = at(&wants.states, row)? else { continue };
            let state = codec::state(row).map_err(before_commit)?;
            self.states.extend(self.rows.get(*entity).map(|row| row.id).zip(state));
        }
        Ok(())
    }

    fn learn_queues(&mut self, wants: &Wants<'_>, answer: &[SqliteRow]) -> Result<(), Error> {
        let id = |(entity, _): &(&EntityId, usize)| self.rows.get(*entity).map(|row| row.id);
        let ids: Vec<Option<i64>> = wants.queues.iter().map(id).collect();
        for id in ids.iter().flatten() {
            self.queues.insert(*id, Queue::read(wants.limit()));
        }
        for row in answer {
            let queue = at(&ids, row)?.and_then(|id| self.queues.get_mut(&(*id)?));
            queue.map_or(Ok(()), |queue| queue.push(row))?;
        }
        Ok(())
    }

    pub(crate) fn row(&mut self, entity: &EntityId) -> Option<&mut Row> {
        self.rows.get_mut(entity)
    }

    /// The row, new if there is none. We hold the write lock, so the next id is ours.
    pub(crate) fn row_or_new(&mut self, entity: &EntityId) -> &mut Row {
        let (last_id, now) = (&mut self.last_id, self.now);
        self.rows.entry(entity.clone()).or_insert_with(|| {
            *last_id += 1;
            Row::new(*last_id, now)
        })
    }

    /// Delayed messages that are due join the tail. No statement in the common case, four otherwise.
    async fn promote(&mut self) -> Result<(), Error> {
        let now = self.now;
        let due = self.rows.values_mut().filter(|row| row.delayed_at.is_some_and(|at| at <= now));
        let mut due: Vec<&mut Row> = due.collect();
        if due.is_empty() {
            return Ok(());
        }
        let ids = json(&due.iter().map(|row| row.id).collect::<Vec<_>>());
        for row in &due {
            self.queues.insert(row.id, Queue::default());
        }
        self.tx.add(statements::PROMOTE, [ids.clone().into(), now.into()])?;
        self.tx.add(statements::MOVED, [ids.clone().into()])?;
        self.tx.add(statements::PROMOTED, [ids.clone().into(), now.into()])?;
        let tails = self.tx.add(statements::TAILS, [ids.into()])?;
        for tail in self.tx.run().await?.rows(Some(tails)) {
            let Some(index) = index(tail)? else { continue };
            let Some(row) = due.get_mut(index) else { continue };
            row.delayed_at = tail.try_get("delayed_at").map_err(before_commit)?;
            let last: i64 =
                tail.try_get::<Option<i64>, _>("tail").map_err(before_commit)?.unwrap_or(row.tail);
            if last > row.tail {
                row.enter((last - row.tail).unsigned_abs(), now);
                row.tail = last;
            }
        }
        Ok(())
    }

    /// Adds a message to an entity's queue, unless its id was accepted before or the backlog is full. `soon`: it may be
    /// handed out by this slice.
    pub(crate) fn append(
        &mut self,
        entity: &EntityId,
        message: &NewMessage,
        limit: u64,
        soon: bool,
    ) -> Admission {
        let now = self.now;
        let row = self.row_or_new(entity);
        let id = row.id;
        let seen = self.seen.get(&(id, message.id.clone())).copied();
        if seen == Some(true) {
            return Admission::Duplicate;
        }
        let row = self.row_or_new(entity);
        if row.pending >= limit {
            return Admission::Full;
        }
        let due_at = (!message.delay.is_zero()).then(|| now.saturating_add(millis(message.delay)));
        let seq = row.join(due_at, now);
        let (name, headers) = (message.id.to_string(), codec::encode_headers(&message.headers));
        match due_at {
            None => {
                let queue = self.queues.entry(id).or_default();
                queue.joined(seq, soon.then_some(message));
                let (start, length) = self.bytes.push(&message.payload);
                self.append.push((id, seq, name.clone(), start, length, headers));
            }
            Some(due_at) => {
                let (start, length) = self.delayed_bytes.push(&message.payload);
                self.delay.push((id, seq, name.clone(), start, length, headers, due_at));
            }
        }
        if !message.retention.is_zero() {
            self.seen.insert((id, message.id.clone()), true);
            let expires = now.saturating_add(millis(message.retention));
            match seen {
                None => self.remember.push((id, name, expires, seq)),
                Some(_) => self.renew.push((id, name, expires)),
            }
        }
        Admission::Accepted
    }

    /// Writes what [`append`](Self::append) gathered, with the next statements that are run.
    pub(crate) fn store(&mut self) -> Result<(), Error> {
        if !self.append.is_empty() {
            self.tx.add(statements::APPEND, [self.bytes.take().into(), json(&self.append).into()])?;
        }
        if !self.delay.is_empty() {
            self.tx.add(statements::DELAY, [self.delayed_bytes.take().into(), json(&self.delay).into()])?;
        }
        // In front of FORGET, which would delete them.
        if !self.renew.is_empty() {
            self.tx.add(statements::RENEW, [json(&self.renew).into()])?;
        }
        if !self.remember.is_empty() {
            self.tx.add(statements::REMEMBER, [json(&self.remember).into()])?;
            let most = i64::try_from(self.remember.len() * FORGET_EACH).unwrap_or(i64::MAX);
            self.tx.add(statements::FORGET, [self.now.into(), most.into()])?;
        }
        self.append.clear();
        self.delay.clear();
        self.remember.clear();
        self.renew.clear();
        Ok(())
    }

    /// The first messages of each of these, from what is known where that is enough.
    pub(crate) async fn heads(&mut self, wanted: &[Wanted]) -> Result<Heads, Error> {
        let mut heads = Heads::new();
        let mut asked = Vec::new();
        for wanted in wanted {
            let known = self.queues.get(&wanted.id).filter(|_| wanted.from.is_none());
            match known.and_then(|queue| queue.head(wanted.count, wanted.queued)) {
                Some(head) => _ = heads.insert(wanted.id, head),
                None => asked.push((wanted.id, wanted.from.unwrap_or(i64::MIN), wanted.count)),
            }
        }
        let Some(most) = asked.iter().map(|(_, _, count)| *count).max() else { return Ok(heads) };
        let place = self.tx.add(statements::HEAD, [json(&asked).into(), i64::from(most).into()])?;
        for row in self.tx.run().await?.rows(Some(place)) {
            let Some((id, ..)) = at(&asked, row)? else { continue };
            let seq: i64 = row.try_get("seq").map_err(before_commit)?;
            heads.entry(*id).or_default().push((seq, codec::message(row).map_err(before_commit)?));
        }
        Ok(heads)
    }

    /// Writes the rows that changed, and commits.
    pub(crate) async fn commit(mut self) -> Result<(), Error> {
        let changed = self.rows.iter().filter(|(_, row)| self.stored.get(&row.id) != Some(row));
        let changed: Vec<Saved<'_>> = changed.map(|(entity, row)| Saved::new(entity, row)).collect();
        if !changed.is_empty() {
            self.tx.add(statements::SAVE, [json(&changed).into()])?;
        }
        self.tx.commit().await
    }
}

/// A batch of one entity.
pub(crate) struct Wanted {
    /// Of the row.
    pub(crate) id: i64,
    /// From which sequence on; none: from the first.
    pub(crate) from: Option<i64>,
    pub(crate) count: u32,
    /// How many are queued, as the row says.
    pub(crate) queued: u64,
}

impl Wanted {
    /// What was handed out before and is not settled.
    pub(crate) fn again(row: &Row) -> Self {
        let from = row.handed.first().map(|(seq, _)| *seq).or(Some(0));
        Self {
            id: row.id,
            from,
            count: u32::try_from(row.handed.len()).unwrap_or(u32::MAX),
            queued: row.queued,
        }
    }

    /// The head of the queue, at most so many.
    pub(crate) fn next(row: &Row, count: u32) -> Self {
        Self { id: row.id, from: None, count: count.max(1), queued: row.queued }
    }
}

/// Messages with their sequence, by row id.
pub(crate) type Heads = BTreeMap<i64, Vec<(i64, StoredMessage)>>;

fn index(row: &SqliteRow) -> Result<Option<usize>, Error> {
    let position: i64 = row.try_get("position").map_err(before_commit)?;
    Ok(usize::try_from(position).ok())
}

/// The item of the slice that a row answers.
pub(crate) fn at<'a, T>(slice: &'a [T], row: &SqliteRow) -> Result<Option<&'a T>, Error> {
    Ok(index(row)?.and_then(|index| slice.get(index)))
}
