//! The suite that every adapter passes, over several instances on one database.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use actornot_core::{EntityId, LockableQueue, MessageId};
use actornot_mongo::mongodb::bson::{Bson, Document, Timestamp, doc};
use actornot_mongo::{MongoConfig, MongoQueue};
use actornot_testkit::Backend;
use actornot_testkit::crash::Shared;
use actornot_testkit::servers::{Service, url};
use async_trait::async_trait;
use common::{Forwarder, Place, host};

/// All its connections go through a forwarder, which can be held.
struct MongoBackend {
    place: Place,
    forwarder: Forwarder,
    /// Whether instances are of the role that runs, in a place that another installed.
    run_role: bool,
}

impl MongoBackend {
    fn new(service: Service) -> Self {
        let server = url(service);
        Self {
            place: Place::new(&server),
            forwarder: Forwarder::start(host(&server).to_owned()),
            run_role: false,
        }
    }

    fn through(&self) -> String {
        let (user, source) = if self.run_role { ("run:sesame@", "&authSource=admin") } else { ("", "") };
        format!(
            "mongodb://{user}127.0.0.1:{}/{}?directConnection=true{source}",
            self.forwarder.port, self.place.database
        )
    }
}

fn entity_id(entity: &EntityId) -> Document {
    doc! { "k": entity.kind(), "e": entity.key() }
}

#[async_trait]
impl Backend for MongoBackend {
    async fn open(&self) -> Arc<dyn LockableQueue> {
        let config = MongoConfig::new(self.through()).connections(32);
        let config = if self.run_role { config.never_install() } else { config };
        Arc::new(MongoQueue::open(config).await.unwrap())
    }

    async fn elapse(&self, time: Duration) {
        let db = self.place.outside().await;
        let ms = i64::try_from(time.as_millis()).unwrap();
        let back = |field: &str| {
            doc! { "$cond": [{ "$gt": [format!("${field}"), null] },
            { "$subtract": [format!("${field}"), ms] }, "$$REMOVE"] }
        };
        let entities = vec![
            doc! { "$set": { "deadline": back("deadline"), "since": back("since"), "delayed_at": back("delayed_at"),
            "wake_at": back("wake_at") } },
            doc! { "$set": { "wait": { "$cond": [{ "$gt": ["$wait", null] },
            { "why": "$wait.why", "until": { "$subtract": ["$wait.until", ms] } }, "$$REMOVE"] } } },
        ];
        let messages = vec![doc! { "$set": {
        "at": back("at"), "due": back("due"), "over": back("over"), "expires": back("expires") } }];
        for (collection, stages) in [("actornot_entity", entities), ("actornot_message", messages)] {
            let command = doc! { "update": collection, "updates": [{ "q": {}, "multi": true, "u": stages }],
            "writeConcern": { "w": "majority" } };
            let reply = db.run_command(command).await.unwrap();
            assert!(!reply.contains_key("writeErrors"), "{reply}");
        }
        // The sequence is a moment too. All move alike, so their order stays.
        let seconds = u32::try_from(time.as_millis().div_ceil(1000)).unwrap();
        let mut rows = db
            .collection::<Document>("actornot_message")
            .find(doc! { "seq": { "$exists": true } })
            .projection(doc! { "seq": 1 })
            .await
            .unwrap();
        let mut updates = Vec::new();
        while rows.advance().await.unwrap() {
            let row = rows.deserialize_current().unwrap();
            let seq = row.get_timestamp("seq").unwrap();
            let earlier = Timestamp { time: seq.time - seconds, increment: seq.increment };
            updates.push(doc! { "q": { "_id": row.get("_id").cloned().unwrap_or(Bson::Null), "seq": seq },
            "u": { "$set": { "seq": earlier } } });
        }
        if !updates.is_empty() {
            db.run_command(doc! { "update": "actornot_message", "updates": updates,
            "writeConcern": { "w": "majority" } })
                .await
                .unwrap();
        }
    }

    async fn corrupt_payload(&self, entity: &EntityId, id: &MessageId, payload: &str) {
        let db = self.place.outside().await;
        let filter = doc! { "e": entity_id(entity), "ids": id.as_str() };
        let parcel =
            db.collection::<Document>("actornot_message").find_one(filter.clone()).await.unwrap().unwrap();
        let at = parcel
            .get_array("ids")
            .unwrap()
            .iter()
            .position(|one| one.as_str() == Some(id.as_str()))
            .unwrap();
        db.run_command(doc! { "update": "actornot_message", "writeConcern": { "w": "majority" },
        "updates": [{ "q": filter, "u": { "$set": { format!("payloads.{at}"): payload } } }] })
            .await
            .unwrap();
    }

    async fn corrupt_state(&self, entity: &EntityId, json: &str) {
        let db = self.place.outside().await;
        db.run_command(doc! { "update": "actornot_entity", "writeConcern": { "w": "majority" },
        "updates": [{ "q": { "_id": entity_id(entity) }, "u": { "$set": { "state": json } } }] })
            .await
            .unwrap();
    }

    async fn corrupt_key(&self, entity: &EntityId, key: &str) {
        let db = self.place.outside().await;
        let other = doc! { "k": entity.kind(), "e": key };
        let filter = doc! { "_id": entity_id(entity) };
        let mut row =
            db.collection::<Document>("actornot_entity").find_one_and_delete(filter).await.unwrap().unwrap();
        row.insert("_id", &other);
        db.run_command(doc! { "insert": "actornot_entity", "documents": [row],
        "writeConcern": { "w": "majority" } })
            .await
            .unwrap();
        db.run_command(doc! { "update": "actornot_message", "writeConcern": { "w": "majority" },
        "updates": [{ "q": { "q": entity_id(entity) }, "u": { "$set": { "q": other } }, "multi": true }] })
            .await
            .unwrap();
    }

    async fn freeze(&self) -> Box<dyn Any + Send> {
        Box::new(self.forwarder.hold())
    }
}

#[async_trait]
impl Shared for MongoBackend {
    fn address(&self) -> String {
        self.through()
    }

    async fn attach(address: &str) -> Arc<dyn LockableQueue> {
        Arc::new(MongoQueue::connect(address).await.unwrap())
    }
}

async fn on_replica_set() -> MongoBackend {
    MongoBackend::new(Service::Mongo)
}

async fn on_standalone() -> MongoBackend {
    MongoBackend::new(Service::MongoStandalone)
}

/// A role with four rights on three collections, in whatever database.
async fn on_run_role() -> MongoBackend {
    let mut backend = MongoBackend::new(Service::MongoAuth);
    backend.run_role = true;
    let outside = backend.place.outside().await;
    let admin = outside.client().database("admin");
    let rights = |part| {
        doc! { "resource": { "db": "", "collection": format!("actornot_{part}") },
        "actions": ["find", "insert", "update", "remove"] }
    };
    let privileges: Vec<Document> = ["entity", "message", "meta"].into_iter().map(rights).collect();
    // Another test may have made them.
    let _ =
        admin.run_command(doc! { "createRole": "actornot_run", "privileges": privileges, "roles": [] }).await;
    let _ = admin.run_command(doc! { "createUser": "run", "pwd": "sesame", "roles": ["actornot_run"] }).await;
    MongoQueue::install(MongoConfig::new(&backend.place.url)).await.unwrap();
    backend
}

mod replica_set {
    actornot_testkit::conformance!(real crate::on_replica_set);
}
mod standalone {
    actornot_testkit::conformance!(real crate::on_standalone);
}
mod run_role {
    actornot_testkit::conformance!(real crate::on_run_role);
}
actornot_testkit::crashes!(crate::on_replica_set, crate::MongoBackend);
