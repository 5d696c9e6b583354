//! For people who look, and mend.

use actornot_core::{
    DeadLetter, DurabilityReport, EntityId, Error, Inspect, Location, MessageId, Position, Snapshot,
    StoredMessage, Why,
};
use async_trait::async_trait;
use redis::Value;

use crate::RedisQueue;
use crate::codec::{self, split, text};
use crate::doctor;
use crate::row::{self, Parts, bytes, number, yes};
use crate::slice::{Call, What};
use crate::statements::{LOCATE, LOOK, PAUSE, PEEK, PURGE, REDRIVE, RESUME, Verb};

impl RedisQueue {
    fn about(&self, verb: &'static Verb, entity: &EntityId) -> Call {
        Call::entity(&self.inner.space, verb, entity)
    }

    fn with_letters(&self, verb: &'static Verb, entity: &EntityId) -> Call {
        let mut call = self.about(verb, entity);
        call.keys.extend(self.inner.space.dead_keys(entity));
        call
    }

    /// The same question to every partition.
    async fn everywhere(&self, ask: impl Fn(u16) -> Call) -> Result<Vec<(u16, Value)>, Error> {
        let calls: Vec<Call> = (0..self.inner.space.partitions).map(ask).collect();
        let answers = self.run(&calls).await.into_iter();
        (0..).zip(answers).map(|(partition, answer)| Ok((partition, answer?))).collect()
    }
}

#[async_trait]
impl Inspect for RedisQueue {
    async fn read(&self, entities: &[EntityId]) -> Result<Vec<Option<Snapshot>>, Error> {
        let calls: Vec<Call> = entities.iter().map(|entity| self.about(&LOOK, entity)).collect();
        let answers = self.run(&calls).await.into_iter();
        answers.map(|answer| Ok(row::look(answer?)?.map(|(snapshot, _)| snapshot))).collect()
    }

    async fn list(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(EntityId, Snapshot)>, Error> {
        let mut found = Vec::new();
        let mut after = after.map(str::to_owned);
        // An entity that was purged between the two trips is left out, and others take its place.
        while found.len() < limit as usize {
            let wanted = limit as usize - found.len();
            let from = after.as_ref().map_or_else(|| "-".to_owned(), |key| format!("({key}"));
            let names = self
                .everywhere(|partition| {
                    let key = vec![self.inner.space.key(partition, "k", kind)];
                    let call = Call::new(partition, What::Read("ZRANGE"), key).arg(from.as_str()).arg("+");
                    call.arg("BYLEX").arg("LIMIT").number(0).number(wanted)
                })
                .await?;
            let mut keys = Vec::new();
            for (_, names) in names {
                for name in Parts::of(names)?.rest() {
                    keys.push(text(&bytes(name)?.unwrap_or_default()));
                }
            }
            keys.sort_unstable();
            keys.truncate(wanted);
            let complete = keys.len() < wanted;
            let entities: Vec<_> = keys.iter().filter_map(|key| codec::entity(kind, key)).collect();
            let snapshots = self.read(&entities).await?;
            after = keys.pop();
            found.extend(entities.into_iter().zip(snapshots).filter_map(|(id, found)| Some((id, found?))));
            if complete {
                break;
            }
        }
        Ok(found)
    }

    async fn peek(&self, entity: &EntityId, limit: u32) -> Result<Vec<StoredMessage>, Error> {
        row::messages(self.run_one(self.about(&PEEK, entity).number(limit)).await?)
    }

    async fn locate(&self, entity: &EntityId, ids: &[MessageId]) -> Result<Vec<Location>, Error> {
        let mut call = self.with_letters(&LOCATE, entity);
        for id in ids {
            call = call.arg(id.as_str());
        }
        let places = Parts::of(self.run_one(call).await?)?.rest();
        places
            .map(|place| {
                Ok(match number(place)? {
                    Some(2) => Location::Queued,
                    Some(1) => Location::Dead,
                    _ => Location::Gone,
                })
            })
            .collect()
    }

    async fn why(&self, entity: &EntityId) -> Result<Option<Why>, Error> {
        Ok(row::look(self.run_one(self.about(&LOOK, entity)).await?)?.map(|(_, why)| why))
    }

    async fn dead_letters(
        &self,
        kind: &str,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, Error> {
        let space = &self.inner.space;
        let order = self
            .everywhere(|partition| {
                let key = vec![space.key(partition, "i", kind)];
                let call = Call::new(partition, What::Read("ZRANGE"), key);
                let call = call.arg(format!("({}", after.unwrap_or(0))).arg("+inf");
                call.arg("BYSCORE").arg("LIMIT").number(0).number(limit)
            })
            .await?;
        let mut numbers = Vec::new();
        for (partition, order) in order {
            for value in Parts::of(order)?.rest() {
                numbers.extend(number(value)?.map(|number| (number, partition)));
            }
        }
        numbers.sort_unstable();
        numbers.truncate(limit as usize);
        let fetch = |(number, partition): &(u64, u16)| {
            Call::new(*partition, What::Read("HGET"), vec![space.key(*partition, "y", kind)]).number(*number)
        };
        let calls: Vec<Call> = numbers.iter().map(fetch).collect();
        let mut letters = Vec::new();
        for ((number, _), answer) in numbers.iter().zip(self.run(&calls).await) {
            // One that was redriven between the two trips is left out.
            if let Some(letter) = bytes(answer?)? {
                letters.push(dead_letter(kind, *number, &letter)?);
            }
        }
        Ok(letters)
    }

    async fn redrive(&self, letter: &DeadLetter, to: Position) -> Result<bool, Error> {
        let end = match to {
            Position::Head => "head",
            Position::Tail => "tail",
        };
        let call = self.with_letters(&REDRIVE, &letter.entity).number(letter.number).arg(end);
        self.run_one(call).await.and_then(yes)
    }

    async fn pause(&self, entity: &EntityId, reason: &str) -> Result<(), Error> {
        self.run_one(self.about(&PAUSE, entity).arg(reason)).await.map(|_| ())
    }

    async fn resume(&self, entity: &EntityId) -> Result<bool, Error> {
        self.run_one(self.about(&RESUME, entity)).await.and_then(yes)
    }

    async fn purge(&self, entity: &EntityId) -> Result<bool, Error> {
        self.run_one(self.with_letters(&PURGE, entity)).await.and_then(yes)
    }

    async fn doctor(&self) -> Result<DurabilityReport, Error> {
        doctor::report(&self.inner.nodes).await
    }
}

/// `key NUL attempts NUL length NUL error`, and the message as it was stored.
fn dead_letter(kind: &str, number: u64, letter: &[u8]) -> Result<DeadLetter, Error> {
    let (key, rest) = split(letter);
    let (attempts, rest) = split(rest);
    let (length, rest) = split(rest);
    let length = text(length).parse().unwrap_or(0).min(rest.len());
    let (error, value) = rest.split_at(length);
    let StoredMessage { id, payload, headers } = codec::message(value);
    Ok(DeadLetter {
        number,
        entity: EntityId::new(kind, text(key))?,
        id,
        payload,
        headers,
        error: text(error),
        attempts: text(attempts).parse().unwrap_or(0),
    })
}
