//! Commits: settle, save, send, and go on or let go; and the way of what they send.

use std::collections::BTreeSet;
use std::time::Duration;

use actornot_core::{Commit, Effect, EntityId, Envelope, Error, MessageId, Next, Updated, Verdict};
use redis::Value;

use crate::RedisQueue;
use crate::codec::{Parcel, millis, split, text, value};
use crate::row::{self, Parts, bytes, number};
use crate::slice::{Call, What};
use crate::statements::{RELAY, TRIM, UPDATE_LOCKED};

/// So many staged sends of one channel are relayed in one trip.
const RELAYED: usize = 64;

/// From the partition of a sender to that of a target.
pub(crate) type Channel = (u16, u16);

impl RedisQueue {
    /// Staged sends are read in the same trip, behind the commits, and relayed in the next one. A send that could not
    /// be relayed stays staged and fails no commit: the next `due` relays it.
    pub(crate) async fn commit_slice(&self, commits: &[Commit]) -> Vec<Result<Updated, Error>> {
        let mut refused: Vec<Option<Error>> = commits.iter().map(|commit| check(commit).err()).collect();
        let mut calls = Vec::with_capacity(commits.len());
        let mut channels = BTreeSet::new();
        for (commit, refused) in commits.iter().zip(&refused) {
            if refused.is_none() {
                calls.push(self.update(commit));
                channels.extend(self.channels(commit));
            }
        }
        let channels: Vec<Channel> = channels.into_iter().collect();
        let sent = calls.len();
        for channel in &channels {
            calls.extend(self.staged(*channel));
        }
        let mut answers = self.run(&calls).await.into_iter();
        let updated: Vec<_> = answers.by_ref().take(sent).collect();
        if !channels.is_empty() {
            self.relay(&channels, Some(answers.collect())).await;
        }
        let mut updated = updated.into_iter();
        let mut results = Vec::with_capacity(commits.len());
        for (commit, refused) in commits.iter().zip(&mut refused) {
            let answer = match refused.take() {
                Some(error) => Err(error),
                None => updated.next().unwrap_or(Ok(Value::Nil)).and_then(decode),
            };
            results.push(answer.map_err(|error| error.with_entity(&commit.lease.entity)));
        }
        results
    }

    fn channels(&self, commit: &Commit) -> impl Iterator<Item = Channel> {
        let from = self.inner.space.partition(&commit.lease.entity);
        let others = sends(commit).filter(|envelope| envelope.entity != commit.lease.entity);
        others.map(move |envelope| (from, self.inner.space.partition(&envelope.entity)))
    }

    fn update(&self, commit: &Commit) -> Call {
        let space = &self.inner.space;
        let entity = &commit.lease.entity;
        let partition = space.partition(entity);
        let (own, others): (Vec<&Envelope>, Vec<&Envelope>) =
            sends(commit).partition(|envelope| envelope.entity == *entity);
        let own = Parcel::all(own.into_iter().map(|envelope| &envelope.message));
        let targets: BTreeSet<u16> = self.channels(commit).map(|(_, to)| to).collect();
        let targets: Vec<u16> = targets.into_iter().collect();
        // Only what it may touch.
        let dead = matches!(commit.verdict, Verdict::DeadLetter { .. });
        let mut call = if dead || !targets.is_empty() || !own.is_empty() {
            Call::entity(space, &UPDATE_LOCKED, entity)
        } else {
            Call::narrow(space, &UPDATE_LOCKED, entity)
        };
        if dead || !targets.is_empty() {
            call.keys.extend([space.record(partition), space.channels(partition)]);
        }
        if dead {
            call.keys.extend(space.dead_keys(entity));
        }
        let before = call.keys.len();
        call.keys.extend(targets.iter().map(|to| space.channel(partition, *to)));

        let max = match commit.next {
            Next::Batch { max } => max.max(1),
            Next::Release => 0,
        };
        call = call
            .arg(commit.id.to_string())
            .arg(commit.lease.nonce.to_string())
            .number(commit.lease.fence)
            .number(millis(commit.lease.length))
            .number(max)
            .number(commit.batch_limit);
        call = match &commit.state {
            Some(state) => call.number(1).arg(state.json.as_str()).number(state.state_version),
            None => call.number(0).arg("").arg(""),
        };
        call = match &commit.verdict {
            Verdict::Proceed => call.arg("proceed").arg("").arg("").number(0),
            Verdict::DeadLetter { error } => call.arg("dead").arg(error.as_str()).arg("").number(0),
            Verdict::Wait { why, after, error } => call
                .arg("wait")
                .arg(error.as_deref().unwrap_or_default())
                .arg(why.as_str())
                .number(millis(*after)),
            Verdict::Pause { reason } => call.arg("pause").arg(reason.as_str()).arg("").number(0),
        };
        call = call.number(partition).texts(commit.acked.iter().map(MessageId::as_str));
        call = call.number(own.len()).number(others.len());
        for parcel in &own {
            call = call.parcel(parcel);
        }
        for envelope in others {
            let to = space.partition(&envelope.entity);
            let key = before + 1 + targets.iter().position(|target| *target == to).unwrap_or(0);
            call = call.number(key).number(to).arg(blob(envelope));
        }
        call
    }

    /// What is staged in a channel, and the time of its node.
    fn staged(&self, (from, to): Channel) -> [Call; 2] {
        let channel = vec![self.inner.space.channel(from, to)];
        [
            Call::new(from, What::Read("LRANGE"), channel).number(0).number(RELAYED - 1),
            Call::new(from, What::Read("TIME"), Vec::new()),
        ]
    }

    /// Carries staged sends to their targets, and forgets those that have arrived. Any number of processes may do it
    /// at once: a send is numbered, and the target's partition takes each number of a channel once, in order.
    pub(crate) async fn relay(&self, channels: &[Channel], read: Option<Vec<Result<Value, Error>>>) {
        let mut read = read;
        let mut open = channels.to_vec();
        while !open.is_empty() {
            let first = read.is_some();
            let answers = match read.take() {
                Some(answers) => answers,
                None => {
                    let calls: Vec<Call> = open.iter().flat_map(|channel| self.staged(*channel)).collect();
                    self.run(&calls).await
                }
            };
            let mut answers = answers.into_iter();
            let (mut calls, mut numbers, mut again) = (Vec::new(), Vec::new(), Vec::new());
            for channel in open {
                let (Some(Ok(list)), Some(Ok(time))) = (answers.next(), answers.next()) else { continue };
                let found = self.letters(channel, list, time).unwrap_or_default();
                // Read before the commit got through, whose first try the server refused.
                if (found.is_empty() && first) || found.len() >= RELAYED {
                    again.push(channel);
                }
                for (number, call) in found {
                    numbers.push((channel, number));
                    calls.push(call);
                }
            }
            let sent = self.run(&calls).await;
            let mut trims: Vec<(Channel, u64)> = Vec::new();
            let mut stuck = BTreeSet::new();
            for ((channel, at), answer) in numbers.into_iter().zip(sent) {
                match answer.and_then(number) {
                    Ok(Some(_)) if !stuck.contains(&channel) => match trims.last_mut() {
                        Some((last, highest)) if *last == channel => *highest = at,
                        _ => trims.push((channel, at)),
                    },
                    Ok(_) => drop(stuck.insert(channel)),
                    Err(error) => {
                        tracing::warn!(%error, "a staged send did not reach its target, it stays staged");
                        stuck.insert(channel);
                    }
                }
            }
            let space = &self.inner.space;
            let trim = |((from, to), highest): &(Channel, u64)| {
                let keys = vec![space.channel(*from, *to), space.channels(*from)];
                Call::new(*from, What::Script(&TRIM), keys).number(*to).number(*highest)
            };
            let trimmed = self.run(&trims.iter().map(trim).collect::<Vec<_>>()).await;
            // What has arrived is still there, and would be read again without end. The next one trims.
            let failed = trims.iter().zip(trimmed).filter(|(_, answer)| answer.is_err());
            stuck.extend(failed.map(|((channel, _), _)| *channel));
            again.retain(|channel| !stuck.contains(channel));
            open = again;
        }
    }

    /// One call for each staged send, in order, with its number.
    fn letters(&self, (from, to): Channel, list: Value, time: Value) -> Result<Vec<(u64, Call)>, Error> {
        let mut time = Parts::of(time)?;
        let (seconds, micros) = (time.number()?.unwrap_or(0), time.number()?.unwrap_or(0));
        let now = seconds.saturating_mul(1_000_000).saturating_add(micros);
        let space = &self.inner.space;
        let mut before = 0;
        let mut letters = Vec::new();
        for value in Parts::of(list)?.rest() {
            let value = bytes(value)?.unwrap_or_default();
            let (number, rest) = split(&value);
            let (kind, rest) = split(rest);
            let (key, rest) = split(rest);
            let (delay, rest) = split(rest);
            let (retention, value) = split(rest);
            let (id, _) = split(value);
            let parse = |bytes: &[u8]| text(bytes).parse::<u64>().ok();
            let (Some(number), Ok(entity)) = (parse(number), EntityId::new(text(kind), text(key))) else {
                tracing::warn!("a staged send does not decode, it is left out");
                continue;
            };
            // The delay runs from the commit, whose moment its number tells.
            let passed = now.saturating_sub(number) / 1000;
            let delay = parse(delay).unwrap_or(0).saturating_sub(passed);
            let mut call = Call::entity(space, &RELAY, &entity).number(from).number(number).number(before);
            call.keys.push(space.record(to));
            let (id, retention) = (text(id), parse(retention).unwrap_or(0));
            call = call.parcel(&Parcel::one(delay, retention, &id, value));
            letters.push((number, call));
            before = number;
        }
        Ok(letters)
    }
}

fn sends(commit: &Commit) -> impl Iterator<Item = &Envelope> {
    commit.effects.iter().filter_map(|effect| match effect {
        Effect::Send(envelope) => Some(envelope),
        _ => None,
    })
}

fn check(commit: &Commit) -> Result<(), Error> {
    for effect in &commit.effects {
        match effect {
            Effect::Send(_) => {}
            Effect::SetTimer { .. } | Effect::CancelTimer { .. } => {
                return Err(Error::unsupported("a timer"));
            }
            Effect::Reply { .. } => return Err(Error::unsupported("a reply")),
            _ => return Err(Error::unsupported("this effect")),
        }
    }
    Ok(())
}

/// `kind NUL key NUL delay NUL retention NUL id NUL headers NUL payload`
fn blob(envelope: &Envelope) -> Vec<u8> {
    let Envelope { entity, message } = envelope;
    let (delay, retention) = (millis(message.delay), millis(message.retention));
    let mut blob = format!("{}\0{}\0{delay}\0{retention}\0", entity.kind(), entity.key()).into_bytes();
    blob.extend(value(message));
    blob
}

fn decode(answer: Value) -> Result<Updated, Error> {
    let mut parts = Parts::of(answer)?;
    match parts.bytes()?.as_deref() {
        Some(b"L") => Ok(Updated::LockLost),
        Some(b"C") => {
            let (fence, batch) = row::batch(parts.value())?;
            Ok(Updated::Continue { fence, batch })
        }
        Some(b"R") => Ok(Updated::Released { next_due: parts.number()?.map(Duration::from_millis) }),
        _ => Err(row::odd(&Value::Nil)),
    }
}
