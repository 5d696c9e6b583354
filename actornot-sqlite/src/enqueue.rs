//! Posts.

use actornot_core::{Enqueue, Enqueued, Error};

use crate::SqliteQueue;
use crate::slice::Slice;

impl SqliteQueue {
    pub(crate) async fn enqueue_slice(
        &self,
        items: &[Enqueue],
    ) -> Result<Vec<Result<Enqueued, Error>>, Error> {
        let mut slice =
            Slice::load(&self.inner.writer, items.iter().map(|item| &item.entity).collect()).await?;
        let mut ids = Vec::with_capacity(items.len());
        for item in items {
            ids.extend(item.messages.iter().map(|message| (&item.entity, &message.id)));
        }
        slice.recall(&ids).await?;

        let mut enqueued = Vec::with_capacity(items.len());
        for item in items {
            slice.row_or_new(&item.entity).known = 1;
            let messages = item.messages.iter();
            let admissions = messages.map(|message| slice.append(&item.entity, message, item.backlog_limit));
            enqueued.push(Enqueued { admissions: admissions.collect(), grant: None });
        }
        // Before the lock, which reads what was stored.
        slice.store().await?;

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
