use actornot_core::LockRequest;

use super::{POLLS, dropped_after};
use crate::lab::{Lab, PAST_LEASE, entity, names};
use crate::verdict::{Check, scene};

pub(crate) async fn reply_lost(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a grant whose reply was lost", when "the request is repeated twice", usually "each repetition counts an attempt, or is refused by its own lease");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let grant = queue.lock(&alice).await?;
    let again = LockRequest { nonce: grant.lease.nonce, ..queue.lock_request() };
    for _ in 0..2 {
        scene.same("the grant", Some(grant.clone()), queue.ask(&alice, again.clone()).await?)?;
    }
    Ok(())
}

pub(crate) async fn caller_dropped(lab: &Lab) -> Check {
    let scene = scene!(G10, given "a request for the lock that is dropped at each of its awaits", when "it is repeated with its nonce", usually "a grant that nobody knows of");
    let queue = lab.open().await;
    for polls in 0..POLLS {
        let entity = entity(&format!("k{polls}"));
        queue.post(&entity, "a").await?;
        let request = queue.lock_request();
        let done = dropped_after(polls, queue.ask(&entity, request.clone())).await;
        let mut grant = queue.ask(&entity, request).await?;
        if grant.is_none() && !matches!(done, Some(Ok(Some(_)))) {
            grant = Some(queue.lock(&entity).await?);
        }
        let grant = scene.some("the grant", grant)?;
        scene.same("deliveries", 1, grant.batch.deliveries)?;
        if done.is_some() {
            return Ok(());
        }
    }
    Err(scene.verdict(format!("an end within {POLLS} polls"), "none".to_owned()))
}

pub(crate) async fn crash_before(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a client that posted and died before it asked for the lock", when "another looks for work", usually "only posts lead to runs");
    let (one, alice) = (lab.open().await, entity("alice"));
    one.post(&alice, "a").await?;
    drop(one);
    let queue = lab.open().await;
    scene.same("it is due", true, queue.is_due(&alice).await?)?;
    scene.same("what is run", vec!["a".to_owned()], queue.drain(&alice).await?)
}

pub(crate) async fn crash_after(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a client that died with the lock", when "another takes over", usually "the hand-out was counted in the memory of the dead");
    let (one, alice) = (lab.open().await, entity("alice"));
    one.post(&alice, "a").await?;
    one.lock(&alice).await?;
    drop(one);
    let queue = lab.open().await;
    scene.same("before its lease has run out", None, queue.try_once(&alice).await?)?;
    lab.elapse(PAST_LEASE).await;
    scene.same("deliveries", 2, queue.lock(&alice).await?.batch.deliveries)
}

pub(crate) async fn stale_holder(lab: &Lab) -> Check {
    let scene = scene!(G3, given "a holder that was taken over", when "it repeats its request", usually "the nonce of an earlier grant opens the lock");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let stale = queue.lock(&alice).await?;
    lab.elapse(PAST_LEASE).await;
    let holder = queue.lock(&alice).await?;
    let again = LockRequest { nonce: stale.lease.nonce, ..queue.lock_request() };
    scene.same("the grant", None, queue.ask(&alice, again).await?)?;
    scene.same("what the holder runs", names(&holder.batch), queue.drain_from(holder).await?)
}

pub(crate) async fn late_duplicate(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a lock that was let go with more queued", when "its request arrives once more, late", usually "a nonce that is forgotten locks the entity for nobody");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let grant = queue.lock(&alice).await?;
    queue.post(&alice, "b").await?;
    queue.commit(&queue.draft(&grant).release()).await?;
    let late = LockRequest { nonce: grant.lease.nonce, ..queue.lock_request() };
    scene.same("the grant", None, queue.ask(&alice, late).await?)?;
    scene.same("what is run", vec!["b".to_owned()], queue.drain(&alice).await?)
}
