//! Servers, settings and operators that get in the way.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actornot_core::{
    Admission, DueQuery, Effect, Envelope, ErrorKind, Inspect, LockableQueue, Retry, TryLock,
};
use actornot_redis::{RedisConfig, RedisQueue, redis};
use actornot_testkit::outage::kill_under_load;
use actornot_testkit::servers::{Service, own, own_with, url};

use crate::common::*;

/// For calls that cannot succeed.
const QUICK: Duration = Duration::from_millis(300);
/// Short, and yet longer than a busy machine's disk takes.
const SHORT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_server_that_is_down_at_the_start_is_unavailable() {
    let mut server = own(Service::Redis);
    server.kill();
    for url in [
        server.url().to_owned(),
        format!("{}?cluster=true", server.url()),
        server.url().replace("redis:", "rediss:"),
    ] {
        let error = RedisQueue::open(RedisConfig::new(url).patience(QUICK)).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Safe), "{error}");
    }
}

#[tokio::test]
async fn a_database_number_that_does_not_exist_is_refused_at_once_and_one_that_does_is_used() {
    let server = own(Service::Redis);
    let error = RedisQueue::connect(&format!("{}99", server.url())).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Invalid { field: "url" }, Retry::Never), "{error}");
    let queue = RedisQueue::connect(&format!("{}3", server.url())).await.unwrap();
    ok(&queue, post("a", "1")).await;
    let zero = RedisQueue::connect(server.url()).await.unwrap();
    assert_eq!(zero.read(&[entity("a")]).await.unwrap(), [None]);
    assert_eq!(queue.peek(&entity("a"), 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn tls_to_a_server_that_speaks_none_is_an_error_and_no_panic() {
    let server = own(Service::Redis);
    let config = RedisConfig::new(server.url().replace("redis:", "rediss:")).patience(QUICK);
    let error = RedisQueue::open(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn a_server_that_goes_down_is_told_of_and_works_again_with_the_same_handle() {
    let mut server = own(Service::Redis);
    let queue = RedisQueue::open(RedisConfig::new(server.url()).patience(SHORT)).await.unwrap();
    assert_eq!(ok(&queue, post("a", "1")).await.admissions, [Admission::Accepted]);
    server.kill();
    // The first may have left before the end was noticed.
    let first = queue.enqueue(&[post("a", "2")]).await.remove(0).unwrap_err();
    assert!(matches!(first.kind(), ErrorKind::UnknownOutcome | ErrorKind::Unavailable), "{first}");
    let second = queue.enqueue(&[post("a", "3")]).await.remove(0).unwrap_err();
    assert_eq!((second.kind(), second.retry()), (ErrorKind::Unavailable, Retry::Safe), "{second}");
    assert_eq!(queue.peek(&entity("a"), 9).await.unwrap_err().kind(), ErrorKind::Unavailable);
    server.restart();
    assert_eq!(ok(&queue, post("a", "1")).await.admissions, [Admission::Duplicate]);
    assert_eq!(ok(&queue, post("a", "3")).await.admissions, [Admission::Accepted]);
    queue.heartbeat().await.unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_answer_leaves_the_outcome_unknown() {
    let server = own(Service::Redis);
    let queue = RedisQueue::open(RedisConfig::new(server.url()).patience(SHORT)).await.unwrap();
    let mut admin = admin(&server);
    redis::cmd("CLIENT").arg("PAUSE").arg(60_000).arg("WRITE").exec(&mut admin).unwrap();
    let error = queue.enqueue(&[post("a", "1")]).await.remove(0).unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::UnknownOutcome, Retry::SameId), "{error}");
    // Readers are not kept waiting, and are on another connection by now.
    assert_eq!(queue.read(&[entity("b")]).await.unwrap(), [None]);
    redis::cmd("CLIENT").arg("UNPAUSE").exec(&mut admin).unwrap();
    let again = ok(&queue, post("a", "1")).await.admissions;
    assert!(again == [Admission::Accepted] || again == [Admission::Duplicate]);
    assert_eq!(queue.peek(&entity("a"), 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn settings_that_void_durability_are_refused_by_name_and_allowed_by_name() {
    for (setting, value, wanted) in [
        ("appendonly", "no", "set appendonly yes"),
        ("appendfsync", "everysec", "set appendfsync always"),
        ("appendfsync", "no", "set appendfsync always"),
        ("maxmemory-policy", "allkeys-lru", "set maxmemory-policy noeviction"),
        ("maxmemory-policy", "volatile-ttl", "set maxmemory-policy noeviction"),
    ] {
        let server = own_with(Service::Redis, &[(setting, value)]);
        let config = RedisConfig::new(server.url());
        let error = RedisQueue::open(config.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
        let text = error.to_string();
        assert!(text.starts_with(setting) && text.contains(wanted) && text.contains("voids G1"), "{text}");
        assert!(text.contains(&format!("RedisConfig::allow_unsafe(\"{setting}\")")), "{text}");
        RedisQueue::open(config.clone().allow_unsafe("replicas")).await.unwrap_err();
        let queue = RedisQueue::open(config.allow_unsafe(setting)).await.unwrap();
        assert!(!queue.doctor().await.unwrap().is_durable());
    }
    let server = own(Service::Redis);
    let report = RedisQueue::connect(server.url()).await.unwrap().doctor().await.unwrap();
    assert!(report.is_durable() && report.server.starts_with("Redis "), "{report:?}");
}

#[tokio::test]
async fn a_replica_is_refused_and_a_primary_with_one_says_what_a_failover_may_lose() {
    let primary = own(Service::Redis);
    let port = primary.ports()[0];
    let replica = own_with(Service::Redis, &[("replicaof", format!("127.0.0.1 {port}").as_str())]);
    let error = RedisQueue::connect(replica.url()).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::ReadOnly, Retry::Never), "{error}");
    let mut admin = admin(&primary);
    // The gate: the primary itself counts one.
    loop {
        let info: String = redis::cmd("INFO").arg("replication").query(&mut admin).unwrap();
        if info.contains("connected_slaves:1") {
            break;
        }
        tokio::task::yield_now().await;
    }
    let error = RedisQueue::connect(primary.url()).await.unwrap_err();
    assert!(error.to_string().contains("a failover may lose acknowledged posts"), "{error}");
    RedisQueue::open(RedisConfig::new(primary.url()).allow_unsafe("replicas")).await.unwrap();
}

#[tokio::test]
async fn a_role_that_may_not_ask_for_a_setting_must_allow_it() {
    let server = own(Service::Redis);
    let mut admin = admin(&server);
    redis::cmd("ACL").arg(&["SETUSER", "default", "-config"]).exec(&mut admin).unwrap();
    let error = RedisQueue::connect(server.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().starts_with("appendfsync is unknown"), "{error}");
    RedisQueue::open(RedisConfig::new(server.url()).allow_unsafe("appendfsync")).await.unwrap();
}

#[tokio::test]
async fn a_namespace_of_another_version_or_size_is_refused_naming_both() {
    let server = own(Service::Redis);
    let config = || RedisConfig::new(server.url());
    let error = RedisQueue::open(config().never_install()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("is not installed"), "{error}");
    // Several at once: one of them decides.
    let (a, b, c) = tokio::join!(
        RedisQueue::open(config().partitions(8)),
        RedisQueue::open(config().partitions(16)),
        RedisQueue::open(config()),
    );
    assert!(a.is_ok() != b.is_ok() || (a.is_err() && b.is_err() && c.is_ok()));
    let mut admin = admin(&server);
    redis::cmd("SET").arg("{actornot}:meta").arg("1 1 8").exec(&mut admin).unwrap();
    let error = RedisQueue::open(config().partitions(16)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("with 8 partitions, the configuration wants 16"), "{error}");
    RedisQueue::open(config().never_install()).await.unwrap();
}

#[tokio::test]
async fn a_newer_version_is_used_or_refused_as_it_says_and_then_both_versions_are_named() {
    let server = own(Service::Redis);
    RedisQueue::connect(server.url()).await.unwrap();
    let mut admin = admin(&server);
    redis::cmd("SET").arg("{actornot}:meta").arg("7 1 64 and more").exec(&mut admin).unwrap();
    let queue = RedisQueue::connect(server.url()).await.unwrap();
    ok(&queue, post("a", "this version may still be used")).await;

    redis::cmd("SET").arg("{actornot}:meta").arg("7 7 64").exec(&mut admin).unwrap();
    let error = RedisQueue::connect(server.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("has version 7, this actornot-redis knows version 1"), "{error}");
}

#[tokio::test]
async fn a_cluster_and_a_single_server_are_not_taken_for_each_other() {
    let server = own(Service::Redis);
    let error = RedisQueue::connect(&format!("{}?cluster=true", server.url())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    let cluster = url(Service::RedisCluster).replace("?cluster=true", "");
    let error = RedisQueue::connect(&cluster).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    assert!(error.to_string().contains("add ?cluster=true"), "{error}");
}

#[tokio::test]
async fn a_missing_right_is_denied_and_says_so() {
    let server = own(Service::Redis);
    let queue = RedisQueue::connect(server.url()).await.unwrap();
    let mut admin = admin(&server);
    redis::cmd("ACL").arg(&["SETUSER", "default", "-evalsha"]).exec(&mut admin).unwrap();
    let error = queue.enqueue(&[post("a", "1")]).await.remove(0).unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::AccessDenied, Retry::Never), "{error}");
}

#[tokio::test]
async fn sends_that_arrived_and_cannot_be_forgotten_end_the_commit_and_arrive_once() {
    let server = own(Service::Redis);
    let mut admin = admin(&server);
    let rights = ["SETUSER", "keeper", "on", ">p", "~*", "+@all", "-lpop"];
    redis::cmd("ACL").arg(&rights).exec(&mut admin).unwrap();
    let queue = RedisQueue::connect(&server.url().replace("redis://", "redis://keeper:p@")).await.unwrap();
    ok(&queue, post("alice", "go")).await;
    let grant = lock(&queue, "alice").await.unwrap();
    let mut draft = commit(&grant.lease, grant.batch.ids());
    // More than one trip carries.
    let send = |n| Effect::Send(Envelope { entity: entity("bob"), message: message(&format!("b{n}")) });
    draft.effects = (0..100).map(send).collect();
    let updated = tokio::time::timeout(Duration::from_secs(20), queue.update_locked(&[draft])).await;
    updated.expect("an end").remove(0).unwrap();
    redis::cmd("ACL").arg(&["SETUSER", "keeper", "+lpop"]).exec(&mut admin).unwrap();
    let query = DueQuery { kinds: vec!["counter".into()], limit: 100, after: None };
    queue.due(&query).await.unwrap();
    let found = queue.peek(&entity("bob"), 1000).await.unwrap();
    let ids: Vec<String> = found.iter().map(|message| message.id.to_string()).collect();
    assert_eq!(ids, (0..100).map(|n| format!("b{n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn full_memory_refuses_posts_and_lets_everything_drain() {
    let server = own(Service::Redis);
    let queue = RedisQueue::connect(server.url()).await.unwrap();
    let mut big = post("a", "big");
    big.messages[0].payload = format!("\"{}\"", "x".repeat(200_000));
    ok(&queue, big).await;
    let mut admin = admin(&server);
    redis::cmd("CONFIG").arg(&["SET", "maxmemory", "1"]).exec(&mut admin).unwrap();
    let error = queue.enqueue(&[post("a", "1")]).await.remove(0).unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::StorageFull, Retry::Safe), "{error}");
    let ask = TryLock { entity: entity("a"), request: request() };
    let grant = queue.try_lock(&[ask]).await.remove(0).unwrap().unwrap();
    let mut heart = queue.heartbeat().await.unwrap();
    assert!(heart.extend_lock(std::slice::from_ref(&grant.lease)).await.remove(0).unwrap());
    queue.update_locked(&[commit(&grant.lease, grant.batch.ids())]).await.remove(0).unwrap();
    assert_eq!(queue.read(&[entity("a")]).await.unwrap()[0].as_ref().unwrap().pending, 0);
    redis::cmd("CONFIG").arg(&["SET", "maxmemory", "0"]).exec(&mut admin).unwrap();
    assert_eq!(ok(&queue, post("a", "1")).await.admissions, [Admission::Accepted]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_the_middle_of_5000_posts_loses_none_that_was_answered() {
    let server = Arc::new(Mutex::new(own(Service::Redis)));
    let queue = {
        let url = server.lock().unwrap().url().to_owned();
        RedisQueue::connect(&url).await.unwrap()
    };
    // It ends with the test.
    let killed = server.clone();
    let kill = move || {
        let mut server = killed.lock().unwrap();
        server.kill();
        server.restart();
    };
    kill_under_load(Arc::new(queue), kill).await;
}
