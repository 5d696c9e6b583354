//! Posts.

use actornot_core::{Enqueue, Enqueued, Error};

use crate::SqliteQueue;
use crate::slice::{Slice, Wants};

impl SqliteQueue {
    pub(crate) async fn enqueue_slice(
        &self,
        items: &[Enqueue],
    ) -> Result<Vec<Result<Enqueued, Error>>, Error> {
        let mut wants = Wants::default();
        for item in items {
            wants.ids.extend(item.messages.iter().map(|message| (&item.entity, &message.id)));
            wants.states.extend(item.lock.as_ref().map(|_| &item.entity));
        }
        let entities = items.iter().map(|item| &item.entity).collect();
        let mut slice = Slice::load_with(&self.inner.writer, entities, wants).await?;

        let mut enqueued = Vec::with_capacity(items.len());
        for item in items {
            slice.row_or_new(&item.entity).known = 1;
            let (limit, soon) = (item.backlog_limit, item.lock.is_some());
            let messages = item.messages.iter();
            let admissions = messages.map(|message| slice.append(&item.entity, message, limit, soon));
            enqueued.push(Enqueued { admissions: admissions.collect(), grant: None });
        }
        // Before the lock, which may read what was stored.
        slice.store()?;

        let wanted: Vec<_> =
            items.iter().filter_map(|item| Some((&item.entity, item.lock.as_ref()?))).collect();
        let mut grants = slice.lock(&wanted).await?;
        slice.commit().await?;
        for (item, answer) in items.iter().zip(&mut enqueued) {
            answer.grant = grants.remove(&item.entity);
        }
        Ok(enqueued.into_iter().map(Ok).collect())
    }
}
