//! What only SQLite has. The behaviours all adapters share are in the conformance suite.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::time::Duration;

use actornot_core::{
    Admission, DueQuery, Effect, Envelope, ErrorKind, Inspect, Location, LockRequest, LockableQueue,
    MessageId, NewMessage, Next, Position, TryLock, Updated, Verdict, Waiting,
};
use actornot_sqlite::{SqliteConfig, SqliteQueue};
use tempfile::TempDir;

use crate::common::*;

#[tokio::test]
async fn the_settings_are_in_force() {
    let dir = TempDir::new().unwrap();
    let report = open(&dir).await.doctor().await.unwrap();
    assert!(report.is_durable(), "{report:?}");
    let value = |name| report.settings.iter().find(|setting| setting.name == name).unwrap().value.clone();
    assert_eq!(value("journal_mode"), "wal");
    assert_eq!(value("synchronous"), "FULL");
    assert_eq!(value("busy_timeout"), "5000 ms");
}

#[tokio::test]
async fn memory_is_refused_unless_it_is_allowed_by_name() {
    for url in ["sqlite::memory:", "sqlite:x?mode=memory", "sqlite:x?vfs=memdb"] {
        let error = SqliteQueue::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{url}: {error}");
    }
    let queue =
        SqliteQueue::open(SqliteConfig::new("sqlite::memory:").allow_single_process_memory()).await.unwrap();
    ok(&queue, post("a", "1")).await;
    assert_eq!(queue.read(&[entity("a")]).await.unwrap()[0].as_ref().unwrap().pending, 1);
    assert!(!queue.doctor().await.unwrap().is_durable());
}

#[tokio::test]
async fn a_newer_schema_is_used_or_refused_as_it_says_and_then_both_versions_are_named() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir).await);
    sql(&mut outside(&dir).await, "UPDATE actornot_meta SET version = 7").await;
    let queue = SqliteQueue::connect(&url(&dir)).await.unwrap();
    ok(&queue, post("a", "this version may still be used")).await;

    sql(&mut outside(&dir).await, "UPDATE actornot_meta SET oldest = 7").await;
    let error = SqliteQueue::connect(&url(&dir)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("version 7") && error.to_string().contains("version 1"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn four_queues_create_the_schema_at_once() {
    for _ in 0..5 {
        let dir = TempDir::new().unwrap();
        let opening: Vec<_> = (0..4)
            .map(|_| {
                let url = url(&dir);
                tokio::spawn(async move { SqliteQueue::connect(&url).await })
            })
            .collect();
        for (n, opened) in opening.into_iter().enumerate() {
            let queue = opened.await.unwrap().unwrap();
            ok(&queue, post("a", &n.to_string())).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_at_any_poll_leaves_all_or_nothing_and_a_usable_writer() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir).await;
    let mut drops = 0;
    for round in 0..60 {
        // How far a call is at its nth wake depends on the machine, so each place is tried several times.
        let times = 1 + round % 12;
        let (key, id) = (format!("k{round}"), format!("m{round}"));
        let mut item = post(&key, &id);
        item.lock = Some(request());
        let items = [item.clone()];
        drops += usize::from(!poll_times(queue.enqueue(&items), times).await);
        // Repeated with the same ids it is applied once, whatever had happened to the first call.
        let again = ok(&queue, item).await;
        assert!(matches!(again.admissions[..], [Admission::Accepted | Admission::Duplicate]));
        let grant = again.grant.expect("the same grant or a new one");
        assert_eq!((grant.batch.messages.len(), grant.batch.deliveries), (1, 1));

        let change = [commit(&grant.lease, grant.batch.ids())];
        poll_times(queue.update_locked(&change), times).await;
        assert_eq!(
            queue.update_locked(&change).await.remove(0).unwrap(),
            Updated::Released { next_due: None }
        );
        let now = queue.read(&[entity(&key)]).await.unwrap().remove(0).unwrap();
        assert_eq!((now.pending, now.state.unwrap().version), (0, 1));
    }
    // A run in which every call came through proves nothing.
    assert!(drops > 3, "{drops}");
}

#[tokio::test]
async fn a_lease_is_handed_over_between_two_queues_on_one_file() {
    let dir = TempDir::new().unwrap();
    let (one, two) = (open(&dir).await, open(&dir).await);
    let mut item = post("a", "1");
    item.lock = Some(request());
    let grant = ok(&one, item).await.grant.unwrap();
    let lock = TryLock { entity: entity("a"), request: request() };
    assert_eq!(two.try_lock(std::slice::from_ref(&lock)).await.remove(0).unwrap(), None);
    assert!(one.release(std::slice::from_ref(&grant.lease)).await.remove(0).unwrap());
    let next = two.try_lock(&[lock]).await.remove(0).unwrap().unwrap();
    assert!(next.lease.fence > grant.lease.fence);
    assert_eq!(next.batch.deliveries, 1);
    let stale = one.update_locked(&[commit(&grant.lease, grant.batch.ids())]).await.remove(0).unwrap();
    assert_eq!(stale, Updated::LockLost);
}

#[tokio::test]
async fn a_heartbeat_extends_on_its_own_connection_even_after_the_deadline() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir).await;
    let mut item = post("a", "1");
    item.lock = Some(LockRequest { length: Duration::from_millis(50), ..request() });
    let mut lease = ok(&queue, item).await.grant.unwrap().lease;
    tokio::time::sleep(Duration::from_millis(80)).await;
    let query = DueQuery { kinds: vec!["counter".into()], limit: 10, after: None };
    assert_eq!(queue.due(&query).await.unwrap().entities, [entity("a")]);
    lease.length = Duration::from_secs(60);
    let mut heartbeat = queue.heartbeat().await.unwrap();
    assert!(heartbeat.extend_lock(&[lease]).await.remove(0).unwrap());
    let due = queue.due(&query).await.unwrap();
    assert!(due.entities.is_empty() && due.next.unwrap() > Duration::from_secs(50), "{due:?}");
    // A deadline beyond the longest lease was left by a clock that was set back.
    let back = "UPDATE actornot_entity SET deadline = deadline + 7200000, since = since + 7200000";
    sql(&mut outside(&dir).await, back).await;
    assert_eq!(queue.due(&query).await.unwrap().entities, [entity("a")]);
    let taken =
        queue.try_lock(&[TryLock { entity: entity("a"), request: request() }]).await.remove(0).unwrap();
    assert_eq!(taken.unwrap().batch.batch_limit, 1);
}

#[tokio::test]
async fn odd_bytes_survive_and_damaged_rows_do_not_harm_neighbours() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir).await;
    let mut odd = post("o'dd\"\\\u{1F600}\n", "i\"d\\\u{1}");
    odd.messages[0].payload = "{\"z\":1,\"a\":\"\\u0000\",  \"z\":2}\u{0}'\"".into();
    odd.messages[0].headers.insert("trace\"\u{0}".into(), "\u{0}v\\".into());
    let (name, sent) = (odd.entity.clone(), odd.messages[0].clone());
    ok(&queue, odd).await;
    let found = queue.peek(&name, 9).await.unwrap().remove(0);
    assert_eq!((found.id, found.payload, found.headers), (sent.id, sent.payload, sent.headers));

    ok(&queue, post("bad", "1")).await;
    ok(&queue, post("good", "1")).await;
    let mut other = outside(&dir).await;
    sql(
        &mut other,
        "UPDATE actornot_message SET payload = CAST(x'ff' AS TEXT), headers = '{' WHERE entity = 2",
    )
    .await;
    let locks = ["bad", "good"].map(|key| TryLock { entity: entity(key), request: request() });
    let grants: Vec<_> =
        queue.try_lock(&locks).await.into_iter().map(|grant| grant.unwrap().unwrap()).collect();
    assert_eq!(grants[0].batch.messages[0].payload, "\u{FFFD}");
    assert_eq!(grants[1].batch.messages[0].payload, "{\"id\":\"1\"}");
}

#[tokio::test]
async fn a_message_whose_id_is_none_is_settled() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir).await;
    ok(&queue, post("a", "1")).await;
    let mut other = outside(&dir).await;
    sql(&mut other, "UPDATE actornot_message SET id = ''").await;
    let locks = [TryLock { entity: entity("a"), request: request() }];
    let grant = queue.try_lock(&locks).await.remove(0).unwrap().unwrap();
    let updated = queue.update_locked(&[commit(&grant.lease, grant.batch.ids())]).await.remove(0).unwrap();
    assert_eq!(updated, Updated::Released { next_due: None });
}

#[tokio::test]
async fn a_row_whose_key_is_none_hides_no_entity_behind_it() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir).await;
    ok(&queue, post("first", "1")).await;
    ok(&queue, post("second", "1")).await;
    let mut other = outside(&dir).await;
    let long = "UPDATE actornot_entity SET key = replace(hex(zeroblob(400)), '0', 'x') WHERE key = 'first'";
    sql(&mut other, long).await;
    let mut query = DueQuery { kinds: vec!["counter".into()], after: None, limit: 1 };
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

#[tokio::test]
async fn a_refused_commit_leaves_no_trace_and_its_neighbour_is_applied() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir).await;
    let mut items = [post("a", "1"), post("b", "1")];
    items.iter_mut().for_each(|item| item.lock = Some(request()));
    let grants: Vec<_> = queue.enqueue(&items).await.into_iter().map(|e| e.unwrap().grant.unwrap()).collect();
    let mut bad = commit(&grants[0].lease, grants[0].batch.ids());
    bad.effects = vec![
        Effect::Send(Envelope { entity: entity("c"), message: message("never") }),
        Effect::CancelTimer { name: "t".into() },
    ];
    let mut good = commit(&grants[1].lease, grants[1].batch.ids());
    good.effects = vec![Effect::Send(Envelope { entity: entity("a"), message: message("sent") })];
    let answers = queue.update_locked(&[bad, good.clone()]).await;
    assert_eq!(answers[0].as_ref().unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(*answers[1].as_ref().unwrap(), Updated::Released { next_due: None });
    assert_eq!(queue.read(&[entity("c")]).await.unwrap(), [None]);
    queue.update_locked(&[good]).await.remove(0).unwrap();
    let Updated::Continue { batch, .. } =
        queue.update_locked(&[commit(&grants[0].lease, grants[0].batch.ids())]).await.remove(0).unwrap()
    else {
        panic!("the send waits")
    };
    assert_eq!(batch.ids(), [MessageId::new("sent").unwrap()]);
}

#[tokio::test]
async fn dead_letters_and_purge_keep_their_word() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir).await;
    let mut item = post("a", "1");
    item.messages.push(message("2"));
    item.messages.push(NewMessage { delay: Duration::from_millis(1), ..message("late") });
    item.lock = Some(request());
    let grant = ok(&queue, item.clone()).await.grant.unwrap();
    let mut dead = commit(&grant.lease, vec![]);
    dead.verdict = Verdict::DeadLetter { error: "no".into() };
    dead.next = Next::Release;
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(
        queue.update_locked(&[dead]).await.remove(0).unwrap(),
        Updated::Released { next_due: Some(Duration::ZERO) }
    );
    let letter = queue.dead_letters("counter", None, 9).await.unwrap().remove(0);
    assert_eq!((letter.payload.as_str(), letter.attempts), ("{\"id\":\"1\"}", 1));
    assert!(queue.redrive(&letter, Position::Head).await.unwrap());
    assert!(!queue.redrive(&letter, Position::Head).await.unwrap());
    let ids: Vec<_> = queue.peek(&entity("a"), 9).await.unwrap().iter().map(|m| m.id.to_string()).collect();
    assert_eq!(ids, ["1", "2", "late"]);
    let lock = TryLock { entity: entity("a"), request: request() };
    let grant = queue.try_lock(&[lock]).await.remove(0).unwrap().unwrap();
    assert!(queue.purge(&entity("a")).await.unwrap());
    assert!(!queue.purge(&entity("a")).await.unwrap());
    assert_eq!(
        queue.update_locked(&[commit(&grant.lease, grant.batch.ids())]).await.remove(0).unwrap(),
        Updated::LockLost
    );
    assert_eq!(queue.why(&entity("a")).await.unwrap(), None);
    assert!(queue.list("counter", None, 9).await.unwrap().is_empty());
    assert_eq!(queue.locate(&entity("a"), &grant.batch.ids()).await.unwrap(), [Location::Gone; 3]);
    item.lock = None;
    assert_eq!(ok(&queue, item).await.admissions, [Admission::Duplicate; 3]);
}

/// The clock goes on between two reads. An entity that is due behind the first and before the second must be in one of them.
#[tokio::test]
async fn who_falls_due_while_due_is_asked_is_found_or_named_as_the_next() {
    let dir = TempDir::new().unwrap();
    let queue = open(&dir).await;
    let query = DueQuery { kinds: vec!["counter".into()], limit: 10, after: None };
    for n in 0..300 {
        ok(&queue, post("alice", &format!("m{n}"))).await;
        let grant = lock(&queue, "alice").await.unwrap();
        let mut draft = commit(&grant.lease, vec![]);
        draft.verdict = Verdict::Wait { why: Waiting::Backoff, after: Duration::from_millis(2), error: None };
        queue.update_locked(&[draft]).await.remove(0).unwrap();
        loop {
            let due = queue.due(&query).await.unwrap();
            assert!(!due.entities.is_empty() || due.next.is_some(), "nobody waits, it is said in round {n}");
            if !due.entities.is_empty() {
                break;
            }
        }
        let grant = lock(&queue, "alice").await.unwrap();
        queue.update_locked(&[commit(&grant.lease, grant.batch.ids())]).await.remove(0).unwrap();
    }
}
