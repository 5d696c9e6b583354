//! Servers, settings and rights that get in the way.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actornot_core::{Admission, Error, ErrorKind, Inspect, LockableQueue, Retry};
use actornot_postgres::{PostgresConfig, PostgresQueue};
use actornot_testkit::servers::{self, Service};

use crate::common::*;

async fn refused(config: PostgresConfig) -> Error {
    PostgresQueue::open(config).await.map(|_| ()).unwrap_err()
}

/// A role that is dropped with it.
struct Role(String);

impl Role {
    async fn new(settings: &str) -> Self {
        let name = fresh("r");
        sql(
            &mut outside().await,
            format!("CREATE ROLE {name} LOGIN SUPERUSER; {}", settings.replace("{r}", &name)),
        )
        .await;
        Self(name)
    }

    fn config(&self, namespace: &Namespace) -> PostgresConfig {
        PostgresConfig::new(format!("{}?user={}", server(), self.0)).namespace(&namespace.0)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        detached(format!("REASSIGN OWNED BY {0} TO CURRENT_USER; DROP OWNED BY {0}; DROP ROLE {0}", self.0));
    }
}

#[tokio::test]
async fn wrong_credentials_are_denied_and_not_repeated() {
    let own = servers::own(Service::Postgres);
    let url = own.url().replace("postgres@", "locked:hunter2@");
    let config = PostgresConfig::new(&url);
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
    let error = refused(config).await;
    assert_eq!((error.kind(), error.retry()), (ErrorKind::AccessDenied, Retry::Never), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn an_unknown_database_is_told_by_name() {
    let url = server().rsplit_once('/').unwrap().0.to_owned() + "/nowhere";
    let error = refused(PostgresConfig::new(url)).await;
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    assert!(error.to_string().contains("/nowhere: there is no such database"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_down_is_unavailable_within_the_patience() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = PostgresConfig::new(format!("postgres://me:hunter2@127.0.0.1:{port}/test"));
    let began = Instant::now();
    let error = refused(config.patience(Duration::from_millis(300))).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Safe), "{error}");
    assert!(error.to_string().starts_with(&format!("127.0.0.1:{port}/test: ")), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn a_server_that_takes_a_connection_and_says_nothing_is_unavailable() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://me@{}/test", silent.local_addr().unwrap());
    let error = refused(PostgresConfig::new(url).patience(Duration::from_millis(200))).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn a_queue_works_again_when_its_server_is_back() {
    let mut own = servers::own(Service::Postgres);
    let config = PostgresConfig::new(own.url()).patience(Duration::from_millis(300));
    let queue = PostgresQueue::open(config).await.unwrap();
    let mut heartbeat = queue.heartbeat().await.unwrap();
    let mut item = post("a", "1");
    item.lock = Some(request());
    let grant = ok(&queue, item).await.grant.unwrap();
    own.kill();
    for n in 0..3 {
        let error = queue.enqueue(&[post("a", &format!("down{n}"))]).await.remove(0).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::UnknownOutcome), "{error}");
    }
    let error = heartbeat.extend_lock(std::slice::from_ref(&grant.lease)).await.remove(0).unwrap_err();
    assert_ne!(error.retry(), Retry::Never, "{error}");
    own.restart();
    let mut tries = 0;
    while let Err(error) = queue.enqueue(&[post("a", "2")]).await.remove(0) {
        assert_ne!(error.retry(), Retry::Never, "{error}");
        tries += 1;
        assert!(tries < 100, "{error}");
    }
    while let Err(error) = heartbeat.extend_lock(std::slice::from_ref(&grant.lease)).await.remove(0) {
        assert_ne!(error.retry(), Retry::Never, "{error}");
    }
    let found = queue.peek(&entity("a"), 9).await.unwrap();
    assert!(found.len() >= 2 && found[0].id.as_str() == "1", "{found:?}");
}

/// Each post whose answer was Ok is in exactly one state once everything has run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_the_middle_of_5000_posts_loses_none_that_was_accepted() {
    let own = Arc::new(Mutex::new(servers::own(Service::Postgres)));
    let queue = PostgresQueue::connect(own.lock().unwrap().url()).await.unwrap();
    let killed = own.clone();
    actornot_testkit::outage::kill_under_load(Arc::new(queue), move || {
        let mut own = killed.lock().unwrap();
        own.kill();
        own.restart();
    })
    .await;
}

#[tokio::test]
async fn a_newer_installation_is_used_or_refused_as_it_says_and_then_both_versions_are_named() {
    let namespace = Namespace::new();
    let open = namespace.open().await;
    sql(&mut outside().await, format!("UPDATE {}.meta SET version = 7", namespace.0)).await;
    for config in [namespace.config(), namespace.config().never_install()] {
        let queue = PostgresQueue::open(config).await.unwrap();
        ok(&queue, post("a", "this version may still be used")).await;
    }
    sql(&mut outside().await, format!("UPDATE {}.meta SET oldest = 7", namespace.0)).await;
    let error = refused(namespace.config()).await;
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    assert!(error.to_string().contains("version 7") && error.to_string().contains("version 1"), "{error}");
    assert_eq!(ok(&open, post("a", "1")).await.admissions, [Admission::Accepted]);
}

#[tokio::test]
async fn what_may_not_install_says_what_is_missing() {
    let namespace = Namespace::new();
    let error = refused(namespace.config().never_install()).await;
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    assert!(error.to_string().contains("run PostgresQueue::install"), "{error}");
    PostgresQueue::install(namespace.config()).await.unwrap();
    PostgresQueue::open(namespace.config().never_install()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_install_at_once() {
    let namespace = Arc::new(Namespace::new());
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let namespace = namespace.clone();
        all.spawn(async move { drop(namespace.open().await) });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_setting_that_voids_durability_is_refused_and_accepted_by_its_name() {
    let namespace = Namespace::new();
    let role = Role::new("ALTER ROLE {r} SET synchronous_commit = off").await;
    let error = refused(role.config(&namespace)).await;
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    let text = error.to_string();
    assert!(
        text.contains("synchronous_commit is off, which voids G1: set synchronous_commit = on"),
        "{text}"
    );
    assert!(text.contains("PostgresConfig::allow_unsafe(\"synchronous_commit\")"), "{text}");
    let config = role.config(&namespace).allow_unsafe("synchronous_commit");
    let queue = PostgresQueue::open(config).await.unwrap();
    assert!(!queue.doctor().await.unwrap().is_durable());
    assert!(namespace.open().await.doctor().await.unwrap().is_durable());
    let error = refused(namespace.config().allow_unsafe("sync")).await;
    assert_eq!(error.kind(), ErrorKind::Invalid { field: "allow_unsafe" }, "{error}");
}

#[tokio::test]
async fn a_role_that_wants_another_isolation_gets_read_committed() {
    let namespace = Namespace::new();
    let role = Role::new("ALTER ROLE {r} SET default_transaction_isolation = serializable").await;
    for pooler in [false, true] {
        let queue = PostgresQueue::open(role.config(&namespace).transaction_pooler(pooler)).await.unwrap();
        ok(&queue, post("a", &pooler.to_string())).await;
        assert_eq!(lock(&queue, "a").await.is_some(), !pooler, "held by the first");
    }
}

#[tokio::test]
async fn a_role_that_may_only_read_is_told_so() {
    let namespace = Namespace::new();
    drop(namespace.open().await);
    let role = Role::new("ALTER ROLE {r} SET default_transaction_read_only = on").await;
    let queue = PostgresQueue::open(role.config(&namespace)).await.unwrap();
    let error = queue.enqueue(&[post("a", "1")]).await.remove(0).unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::ReadOnly, Retry::Never), "{error}");
    let role = Role::new("ALTER ROLE {r} NOSUPERUSER").await;
    let error = refused(role.config(&namespace)).await;
    assert_eq!((error.kind(), error.retry()), (ErrorKind::AccessDenied, Retry::Never), "{error}");
}

#[tokio::test]
async fn a_lock_that_is_held_for_too_long_is_unavailable_and_then_over() {
    for way in ["patience", "statement_timeout", "pooler"] {
        let namespace = Namespace::new();
        let role = Role::new("ALTER ROLE {r} SET statement_timeout = '300ms'").await;
        let short = Duration::from_millis(300);
        let queue = PostgresQueue::open(match way {
            "patience" => namespace.config().patience(short),
            "pooler" => PostgresConfig::new(pooler())
                .namespace(&namespace.0)
                .transaction_pooler(true)
                .patience(short),
            _ => role.config(&namespace),
        })
        .await
        .unwrap();
        let mut other = outside().await;
        sql(&mut other, format!("BEGIN; LOCK TABLE {}.entity IN EXCLUSIVE MODE", namespace.0)).await;
        let error = queue.enqueue(&[post("a", "1")]).await.remove(0).unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Safe), "{way}: {error}");
        assert_eq!(queue.read(&[entity("a")]).await.unwrap(), [None], "readers wait for nobody");
        sql(&mut other, "ROLLBACK").await;
        assert_eq!(ok(&queue, post("a", "1")).await.admissions, [Admission::Accepted], "{way}");
    }
}
