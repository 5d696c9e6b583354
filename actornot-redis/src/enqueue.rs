//! Posts.

use actornot_core::{Admission, Enqueue, Enqueued, Error};
use redis::Value;

use crate::RedisQueue;
use crate::codec::Parcel;
use crate::lock;
use crate::row::{Parts, bytes, odd};
use crate::slice::Call;
use crate::statements::ENQUEUE;

impl RedisQueue {
    pub(crate) async fn enqueue_slice(&self, items: &[Enqueue]) -> Vec<Result<Enqueued, Error>> {
        let calls: Vec<Call> = items.iter().map(|item| self.post(item)).collect();
        let answers = self.run(&calls).await.into_iter().zip(items);
        answers
            .map(|(answer, item)| {
                let decoded = answer.and_then(|answer| decode(answer, item));
                decoded.map_err(|error| error.with_entity(&item.entity))
            })
            .collect()
    }

    fn post(&self, item: &Enqueue) -> Call {
        let call = Call::entity(&self.inner.space, &ENQUEUE, &item.entity).number(item.backlog_limit);
        let mut call = match &item.lock {
            Some(request) => lock::wanted(call, request),
            None => call.arg("").number(0).number(0),
        };
        let parcels = Parcel::all(&item.messages);
        call = call.number(parcels.len());
        for parcel in &parcels {
            call = call.parcel(parcel);
        }
        call
    }
}

fn decode(answer: Value, item: &Enqueue) -> Result<Enqueued, Error> {
    let mut parts = Parts::of(answer)?;
    let letters = bytes(parts.value())?.unwrap_or_default();
    let admissions: Vec<Admission> = letters
        .iter()
        .map(|letter| match letter {
            b'A' => Admission::Accepted,
            b'D' => Admission::Duplicate,
            _ => Admission::Full,
        })
        .collect();
    if admissions.len() != item.messages.len() {
        return Err(odd(&Value::Nil));
    }
    let grant = match &item.lock {
        Some(request) => lock::grant(parts.value(), &item.entity, request)?,
        None => None,
    };
    Ok(Enqueued { admissions, grant })
}
