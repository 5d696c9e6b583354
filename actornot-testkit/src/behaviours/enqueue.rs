//! What becomes of a post: G1 durable, G2 in order, G7 once, G9 bounded.

use actornot_core::Admission::{Accepted, Duplicate, Full};
use actornot_core::{Enqueue, EntityId, Headers, LockRequest, NewMessage, StoredMessage, Waiting};

use crate::lab::{DAY, Lab, MINUTE, delayed, entity, id, message, messages, names};
use crate::verdict::{Check, scene};

pub(crate) async fn an_accepted_message_is_in_the_database(lab: &Lab) -> Check {
    let scene = scene!(G1, given "a message that was accepted", when "another instance looks", usually "the answer is given before the write");
    let alice = entity("alice");
    scene.same("the admission", Accepted, lab.open().await.post(&alice, "a").await?)?;
    scene.same("the queue", vec!["a".to_owned()], lab.open().await.queued(&alice).await?)
}

pub(crate) async fn messages_are_handed_out_in_the_order_of_their_posts(lab: &Lab) -> Check {
    let scene = scene!(G2, given "posts of several messages through two instances, one after the other", when "they are run", usually "the order is that of ids or of clients' clocks");
    let (one, two, alice) = (lab.open().await, lab.open().await, entity("alice"));
    one.post_all(&alice, messages(&["z", "b"])).await?;
    two.post_all(&alice, messages(&["c"])).await?;
    one.post_all(&alice, messages(&["a", "y"])).await?;
    scene.same("the order", vec!["z", "b", "c", "a", "y"], two.drain(&alice).await?)
}

pub(crate) async fn payloads_survive_byte_for_byte(lab: &Lab) -> Check {
    let scene = scene!(G1, given "payloads that a parser would rewrite", when "they are handed out", usually "the payload is stored as a parsed document instead of its text");
    let (queue, alice) = (lab.open().await, entity("alice"));
    // Deeper than a parser follows it, and a text field of its own in every database.
    let nested = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let payloads = [
        r#"{"b":1,"a":2,"b":3}"#,
        r#"{ "spaced" : [ 1.0 , 1e3,-0 ] }"#,
        r#""\u0000 \u0041 \ud83d\ude00""#,
        r#""\ud800""#,
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "9007199254740993",
        "1.7976931348623157e308",
        "5e-324",
        "-0.0",
        "0.1000000000000000055511151231257827",
        r#"{"$where":"1","a.b":{"$set":1}}"#,
        "\"quotes ' % ? $1 :name é 🦀 \\n\"",
        "\"$literal\"",
        &nested,
    ];
    let named = |(nth, payload): (usize, &&str)| NewMessage {
        payload: (*payload).to_owned(),
        ..message(&nth.to_string())
    };
    queue.post_all(&alice, payloads.iter().enumerate().map(named).collect()).await?;
    let stored = queue.queue.peek(&alice, 100).await?;
    let observed: Vec<&str> = stored.iter().map(|message| message.payload.as_str()).collect();
    scene.same("the bytes", payloads.to_vec(), observed)?;
    let grant = queue.lock(&alice).await?;
    scene.same(
        "the bytes handed out",
        Some(payloads[0]),
        grant.batch.messages.first().map(|message| message.payload.as_str()),
    )
}

pub(crate) async fn headers_travel_with_their_message(lab: &Lab) -> Check {
    let scene = scene!(G1, given "a message with headers between two without", when "they are handed out", usually "headers are not stored, or read back with another");
    let (queue, alice) = (lab.open().await, entity("alice"));
    let headers =
        Headers::from([("traceparent".to_owned(), "00-é-'\"".to_owned()), (String::new(), String::new())]);
    let bearer = NewMessage { headers: headers.clone(), ..message("b") };
    queue.post_all(&alice, vec![message("a"), bearer, message("c")]).await?;
    let each = |messages: Vec<StoredMessage>| -> Vec<Headers> {
        messages.into_iter().map(|message| message.headers).collect()
    };
    let expected = vec![Headers::new(), headers, Headers::new()];
    scene.same("the headers of each", expected.clone(), each(queue.queue.peek(&alice, 3).await?))?;
    // Of all that are handed out together, which may be fewer.
    let handed = each(queue.lock(&alice).await?.batch.messages);
    scene.same("the headers handed out", expected.get(..handed.len().max(1)), Some(handed.as_slice()))
}

pub(crate) async fn keys_are_told_apart_byte_for_byte(lab: &Lab) -> Check {
    let scene = scene!(G3, given "keys that differ in little, or look like syntax", when "each is posted to", usually "a collation, an escape, or a prefix that folds two keys into one");
    let queue = lab.open().await;
    let (long, crabs) = ("k".repeat(512), "🦀".repeat(128));
    let keys = [
        "a", "A", "a ", " a", "á", "a\u{301}", "$a", ".a", "a.b", "{a}", "{", "a}", "a:b", "a*", "a'", "a\"",
        "a%", "a_", "a\n", "🦀", "a/b", "a\\", "a\u{1}", "null", "1", "[\"a\"]", &long, &crabs,
    ];
    for key in keys {
        let entity = entity(key);
        scene.same(key, Accepted, queue.post(&entity, "same").await?)?;
        scene.same(key, vec!["same".to_owned()], queue.queued(&entity).await?)?;
    }
    let listed = queue.queue.list("thing", None, 100).await?;
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    let listed: Vec<&str> = listed.iter().map(|(entity, _)| entity.key()).collect();
    scene.same("the entities, in the order of their keys' bytes", sorted, listed)
}

pub(crate) async fn ids_are_told_apart_byte_for_byte(lab: &Lab) -> Check {
    let scene = scene!(G7, given "ids that differ in little, or look like syntax", when "each is posted twice, and handled", usually "a collation, an escape, or a prefix that folds two ids into one");
    let (queue, alice, long) = (lab.open().await, entity("alice"), "i".repeat(256));
    let ids = [
        "a", "A", "a ", "á", "a\u{301}", "$a", "a.b", "{a}", "a:b", "a*", "a'", "a\"", "a%", "a\n", "🦀",
        "a/b", "a\\", "a b", "1", "null", &long,
    ];
    scene.same("at first", vec![Accepted; ids.len()], queue.post_all(&alice, messages(&ids)).await?)?;
    scene.same("again", vec![Duplicate; ids.len()], queue.post_all(&alice, messages(&ids)).await?)?;
    scene.same("the order", ids.to_vec(), queue.drain(&alice).await?)?;
    scene.same("once handled", vec![Duplicate; ids.len()], queue.post_all(&alice, messages(&ids)).await?)
}

pub(crate) async fn an_id_is_accepted_once(lab: &Lab) -> Check {
    let scene = scene!(G7, given "an id that was accepted", when "it is posted again, in the same and in another call", usually "ids are not remembered in the step that stores the message");
    let (queue, alice) = (lab.open().await, entity("alice"));
    scene.same(
        "in one call",
        vec![Accepted, Duplicate],
        queue.post_all(&alice, messages(&["a", "a"])).await?,
    )?;
    scene.same("in another call", Duplicate, lab.open().await.post(&alice, "a").await?)?;
    scene.same("the queue", vec!["a".to_owned()], queue.queued(&alice).await?)
}

pub(crate) async fn the_first_payload_of_an_id_wins(lab: &Lab) -> Check {
    let scene = scene!(G7, given "an id that was accepted", when "it is posted with another payload", usually "an upsert");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    queue.post_all(&alice, vec![NewMessage { payload: "2".to_owned(), ..message("a") }]).await?;
    let stored = queue.queue.peek(&alice, 10).await?;
    scene.same("the payload", Some("\"a\""), stored.first().map(|message| message.payload.as_str()))
}

pub(crate) async fn an_id_is_remembered_after_it_was_handled(lab: &Lab) -> Check {
    let scene = scene!(G7, given "a message that was handled", when "its id is posted again", usually "the queue itself is the memory of ids");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    queue.drain(&alice).await?;
    scene.same("the admission", Duplicate, queue.post(&alice, "a").await?)
}

pub(crate) async fn an_id_is_forgotten_after_its_retention(lab: &Lab) -> Check {
    let scene = scene!(G7, given "an id whose retention is over", when "it is posted again", usually "expiry is left to a background job, or to nobody");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    queue.drain(&alice).await?;
    lab.elapse(DAY - MINUTE).await;
    scene.same("within the retention", Duplicate, queue.post(&alice, "a").await?)?;
    lab.elapse(MINUTE * 2).await;
    scene.same("after it", Accepted, queue.post(&alice, "a").await?)
}

pub(crate) async fn ids_of_different_entities_never_meet(lab: &Lab) -> Check {
    let scene = scene!(G7, given "an id that one entity has accepted", when "another entity, or another kind, is posted the same id", usually "the memory of ids has no entity in its key");
    let queue = lab.open().await;
    queue.post(&entity("alice"), "a").await?;
    scene.same("another entity", Accepted, queue.post(&entity("bob"), "a").await?)?;
    let other = EntityId::new("other", "alice")?;
    scene.same("another kind", Accepted, queue.post(&other, "a").await?)
}

pub(crate) async fn an_id_is_remembered_over_a_purge(lab: &Lab) -> Check {
    let scene = scene!(G7, given "an entity that was purged", when "an id it had accepted before is posted", usually "the memory of ids is deleted with the entity");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    queue.queue.purge(&alice).await?;
    scene.same("the admission", Duplicate, queue.post(&alice, "a").await?)
}

pub(crate) async fn a_full_backlog_refuses_what_does_not_fit(lab: &Lab) -> Check {
    let scene = scene!(G9, given "a backlog limit of 3, and one message pending", when "three more are posted in one call", usually "the limit is checked once for a call, or not in the step that stores");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, vec![delayed("a", MINUTE)]).await?;
    let item = Enqueue { backlog_limit: 3, ..queue.enqueue(&alice, messages(&["b", "c", "d"])) };
    scene.same("the admissions", vec![Accepted, Accepted, Full], queue.send_item(&item).await?.admissions)?;
    scene.same("what is pending", 3, queue.pending(&alice).await?)?;
    queue.drain(&alice).await?;
    let again = Enqueue { backlog_limit: 3, ..queue.enqueue(&alice, messages(&["d"])) };
    scene.same("when there is room again", vec![Accepted], queue.send_item(&again).await?.admissions)
}

pub(crate) async fn a_duplicate_is_told_even_when_the_backlog_is_full(lab: &Lab) -> Check {
    let scene = scene!(G7, given "a full backlog", when "an id in it is posted again", usually "the limit is checked before the id");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let item = Enqueue { backlog_limit: 1, ..queue.enqueue(&alice, messages(&["a", "b"])) };
    scene.same("the admissions", vec![Duplicate, Full], queue.send_item(&item).await?.admissions)
}

pub(crate) async fn a_delayed_message_waits_for_its_time(lab: &Lab) -> Check {
    let scene = scene!(G2, given "a message with a delay of a minute", when "the lock is tried before and after", usually "the delay is dropped, or measured by the client");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, vec![delayed("a", MINUTE)]).await?;
    scene.same("before", None, queue.try_once(&alice).await?)?;
    scene.same("it is pending", 1, queue.pending(&alice).await?)?;
    lab.elapse(MINUTE).await;
    scene.same("after", vec!["a".to_owned()], queue.drain(&alice).await?)
}

pub(crate) async fn a_delayed_message_joins_the_tail_when_it_falls_due(lab: &Lab) -> Check {
    let scene = scene!(G2, given "delayed messages that fell due while one was queued", when "another is posted afterwards", usually "delayed messages are only moved when the queue is read");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue
        .post_all(&alice, vec![delayed("late", MINUTE), delayed("early", MINUTE / 2), message("queued")])
        .await?;
    lab.elapse(MINUTE).await;
    queue.post(&alice, "after").await?;
    let order = queue.drain(&alice).await?;
    scene.same("the order", vec!["queued", "early", "late", "after"], order)
}

pub(crate) async fn thousands_that_fall_due_at_once_keep_their_order(lab: &Lab) -> Check {
    let scene = scene!(G2, given "2,300 delayed messages that fell due together", when "another is posted before they have all joined the queue", usually "what is moved in portions is overtaken by what comes meanwhile");
    let (queue, alice) = (lab.open().await, entity("alice"));
    let named: Vec<String> = (0..2_300).map(|nth| format!("{nth:04}")).collect();
    for some in named.chunks(575) {
        let late = some.iter().map(|name| delayed(name, MINUTE)).collect();
        queue.send_item(&Enqueue { backlog_limit: 9_999, ..queue.enqueue(&alice, late) }).await?;
    }
    lab.elapse(MINUTE * 2).await;
    let after = Enqueue { backlog_limit: 9_999, ..queue.enqueue(&alice, messages(&["after"])) };
    queue.send_item(&after).await?;
    scene.same("what is pending", 2_301, queue.pending(&alice).await?)?;
    let order = queue.drain(&alice).await?;
    scene.same("how many were handled", 2_301, order.len())?;
    let expected: Vec<&str> = named.iter().map(String::as_str).chain(["after"]).collect();
    let first = expected.iter().zip(&order).find(|(expected, observed)| *expected != observed);
    scene.same(
        "the first out of order",
        None,
        first.map(|(expected, observed)| format!("{observed}, not {expected}")),
    )
}

pub(crate) async fn a_post_that_gets_the_lock_is_handed_what_was_queued_before(lab: &Lab) -> Check {
    let scene = scene!(G2, given "messages that nobody runs", when "others are posted and the lock wanted for a batch of as many", usually "a batch is made of what the call itself brought");
    let queue = lab.open().await;
    for (key, max_batch) in [("alice", 1), ("bob", 2), ("carol", 3)] {
        let key = entity(key);
        queue.post_all(&key, messages(&["a", "b"])).await?;
        let lock = Some(LockRequest { max_batch, ..queue.lock_request() });
        let item = Enqueue { lock, ..queue.enqueue(&key, messages(&["c", "d"])) };
        let grant = match queue.send_item(&item).await?.grant {
            Some(grant) => grant,
            None => queue.lock_at_most(&key, max_batch).await?,
        };
        let batch = names(&grant.batch);
        scene.holds(
            "a batch of what was asked for",
            (1..=max_batch as usize).contains(&batch.len()),
            &batch,
        )?;
        queue.commit(&queue.draft(&grant).release()).await?;
        let order: Vec<String> = batch.into_iter().chain(queue.drain(&key).await?).collect();
        scene.same("the order", vec!["a", "b", "c", "d"], order)?;
    }
    Ok(())
}

pub(crate) async fn the_lock_of_the_same_trip_sees_the_message(lab: &Lab) -> Check {
    let scene = scene!(G5, given "an idle entity", when "a message is posted and the lock wanted in one trip", usually "the batch is read in the snapshot of the insert");
    let (queue, alice) = (lab.open().await, entity("alice"));
    let mut granted = 0;
    for round in ["a", "b", "c", "d"] {
        let item = Enqueue { lock: Some(queue.lock_request()), ..queue.enqueue(&alice, messages(&[round])) };
        let grant = queue.send_item(&item).await?.grant;
        granted += usize::from(grant.is_some());
        let grant = match grant {
            Some(grant) => grant,
            None => queue.lock(&alice).await?,
        };
        scene.same("the batch", vec![round.to_owned()], names(&grant.batch))?;
        queue.drain_from(grant).await?;
    }
    // A queue may refuse a free lock now and then, but not whenever only the message of the same trip waits.
    scene.holds("a grant in the same trip", granted > 0, granted)
}

pub(crate) async fn a_lock_that_is_held_is_not_granted_to_a_post(lab: &Lab) -> Check {
    let scene = scene!(G3, given "an entity that somebody holds", when "a message is posted with the lock wanted", usually "a post's request for the lock skips the lease");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    queue.lock(&alice).await?;
    let item = Enqueue { lock: Some(queue.lock_request()), ..queue.enqueue(&alice, messages(&["b"])) };
    let enqueued = queue.send_item(&item).await?;
    scene.same("the admission", vec![Accepted], enqueued.admissions)?;
    scene.same("the grant", None, enqueued.grant)
}

pub(crate) async fn a_post_does_not_shorten_a_wait(lab: &Lab) -> Check {
    let scene = scene!(G2, given "an entity that backs off", when "a message is posted with the lock wanted", usually "a post marks the entity ready");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let grant = queue.lock(&alice).await?;
    queue.commit(&queue.draft(&grant).wait(Waiting::Backoff, MINUTE)).await?;
    let item = Enqueue { lock: Some(queue.lock_request()), ..queue.enqueue(&alice, messages(&["b"])) };
    scene.same("the grant", None, queue.send_item(&item).await?.grant)?;
    scene.same("it is due", false, queue.is_due(&alice).await?)?;
    lab.elapse(MINUTE).await;
    scene.same("after the wait", vec!["a".to_owned(), "b".to_owned()], queue.drain(&alice).await?)
}

pub(crate) async fn an_emptied_queue_keeps_its_order(lab: &Lab) -> Check {
    let scene = scene!(G2, given "a queue that was emptied and filled again", when "it is run", usually "sequences start anew while old ones are still remembered");
    let (queue, alice) = (lab.open().await, entity("alice"));
    for round in 0..3 {
        let posted = [format!("{round}-1"), format!("{round}-2")];
        for name in &posted {
            queue.post(&alice, name).await?;
        }
        scene.same("the order", posted.to_vec(), queue.drain(&alice).await?)?;
    }
    scene.same("the queue", Vec::<String>::new(), queue.queued(&alice).await?)?;
    let gone = queue.queue.locate(&alice, &[id("0-1")]).await?;
    scene.same("where the first is", vec![actornot_core::Location::Gone], gone)
}
