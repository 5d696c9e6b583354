use actornot_core::Admission::{Accepted, Duplicate};
use actornot_core::Enqueue;

use super::{POLLS, dropped_after};
use crate::lab::{Instance, Lab, PAST_LEASE, entity, messages, names};
use crate::verdict::{Check, scene};

fn two_with_lock(queue: &Instance<'_>, key: &str) -> Enqueue {
    Enqueue { lock: Some(queue.lock_request()), ..queue.enqueue(&entity(key), messages(&["a", "b"])) }
}

pub(crate) async fn reply_lost(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a post with the lock whose reply was lost", when "it is repeated", usually "ids or the nonce are not stored in the step they serve");
    let queue = lab.open().await;
    let item = two_with_lock(&queue, "alice");
    let first = queue.send_item(&item).await?;
    let again = queue.send_item(&item).await?;
    scene.same("the admissions", vec![Duplicate, Duplicate], again.admissions)?;
    if let Some(first) = first.grant {
        scene.same("the grant", Some(first), again.grant)?;
    }
    scene.same("the queue", 2, queue.queued(&entity("alice")).await?.len())
}

pub(crate) async fn caller_dropped(lab: &Lab) -> Check {
    let scene = scene!(G10, given "a post of two messages that is dropped at each of its awaits", when "it is repeated", usually "a transaction or a connection that outlives its call");
    let queue = lab.open().await;
    for polls in 0..POLLS {
        let key = format!("k{polls}");
        let item = two_with_lock(&queue, &key);
        let done = dropped_after(polls, queue.send_item(&item)).await;
        let stored = queue.pending(&entity(&key)).await?;
        scene.holds("both messages or none", stored == 0 || stored == 2, stored)?;
        queue.send_item(&item).await?;
        scene.same("the queue", vec!["a", "b"], queue.queued(&entity(&key)).await?)?;
        if done.is_some() {
            return Ok(());
        }
    }
    Err(scene.verdict(format!("an end within {POLLS} polls"), "none".to_owned()))
}

pub(crate) async fn crash_before(lab: &Lab) -> Check {
    let scene = scene!(G1, given "a client that died before it sent its post", when "another posts to the entity and runs it", usually "something is kept for a client that never called");
    drop(lab.open().await);
    let (queue, alice) = (lab.open().await, entity("alice"));
    scene.same("the entity", None, queue.snapshot(&alice).await?)?;
    queue.post(&alice, "a").await?;
    scene.same("what is run", vec!["a".to_owned()], queue.drain(&alice).await?)
}

pub(crate) async fn crash_after(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a client that died after its post was granted the lock", when "its lease has run out", usually "a grant made by a post does not expire");
    let (one, alice) = (lab.open().await, entity("alice"));
    one.send_item(&two_with_lock(&one, "alice")).await?;
    drop(one);
    lab.elapse(PAST_LEASE).await;
    let queue = lab.open().await;
    scene.same("it is due", true, queue.is_due(&alice).await?)?;
    scene.same("what is run", vec!["a".to_owned(), "b".to_owned()], queue.drain(&alice).await?)
}

pub(crate) async fn stale_holder(lab: &Lab) -> Check {
    let scene = scene!(G3, given "a holder that was taken over", when "it posts with the lock wanted", usually "whoever held the lock is granted it again");
    let (one, two, alice) = (lab.open().await, lab.open().await, entity("alice"));
    one.post(&alice, "a").await?;
    one.lock(&alice).await?;
    lab.elapse(PAST_LEASE).await;
    let holder = two.lock(&alice).await?;
    let item = Enqueue { lock: Some(one.lock_request()), ..one.enqueue(&alice, messages(&["b"])) };
    let enqueued = one.send_item(&item).await?;
    scene.same("the admission", vec![Accepted], enqueued.admissions)?;
    scene.same("the grant", None, enqueued.grant)?;
    scene.same("what the holder runs", vec!["a".to_owned(), "b".to_owned()], two.drain_from(holder).await?)
}

pub(crate) async fn late_duplicate(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a post whose messages were handled and whose lock was let go", when "its first copy arrives, late", usually "ids are forgotten when they are handled");
    let queue = lab.open().await;
    let item = two_with_lock(&queue, "alice");
    let grant = match queue.send_item(&item).await?.grant {
        Some(grant) => grant,
        None => queue.lock(&entity("alice")).await?,
    };
    scene.holds("a batch", !names(&grant.batch).is_empty(), &grant.batch)?;
    queue.drain_from(grant).await?;
    let late = queue.send_item(&item).await?;
    scene.same("the admissions", vec![Duplicate, Duplicate], late.admissions)?;
    scene.same("the grant", None, late.grant)?;
    scene.same("the queue", 0, queue.pending(&entity("alice")).await?)
}
