//! What no other database has.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::time::Duration;

use actornot_core::{Admission, Commit, Effect, Envelope, ErrorKind, Inspect, LockableQueue, Updated};
use actornot_mongo::MongoQueue;
use actornot_mongo::mongodb::bson::{Document, doc};
use actornot_testkit::servers::{Service, url};
use common::{Place, commit, entity, lock, message, ok, post, request};

#[tokio::test]
async fn a_standalone_says_what_it_lacks_and_is_durable_all_the_same() {
    let place = Place::new(&url(Service::MongoStandalone));
    let report = MongoQueue::connect(&place.url).await.unwrap().doctor().await.unwrap();
    let set = report.settings.iter().find(|setting| setting.name == "replicaSet").unwrap();
    assert!(set.value.contains("standalone"), "{report:?}");
    assert!(report.is_durable(), "{report:?}");
}

#[tokio::test]
async fn what_is_stored_of_a_user_is_never_read_as_an_expression() {
    let place = Place::new(&url(Service::Mongo));
    let queue = MongoQueue::connect(&place.url).await.unwrap();
    let mut item = post("$fence", "$now");
    item.messages[0].payload = "\"$$ROOT\"".to_owned();
    item.messages[0].headers.insert("$set.a".to_owned(), "$state".to_owned());
    ok(&queue, item.clone()).await;
    let grant = lock(&queue, "$fence").await.unwrap();
    assert_eq!(grant.batch.messages[0].payload, item.messages[0].payload);
    assert_eq!(grant.batch.messages[0].headers, item.messages[0].headers);
    let mut done = commit(&grant.lease, grant.batch.ids());
    done.state.as_mut().unwrap().json = "\"$nonce\"".to_owned();
    let mut send = message("$$NOW");
    send.payload = "\"$payload\"".to_owned();
    done.effects = vec![Effect::Send(Envelope { entity: entity("$e.k"), message: send })];
    queue.update_locked(&[done]).await.remove(0).unwrap();
    let read = queue.read(&[entity("$fence")]).await.unwrap().remove(0).unwrap();
    assert_eq!(read.state.unwrap().json, "\"$nonce\"");
    assert_eq!(queue.peek(&entity("$e.k"), 1).await.unwrap()[0].payload, "\"$payload\"");
}

/// Grants of these entities, and commits of all of them that store this state.
async fn committing(queue: &MongoQueue, keys: &[&str], state: &str) -> Vec<Commit> {
    let mut commits = Vec::new();
    for key in keys {
        ok(queue, post(key, "1")).await;
        let grant = lock(queue, key).await.unwrap();
        let mut done = commit(&grant.lease, grant.batch.ids());
        done.state.as_mut().unwrap().json = state.to_owned();
        commits.push(done);
    }
    commits
}

#[tokio::test]
async fn what_many_commits_store_at_once_is_never_read_as_an_expression() {
    let place = Place::new(&url(Service::Mongo));
    let queue = MongoQueue::connect(&place.url).await.unwrap();
    let keys = ["$fence", "$its.set.state", "$$ROOT", "a\", \"e"];
    let commits = committing(&queue, &keys, "\"$nonce\"").await;
    for updated in queue.update_locked(&commits).await {
        assert_eq!(updated.unwrap(), Updated::Released { next_due: None });
    }
    for read in queue.read(&keys.map(entity)).await.unwrap() {
        assert_eq!(read.unwrap().state.unwrap().json, "\"$nonce\"");
    }
}

#[tokio::test]
async fn a_document_that_would_grow_too_large_fails_alone() {
    let place = Place::new(&url(Service::Mongo));
    let queue = MongoQueue::connect(&place.url).await.unwrap();
    let state = format!("\"{}\"", "x".repeat(1 << 20));
    let commits = committing(&queue, &["a", "b", "c", "d"], &state).await;
    let ballast = doc! { "$set": { "ballast": "x".repeat(0x00f8_0000) } };
    let entities = place.outside().await.collection::<Document>("actornot_entity");
    entities.update_one(doc! { "_id.e": "b" }, ballast).await.unwrap();
    let updated = queue.update_locked(&commits).await;
    let kinds: Vec<_> = updated.into_iter().map(|updated| updated.map_err(|error| error.kind())).collect();
    let released = Ok(Updated::Released { next_due: None });
    let large = Err(ErrorKind::TooLarge { field: "entity", size: 0, limit: 16 << 20 });
    assert_eq!(kinds, [released.clone(), large, released.clone(), released]);
}

#[tokio::test]
async fn a_message_whose_poster_died_before_it_told_anybody_is_found_and_run() {
    let place = Place::new(&url(Service::Mongo));
    let queue = MongoQueue::connect(&place.url).await.unwrap();
    ok(&queue, post("a", "1")).await;
    let db = place.outside().await;
    db.collection::<Document>("actornot_entity").delete_many(doc! {}).await.unwrap();
    let query = actornot_core::DueQuery { kinds: vec!["counter".to_owned()], limit: 10, after: None };
    assert_eq!(queue.due(&query).await.unwrap().entities, [entity("a")]);
    let grant = lock(&queue, "a").await.unwrap();
    let done = queue.update_locked(&[commit(&grant.lease, grant.batch.ids())]).await.remove(0).unwrap();
    assert_eq!(done, Updated::Released { next_due: None::<Duration> });
    assert!(queue.due(&query).await.unwrap().entities.is_empty());
}

/// The next run is granted without a look at the queue, and its commit is made without one.
#[tokio::test]
async fn what_a_commit_settled_and_a_crash_left_stored_is_not_handed_out_again() {
    let place = Place::new(&url(Service::Mongo));
    let queue = MongoQueue::connect(&place.url).await.unwrap();
    let messages = place.outside().await.collection::<Document>("actornot_message");
    ok(&queue, post("a", "1")).await;
    let stored = messages.find_one(doc! { "q.e": "a" }).await.unwrap().unwrap();
    let grant = lock(&queue, "a").await.unwrap();
    queue.update_locked(&[commit(&grant.lease, grant.batch.ids())]).await.remove(0).unwrap();
    let queued = doc! { "q": { "$exists": true } };
    while messages.count_documents(queued.clone()).await.unwrap() > 0 {
        tokio::task::yield_now().await;
    }
    // As it was when the process had committed, and not removed it yet.
    let name = doc! { "_id": stored.get_object_id("_id").unwrap() };
    messages.replace_one(name, stored).await.unwrap();
    for n in 2..100 {
        let mut item = post("a", &n.to_string());
        item.lock = Some(request());
        let grant = ok(&queue, item).await.grant.unwrap();
        assert_eq!(grant.batch.messages.len(), 1);
        assert_eq!(grant.batch.messages[0].id.as_str(), n.to_string());
        let done = queue.update_locked(&[commit(&grant.lease, grant.batch.ids())]).await.remove(0).unwrap();
        assert_eq!(done, Updated::Released { next_due: None::<Duration> });
        assert!(lock(&queue, "a").await.is_none(), "behind {n}");
    }
    while messages.count_documents(queued.clone()).await.unwrap() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_delayed_message_whose_poster_died_is_told_of_when_it_is_posted_again() {
    let place = Place::new(&url(Service::Mongo));
    let queue = MongoQueue::connect(&place.url).await.unwrap();
    let mut item = post("a", "1");
    item.messages[0].delay = Duration::from_secs(60);
    ok(&queue, item.clone()).await;
    place.outside().await.collection::<Document>("actornot_entity").delete_many(doc! {}).await.unwrap();
    let query = actornot_core::DueQuery { kinds: vec!["counter".to_owned()], limit: 10, after: None };
    assert_eq!(queue.due(&query).await.unwrap().next, None);
    assert_eq!(ok(&queue, item).await.admissions, [Admission::Duplicate]);
    assert!(queue.due(&query).await.unwrap().next.is_some());
}

#[tokio::test]
async fn an_entity_that_waits_for_a_delayed_message_which_is_gone_is_not_due_for_ever() {
    let place = Place::new(&url(Service::Mongo));
    let queue = MongoQueue::connect(&place.url).await.unwrap();
    let mut item = post("a", "1");
    item.messages[0].delay = Duration::from_secs(60);
    ok(&queue, item).await;
    let db = place.outside().await;
    db.collection::<Document>("actornot_message").delete_many(doc! {}).await.unwrap();
    let over = doc! { "$currentDate": { "delayed_at": true, "wake_at": true } };
    db.collection::<Document>("actornot_entity").update_one(doc! {}, over).await.unwrap();
    let query = actornot_core::DueQuery { kinds: vec!["counter".to_owned()], limit: 10, after: None };
    assert_eq!(queue.due(&query).await.unwrap().entities, [entity("a")]);
    assert!(lock(&queue, "a").await.is_none());
    assert_eq!(queue.due(&query).await.unwrap(), actornot_core::Due::default());
}

#[tokio::test]
async fn sends_that_a_crash_left_staged_are_relayed_once_by_whoever_looks() {
    let place = Place::new(&url(Service::Mongo));
    let queue = MongoQueue::connect(&place.url).await.unwrap();
    ok(&queue, post("a", "1")).await;
    let db = place.outside().await;
    let sent = doc! { "n": actornot_mongo::mongodb::bson::oid::ObjectId::new(), "e": { "k": "counter", "e": "b" },
    "id": "s", "payload": "1", "headers": [], "keep": 60_000_i64, "delay": 0_i64 };
    let stage = doc! { "$set": { "outbox": [sent] }, "$currentDate": { "wake_at": true } };
    let all = db.collection::<Document>("actornot_entity");
    let query = actornot_core::DueQuery { kinds: vec!["counter".to_owned()], limit: 10, after: None };
    for _ in 0..2 {
        all.update_one(doc! { "_id.e": "a" }, stage.clone()).await.unwrap();
        queue.due(&query).await.unwrap();
        assert_eq!(queue.peek(&entity("b"), 9).await.unwrap().len(), 1);
    }
    assert_eq!(queue.read(&[entity("b")]).await.unwrap().remove(0).unwrap().pending, 1);
}
