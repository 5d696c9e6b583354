//! Posts.

use actornot_core::{Admission, Enqueue, Enqueued, Error, ErrorKind};

use crate::PostgresQueue;
use crate::row::{self, Answers};
use crate::slice;
use crate::statements::Verb;

impl PostgresQueue {
    pub(crate) async fn enqueue_slice(
        &self,
        items: &[Enqueue],
    ) -> Result<Vec<Result<Enqueued, Error>>, Error> {
        let rows = self.server.call(Verb::Enqueue, &slice::posts(items)).await?;
        let Answers { mut of, admissions } = row::answers(&rows)?;
        let mut words = admissions.as_deref().map(str::bytes);
        let enqueued = items.iter().enumerate().map(|(index, item)| {
            let admissions = match &mut words {
                None => vec![Admission::Accepted; item.messages.len()],
                Some(words) => words.by_ref().take(item.messages.len()).map(admission).collect(),
            };
            if admissions.len() != item.messages.len() {
                let text = "the server did not answer for every message; were the functions changed by hand?";
                return Err(Error::new(ErrorKind::UnknownOutcome, text).with_entity(&item.entity));
            }
            let grant = item.lock.as_ref().zip(of.remove(&index));
            let grant = grant.and_then(|(request, answer)| answer.grant(&item.entity, request));
            Ok(Enqueued { admissions, grant })
        });
        Ok(enqueued.collect())
    }
}

fn admission(word: u8) -> Admission {
    match word {
        b'A' => Admission::Accepted,
        b'D' => Admission::Duplicate,
        _ => Admission::Full,
    }
}
