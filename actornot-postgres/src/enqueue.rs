//! Posts.

use actornot_core::{Admission, Enqueue, Enqueued, Error, ErrorKind};

use crate::PostgresQueue;
use crate::codec::json;
use crate::connection::Value;
use crate::row;
use crate::slice::Post;
use crate::statements::Verb;

impl PostgresQueue {
    pub(crate) async fn enqueue_slice(
        &self,
        items: &[Enqueue],
    ) -> Result<Vec<Result<Enqueued, Error>>, Error> {
        let posts: Vec<Post<'_>> = items
            .iter()
            .map(|item| Post {
                name: (&item.entity).into(),
                limit: item.backlog_limit,
                lock: item.lock.as_ref().map(Into::into),
                messages: item.messages.iter().map(Into::into).collect(),
            })
            .collect();
        let mut payloads = Vec::new();
        for item in items {
            payloads.extend(item.messages.iter().map(|message| message.payload.as_str()));
        }
        let values = [Value::Text(&json(&posts)), Value::Texts(&payloads)];
        let mut answers = row::answers(&self.server.call(Verb::Enqueue, &values).await?)?;
        let enqueued = items.iter().enumerate().map(|(index, item)| {
            let mut answer = answers.remove(&index).unwrap_or_default();
            let admissions: Vec<Admission> =
                answer.admissions.drain(..).map(|word| admission(&word)).collect();
            if admissions.len() != item.messages.len() {
                let text = "the server did not answer for every message; were the functions changed by hand?";
                return Err(Error::new(ErrorKind::UnknownOutcome, text).with_entity(&item.entity));
            }
            let grant = item.lock.as_ref().and_then(|request| answer.grant(&item.entity, request));
            Ok(Enqueued { admissions, grant })
        });
        Ok(enqueued.collect())
    }
}

fn admission(word: &str) -> Admission {
    match word {
        "accepted" => Admission::Accepted,
        "duplicate" => Admission::Duplicate,
        _ => Admission::Full,
    }
}
