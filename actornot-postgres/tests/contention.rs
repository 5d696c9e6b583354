//! Others who keep rows locked, or want them in another order.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::time::{Duration, Instant};

use actornot_core::{
    Actornot, Admission, Batch, Context, ErrorKind, Failure, Inspect, LockableQueue, Retry, Runner,
};
use actornot_postgres::{PostgresConfig, PostgresQueue};

use crate::common::*;
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
    let role = Role::new("ALTER ROLE {r} SET deadlock_timeout = '250ms'").await;
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
