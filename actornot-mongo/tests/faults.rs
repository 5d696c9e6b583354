//! What can be wrong with a server, and what a caller is told.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use actornot_core::{ErrorKind, Inspect, LockableQueue, Retry};
use actornot_mongo::mongodb::bson::doc;
use actornot_mongo::mongodb::{Client, Database};
use actornot_mongo::{MongoConfig, MongoQueue};
use common::{Forwarder, Place, host, lock, ok, post, url};
use tempfile::TempDir;

/// A server of our own, that can be killed.
struct Server {
    dir: TempDir,
    port: u16,
    arguments: Vec<&'static str>,
    child: Child,
}

impl Server {
    fn start(arguments: &[&'static str]) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = TempDir::new().unwrap();
        let child = Self::spawn(&dir, free, arguments);
        Self { dir, port: free, arguments: arguments.to_vec(), child }
    }

    fn spawn(dir: &TempDir, port: u16, arguments: &[&str]) -> Child {
        let program = std::env::var("ACTORNOT_MONGOD").unwrap_or_else(|_| "mongod".to_owned());
        let mut command = Command::new(&program);
        command.arg("--dbpath").arg(dir.path()).args(["--bind_ip", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--wiredTigerCacheSizeGB", "0.25"]).args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap_or_else(|error| panic!("{program} (ACTORNOT_MONGOD): {error}"))
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn restart(&mut self) {
        self.kill();
        self.child = Self::spawn(&self.dir, self.port, &self.arguments);
    }

    fn url(&self, user: &str) -> String {
        format!("mongodb://{user}127.0.0.1:{}/shop?authSource=admin", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

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
    let place = Place::new(&url("ACTORNOT_MONGO_URL"));
    let config = || MongoConfig::new(&place.url);
    let error = MongoQueue::open(config().never_install()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("install"), "{error}");
    let opened =
        tokio::join!(MongoQueue::open(config()), MongoQueue::open(config()), MongoQueue::install(config()));
    assert!(opened.0.is_ok() && opened.1.is_ok() && opened.2.is_ok(), "{opened:?}");
    MongoQueue::open(config().never_install()).await.unwrap();
    let meta = place.outside().await.collection::<actornot_mongo::mongodb::bson::Document>("actornot_meta");
    meta.update_one(doc! { "_id": "layout" }, doc! { "$set": { "version": 7_i64 } }).await.unwrap();
    let error = MongoQueue::open(config()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains('7') && error.to_string().contains('1'), "{error}");
}

#[tokio::test]
async fn a_server_that_falls_silent_leaves_the_outcome_unknown() {
    let server = url("ACTORNOT_MONGO_STANDALONE_URL");
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

#[tokio::test]
async fn what_was_accepted_survives_a_killed_server_with_the_same_handle() {
    let mut server = Server::start(&[]);
    let queue = MongoQueue::open(patient(&server.url(""))).await.unwrap();
    let (mut accepted, mut failed) = (0_u64, 0);
    for n in 0..60 {
        if n == 30 {
            server.restart();
        }
        match queue.enqueue(&[post("a", &format!("{n}"))]).await.remove(0) {
            Ok(_) => accepted += 1,
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::UnknownOutcome | ErrorKind::Unavailable),
                    "{error:?}"
                );
                failed += 1;
            }
        }
    }
    assert!(accepted >= 40, "{accepted} accepted, {failed} failed");
    let stored = queue.peek(&common::entity("a"), 100).await.unwrap().len() as u64;
    assert!(stored >= accepted, "{stored} of {accepted}");
}

#[tokio::test]
async fn a_run_role_needs_no_more_than_the_four_rights() {
    let server = Server::start(&["--auth"]);
    let admin = || async {
        let options = format!("mongodb://127.0.0.1:{}/?serverSelectionTimeoutMS=30000", server.port);
        Client::with_uri_str(&options).await.unwrap().database("admin")
    };
    // The first user of a server is made without credentials, from the same machine.
    admin().await.run_command(doc! { "createUser": "root", "pwd": "open", "roles": ["root"] }).await.unwrap();
    let root = server.url("root:open@");
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
    let of_run = |password: &str| format!("mongodb://run:{password}@127.0.0.1:{}/shop", server.port);
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
