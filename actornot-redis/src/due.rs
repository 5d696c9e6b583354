//! Finds entities that want a run, and relays what a crash has left staged.

use std::collections::BTreeSet;
use std::time::Duration;

use actornot_core::{Cursor, Due, DueQuery, Error};

use crate::RedisQueue;
use crate::codec::{self, text};
use crate::commit::Channel;
use crate::row::{Parts, bytes, number};
use crate::slice::{Call, What};
use crate::statements::DUE;

/// Where an entity stands among all that are due.
type Place = (u64, String, String);

/// What all partitions answered together.
#[derive(Default)]
struct Found {
    places: BTreeSet<Place>,
    /// Behind it a partition may have more than it answered with.
    known_to: Option<Place>,
    next: Option<u64>,
    staged: Vec<Channel>,
}

impl Found {
    /// The answer of one partition, in order, which was asked for so many.
    fn add(&mut self, part: Vec<Place>, most: usize) {
        if part.len() >= most {
            self.known_to = self.known_to.take().into_iter().chain(part.last().cloned()).min();
        }
        self.places.extend(part);
    }

    /// The first of them, as far as nobody can be missing, and whether there may be more.
    fn page(self, limit: usize) -> (impl Iterator<Item = Place>, bool) {
        let Self { places, known_to, .. } = self;
        let more = known_to.is_some() || places.len() > limit;
        let known = move |place: &Place| known_to.as_ref().is_none_or(|known_to| place <= known_to);
        (places.into_iter().take_while(known).take(limit), more)
    }
}

impl RedisQueue {
    pub(crate) async fn find_due(&self, query: &DueQuery) -> Result<Due, Error> {
        let after = query.after.as_ref().map(parse).transpose()?;
        let kinds: BTreeSet<&str> = query.kinds.iter().map(String::as_str).collect();
        let kinds: Vec<&str> = kinds.into_iter().collect();
        let mut found = self.ask_due(&kinds, query.limit, after.as_ref()).await?;
        if !found.staged.is_empty() {
            self.relay(&found.staged, None).await;
            // Their targets are due now.
            found = self.ask_due(&kinds, query.limit, after.as_ref()).await?;
        }
        let mut due = Due { next: found.next.map(Duration::from_millis), ..Due::default() };
        let (places, more) = found.page(query.limit as usize);
        for (wake, kind, key) in places {
            if more {
                due.after = Some(Cursor(format!("{wake}:{kind}:{key}")));
            }
            due.entities.extend(codec::entity(&kind, &key));
        }
        Ok(due)
    }

    async fn ask_due(&self, kinds: &[&str], limit: u32, after: Option<&Place>) -> Result<Found, Error> {
        let space = &self.inner.space;
        let most = share(limit, space.partitions);
        let ask = |partition: u16| {
            let mut keys = vec![space.channels(partition)];
            keys.extend(kinds.iter().map(|kind| space.key(partition, "w", kind)));
            let call = Call::new(partition, What::Script(&DUE), keys).number(most as u64);
            match after {
                None => call.arg("").arg("").number(0),
                Some((wake, kind, key)) => {
                    let at = kinds.partition_point(|other| *other <= kind.as_str());
                    call.number(*wake).arg(key.as_str()).number(at.saturating_sub(1))
                }
            }
        };
        let calls: Vec<Call> = (0..space.partitions).map(ask).collect();
        let mut found = Found::default();
        let (mut answered, mut failed) = (false, None);
        for (partition, answer) in (0..).zip(self.run(&calls).await) {
            let mut parts = match answer {
                Ok(answer) => Parts::of(answer)?,
                // What is due on the other nodes need not wait for this one.
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            answered = true;
            let next = parts.number()?;
            found.next = [found.next, next].into_iter().flatten().min();
            for channel in Parts::of(parts.value())?.rest() {
                let to = number(channel)?.and_then(|to| u16::try_from(to).ok());
                found.staged.extend(to.map(|to| (partition, to)));
            }
            for (index, answer) in Parts::of(parts.value())?.rest().enumerate() {
                let Some(kind) = kinds.get(index) else { continue };
                let mut lists = Parts::of(answer)?;
                for list in [lists.value(), lists.value()] {
                    let mut part = Vec::new();
                    pairs(list, |wake, key| part.push((wake, (*kind).to_owned(), key)))?;
                    found.add(part, most);
                }
                // Deadlines farther away than any lease: a clock has jumped back since they were written.
                pairs(lists.value(), |_, key| {
                    found.places.insert((0, (*kind).to_owned(), key));
                })?;
            }
        }
        match failed {
            Some(error) if !answered => return Err(error),
            Some(error) => {
                tracing::warn!(%error, "some partitions do not answer, the others are swept without them")
            }
            None => {}
        }
        Ok(found)
    }
}

/// How many to ask a partition for: entities are spread evenly, so each has its part of a page, give or take. A page may come
/// out shorter than it was asked for, never with a gap. One more than the page tells whether there is a next one.
fn share(limit: u32, partitions: u16) -> usize {
    const LEAST: usize = 16;
    let (limit, partitions) = (limit as usize, usize::from(partitions).max(1));
    (limit * 2 / partitions).max(LEAST).min(limit + 1)
}

fn pairs(list: redis::Value, mut each: impl FnMut(u64, String)) -> Result<(), Error> {
    let mut list = Parts::of(list)?.rest();
    while let (Some(key), Some(score)) = (list.next(), list.next()) {
        each(number(score)?.unwrap_or(0), text(&bytes(key)?.unwrap_or_default()));
    }
    Ok(())
}

fn parse(cursor: &Cursor) -> Result<Place, Error> {
    let mut parts = cursor.0.splitn(3, ':');
    let parts = (parts.next().and_then(|wake| wake.parse().ok()), parts.next(), parts.next());
    match parts {
        (Some(wake), Some(kind), Some(key)) => Ok((wake, kind.to_owned(), key.to_owned())),
        _ => Err(Error::invalid("cursor", "was not made by this adapter")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_where_a_partition_may_have_more_than_it_answered_with() {
        let part = |wakes: std::ops::Range<u64>| -> Vec<Place> {
            wakes.map(|wake| (wake, "k".to_owned(), "a".to_owned())).collect()
        };
        let mut found = Found::default();
        found.add(part(0..16), 16);
        found.add(part(10..40), 64);
        let (page, more) = found.page(64);
        assert_eq!((page.map(|(wake, ..)| wake).max(), more), (Some(15), true));
        let mut found = Found::default();
        found.add(part(0..15), 16);
        found.add(part(20..40), 64);
        let (page, more) = found.page(64);
        assert_eq!((page.count(), more), (35, false));
    }
}
