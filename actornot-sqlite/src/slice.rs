//! The rows of one slice inside one transaction: loaded at once, decided on in memory, written back at once.

use std::collections::{BTreeMap, BTreeSet};

use actornot_core::{Admission, EntityId, Error, MessageId, NewMessage, StoredMessage, StoredState};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::codec::{self, Bytes, json, millis};
use crate::connection::{Tx, Writer};
use crate::error::before_commit;
use crate::row::{Row, Saved};
use crate::statements;

/// So many expired ids are forgotten for each one that is remembered.
const FORGET_EACH: usize = 4;

pub(crate) struct Slice {
    pub(crate) tx: Tx,
    /// SQLite's clock, read behind the write lock.
    pub(crate) now: i64,
    last_id: i64,
    rows: BTreeMap<EntityId, Row>,
    stored: BTreeMap<i64, Row>,
    seen: BTreeSet<(i64, MessageId)>,
    remember: Vec<(i64, String, i64)>,
    append: Vec<(i64, i64, String, usize, usize, String)>,
    delay: Vec<(i64, i64, String, usize, usize, String, i64)>,
    bytes: Bytes,
    delayed_bytes: Bytes,
}

impl Slice {
    /// Begins, loads the rows of these entities, and promotes what fell due.
    pub(crate) async fn load(writer: &Writer, entities: BTreeSet<&EntityId>) -> Result<Self, Error> {
        let entities: Vec<&EntityId> = entities.into_iter().collect();
        let names: Vec<[&str; 2]> = entities.iter().map(|entity| [entity.kind(), entity.key()]).collect();
        let mut tx = writer.begin().await?;
        let loaded = sqlx::query(statements::LOAD).bind(json(&names)).fetch_all(tx.connection()?).await;
        let mut slice = Self {
            tx,
            now: 0,
            last_id: 0,
            rows: BTreeMap::new(),
            stored: BTreeMap::new(),
            seen: BTreeSet::new(),
            remember: Vec::new(),
            append: Vec::new(),
            delay: Vec::new(),
            bytes: Bytes::default(),
            delayed_bytes: Bytes::default(),
        };
        for row in &loaded.map_err(before_commit)? {
            slice.now = row.try_get("now").map_err(before_commit)?;
            slice.last_id = row.try_get("last_id").map_err(before_commit)?;
            if let (Some(entity), Some(row)) = (at(&entities, row)?, Row::decode(row).map_err(before_commit)?)
            {
                slice.stored.insert(row.id, row.clone());
                slice.rows.insert((*entity).clone(), row);
            }
        }
        slice.promote().await?;
        Ok(slice)
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

    /// Delayed messages that are due join the tail. No statement in the common case, three otherwise.
    async fn promote(&mut self) -> Result<(), Error> {
        let now = self.now;
        let due = self.rows.values_mut().filter(|row| row.delayed_at.is_some_and(|at| at <= now));
        let mut due: Vec<&mut Row> = due.collect();
        if due.is_empty() {
            return Ok(());
        }
        let ids = json(&due.iter().map(|row| row.id).collect::<Vec<_>>());
        for statement in [statements::PROMOTE, statements::PROMOTED] {
            let query = sqlx::query(statement).bind(&ids).bind(now);
            query.execute(self.tx.connection()?).await.map_err(before_commit)?;
        }
        let tails = sqlx::query(statements::TAILS).bind(&ids).fetch_all(self.tx.connection()?).await;
        for tail in &tails.map_err(before_commit)? {
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

    /// Looks up which ids were accepted before, for all messages of the slice at once.
    pub(crate) async fn recall(&mut self, messages: &[(&EntityId, &MessageId)]) -> Result<(), Error> {
        // An entity that is new has seen nothing.
        let mut asked: Vec<(i64, &MessageId)> = Vec::with_capacity(messages.len());
        for (entity, id) in messages {
            asked.extend(self.rows.get(*entity).map(|row| (row.id, *id)));
        }
        if asked.is_empty() {
            return Ok(());
        }
        let names: Vec<(i64, &str)> = asked.iter().map(|(entity, id)| (*entity, id.as_str())).collect();
        let query = sqlx::query(statements::SEEN).bind(json(&names)).bind(self.now);
        for row in &query.fetch_all(self.tx.connection()?).await.map_err(before_commit)? {
            if let Some((entity, id)) = at(&asked, row)? {
                self.seen.insert((*entity, (*id).clone()));
            }
        }
        Ok(())
    }

    /// Adds a message to an entity's queue, unless its id was accepted before or the backlog is full.
    pub(crate) fn append(&mut self, entity: &EntityId, message: &NewMessage, limit: u64) -> Admission {
        let now = self.now;
        let row = self.row_or_new(entity);
        let id = row.id;
        if self.seen.contains(&(id, message.id.clone())) {
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
                let (start, length) = self.bytes.push(&message.payload);
                self.append.push((id, seq, name.clone(), start, length, headers));
            }
            Some(due_at) => {
                let (start, length) = self.delayed_bytes.push(&message.payload);
                self.delay.push((id, seq, name.clone(), start, length, headers, due_at));
            }
        }
        if !message.retention.is_zero() {
            self.seen.insert((id, message.id.clone()));
            self.remember.push((id, name, now.saturating_add(millis(message.retention))));
        }
        Admission::Accepted
    }

    /// Writes what [`append`](Self::append) gathered: at most four statements.
    pub(crate) async fn store(&mut self) -> Result<(), Error> {
        if !self.append.is_empty() {
            let query = sqlx::query(statements::APPEND).bind(json(&self.append)).bind(self.bytes.take());
            query.execute(self.tx.connection()?).await.map_err(before_commit)?;
        }
        if !self.delay.is_empty() {
            let query =
                sqlx::query(statements::DELAY).bind(json(&self.delay)).bind(self.delayed_bytes.take());
            query.execute(self.tx.connection()?).await.map_err(before_commit)?;
        }
        if !self.remember.is_empty() {
            let query = sqlx::query(statements::REMEMBER).bind(json(&self.remember));
            query.execute(self.tx.connection()?).await.map_err(before_commit)?;
            let most = i64::try_from(self.remember.len() * FORGET_EACH).unwrap_or(i64::MAX);
            let query = sqlx::query(statements::FORGET).bind(self.now).bind(most);
            query.execute(self.tx.connection()?).await.map_err(before_commit)?;
        }
        self.append.clear();
        self.delay.clear();
        self.remember.clear();
        Ok(())
    }

    /// The first messages of each of these: row id, from which sequence on, how many.
    pub(crate) async fn heads(&mut self, wanted: &[(i64, i64, u32)]) -> Result<Heads, Error> {
        let mut heads = Heads::new();
        let Some(most) = wanted.iter().map(|(_, _, count)| *count).max() else { return Ok(heads) };
        let query = sqlx::query(statements::HEAD).bind(json(wanted)).bind(i64::from(most));
        for row in &query.fetch_all(self.tx.connection()?).await.map_err(before_commit)? {
            let Some((id, ..)) = at(wanted, row)? else { continue };
            let seq: i64 = row.try_get("seq").map_err(before_commit)?;
            heads.entry(*id).or_default().push((seq, codec::message(row).map_err(before_commit)?));
        }
        Ok(heads)
    }

    /// The committed states of these rows.
    pub(crate) async fn states(&mut self, ids: &[i64]) -> Result<BTreeMap<i64, StoredState>, Error> {
        let mut states = BTreeMap::new();
        if ids.is_empty() {
            return Ok(states);
        }
        let query = sqlx::query(statements::STATES).bind(json(ids));
        for row in &query.fetch_all(self.tx.connection()?).await.map_err(before_commit)? {
            if let (Some(id), Some(state)) = (at(ids, row)?, codec::state(row).map_err(before_commit)?) {
                states.insert(*id, state);
            }
        }
        Ok(states)
    }

    /// Writes the rows that changed, and commits.
    pub(crate) async fn commit(mut self) -> Result<(), Error> {
        let changed = self.rows.iter().filter(|(_, row)| self.stored.get(&row.id) != Some(row));
        let changed: Vec<Saved<'_>> = changed.map(|(entity, row)| Saved::new(entity, row)).collect();
        if !changed.is_empty() {
            let query = sqlx::query(statements::SAVE).bind(json(&changed));
            query.execute(self.tx.connection()?).await.map_err(before_commit)?;
        }
        self.tx.commit().await
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
