//! Which URLs name a database, and which are refused.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use actornot_core::ErrorKind;
use actornot_postgres::{PostgresConfig, PostgresQueue};
use actornot_testkit::log::Log;
use actornot_testkit::outage::errors_of_an_outage;
use actornot_testkit::servers::{Service, own};

use crate::common::*;

#[tokio::test]
async fn what_is_no_postgres_url_is_refused_without_repeating_it() {
    for (url, why) in [
        (
            "mysql://me:secret@host/db",
            "url has the scheme mysql; this adapter opens postgres://user@host/database",
        ),
        ("secret", "url has no scheme; write for example postgres://user@host/database"),
        ("", "url has no scheme; write for example postgres://user@host/database"),
        (
            "secret word://host",
            "url has the scheme that is none; this adapter opens postgres://user@host/database",
        ),
        ("postgres://me@host/db?sslmod=secret", "url has the unknown parameter sslmod"),
        ("postgres://me@host/db?se%63ret", "url has the unknown parameter (unreadable)"),
        ("postgres://me:secret@host:port/db", "url does not parse"),
        ("postgres://me@host/db?sslmode=secret", "url does not parse"),
        // Read as a host `me`, a port 1234, and the rest as a database, a query or a fragment.
        ("postgres://me:1234/secret@host/db", "url does not parse"),
        ("postgres://me:1234/se@cret@host/db", "url does not parse"),
        ("postgres://me:1234#secret@host/db", "url does not parse"),
        ("postgres://me:1234?secret@host/db", "url has the unknown parameter (unreadable)"),
    ] {
        let error = PostgresQueue::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid { field: "url" }, "{error}");
        assert!(error.to_string().starts_with(why), "{error}");
        assert!(!format!("{error:?} {:?}", PostgresConfig::new(url)).contains("secret"), "{error:?}");
    }
}

#[tokio::test]
async fn both_schemes_are_taken() {
    let namespace = Namespace::new();
    let (_, rest) = server().split_once("://").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    for scheme in ["postgres", "postgresql"] {
        let config = PostgresConfig::new(format!("{scheme}://{rest}")).namespace(&namespace.0);
        let queue = PostgresQueue::open(config).await.unwrap();
        ok(&queue, post("a", scheme)).await;
    }
}

#[tokio::test]
async fn bad_values_are_refused_by_name() {
    let config = || PostgresConfig::new(server());
    for (config, field) in [
        (config().namespace("Upper"), "namespace"),
        (config().namespace(""), "namespace"),
        (config().namespace("a\"; drop"), "namespace"),
        (config().namespace("pg_mine"), "namespace"),
        (config().namespace("a".repeat(32)), "namespace"),
        (config().patience(std::time::Duration::ZERO), "patience"),
        (config().patience(std::time::Duration::from_secs(3601)), "patience"),
        (config().allow_unsafe("full_page"), "allow_unsafe"),
    ] {
        let error = PostgresQueue::open(config).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Invalid { field: found } if found == field), "{error}");
    }
}

#[tokio::test]
async fn no_password_and_no_payload_is_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_env_filter("trace").with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    // Drivers may have nothing to say, and then this alone shows that it would have been kept.
    tracing::trace!("the test begins");
    let namespace = Namespace::new();
    let url = server().replace("postgres@", "postgres:hunter2@");
    let queue = PostgresQueue::open(PostgresConfig::new(url).namespace(&namespace.0)).await.unwrap();
    let mut item = post("a", "1");
    item.messages[0].payload = "\"classified\"".into();
    ok(&queue, item.clone()).await;
    // An id that the server refuses: its answer holds what was bound.
    item.messages[0].payload = "classified\0".into();
    item.messages[0].id = actornot_core::MessageId::new("2").unwrap();
    let error = actornot_core::LockableQueue::enqueue(&queue, &[item]).await.remove(0).unwrap_err();
    let log = log.text();
    let all = format!("{log} {error} {error:?} {queue:?}");
    assert!(!all.contains("hunter2") && !all.contains("classified"), "{all}");
}

/// On the paths that do log: a commit, a sweep and reconnects that fail.
#[tokio::test]
async fn an_outage_tells_no_password_and_no_payload() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_env_filter("trace").with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = own(Service::Postgres);
    let url = server.url().replace("postgres@", "postgres:hunter2@");
    assert!(url.contains("hunter2"));
    let queue = PostgresQueue::open(PostgresConfig::new(url).patience(Duration::from_secs(1))).await.unwrap();
    let server = RefCell::new(server);
    let (stop, start) = (|| server.borrow_mut().kill(), || server.borrow_mut().restart());
    let errors = errors_of_an_outage(Arc::new(queue), &log, "classified", stop, start).await;
    let all = format!("{} {errors}", log.text());
    assert!(!all.contains("hunter2") && !all.contains("classified"), "{all}");
}
