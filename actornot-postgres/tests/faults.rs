//! Servers, settings and rights that get in the way.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actornot_core::{Admission, DueQuery, Error, ErrorKind, Inspect, LockableQueue, Retry, TryLock};
use actornot_postgres::{PostgresConfig, PostgresQueue};
use actornot_testkit::servers::{self, Service};

use crate::common::*;

async fn refused(config: PostgresConfig) -> Error {
    PostgresQueue::open(config).await.map(|_| ()).unwrap_err()
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

/// Each post whose answer was Ok is in exactly one state once everything has run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_the_middle_of_5000_posts_loses_none_that_was_accepted() {
    let own = servers::own(Service::Postgres);
    let queue = PostgresQueue::connect(own.url()).await.unwrap();
    let own = Arc::new(Mutex::new(own));
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
async fn the_role_that_runs_may_use_what_a_newer_installation_adds() {
    let namespace = Namespace::new();
    PostgresQueue::install(namespace.config()).await.unwrap();
    let role = Role::new("ALTER ROLE {r} NOSUPERUSER").await;
    let grants = include_str!("../sql/roles.sql").replace("run_role", &role.0);
    let schema = format!("\"{}\"", namespace.0);
    let mut db = outside().await;
    sql(&mut db, grants.replace("\"actornot\"", &schema)).await;
    let newer = "CREATE TABLE {s}.newer (id bigint GENERATED BY DEFAULT AS IDENTITY, n bigint); CREATE SEQUENCE {s}.newest;
        CREATE FUNCTION {s}.newer_v2() RETURNS bigint LANGUAGE sql AS 'INSERT INTO {s}.newer (n) VALUES (1) RETURNING n';
        REVOKE EXECUTE ON FUNCTION {s}.newer_v2() FROM PUBLIC";
    sql(&mut db, newer.replace("{s}", &schema)).await;
    sql(&mut db, format!("SET ROLE {}", role.0)).await;
    let used = "SELECT {s}.newer_v2() + nextval('{s}.newest')".replace("{s}", &schema);
    assert_eq!(number(&mut db, &used).await, 2);
}

/// As after a failover: the address leads elsewhere, and an old connection still to a server that only reads.
#[tokio::test]
async fn a_connection_on_which_nothing_may_be_written_is_not_used_again() {
    let namespace = Namespace::new();
    drop(namespace.open().await);
    let role = Role::new("ALTER ROLE {r} SET default_transaction_read_only = on").await;
    let queue = PostgresQueue::open(role.config(&namespace)).await.unwrap();
    let error = queue.enqueue(&[post("a", "1")]).await.remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    sql(&mut outside().await, format!("ALTER ROLE {} RESET default_transaction_read_only", role.0)).await;
    assert_eq!(ok(&queue, post("a", "1")).await.admissions, [Admission::Accepted]);
}

/// `idle_in_transaction_session_timeout` and `transaction_timeout` end sessions in the middle of a transaction.
#[tokio::test]
async fn a_transaction_that_took_the_server_too_long_was_not_applied_and_can_be_repeated() {
    for code in ["25P03", "25P04"] {
        let namespace = Namespace::new();
        let queue = PostgresQueue::open(namespace.config().transaction_pooler(true)).await.unwrap();
        let refuse = "SET search_path = {s};
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              RAISE EXCEPTION 'too long' USING ERRCODE = '{c}'; END $$;
            CREATE TRIGGER refuse AFTER INSERT ON message EXECUTE FUNCTION refuse()";
        sql(&mut outside().await, refuse.replace("{s}", &namespace.0).replace("{c}", code)).await;
        let error = queue.enqueue(&[post("a", "1")]).await.remove(0).unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Safe), "{error}");
    }
}

#[tokio::test]
async fn settings_of_the_server_that_void_durability_are_refused_and_accepted_by_their_names() {
    let own = servers::own_with(Service::Postgres, &[("fsync", "off"), ("full_page_writes", "off")]);
    let config = || PostgresConfig::new(own.url());
    for (config, name) in [
        (config(), "fsync"),
        (config().allow_unsafe("full_page_writes"), "fsync"),
        (config().allow_unsafe("fsync"), "full_page_writes"),
    ] {
        let error = refused(config).await;
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!("{name} is off, which voids G1: set {name} = on")), "{text}");
        assert!(text.contains(&format!("PostgresConfig::allow_unsafe(\"{name}\")")), "{text}");
    }
    let queue =
        PostgresQueue::open(config().allow_unsafe("fsync").allow_unsafe("full_page_writes")).await.unwrap();
    let report = queue.doctor().await.unwrap();
    let void: Vec<_> = report.settings.iter().filter(|setting| setting.voids.is_some()).collect();
    assert_eq!(void.iter().map(|setting| &*setting.name).collect::<Vec<_>>(), ["fsync", "full_page_writes"]);
}

/// Longer than the patience, for every call there is; the same handle afterwards.
#[tokio::test]
async fn while_the_server_is_down_every_call_answers_and_afterwards_works_again() {
    for pooled in [false, true] {
        let mut own = servers::own(Service::Postgres);
        // After a failure PgBouncer does not try again for that many seconds, 15 if it is not told.
        let settings = [("upstream", own.url()), ("server_login_retry", "1")];
        let bouncer = pooled.then(|| servers::own_with(Service::PgBouncer, &settings));
        let url = bouncer.as_ref().map_or(own.url(), |bouncer| bouncer.url()).to_owned();
        let config = PostgresConfig::new(url).patience(Duration::from_millis(300)).transaction_pooler(pooled);
        let queue = PostgresQueue::open(config).await.unwrap();
        let mut heartbeat = queue.heartbeat().await.unwrap();
        let mut item = post("a", "1");
        item.lock = Some(request());
        let grant = ok(&queue, item).await.grant.unwrap();
        let lease = std::slice::from_ref(&grant.lease);
        own.kill();
        let began = Instant::now();
        let (try_lock, due) = (
            TryLock { entity: entity("a"), request: request() },
            DueQuery { kinds: vec!["counter".into()], after: None, limit: 9 },
        );
        for round in 0..3 {
            let commits = [commit(&grant.lease, vec![grant.batch.messages[0].id.clone()])];
            let errors = [
                queue.enqueue(&[post("b", &format!("down{round}"))]).await.remove(0).err(),
                queue.try_lock(std::slice::from_ref(&try_lock)).await.remove(0).err(),
                queue.update_locked(&commits).await.remove(0).err(),
                queue.release(lease).await.remove(0).err(),
                queue.due(&due).await.err(),
                queue.read(&[entity("a")]).await.err(),
                queue.pause(&entity("a"), "down").await.err(),
                queue.doctor().await.err(),
                heartbeat.extend_lock(lease).await.remove(0).err(),
            ];
            for error in errors {
                let error = error.unwrap();
                assert!(
                    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::UnknownOutcome),
                    "{error}"
                );
                assert_ne!(error.retry(), Retry::Never, "{error}");
            }
        }
        assert!(began.elapsed() < Duration::from_secs(3 * 9 * 6), "{:?}", began.elapsed());
        own.restart();
        for n in 0.. {
            match queue.enqueue(&[post("a", "2")]).await.remove(0) {
                Ok(_) => break,
                Err(error) => assert!(error.retry() != Retry::Never && n < 200, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for n in 0.. {
            match heartbeat.extend_lock(lease).await.remove(0) {
                Ok(held) => {
                    assert!(held);
                    break;
                }
                Err(error) => assert!(error.retry() != Retry::Never && n < 200, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let found = queue.peek(&entity("a"), 9).await.unwrap();
        assert!(found.len() == 2 && found[0].id.as_str() == "1", "{found:?}");
    }
}

/// A server that is stopped where it stands keeps its connections, and answers nothing.
#[tokio::test]
async fn while_the_server_is_frozen_a_call_answers_that_its_outcome_is_unknown() {
    let own = servers::own(Service::Postgres);
    let queue = PostgresQueue::open(PostgresConfig::new(own.url()).patience(Duration::from_millis(100)))
        .await
        .unwrap();
    ok(&queue, post("a", "1")).await;
    own.freeze();
    // On the connection that was used just now; a BEGIN is a call too.
    let looked = tokio::time::timeout(Duration::from_secs(60), queue.doctor()).await;
    let error = looked.expect("it does not wait for ever").unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Safe), "{error}");
    let error = queue.enqueue(&[post("a", "2")]).await.remove(0).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::UnknownOutcome | ErrorKind::Unavailable), "{error}");
    own.thaw();
    let mut tries = 0;
    while let Err(error) = queue.enqueue(&[post("a", "2")]).await.remove(0) {
        tries += 1;
        assert!(error.retry() != Retry::Never && tries < 100, "{error}");
    }
    assert_eq!(queue.peek(&entity("a"), 9).await.unwrap().len(), 2);
}

/// A server that comes back as a standby, and is promoted: the same handle, its connections among them.
#[tokio::test]
async fn a_standby_refuses_what_writes_and_takes_it_once_it_is_promoted() {
    for pooler in [false, true] {
        let mut own = servers::own(Service::Postgres);
        let config = || PostgresConfig::new(own.url()).transaction_pooler(pooler);
        let queue = PostgresQueue::open(config()).await.unwrap();
        let mut item = post("a", "1");
        item.lock = Some(request());
        let grant = ok(&queue, item).await.grant.unwrap();
        let demote = "DO $$ BEGIN EXECUTE format('COPY (SELECT 1 LIMIT 0) TO %L', current_setting('data_directory') || '/standby.signal'); END $$";
        sql(&mut connection(own.url()).await, demote).await;
        let open = config();
        own.stop_gracefully();
        own.restart();
        // The connections of before are found broken, which leaves the outcome of one call open.
        let first = queue.enqueue(&[post("b", "1")]).await.remove(0).unwrap_err();
        assert!(
            matches!(first.kind(), ErrorKind::UnknownOutcome | ErrorKind::ReadOnly | ErrorKind::Unavailable),
            "{first}"
        );
        let settle = [commit(&grant.lease, vec![grant.batch.messages[0].id.clone()])];
        let errors = [
            queue.enqueue(&[post("b", "1")]).await.remove(0).unwrap_err(),
            queue.update_locked(&settle).await.remove(0).unwrap_err(),
            refused(open).await,
        ];
        for error in errors {
            assert_eq!((error.kind(), error.retry()), (ErrorKind::ReadOnly, Retry::Never), "{error}");
        }
        assert_eq!(queue.peek(&entity("a"), 9).await.unwrap().len(), 1, "it may be looked at");
        assert!(!queue.doctor().await.unwrap().is_durable());
        sql(&mut connection(own.url()).await, "SELECT pg_promote()").await;
        assert_eq!(ok(&queue, post("b", "1")).await.admissions, [Admission::Accepted]);
        queue.update_locked(&settle).await.remove(0).unwrap();
        assert!(queue.doctor().await.unwrap().is_durable());
        assert_eq!(queue.peek(&entity("a"), 9).await.unwrap(), []);
    }
}
