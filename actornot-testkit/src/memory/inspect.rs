//! For people who look, and mend.

use actornot_core::{
    DeadLetter, DurabilityReport, EntityId, Error, Inspect, Location, MessageId, Position, Setting, Snapshot,
    StoredMessage, Why,
};
use async_trait::async_trait;

use super::{Bug, MemoryQueue, Row, Store};

impl Store {
    fn seen_row(&self, entity: &EntityId) -> Option<&Row> {
        self.entities.get(&self.name(entity)).filter(|row| row.known)
    }
}

fn snapshot(row: &Row) -> Snapshot {
    Snapshot { state: row.state.clone(), pending: row.pending() }
}

#[async_trait]
impl Inspect for MemoryQueue {
    async fn read(&self, entities: &[EntityId]) -> Result<Vec<Option<Snapshot>>, Error> {
        let store = self.store();
        let blind = store.has(Bug::ReadSeesNothing);
        Ok(entities.iter().map(|entity| store.seen_row(entity).filter(|_| !blind).map(snapshot)).collect())
    }

    async fn list(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(EntityId, Snapshot)>, Error> {
        let store = self.store();
        let all = store.entities.iter().filter(|(entity, row)| entity.kind() == kind && row.known);
        let mut page: Vec<_> = all
            .filter(|(entity, _)| after.is_none_or(|after| entity.key() > after))
            .map(|(entity, row)| (entity.clone(), snapshot(row)))
            .take(limit as usize)
            .collect();
        if store.has(Bug::ListUnordered) {
            page.reverse();
        }
        Ok(page)
    }

    async fn peek(&self, entity: &EntityId, limit: u32) -> Result<Vec<StoredMessage>, Error> {
        let mut store = self.store();
        let (now, bug) = (store.now(), store.bug);
        let row = store.row(entity);
        row.promote(now, bug);
        let mut page: Vec<_> = row.queue.iter().take(limit as usize).cloned().collect();
        if bug == Some(Bug::PeekUnordered) {
            page.reverse();
        }
        Ok(page)
    }

    async fn locate(&self, entity: &EntityId, ids: &[MessageId]) -> Result<Vec<Location>, Error> {
        let store = self.store();
        let row = store.seen_row(entity).filter(|_| !store.has(Bug::LocateBlind));
        let locate = |id: &MessageId| {
            let queued = row.is_some_and(|row| {
                let lost = store.has(Bug::LocateStale) && row.moved.contains(id);
                !lost && row.queue.iter().chain(row.delayed.values()).any(|message| message.id == *id)
            });
            let dead = store.dead.iter().any(|letter| letter.entity == *entity && letter.id == *id);
            match (queued, dead) {
                (true, _) => Location::Queued,
                (false, true) => Location::Dead,
                (false, false) => Location::Gone,
            }
        };
        Ok(ids.iter().map(locate).collect())
    }

    async fn why(&self, entity: &EntityId) -> Result<Option<Why>, Error> {
        let store = self.store();
        let now = store.now();
        let blind = store.has(Bug::WhyBlind);
        Ok(store.seen_row(entity).map(|row| row.why(now)).map(|why| Why {
            waiting: why.waiting.filter(|_| !blind),
            paused: why.paused.filter(|_| !blind),
            last_error: why.last_error.filter(|_| !blind),
            ..why
        }))
    }

    async fn dead_letters(
        &self,
        kind: &str,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, Error> {
        let store = self.store();
        let of_kind = store.dead.iter().filter(|letter| letter.entity.kind() == kind);
        Ok(of_kind
            .filter(|letter| letter.number > after.unwrap_or(0))
            .take(limit as usize)
            .cloned()
            .collect())
    }

    async fn redrive(&self, letter: &DeadLetter, to: Position) -> Result<bool, Error> {
        let mut store = self.store();
        let (now, bug) = (store.now(), store.bug);
        let found =
            store.dead.iter().position(|dead| dead.number == letter.number && dead.entity == letter.entity);
        let Some(place) = found else { return Ok(false) };
        let letter = match bug {
            Some(Bug::RedriveKeepsLetter) => store.dead[place].clone(),
            _ => store.dead.remove(place),
        };
        let row = store.row(&letter.entity);
        if bug != Some(Bug::RedriveBeforeDue) {
            row.promote(now, bug);
        }
        let message = StoredMessage { id: letter.id, payload: letter.payload, headers: letter.headers };
        row.moved.insert(message.id.clone());
        match to {
            _ if bug == Some(Bug::RedriveLost) => {}
            Position::Head if bug != Some(Bug::RedriveAlwaysTail) => {
                row.enter(message, now);
                row.queue.rotate_right(1);
                // A new head has its own attempts, also while a run of the old one is under way.
                if bug != Some(Bug::RedriveKeepsAttempts) || row.deadline.is_none() {
                    (row.deliveries, row.charged) = (0, 0);
                }
            }
            _ => row.enter(message, now),
        }
        Ok(true)
    }

    async fn pause(&self, entity: &EntityId, reason: &str) -> Result<(), Error> {
        let mut store = self.store();
        let row = store.row(entity);
        row.known = true;
        row.paused = Some(reason.to_owned());
        Ok(())
    }

    async fn resume(&self, entity: &EntityId) -> Result<bool, Error> {
        let mut store = self.store();
        let (bug, name) = (store.bug, store.name(entity));
        let Some(row) = store.entities.get_mut(&name).filter(|row| row.known) else { return Ok(false) };
        if bug != Some(Bug::ResumeForgotten) {
            (row.paused, row.wait) = (None, None);
        }
        if bug != Some(Bug::ResumeKeepsAttempts) {
            (row.deliveries, row.charged) = (0, 0);
        }
        Ok(true)
    }

    async fn purge(&self, entity: &EntityId) -> Result<bool, Error> {
        let mut store = self.store();
        let (now, bug, name) = (store.now(), store.bug, store.name(entity));
        let Some(row) = store.entities.get_mut(&name).filter(|row| row.known) else { return Ok(false) };
        let mut fresh = Row::new(now);
        fresh.fence = if bug == Some(Bug::PurgeResetsFence) { 1 } else { fresh.fence.max(row.fence + 1) };
        if bug == Some(Bug::PurgeSparesQueue) {
            std::mem::swap(&mut fresh.queue, &mut row.queue);
        }
        *row = fresh;
        store.dead.retain(|letter| letter.entity != name);
        if bug == Some(Bug::PurgeForgetsSeen) {
            store.seen.retain(|(of, _), _| *of != name);
        }
        Ok(true)
    }

    async fn doctor(&self) -> Result<DurabilityReport, Error> {
        let setting = Setting {
            name: "storage".to_owned(),
            value: "memory".to_owned(),
            voids: Some("G1: nothing survives this process".to_owned()),
        };
        Ok(DurabilityReport { server: "memory".to_owned(), settings: vec![setting] })
    }
}
