//! What a URL may say, and what nobody may read of it.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use actornot_core::{ErrorKind, Inspect as _};
use actornot_mongo::{MongoConfig, MongoQueue};
use actornot_testkit::log::Log;
use actornot_testkit::outage::errors_of_an_outage;
use actornot_testkit::servers::{self, Service};

use crate::common::{ok, post};

async fn refused(config: MongoConfig) -> actornot_core::Error {
    MongoQueue::open(config).await.unwrap_err()
}

#[tokio::test]
async fn another_scheme_is_refused_by_its_name_and_without_its_password() {
    for url in ["postgres://me:sesame@host/db", "sqlite:counter.db", "http://me:sesame@host"] {
        let error = refused(MongoConfig::new(url)).await;
        assert_eq!(error.kind(), ErrorKind::Invalid { field: "url" });
        assert!(error.to_string().contains(url.split_once(':').unwrap().0), "{error}");
        assert!(!format!("{error} {error:?}").contains("sesame"), "{error:?}");
    }
    assert_eq!(refused(MongoConfig::new("host")).await.kind(), ErrorKind::Invalid { field: "url" });
}

#[tokio::test]
async fn a_password_is_in_no_error_and_no_debug_text() {
    for url in [
        "mongodb://me:ses/ame@host:x/db",
        "mongodb://me:sesame@host/?retryWrites=perhaps",
        "mongodb://me:sesame@127.0.0.1:1/db",
    ] {
        let config = MongoConfig::new(url).patience(Duration::from_millis(200));
        let shown = format!("{config:?}");
        let error = refused(config).await;
        let told = format!("{shown} {error} {error:?}");
        assert!(!told.contains("sesame") && !told.contains("ses/ame"), "{told}");
    }
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused_by_name() {
    let config = || MongoConfig::new("mongodb://127.0.0.1:1/db");
    for (field, config) in [
        ("patience", config().patience(Duration::ZERO)),
        ("patience", config().patience(Duration::from_secs(3601))),
        ("namespace", config().namespace("Orders")),
        ("namespace", config().namespace("")),
        ("namespace", config().namespace("a".repeat(32))),
        ("namespace", config().namespace("a$b")),
        ("allow_unsafe", config().allow_unsafe("everything")),
    ] {
        assert_eq!(refused(config).await.kind(), ErrorKind::Invalid { field });
    }
}

#[tokio::test]
async fn a_password_and_a_payload_are_in_no_error_no_debug_and_no_log() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .init();
    // Drivers may have nothing to say, and then this alone shows that it would have been kept.
    tracing::trace!("the test begins");
    // Its password is in its URL.
    let url = servers::url(Service::MongoAuth);
    let (before, behind) = url.split_once('@').unwrap();
    let password = before.rsplit_once(':').unwrap().1;
    let config = MongoConfig::new(&url).namespace("trace");
    let mut seen = format!("{config:?}");
    let queue = MongoQueue::open(config).await.unwrap();
    seen += &format!("{queue:?} {:?}", queue.doctor().await.unwrap());
    let mut item = post("a", "1");
    item.messages[0].payload = "\"swordfish\"".to_owned();
    ok(&queue, item).await;
    for user in
        [format!("{}{password}2", before.trim_end_matches(password)), format!("mongodb://you:{password}")]
    {
        let error = MongoQueue::connect(&format!("{user}@{behind}")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AccessDenied, "{error}");
        seen += &format!("{error} {error:?}");
    }
    seen += &log.text();
    assert!(!seen.contains(password) && !seen.contains("swordfish"), "{seen}");
}

/// On the paths that do log: a commit, a sweep and reconnects that fail.
#[tokio::test]
async fn an_outage_tells_no_password_and_no_payload() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_env_filter("trace").with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = servers::own(Service::MongoAuth);
    let config = MongoConfig::new(server.url()).patience(Duration::from_secs(1));
    let queue = MongoQueue::open(config).await.unwrap();
    let password = server.url().split_once('@').unwrap().0.rsplit_once(':').unwrap().1.to_owned();
    let server = RefCell::new(server);
    let (stop, start) = (|| server.borrow_mut().kill(), || server.borrow_mut().restart());
    let errors = errors_of_an_outage(Arc::new(queue), &log, "classified", stop, start).await;
    let all = format!("{} {errors}", log.text());
    assert!(!all.contains(&password) && !all.contains("classified"), "{all}");
}
