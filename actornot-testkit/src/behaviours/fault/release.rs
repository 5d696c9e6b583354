use super::{POLLS, dropped_after};
use crate::lab::{Lab, PAST_LEASE, entity};
use crate::verdict::{Check, scene};

pub(crate) async fn reply_lost(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a release whose reply was lost", when "it is repeated", usually "each repetition un-counts the hand-out once more");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    queue.lock(&alice).await?;
    lab.elapse(PAST_LEASE).await;
    let grant = queue.lock(&alice).await?;
    scene.same("the first", true, queue.release(&grant.lease).await?)?;
    scene.same("the second", false, queue.release(&grant.lease).await?)?;
    scene.same("deliveries of the next grant", 2, queue.lock(&alice).await?.batch.deliveries)
}

pub(crate) async fn caller_dropped(lab: &Lab) -> Check {
    let scene = scene!(G10, given "a release that is dropped at each of its awaits", when "it is repeated", usually "a transaction or a connection that outlives its call");
    let queue = lab.open().await;
    for polls in 0..POLLS {
        let entity = entity(&format!("k{polls}"));
        queue.post(&entity, "a").await?;
        let grant = queue.lock(&entity).await?;
        let done = dropped_after(polls, queue.release(&grant.lease)).await;
        queue.release(&grant.lease).await?;
        scene.same("deliveries of the next grant", 1, queue.lock(&entity).await?.batch.deliveries)?;
        if done.is_some() {
            return Ok(());
        }
    }
    Err(scene.verdict(format!("an end within {POLLS} polls"), "none".to_owned()))
}

pub(crate) async fn crash_before(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a holder that died before it handed its lock back", when "its lease has run out", usually "locks are only ever freed by their holder");
    let (one, alice) = (lab.open().await, entity("alice"));
    one.post(&alice, "a").await?;
    one.lock(&alice).await?;
    drop(one);
    let queue = lab.open().await;
    scene.same("before", None, queue.try_once(&alice).await?)?;
    lab.elapse(PAST_LEASE).await;
    scene.same("after", vec!["a".to_owned()], queue.drain(&alice).await?)
}

pub(crate) async fn crash_after(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a holder that handed its lock back and died", when "another tries it at once", usually "the release is only noted by its holder");
    let (one, alice) = (lab.open().await, entity("alice"));
    one.post(&alice, "a").await?;
    let grant = one.lock(&alice).await?;
    one.release(&grant.lease).await?;
    drop(one);
    let queue = lab.open().await;
    scene.same("it is due", true, queue.is_due(&alice).await?)?;
    scene.same("what is run", vec!["a".to_owned()], queue.drain(&alice).await?)
}

pub(crate) async fn stale_holder(lab: &Lab) -> Check {
    let scene = scene!(G3, given "a holder that was taken over", when "it hands its lock back", usually "the release does not compare the nonce");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let stale = queue.lock(&alice).await?;
    lab.elapse(PAST_LEASE).await;
    let holder = queue.lock(&alice).await?;
    scene.same("the release", false, queue.release(&stale.lease).await?)?;
    scene.same("a third one's try", None, queue.try_once(&alice).await?)?;
    scene.same("what the holder runs", vec!["a".to_owned()], queue.drain_from(holder).await?)
}

pub(crate) async fn late_duplicate(lab: &Lab) -> Check {
    let scene = scene!(G3, given "a lock that was handed back and granted again to the same process", when "the release arrives once more, late", usually "a lock belongs to a process instead of a grant");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let first = queue.lock(&alice).await?;
    queue.release(&first.lease).await?;
    let second = queue.lock(&alice).await?;
    scene.same("the late release", false, queue.release(&first.lease).await?)?;
    scene.same("another's try", None, queue.try_once(&alice).await?)?;
    scene.same("what the holder runs", vec!["a".to_owned()], queue.drain_from(second).await?)
}
