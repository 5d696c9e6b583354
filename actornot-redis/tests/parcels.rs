//! Messages that come together are stored together.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::time::Duration;

use actornot_core::{
    Admission, Enqueue, Inspect, Location, LockRequest, LockableQueue, NewMessage, TryLock, Updated,
};
use actornot_redis::RedisQueue;
use actornot_testkit::servers::{Service, own};

use crate::common::*;

/// A Lua function takes at most 8000 arguments, so commands go in portions.
#[tokio::test]
async fn a_post_of_thousands_is_told_stored_run_and_forgotten_message_by_message() {
    let server = own(Service::Redis);
    let queue = RedisQueue::connect(server.url()).await.unwrap();
    let ids: Vec<String> = (0..9_500).map(|n| format!("m{n}")).collect();
    let thousands = |ids: &[String]| {
        let messages = ids.iter().map(|id| message(id)).collect();
        Enqueue { messages, ..post("alice", "m") }
    };
    let first = ok(&queue, thousands(&ids[..2_500])).await;
    assert_eq!(first.admissions, vec![Admission::Accepted; 2_500]);
    let second = ok(&queue, thousands(&ids)).await;
    assert_eq!(second.admissions[..2_500], vec![Admission::Duplicate; 2_500]);
    assert_eq!(second.admissions[2_500..], vec![Admission::Accepted; 7_000]);
    let request = LockRequest { max_batch: 9_500, ..request() };
    let ask = [TryLock { entity: entity("alice"), request }];
    let grant = queue.try_lock(&ask).await.remove(0).unwrap().unwrap();
    assert_eq!(grant.batch.ids().iter().map(ToString::to_string).collect::<Vec<_>>(), ids);
    let updated = queue.update_locked(&[commit(&grant.lease, grant.batch.ids())]).await.remove(0).unwrap();
    assert_eq!(updated, Updated::Released { next_due: None });
    let gone = queue.locate(&entity("alice"), &grant.batch.ids()).await.unwrap();
    assert_eq!(gone, vec![Location::Gone; 9_500]);
}

/// An id's entry tells where its parcel is only modulo 1023.
#[tokio::test]
async fn messages_are_located_among_thousands_of_parcels() {
    let server = own(Service::Redis);
    let queue = RedisQueue::connect(server.url()).await.unwrap();
    // Neighbours of different retention share no parcel.
    let each = |n: u64| {
        let retention = Duration::from_secs(60 + n % 2);
        NewMessage { retention, ..message(&format!("m{n}")) }
    };
    let all = Enqueue { messages: (0..2_500).map(each).collect(), ..post("alice", "m") };
    ok(&queue, all).await;
    let request = LockRequest { max_batch: 700, ..request() };
    let ask = [TryLock { entity: entity("alice"), request }];
    let grant = queue.try_lock(&ask).await.remove(0).unwrap().unwrap();
    queue.update_locked(&[commit(&grant.lease, grant.batch.ids())]).await.remove(0).unwrap();
    for n in [0, 1, 699, 700, 701, 1_022, 1_023, 1_024, 1_723, 2_045, 2_499] {
        let expected = if n < 700 { Location::Gone } else { Location::Queued };
        let found = queue.locate(&entity("alice"), &[message(&format!("m{n}")).id]).await.unwrap();
        assert_eq!(found, [expected], "m{n}");
    }
}

#[tokio::test]
async fn an_id_is_not_free_while_its_message_is_delayed() {
    let server = own(Service::Redis);
    let queue = RedisQueue::connect(server.url()).await.unwrap();
    let outside = Outside::new(server.url(), "actornot");
    let mut late = message("late");
    late.delay = Duration::from_secs(600);
    ok(&queue, Enqueue { messages: vec![late], ..post("alice", "late") }).await;
    // Longer than it is to be remembered.
    outside.elapse(Duration::from_secs(300));
    assert_eq!(ok(&queue, post("alice", "late")).await.admissions, [Admission::Duplicate]);
    let found = queue.locate(&entity("alice"), &[message("late").id]).await.unwrap();
    assert_eq!(found, [Location::Queued]);
    outside.elapse(Duration::from_secs(600));
    assert_eq!(ok(&queue, post("alice", "late")).await.admissions, [Admission::Accepted]);
}
