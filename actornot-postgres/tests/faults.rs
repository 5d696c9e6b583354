//! Servers, settings and rights that get in the way.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actornot_core::{
    Actornot, Admission, Batch, Context, DueQuery, Error, ErrorKind, Failure, Inspect, LockableQueue, Retry,
    Runner, TryLock,
};
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
            "pooler" => {
                PostgresConfig::new(pooler()).namespace(&namespace.0).transaction_pooler(true).patience(short)
            }
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

/// A table's trigger that refuses the first two tries of a write as the server does when it cannot order it.
#[tokio::test]
async fn what_the_server_refused_only_because_of_others_is_repeated() {
    for pooler in [false, true] {
        let namespace = Namespace::new();
        let base = if pooler { common::pooler() } else { server() };
        let config = PostgresConfig::new(base).namespace(&namespace.0).transaction_pooler(pooler);
        let queue = PostgresQueue::open(config).await.unwrap();
        let mut db = outside().await;
        let trigger = "SET search_path = {s}; CREATE SEQUENCE tries;
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              IF nextval('{s}.tries') <= {n} THEN RAISE EXCEPTION 'not in this order' USING ERRCODE = '40001'; END IF;
              RETURN NULL; END $$;
            CREATE TRIGGER refuse AFTER INSERT ON message EXECUTE FUNCTION refuse()";
        sql(&mut db, trigger.replace("{s}", &namespace.0).replace("{n}", "2")).await;
        assert_eq!(ok(&queue, post("a", "1")).await.admissions, [Admission::Accepted]);
        assert_eq!(number(&mut db, "SELECT last_value FROM tries").await, 3);
        assert_eq!(queue.peek(&entity("a"), 9).await.unwrap().len(), 1);

        sql(&mut db, "DROP TRIGGER refuse ON message; DROP FUNCTION refuse; DROP SEQUENCE tries").await;
        sql(&mut db, trigger.replace("{s}", &namespace.0).replace("{n}", "1000000")).await;
        let error = queue.enqueue(&[post("a", "2")]).await.remove(0).unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Safe), "{error}");
        assert!(error.to_string().contains("(40001)"), "{error}");
        assert!(number(&mut db, "SELECT last_value FROM tries").await > 2, "repeated before it was given up");
        assert_eq!(queue.peek(&entity("a"), 9).await.unwrap().len(), 1);
    }
}

/// Somebody locks rows by hand, in another order than the adapter's; the server ends the adapter's call.
#[tokio::test]
async fn a_deadlock_with_somebody_elses_transaction_is_repeated() {
    let namespace = Namespace::new();
    let role = Role::new("ALTER ROLE {r} SET deadlock_timeout = '20ms'").await;
    let queue = PostgresQueue::open(role.config(&namespace)).await.unwrap();
    ok(&queue, post("a", "1")).await;
    ok(&queue, post("b", "1")).await;
    let before = number(&mut outside().await, DEADLOCKS).await;
    let mut other = outside().await;
    let lock = |key| format!("SELECT FROM {}.entity WHERE key = '{key}' FOR UPDATE", namespace.0);
    sql(&mut other, format!("SET deadlock_timeout = '1min'; BEGIN; {}", lock("b"))).await;
    let items = [post("a", "2"), post("b", "2")];
    let call = tokio::spawn(async move { queue.enqueue(&items).await });
    // It holds a and waits for b.
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND wait_event_type = 'Lock'",
        role.0
    );
    while number(&mut outside().await, &waits).await == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    sql(&mut other, format!("{}; COMMIT", lock("a"))).await;
    for answer in call.await.unwrap() {
        assert_eq!(answer.unwrap().admissions, [Admission::Accepted]);
    }
    // The server's counters come a moment later.
    while number(&mut outside().await, DEADLOCKS).await == before {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const DEADLOCKS: &str = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";

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

/// An operator's transaction holds the row of one entity.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entity_whose_row_somebody_locked_holds_up_no_other() {
    let namespace = Namespace::new();
    let queue = namespace.open().await;
    let system = Actornot::builder(queue.clone());
    let timeout = Duration::from_secs(8);
    let system = system.runner(Adder).configure(move |config| config.call_timeout = timeout).build().unwrap();
    let mailbox = system.mailbox::<Adder>().unwrap();
    for n in 0..20 {
        mailbox.post(format!("e{n}"), 1).await.unwrap();
    }
    let mut other = outside().await;
    let name = &namespace.0;
    sql(&mut other, format!("BEGIN; SELECT FROM {name}.entity WHERE key = 'e7' FOR UPDATE")).await;
    let began = Instant::now();
    let stuck = tokio::spawn({
        let mailbox = mailbox.clone();
        async move { mailbox.post("e7", 1).await.map(drop) }
    });
    for _ in 0..3 {
        let mut posts = tokio::task::JoinSet::new();
        for n in (0..20).filter(|n| *n != 7) {
            let mailbox = mailbox.clone();
            posts.spawn(async move { mailbox.post(format!("e{n}"), 1).await.map(drop) });
        }
        while let Some(posted) = posts.join_next().await {
            posted.unwrap().unwrap();
        }
    }
    assert!(!stuck.is_finished(), "the others passed while it was stuck");
    let error = stuck.await.unwrap().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::UnknownOutcome), "{error}");
    assert!(began.elapsed() < timeout * 3, "{:?}", began.elapsed());
    sql(&mut other, "ROLLBACK").await;
    mailbox.post("e7", 1).await.unwrap();
    mailbox.close().await;
}

/// The leases of a heartbeat share a trip, and not their fate.
#[tokio::test]
async fn a_lease_whose_row_somebody_locked_costs_no_other_lease_its_heartbeat() {
    let namespace = Namespace::new();
    let queue = PostgresQueue::open(namespace.config().patience(Duration::from_millis(100))).await.unwrap();
    let mut leases = Vec::new();
    for key in ["a", "b", "c"] {
        ok(&queue, post(key, "1")).await;
        leases.push(lock(&queue, key).await.unwrap().lease);
    }
    let mut other = outside().await;
    let name = &namespace.0;
    sql(&mut other, format!("BEGIN; SELECT FROM {name}.entity WHERE key = 'b' FOR UPDATE")).await;
    let answers = queue.heartbeat().await.unwrap().extend_lock(&leases).await;
    assert!(matches!((&answers[0], &answers[2]), (Ok(true), Ok(true))), "{answers:?}");
    assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::Unavailable);
}

struct Adder;

impl Runner for Adder {
    const KIND: &'static str = "adder";
    type State = i64;
    type Message = i64;

    async fn run_locked(&self, state: &mut i64, batch: Batch<i64>, _: &mut Context) -> Result<(), Failure> {
        for message in &batch {
            *state += **message;
        }
        Ok(())
    }
}
