//! What can be wrong with a server, and what a caller is told.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::sync::Arc;
use std::time::Duration;

use actornot_core::{Admission, ErrorKind, Inspect, LockableQueue, Retry, TryLock, Updated};
use actornot_mongo::mongodb::bson::spec::BinarySubtype;
use actornot_mongo::mongodb::bson::{Binary, Document, doc};
use actornot_mongo::mongodb::{Client, Database};
use actornot_mongo::{MongoConfig, MongoQueue};
use actornot_testkit::outage::kill_under_load;
use actornot_testkit::servers::{Server, Service, own, own_with, url};
use common::{Forwarder, Place, entity, host, lock, ok, post, request};

async fn database(url: &str) -> Database {
    Client::with_uri_str(url).await.unwrap().database("shop")
}

fn patient(url: &str) -> MongoConfig {
    MongoConfig::new(url).patience(Duration::from_secs(30))
}

#[tokio::test]
async fn a_server_that_is_down_at_start_is_unavailable() {
    let config = MongoConfig::new("mongodb://127.0.0.1:1/db").patience(Duration::from_millis(300));
    let error = MongoQueue::open(config).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Safe));
}

#[tokio::test]
async fn collections_of_a_newer_version_are_refused_with_both_versions() {
    let place = Place::new(&url(Service::Mongo));
    let config = || MongoConfig::new(&place.url);
    let error = MongoQueue::open(config().never_install()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("install"), "{error}");
    let opened =
        tokio::join!(MongoQueue::open(config()), MongoQueue::open(config()), MongoQueue::install(config()));
    assert!(opened.0.is_ok() && opened.1.is_ok() && opened.2.is_ok(), "{opened:?}");
    MongoQueue::open(config().never_install()).await.unwrap();
    let meta = place.outside().await.collection::<Document>("actornot_meta");
    meta.update_one(doc! { "_id": "layout" }, doc! { "$set": { "version": 7_i64 } }).await.unwrap();
    MongoQueue::open(config()).await.unwrap(); // This version may still be used.
    meta.update_one(doc! { "_id": "layout" }, doc! { "$set": { "oldest": 7_i64 } }).await.unwrap();
    let error = MongoQueue::open(config()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains('7') && error.to_string().contains('1'), "{error}");
}

#[tokio::test]
async fn a_server_that_falls_silent_leaves_the_outcome_unknown() {
    let server = url(Service::MongoStandalone);
    let place = Place::new(&server);
    let forwarder = Forwarder::start(host(&server).to_owned());
    let through = format!("mongodb://127.0.0.1:{}/{}?directConnection=true", forwarder.port, place.database);
    let queue = MongoQueue::open(MongoConfig::new(through)).await.unwrap();
    let held = forwarder.hold();
    let dropped = tokio::time::timeout(Duration::from_millis(50), queue.enqueue(&[post("a", "1")])).await;
    assert!(dropped.is_err());
    drop(held);
    // No later call is answered with what the dropped one asked for.
    ok(&queue, post("a", "1")).await;
    assert_eq!(lock(&queue, "a").await.unwrap().batch.messages.len(), 1);
}

async fn killed(service: Service) {
    let mut server = own(service);
    let queue = MongoQueue::open(patient(server.url())).await.unwrap();
    let kill = move || {
        server.kill();
        server.restart();
        server
    };
    let (tell, told) = std::sync::mpsc::channel();
    kill_under_load(Arc::new(queue), move || tell.send(kill()).unwrap()).await;
    drop(told.recv().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_set_that_is_killed_under_load_loses_nothing_that_was_answered() {
    killed(Service::Mongo).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_that_is_killed_under_load_loses_nothing_that_was_answered() {
    killed(Service::MongoStandalone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_killed_under_load_is_replaced_and_nothing_that_was_answered_is_lost() {
    let mut server = own(Service::MongoThree);
    let queue = MongoQueue::open(patient(server.url())).await.unwrap();
    let number = primary(&server).await;
    let (tell, told) = std::sync::mpsc::channel();
    let kill = move || {
        server.kill_member(number);
        tell.send(server).unwrap();
    };
    kill_under_load(Arc::new(queue), kill).await;
    drop(told.recv().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_steps_down_under_load_is_replaced_and_nothing_that_was_answered_is_lost() {
    let server = own(Service::MongoThree);
    let queue = MongoQueue::open(patient(server.url())).await.unwrap();
    let url = server.url().to_owned();
    let step_down = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(Client::with_uri_str(&url)).unwrap();
        // It closes the connection it was told on.
        let told = doc! { "replSetStepDown": 30, "secondaryCatchUpPeriodSecs": 5 };
        let _ = runtime.block_on(client.database("admin").run_command(told).into_future());
    };
    kill_under_load(Arc::new(queue), step_down).await;
}

/// The primary of a set of three, as its number among the members.
async fn primary(server: &Server) -> usize {
    let client = Client::with_uri_str(server.url()).await.unwrap();
    let hello = client.database("admin").run_command(doc! { "hello": 1 }).await.unwrap();
    let primary = hello.get_str("primary").unwrap().rsplit(':').next().unwrap().parse::<u16>().unwrap();
    server.ports().iter().position(|port| *port == primary).unwrap()
}

/// The primary of a set of three, whose followers learn of nothing from now on; and they.
async fn cut_off(server: &mut Server) -> (usize, Vec<usize>) {
    let client = Client::with_uri_str(server.url()).await.unwrap();
    let other = client.database("other");
    let mut noise = 1_u64;
    let mut next = || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        noise.to_be_bytes()
    };
    let mut filling = |size: usize| {
        let bytes = (0..size).flat_map(|_| next()).collect();
        let bytes = Binary { subtype: BinarySubtype::Generic, bytes };
        doc! { "insert": "filling", "documents": [{ "bytes": bytes }], "writeConcern": { "w": 1 } }
    };
    // A primary that is alone steps down; on a busy machine two seconds are too few for what it is sent until then.
    let admin = client.database("admin");
    let found = admin.run_command(doc! { "replSetGetConfig": 1 }).await.unwrap();
    let mut config = found.get_document("config").unwrap().clone();
    config.get_document_mut("settings").unwrap().insert("electionTimeoutMillis", 10_000);
    config.insert("version", config.get_i32("version").unwrap() + 1);
    admin.run_command(doc! { "replSetReconfig": config }).await.unwrap();
    // All of it is at hand before the others stand still.
    let fillings: Vec<Document> =
        [1, 1 << 20, 1 << 20, 1 << 20, 1 << 20].into_iter().map(&mut filling).collect();
    let mut fillings = fillings.into_iter();
    other.run_command(fillings.next().unwrap()).await.unwrap();
    let primary = primary(server).await;
    let others: Vec<usize> = (0..3).filter(|number| *number != primary).collect();
    others.iter().for_each(|number| server.freeze_member(*number));
    // Nobody else learns of it: what goes to the others is more than a socket holds, also packed.
    for filling in fillings {
        other.run_command(filling).await.unwrap();
    }
    (primary, others)
}

/// What only the primary knew is lost, and the others elect another.
async fn kill(mut server: Server, primary: usize, others: Vec<usize>) -> Server {
    tokio::task::spawn_blocking(move || {
        server.kill_member(primary);
        others.iter().for_each(|number| server.thaw_member(*number));
        server
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_is_lost_with_its_primary_is_another_s_and_its_commit_is_refused() {
    let mut server = own(Service::MongoThree);
    let queue = MongoQueue::open(patient(server.url())).await.unwrap();
    ok(&queue, post("a", "1")).await;
    let (primary, others) = cut_off(&mut server).await;
    let lost = lock(&queue, "a").await.unwrap();
    let server = kill(server, primary, others).await;
    let commit = common::commit(&lost.lease, lost.batch.ids());
    for _ in 0..2 {
        let updated = loop {
            match queue.update_locked(std::slice::from_ref(&commit)).await.remove(0) {
                Ok(updated) => break updated,
                Err(error) => assert!(error.retry() != Retry::Never, "{error:?}"),
            }
        };
        assert_eq!(updated, Updated::LockLost);
        if let Some(grant) = lock(&queue, "a").await {
            assert_eq!((grant.batch.messages.len(), grant.batch.deliveries), (1, 1));
        }
    }
    drop(server);
}

/// The message was stored, and its entity not told yet, when the primary died; the telling succeeds on another.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_whose_message_is_lost_with_its_primary_is_not_answered_as_accepted() {
    let mut server = own(Service::MongoThree);
    let place = common::with_database(server.url(), "shop");
    let queue = MongoQueue::open(patient(&place)).await.unwrap();
    ok(&queue, post("a", "1")).await;
    let outside = database(&place).await;
    let messages = outside.collection::<Document>("actornot_message");
    let entities = outside.collection::<Document>("actornot_entity");
    let (primary, others) = cut_off(&mut server).await;
    let item = [post("b", "1")];
    let mut posting = queue.enqueue(&item);
    // One step of it, time for the server, a look at what has come of it.
    while messages.count_documents(doc! { "q.e": "b" }).await.unwrap() == 0 {
        tokio::select! {
            biased;
            posted = &mut posting => panic!("nobody held it up: {posted:?}"),
            () = std::future::ready(()) => {}
        }
        for _ in 0..20 {
            outside.run_command(doc! { "ping": 1 }).await.unwrap();
        }
    }
    assert_eq!(entities.count_documents(doc! { "_id.e": "b" }).await.unwrap(), 0, "it went on too soon");
    let server = kill(server, primary, others).await;
    // The process knows the new primary before it goes on.
    let ask = [TryLock { entity: entity("c"), request: request() }];
    while queue.try_lock(&ask).await.remove(0).is_err() {}
    let posted = posting.await.remove(0);
    assert_eq!(posted.map_err(|error| error.kind()), Err(ErrorKind::UnknownOutcome));
    let again = loop {
        match queue.enqueue(&item).await.remove(0) {
            Ok(enqueued) => break enqueued,
            Err(error) => assert!(error.retry() != Retry::Never, "{error:?}"),
        }
    };
    assert_eq!(again.admissions, [Admission::Accepted]);
    assert_eq!(lock(&queue, "b").await.unwrap().batch.messages.len(), 1);
    drop(server);
}

#[tokio::test]
async fn a_run_role_needs_no_more_than_the_four_rights() {
    let server = own_with(Service::Mongo, &[("auth", "")]);
    let root = server.url().to_owned();
    let (address, port) = (root.rsplit('@').next().unwrap().to_owned(), server.ports()[0]);
    assert!(address.contains(&port.to_string()), "{address}");
    let with_database = |url: &str| common::with_database(url.split("/?").next().unwrap(), "shop");
    let root = format!("{}authSource=admin", with_database(&root));
    MongoQueue::install(patient(&root)).await.unwrap();
    let shop = database(&root).await;
    let privileges: Vec<_> = ["entity", "message", "meta"]
        .into_iter()
        .map(|part| {
            doc! { "resource": { "db": "shop", "collection": format!("actornot_{part}") },
            "actions": ["find", "insert", "update", "remove"] }
        })
        .collect();
    shop.run_command(doc! { "createRole": "actornot_run", "privileges": privileges, "roles": [] })
        .await
        .unwrap();
    let user =
        doc! { "createUser": "run", "pwd": "sesame", "roles": [{ "role": "actornot_run", "db": "shop" }] };
    shop.run_command(user).await.unwrap();
    let of_run = |password: &str| format!("mongodb://run:{password}@127.0.0.1:{port}/shop");
    let queue = MongoQueue::open(patient(&of_run("sesame")).never_install()).await.unwrap();
    ok(&queue, post("a", "1")).await;
    let grant = lock(&queue, "a").await.unwrap();
    let done = queue.update_locked(&[common::commit(&grant.lease, grant.batch.ids())]).await.remove(0);
    assert!(done.is_ok(), "{done:?}");
    assert!(queue.doctor().await.unwrap().is_durable());

    // The server repeats the command that it refused; nobody else does.
    shop.run_command(doc! { "revokePrivilegesFromRole": "actornot_run", "privileges": [
    { "resource": { "db": "shop", "collection": "actornot_message" }, "actions": ["insert"] }] })
        .await
        .unwrap();
    let error = queue.enqueue(&[post("a", "2")]).await.remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AccessDenied, "{error:?}");
    assert!(!format!("{error} {error:?}").contains("{\"id\""), "{error:?}");

    let error = MongoQueue::open(patient(&of_run("mellon"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AccessDenied, "{error:?}");
    assert!(!format!("{error} {error:?}").contains("mellon"));
    let error = MongoQueue::open(patient(&of_run("sesame")).namespace("other")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AccessDenied, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_for_longer_than_the_patience_is_an_error_and_the_handle_goes_on() {
    let mut server = own(Service::MongoStandalone);
    let config = MongoConfig::new(server.url()).patience(Duration::from_secs(1));
    let queue = MongoQueue::open(config).await.unwrap();
    ok(&queue, post("a", "1")).await;
    server.kill();
    for _ in 0..2 {
        let error = queue.enqueue(&[post("a", "2")]).await.remove(0).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::UnknownOutcome), "{error:?}");
    }
    let error = queue.read(&[common::entity("a")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let _server = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    })
    .await
    .unwrap();
    ok(&queue, post("a", "2")).await;
    assert_eq!(lock(&queue, "a").await.unwrap().batch.messages.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_whose_members_acknowledge_before_their_disks_is_refused_unless_allowed_by_name() {
    let server = own(Service::Mongo);
    let setting = "writeConcernMajorityJournalDefault";
    let admin = Client::with_uri_str(server.url()).await.unwrap().database("admin");
    let now = admin.run_command(doc! { "replSetGetConfig": 1 }).await.unwrap();
    let mut config = now.get_document("config").unwrap().clone();
    config.insert("version", config.get_i32("version").unwrap() + 1);
    config.insert(setting, false);
    admin.run_command(doc! { "replSetReconfig": config }).await.unwrap();
    let error = MongoQueue::open(patient(server.url())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
    assert!(error.to_string().contains(&format!("{setting} is false")), "{error}");
    assert!(error.to_string().contains("allow_unsafe"), "{error}");
    let queue = MongoQueue::open(patient(server.url()).allow_unsafe(setting)).await.unwrap();
    ok(&queue, post("a", "1")).await;
    assert!(!queue.doctor().await.unwrap().is_durable());
    let error = MongoQueue::open(patient(server.url()).allow_unsafe("fsync")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Invalid { .. }), "{error:?}");
}
