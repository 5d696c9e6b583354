//! What no other database has.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actornot_core::{
    Admission, DueQuery, ErrorKind, Inspect, LockRequest, LockableQueue, Next, TryLock, Updated,
};
use actornot_postgres::sqlx::{self, AssertSqlSafe, Row};
use actornot_postgres::{PostgresConfig, PostgresQueue};

use crate::common::*;

#[tokio::test]
async fn entities_and_pending_messages_are_seen_in_plain_sql() {
    let namespace = Namespace::new();
    let queue = namespace.open().await;
    ok(&queue, post("a", "1")).await;
    let mut later = post("a", "2");
    later.messages[0].delay = Duration::from_secs(60);
    ok(&queue, later).await;
    let mut db = outside().await;
    let text = format!("SELECT key, pending, queued FROM {}.entities", namespace.0);
    let row = sqlx::query(AssertSqlSafe(text)).fetch_one(&mut db).await.unwrap();
    let found: (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
    assert_eq!(found, ("a".to_owned(), 2, 1));
    let text = format!(
        "SELECT id, payload::json->>'id' FROM {}.pending_messages ORDER BY due_at NULLS FIRST",
        namespace.0
    );
    let rows = sqlx::query(AssertSqlSafe(text)).fetch_all(&mut db).await.unwrap();
    let found: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(found, [("1".to_owned(), "1".to_owned()), ("2".to_owned(), "2".to_owned())]);
}

/// As a statement of the same name would be executed that another client had prepared.
#[tokio::test]
async fn a_function_that_is_called_for_another_verb_refuses() {
    let namespace = Namespace::new();
    drop(namespace.open().await);
    let text = format!("SELECT * FROM {}.purge_v1('resume', 100, 'counter', 'a')", namespace.0);
    let error = sqlx::query(AssertSqlSafe(text)).fetch_all(&mut outside().await).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "AN001");
}

#[tokio::test]
async fn a_transaction_pooler_that_was_not_told_of_is_named() {
    let config = PostgresConfig::new(pooler());
    let error = PostgresQueue::open(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    assert!(error.to_string().contains("PostgresConfig::transaction_pooler(true)"), "{error}");
}

/// The functions find their tables, whatever the session's path says, and objects of the same name do not mislead them.
#[tokio::test]
async fn the_search_path_of_a_session_does_not_matter() {
    let namespace = Namespace::new();
    drop(namespace.open().await);
    let decoy = Namespace::new();
    sql(&mut outside().await, format!("CREATE SCHEMA {0}; CREATE TABLE {0}.entity (id int)", decoy.0)).await;
    let url = format!("{}?options=-c%20search_path%3D{}", server(), decoy.0);
    let queue = PostgresQueue::open(PostgresConfig::new(url).namespace(&namespace.0)).await.unwrap();
    assert_eq!(ok(&queue, post("a", "1")).await.admissions, [Admission::Accepted]);
    assert!(lock(&queue, "a").await.is_some());
}

/// Dropped at each of its awaits, on the only connection there is, a call harms none that comes after it.
#[tokio::test]
async fn a_dropped_call_leaves_nothing_to_a_later_one() {
    for (base, pooler) in [(server(), false), (pooler(), true)] {
        let namespace = Namespace::new();
        let config =
            PostgresConfig::new(base).namespace(&namespace.0).connections(1).transaction_pooler(pooler);
        let queue = PostgresQueue::open(config).await.unwrap();
        for round in 0..30 {
            let (lost, kept) = (post("a", &format!("lost{round}")), post("b", &format!("kept{round}")));
            let items = [lost];
            let call = queue.enqueue(&items);
            let _ = tokio::time::timeout(Duration::from_micros(200 * round), call).await;
            assert_eq!(ok(&queue, kept).await.admissions, [Admission::Accepted]);
            assert_eq!(
                queue.peek(&entity("b"), 99).await.unwrap().len(),
                usize::try_from(round).unwrap() + 1
            );
        }
    }
}

#[tokio::test]
async fn a_session_that_was_ended_is_replaced() {
    let namespace = Namespace::new();
    let name = &namespace.0;
    let url = format!("{}?application_name={name}", server());
    let queue = PostgresQueue::open(PostgresConfig::new(url).namespace(name)).await.unwrap();
    let mut heartbeat = queue.heartbeat().await.unwrap();
    let mut item = post("a", "1");
    item.lock = Some(request());
    let lease = ok(&queue, item).await.grant.unwrap().lease;
    let ended =
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}'");
    sql(&mut outside().await, ended).await;
    let mut failed = 0;
    while let Err(error) = heartbeat.extend_lock(std::slice::from_ref(&lease)).await.remove(0) {
        assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{error}");
        failed += 1;
    }
    while let Err(error) = queue.enqueue(&[post("a", "2")]).await.remove(0) {
        assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{error}");
        failed += 1;
    }
    assert!(failed <= 2, "{failed}");
}

/// G7, G9: what is forgotten makes room, a little with each post.
#[tokio::test]
async fn ids_are_forgotten_after_their_retention() {
    let namespace = Namespace::new();
    let queue = namespace.open().await;
    for n in 0..20 {
        ok(&queue, post("a", &n.to_string())).await;
    }
    let mut db = outside().await;
    // Remembered for a minute: now they have just expired.
    sql(&mut db, format!("UPDATE {}.seen SET expires = expires - interval '70 seconds'", namespace.0)).await;
    assert_eq!(ok(&queue, post("a", "0")).await.admissions, [Admission::Accepted]);
    // One post in sixteen forgets for all.
    let remembered = format!("SELECT count(*) FROM {}.seen", namespace.0);
    let mut posts = 1;
    while number(&mut db, &remembered).await > posts {
        ok(&queue, post("b", &posts.to_string())).await;
        posts += 1;
        assert!(posts < 1_000, "none of so many posts forgot anything");
    }
    // What expired long ago, while nobody posted, goes in one of the posts that look further.
    sql(&mut db, format!("UPDATE {}.seen SET expires = expires - interval '1 hour'", namespace.0)).await;
    posts = 0;
    while number(&mut db, &remembered).await > posts {
        ok(&queue, post("c", &posts.to_string())).await;
        posts += 1;
        assert!(posts < 10_000, "none of so many posts looked further");
    }
}

/// A plan that looks for messages by their entity only would walk all its queue, once for each that it settles.
#[tokio::test]
async fn what_a_commit_reads_does_not_grow_with_what_is_queued() {
    let namespace = Namespace::new();
    let queue = namespace.open().await;
    for part in 0..30 {
        let mut item = post("a", "0");
        item.messages = (0..100).flat_map(|n| post("a", &format!("{part}-{n}")).messages).collect();
        // Not plain, so each has a row of its own.
        item.messages[0].retention = Duration::ZERO;
        ok(&queue, item).await;
    }
    let request = LockRequest { max_batch: 10, ..request() };
    let grant = queue.try_lock(&[TryLock { entity: entity("a"), request }]).await.remove(0).unwrap().unwrap();
    let mut next = commit(&grant.lease, grant.batch.ids());
    next.next = Next::Batch { max: 10 };
    let updated = queue.update_locked(&[next]).await.remove(0).unwrap();
    assert!(matches!(updated, Updated::Continue { batch, .. } if batch.messages.len() == 10));

    // Connections tell what they read when they end.
    drop(queue);
    let mut db = outside().await;
    let open = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{}%' AND pid <> pg_backend_pid()",
        namespace.0
    );
    while number(&mut db, &open).await > 0 {
        tokio::task::yield_now().await;
    }
    let read = format!(
        "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE schemaname = '{}' AND indexrelname = 'message_pkey'",
        namespace.0
    );
    let read = number(&mut db, &read).await;
    assert!((30..300).contains(&read), "{read} entries were read for a grant and a commit of ten");
}

/// Hands bytes on, and counts how often the client speaks after the server did: the round trips.
struct Between {
    url: String,
    trips: Arc<Mutex<(bool, u32)>>,
    /// Connections that are older than the newest silence hand nothing on.
    silences: Arc<AtomicUsize>,
}

impl Between {
    fn new(url: &str) -> Self {
        let (before, rest) = url.split_once('@').unwrap();
        let (place, database) = rest.split_once('/').unwrap();
        let place = place.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{before}@{}/{database}", listener.local_addr().unwrap());
        let trips = Arc::new(Mutex::new((true, 0)));
        let count = trips.clone();
        let silences = Arc::new(AtomicUsize::new(0));
        let newest = silences.clone();
        // Ends with the process.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&place).unwrap());
                let (to, back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                for (from, to, asks) in [(client, to, true), (server, back, false)] {
                    let (count, newest) = (count.clone(), newest.clone());
                    let born = newest.load(SeqCst);
                    let silent = move || newest.load(SeqCst) > born;
                    std::thread::spawn(move || hand_on(from, to, asks, &count, silent));
                }
            }
        });
        Self { url, trips, silences }
    }

    /// From now on nothing is handed on between those that are connected.
    fn silence(&self) {
        self.silences.fetch_add(1, SeqCst);
    }

    fn trips(&self) -> u32 {
        std::mem::take(&mut self.trips.lock().unwrap().1)
    }
}

fn hand_on(
    mut from: TcpStream,
    mut to: TcpStream,
    asks: bool,
    count: &Mutex<(bool, u32)>,
    silent: impl Fn() -> bool,
) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if silent() {
            continue;
        }
        {
            let mut count = count.lock().unwrap();
            count.1 += u32::from(asks && count.0);
            count.0 = !asks;
        }
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// What the README promises of the costs.
#[tokio::test]
async fn a_call_is_one_trip_and_four_for_a_pooler_in_transaction_mode() {
    for (pooler, price) in [(false, 1), (true, 4)] {
        let namespace = Namespace::new();
        let between = Between::new(&server());
        let config = PostgresConfig::new(&between.url).namespace(&namespace.0).transaction_pooler(pooler);
        let queue = PostgresQueue::open(config).await.unwrap();
        // The first call of a verb prepares its statement.
        let mut warm = post("warm", "1");
        warm.lock = Some(request());
        let grant = ok(&queue, warm).await.grant.unwrap();
        let acked = vec![grant.batch.messages[0].id.clone()];
        queue.update_locked(&[commit(&grant.lease, acked)]).await.remove(0).unwrap();
        assert!(lock(&queue, "warm").await.is_none());
        between.trips();

        let posts: Vec<_> = (0..20).map(|n| post(&format!("e{n}"), "1")).collect();
        let posted = queue.enqueue(&posts).await;
        assert_eq!((between.trips(), posted.iter().filter(|posted| posted.is_ok()).count()), (price, 20));
        let grant = lock(&queue, "e0").await.unwrap();
        assert_eq!(between.trips(), price);
        let acked = vec![grant.batch.messages[0].id.clone()];
        queue.update_locked(&[commit(&grant.lease, acked)]).await.remove(0).unwrap();
        assert_eq!(between.trips(), price);
    }
}

/// Whatever numbers and ids were written by hand: the message is handed out and settled, and so are its neighbours.
#[tokio::test]
async fn damaged_rows_are_settled_and_harm_no_neighbour() {
    let namespace = Namespace::new();
    let queue = namespace.open().await;
    let entities = ["healthy", "numbers", "empty", "long"];
    for key in entities {
        ok(&queue, post(key, "1")).await;
        let grant = lock(&queue, key).await.unwrap();
        let acked = vec![grant.batch.messages[0].id.clone()];
        queue.update_locked(&[commit(&grant.lease, acked)]).await.remove(0).unwrap();
        ok(&queue, post(key, "2")).await;
    }
    let damage = "SET search_path = {s};
        INSERT INTO state SELECT id, 0, 0, '1' FROM entity ON CONFLICT DO NOTHING;
        UPDATE state SET version = -7, state_version = -1 WHERE entity = (SELECT id FROM entity WHERE key = 'numbers');
        UPDATE entity SET deliveries = -9, charged = -9 WHERE key = 'numbers';
        UPDATE message SET ids = ARRAY[''] WHERE entity = (SELECT id FROM entity WHERE key = 'empty');
        UPDATE message SET ids = ARRAY[repeat('x', 999)] WHERE entity = (SELECT id FROM entity WHERE key = 'long');";
    sql(&mut outside().await, damage.replace("{s}", &namespace.0)).await;
    let items = entities.map(|key| TryLock { entity: entity(key), request: request() });
    let mut commits = Vec::new();
    for granted in queue.try_lock(&items).await {
        let grant = granted.unwrap().expect("each is granted");
        commits.push(commit(&grant.lease, vec![grant.batch.messages[0].id.clone()]));
    }
    for (updated, key) in queue.update_locked(&commits).await.into_iter().zip(entities) {
        assert!(matches!(updated, Ok(Updated::Released { .. })), "{key}: {updated:?}");
    }
}

/// What a key of no entity is found among must still be found.
#[tokio::test]
async fn a_row_whose_key_is_none_hides_no_entity_behind_it() {
    let namespace = Namespace::new();
    let queue = namespace.open().await;
    ok(&queue, post("first", "1")).await;
    ok(&queue, post("second", "1")).await;
    let damage = "UPDATE {s}.entity SET key = '' WHERE key = 'first'";
    sql(&mut outside().await, damage.replace("{s}", &namespace.0)).await;
    let kinds = vec!["counter".to_owned()];
    let mut query = DueQuery { kinds, after: None, limit: 1 };
    let mut found = Vec::new();
    loop {
        let due = queue.due(&query).await.unwrap();
        found.extend(due.entities);
        match due.after {
            Some(after) => query.after = Some(after),
            None => break,
        }
    }
    assert_eq!(found, [entity("second")]);
    let listed = queue.list("counter", None, 9).await.unwrap();
    assert!(matches!(listed.as_slice(), [(found, _)] if *found == entity("second")), "{listed:?}");
}

/// A definite failure would be a lie: the call was applied.
#[tokio::test]
async fn a_write_whose_answer_does_not_decode_has_an_unknown_outcome() {
    let namespace = Namespace::new();
    let queue = namespace.open().await;
    let mut item = post("a", "1");
    item.lock = Some(request());
    let lease = ok(&queue, item).await.grant.unwrap().lease;
    let foreign = "SET search_path = {s};
        CREATE OR REPLACE FUNCTION release_v1(verb text, patience bigint, kinds text[], keys text[], nonces uuid[])
          RETURNS TABLE (item int, held boolean) LANGUAGE sql AS $$ SELECT 0, NULL::boolean $$;
        CREATE OR REPLACE FUNCTION enqueue_v1(verb text, patience bigint, kinds text[], keys text[], limits bigint[],
          counts bigint[], nonces uuid[], lengths bigint[], maxes bigint[], plain boolean, at_ int[],
          nth int[], parcels int[], message_ids text[], payloads_ text[], headers_ text[], delays bigint[], keeps bigint[])
          RETURNS TABLE (item int, part text, n bigint, numbers bigint[], said text, ids text[], payloads text[], headers text[])
          LANGUAGE sql AS $$ SELECT 0, NULL, NULL::bigint, NULL::bigint[], '', NULL::text[], NULL::text[], NULL::text[] $$;
        CREATE OR REPLACE FUNCTION resume_v1(verb text, patience bigint, kind_ text, key_ text)
          RETURNS TABLE (done boolean) LANGUAGE sql AS $$ SELECT NULL::boolean $$;";
    sql(&mut outside().await, foreign.replace("{s}", &namespace.0)).await;
    let errors = [
        queue.release(&[lease]).await.remove(0).unwrap_err(),
        queue.enqueue(&[post("a", "2")]).await.remove(0).unwrap_err(),
        queue.resume(&entity("a")).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{error}");
    }
}

/// As a firewall does that forgot them: nothing comes through any more, and nobody is told.
#[tokio::test]
async fn idle_connections_that_went_silent_cost_no_call() {
    let namespace = Namespace::new();
    let between = Between::new(&server());
    let config = PostgresConfig::new(&between.url).namespace(&namespace.0).patience(Duration::from_secs(2));
    let queue = PostgresQueue::open(config).await.unwrap();
    let (a, b, c) = ([post("a", "1")], [post("b", "1")], [post("c", "1")]);
    let posted = tokio::join!(queue.enqueue(&a), queue.enqueue(&b), queue.enqueue(&c));
    assert!([posted.0, posted.1, posted.2].iter().flatten().all(Result::is_ok));
    between.silence();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(5)).await;
    tokio::time::resume();
    for n in 0..3 {
        ok(&queue, post("d", &n.to_string())).await;
    }
}
