//! Which URLs name a server, which are refused, and what is never repeated.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use actornot_core::{ErrorKind, Inspect};
use actornot_redis::{RedisConfig, RedisQueue};
use actornot_testkit::log::Log;
use actornot_testkit::outage::errors_of_an_outage;
use actornot_testkit::servers::{Service, own, own_with};

use crate::common::*;

#[tokio::test]
async fn what_is_no_redis_url_is_refused_without_repeating_it() {
    let scheme = "url has no scheme; write for example redis://localhost:6379";
    let host = "url names no host; write for example redis://localhost:6379";
    for (url, why) in [
        (
            "postgres://me:secret@host/db",
            "url has the scheme postgres; this adapter opens redis://HOST and rediss://HOST",
        ),
        (
            "redis+unix:///secret",
            "url has the scheme redis+unix; this adapter opens redis://HOST and rediss://HOST",
        ),
        ("secret", scheme),
        ("redis:secret", scheme),
        ("", scheme),
        ("redis://", host),
        ("redis:///0", host),
        ("redis://:secret@", "url is not a Redis URL such as redis://user:password@host:6379"),
        ("redis://host:secret", "url is not a Redis URL such as redis://user:password@host:6379"),
        ("redis://host/?cluster=secret", "url has a cluster= that is neither true nor false"),
        ("redis://host/?secret=1", "url has a parameter other than cluster=true"),
        ("rediss://host/#insecure", "url has a fragment; certificates are always checked"),
        ("redis://host/3?cluster=true", "url names a database number; a cluster has only number 0"),
    ] {
        let error = RedisQueue::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid { field: "url" }, "{url}: {error}");
        if url != "redis://:secret@" {
            assert_eq!(error.to_string(), why, "{url}");
        }
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}

#[tokio::test]
async fn values_that_cannot_work_are_refused_by_name() {
    let config = || RedisConfig::new("redis://localhost");
    let long = "n".repeat(32);
    for (config, field) in [
        (config().namespace(""), "namespace"),
        (config().namespace("1st"), "namespace"),
        (config().namespace("a}b"), "namespace"),
        (config().namespace(long), "namespace"),
        (config().patience(Duration::ZERO), "patience"),
        (config().patience(Duration::from_secs(3601)), "patience"),
        (config().partitions(0), "partitions"),
        (config().partitions(1025), "partitions"),
        (config().allow_unsafe("role"), "allow_unsafe"),
        (RedisConfig::cluster(Vec::<String>::new()), "url"),
    ] {
        let error = RedisQueue::open(config).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Invalid { field: found } if found == field), "{error:?}");
    }
}

#[tokio::test]
async fn a_password_is_in_no_error_no_debug_and_no_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    // Drivers may have nothing to say, and then this alone shows that it would have been kept.
    tracing::trace!("the test begins");
    let server = own(Service::Redis);
    let mut admin = admin(&server);
    for right in [vec!["SETUSER", "me", "on", ">hunter2", "~*", "+@all"], vec!["SETUSER", "default", "off"]] {
        actornot_redis::redis::cmd("ACL").arg(right).exec(&mut admin).unwrap();
    }
    let at = |user: &str| format!("redis://{user}@127.0.0.1:{}/", server.ports()[0]);
    let config = RedisConfig::new(at("me:hunter2"));
    let mut seen = format!("{config:?}");
    let queue = RedisQueue::open(config).await.unwrap();
    seen += &format!("{queue:?} {:?}", queue.doctor().await.unwrap());
    let mut item = post("a", "1");
    item.messages[0].payload = "\"swordfish\"".to_owned();
    ok(&queue, item).await;
    for user in ["me:hunter22", "you:hunter2", ":hunter2"] {
        let error = RedisQueue::connect(&at(user)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AccessDenied, "{error}");
        seen += &format!("{error} {error:?}");
    }
    seen += &log.text();
    assert!(!seen.contains("hunter2") && !seen.contains("swordfish"), "{seen}");
}

/// On the paths that do log: a commit, a sweep and reconnects that fail.
#[tokio::test]
async fn an_outage_tells_no_password_and_no_payload() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_env_filter("trace").with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = own_with(Service::Redis, &[("requirepass", "hunter2")]);
    assert!(server.url().contains("hunter2"));
    let url = server.url();
    let queue = RedisQueue::open(RedisConfig::new(url).patience(Duration::from_secs(1))).await.unwrap();
    let server = RefCell::new(server);
    let (stop, start) = (|| server.borrow_mut().kill(), || server.borrow_mut().restart());
    let errors = errors_of_an_outage(Arc::new(queue), &log, "classified", stop, start).await;
    let all = format!("{} {errors}", log.text());
    assert!(!all.contains("hunter2") && !all.contains("classified"), "{all}");
}
