//! Messages that come together are one document.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::time::Duration;

use actornot_core::{
    Admission, Commit, DueQuery, Enqueue, Inspect, Location, LockRequest, LockableQueue, MessageId, Next,
    Position, TryLock, Updated, Verdict,
};
use actornot_mongo::MongoQueue;
use actornot_mongo::mongodb::bson::oid::ObjectId;
use actornot_mongo::mongodb::bson::{Document, doc};
use actornot_testkit::servers::{Service, url};
use common::{Place, commit, entity, lock, message, ok, post, request};

fn many(key: &str, ids: impl IntoIterator<Item = u32>) -> Enqueue {
    Enqueue { messages: ids.into_iter().map(|id| message(&id.to_string())).collect(), ..post(key, "none") }
}

fn named(ids: &[MessageId]) -> Vec<u32> {
    ids.iter().map(|id| id.as_str().parse().unwrap()).collect()
}

async fn up_to(queue: &MongoQueue, key: &str, max_batch: u32) -> actornot_core::Grant {
    let ask = [TryLock { entity: entity(key), request: LockRequest { max_batch, ..request() } }];
    queue.try_lock(&ask).await.remove(0).unwrap().unwrap()
}

#[tokio::test]
async fn a_post_of_thousands_keeps_its_order_around_ids_that_are_known() {
    let place = Place::new(&url(Service::Mongo));
    let queue = MongoQueue::connect(&place.url).await.unwrap();
    ok(&queue, many("a", [3, 70, 1_000])).await;
    let all = many("a", (0..2_000).chain([5]));
    let enqueued = ok(&queue, all).await;
    let known: Vec<usize> = (0..)
        .zip(&enqueued.admissions)
        .filter(|(_, admission)| **admission == Admission::Duplicate)
        .map(|(index, _)| index)
        .collect();
    assert_eq!(known, [3, 70, 1_000, 2_000]);
    let messages = place.outside().await.collection::<Document>("actornot_message");
    assert!(messages.count_documents(doc! {}).await.unwrap() < 250, "most came together");
    let mut grant = up_to(&queue, "a", 100).await;
    let (mut seen, mut lease) = (Vec::new(), grant.lease);
    loop {
        seen.extend(named(&grant.batch.ids()));
        let done = Commit { next: Next::Batch { max: 100 }, ..commit(&lease, grant.batch.ids()) };
        match queue.update_locked(&[done]).await.remove(0).unwrap() {
            Updated::Continue { fence, batch } => (lease.fence, grant.batch) = (fence, batch),
            Updated::Released { next_due } => break assert_eq!(next_due, None),
            Updated::LockLost => panic!("nobody took it"),
        }
    }
    let first = [3, 70, 1_000];
    let rest = (0..2_000).filter(|id| !first.contains(id));
    assert_eq!(seen, first.into_iter().chain(rest).collect::<Vec<_>>());
}

#[tokio::test]
async fn of_a_parcel_that_is_settled_in_part_the_rest_is_there() {
    let place = Place::new(&url(Service::Mongo));
    let queue = MongoQueue::connect(&place.url).await.unwrap();
    ok(&queue, many("a", 0..5)).await;
    for (settled, left) in [(0..2, 2..5), (2..3, 3..5)] {
        let grant = up_to(&queue, "a", u32::try_from(settled.len()).unwrap()).await;
        assert_eq!(named(&grant.batch.ids()), settled.collect::<Vec<_>>());
        let done = Commit { next: Next::Release, ..commit(&grant.lease, grant.batch.ids()) };
        let updated = queue.update_locked(&[done]).await.remove(0).unwrap();
        assert_eq!(updated, Updated::Released { next_due: Some(Duration::ZERO) });
        let left: Vec<u32> = left.collect();
        let pending = queue.read(&[entity("a")]).await.unwrap().remove(0).unwrap().pending;
        assert_eq!(pending, left.len() as u64);
        let peeked: Vec<MessageId> =
            queue.peek(&entity("a"), 9).await.unwrap().into_iter().map(|message| message.id).collect();
        assert_eq!(named(&peeked), left);
        let ids: Vec<MessageId> = (0..5).map(|id| message(&id.to_string()).id).collect();
        let places = queue.locate(&entity("a"), &ids).await.unwrap();
        let queued = (0..5).zip(places).filter(|(_, place)| *place == Location::Queued).map(|(id, _)| id);
        assert_eq!(queued.collect::<Vec<u32>>(), left);
        assert_eq!(ok(&queue, many("a", 0..5)).await.admissions, vec![Admission::Duplicate; 5]);
    }
}

#[tokio::test]
async fn a_letter_leaves_its_parcel_with_all_it_has_and_its_id_stays_known() {
    let place = Place::new(&url(Service::Mongo));
    let queue = MongoQueue::connect(&place.url).await.unwrap();
    let mut item = many("a", 0..4);
    item.messages[1].payload = "\"$payload\"".to_owned();
    item.messages[1].headers.insert("$h".to_owned(), "v".to_owned());
    ok(&queue, item.clone()).await;
    let grant = lock(&queue, "a").await.unwrap();
    let ids = grant.batch.ids();
    let dead = Commit {
        verdict: Verdict::DeadLetter { error: "bad".to_owned() },
        next: Next::Release,
        ..commit(&grant.lease, vec![ids[0].clone()])
    };
    queue.update_locked(&[dead]).await.remove(0).unwrap();
    let letter = queue.dead_letters("counter", None, 9).await.unwrap().remove(0);
    assert_eq!((&letter.id, &letter.payload), (&ids[1], &item.messages[1].payload));
    assert_eq!(letter.headers, item.messages[1].headers);
    use Location::{Dead, Gone, Queued};
    assert_eq!(queue.locate(&entity("a"), &ids).await.unwrap(), [Gone, Dead, Queued, Queued]);
    assert_eq!(ok(&queue, many("a", [1])).await.admissions, [Admission::Duplicate]);
    assert!(queue.redrive(&letter, Position::Head).await.unwrap());
    assert!(!queue.redrive(&letter, Position::Head).await.unwrap());
    assert_eq!(queue.locate(&entity("a"), &ids).await.unwrap(), [Gone, Queued, Queued, Queued]);
    let grant = lock(&queue, "a").await.unwrap();
    assert_eq!(named(&grant.batch.ids()), [1, 2, 3]);
    assert_eq!(grant.batch.messages[0].payload, item.messages[1].payload);
    queue.update_locked(&[commit(&grant.lease, grant.batch.ids())]).await.remove(0).unwrap();
    assert_eq!(queue.locate(&entity("a"), &ids).await.unwrap(), [Gone; 4]);
    assert_eq!(ok(&queue, many("a", 0..4)).await.admissions, vec![Admission::Duplicate; 4]);
}

#[tokio::test]
async fn nothing_of_a_purged_entity_stays_for_ever() {
    let place = Place::new(&url(Service::Mongo));
    let queue = MongoQueue::connect(&place.url).await.unwrap();
    ok(&queue, many("a", 0..3)).await;
    let grant = lock(&queue, "a").await.unwrap();
    let dead = Commit {
        verdict: Verdict::DeadLetter { error: "bad".to_owned() },
        next: Next::Release,
        ..commit(&grant.lease, vec![])
    };
    queue.update_locked(&[dead]).await.remove(0).unwrap();
    assert_eq!(queue.dead_letters("counter", None, 9).await.unwrap().len(), 1);
    assert!(queue.purge(&entity("a")).await.unwrap());
    let messages = place.outside().await.collection::<Document>("actornot_message");
    let kept = doc! { "expires": { "$not": { "$type": "date" } } };
    assert_eq!(messages.count_documents(doc! {}).await.unwrap(), 2, "the parcel and the letter");
    assert_eq!(messages.count_documents(kept).await.unwrap(), 0);
    assert!(queue.dead_letters("counter", None, 9).await.unwrap().is_empty());
}

/// A sweep looks at a thousand parcels.
#[tokio::test]
async fn messages_whose_poster_died_are_found_behind_the_long_queue_of_another() {
    let place = Place::new(&url(Service::Mongo));
    let queue = MongoQueue::connect(&place.url).await.unwrap();
    for key in ["a", "b", "c"] {
        ok(&queue, post(key, "1")).await;
    }
    let db = place.outside().await;
    let messages = db.collection::<Document>("actornot_message");
    let parcel = messages.find_one(doc! { "q.e": "b" }).await.unwrap().unwrap();
    let more = (0..2_500).map(|n: u32| {
        let mut parcel = parcel.clone();
        parcel.extend(doc! { "_id": ObjectId::new(), "ids": [format!("more{n}")] });
        parcel
    });
    messages.insert_many(more).await.unwrap();
    // Nobody was told of the first and of the last.
    let entities = db.collection::<Document>("actornot_entity");
    entities.delete_many(doc! { "_id.e": { "$in": ["a", "c"] } }).await.unwrap();
    let query = DueQuery { kinds: vec!["counter".to_owned()], limit: 10, after: None };
    let mut found = Vec::new();
    for _ in 0..4 {
        found.extend(queue.due(&query).await.unwrap().entities);
    }
    assert!(found.contains(&entity("a")) && found.contains(&entity("c")), "{found:?}");
}

/// What a process knows of an entity from a moment ago says nothing of what others have posted.
#[tokio::test]
async fn a_small_backlog_is_not_overrun_by_two_processes_in_turns() {
    let place = Place::new(&url(Service::Mongo));
    let queue = MongoQueue::connect(&place.url).await.unwrap();
    let other = MongoQueue::connect(&place.url).await.unwrap();
    let limited = |ids| Enqueue { backlog_limit: 10, ..many("a", ids) };
    ok(&queue, limited(0..1)).await;
    assert_eq!(ok(&other, limited(1..10)).await.admissions, vec![Admission::Accepted; 9]);
    assert_eq!(ok(&queue, limited(10..11)).await.admissions, [Admission::Full]);
}

/// What a process knows of an entity from a moment ago says nothing of what others delay.
#[tokio::test]
async fn what_another_process_delayed_goes_before_what_is_posted_when_it_is_due() {
    let place = Place::new(&url(Service::Mongo));
    let queue = MongoQueue::connect(&place.url).await.unwrap();
    let other = MongoQueue::connect(&place.url).await.unwrap();
    let outside = place.outside().await;
    for key in (0..10).map(|n| format!("k{n}")) {
        ok(&queue, many(&key, [1])).await;
        let mut late = post(&key, "2");
        late.messages[0].delay = Duration::from_millis(1);
        ok(&other, late).await;
        while other.peek(&entity(&key), 9).await.unwrap().len() < 2 {
            outside.run_command(doc! { "ping": 1 }).await.unwrap();
        }
        ok(&queue, many(&key, 3..9)).await;
        let grant = lock(&queue, &key).await.unwrap();
        assert_eq!(named(&grant.batch.ids()), (1..9).collect::<Vec<_>>());
    }
}
