use super::{POLLS, dropped_after};
use crate::lab::{LEASE, Lab, PAST_LEASE, entity};
use crate::verdict::{Check, scene};

pub(crate) async fn reply_lost(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a heartbeat whose reply was lost", when "it is repeated", usually "a heartbeat that must match the one before");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let grant = queue.lock(&alice).await?;
    for _ in 0..3 {
        lab.elapse(LEASE * 2 / 3).await;
        scene.same("the extension", true, queue.extend(&grant.lease).await?)?;
    }
    scene.same("another's try", None, queue.try_once(&alice).await?)
}

pub(crate) async fn caller_dropped(lab: &Lab) -> Check {
    let scene = scene!(G10, given "a heartbeat that is dropped at each of its awaits", when "it is repeated", usually "a connection that a dropped heartbeat leaves unusable");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let grant = queue.lock(&alice).await?;
    let mut heartbeat = queue.queue.heartbeat().await?;
    for polls in 0..POLLS {
        let lease = std::slice::from_ref(&grant.lease);
        let done = dropped_after(polls, heartbeat.extend_lock(lease)).await;
        let again = heartbeat.extend_lock(lease).await.into_iter().next();
        scene.holds("the repeated one works", matches!(again, Some(Ok(true))), &again)?;
        if done.is_some() {
            return queue.commit(&queue.draft(&grant)).await.map(drop).map_err(Into::into);
        }
    }
    Err(scene.verdict(format!("an end within {POLLS} polls"), "none".to_owned()))
}

pub(crate) async fn crash_before(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a holder that died before its heartbeat", when "its lease has run out", usually "leases do not expire");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    queue.lock(&alice).await?;
    lab.elapse(PAST_LEASE).await;
    scene.same("what is run", vec!["a".to_owned()], lab.open().await.drain(&alice).await?)
}

pub(crate) async fn crash_after(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a holder that died after its heartbeat", when "a lease from the heartbeat on has run out", usually "an extension adds to the deadline, or is for ever");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let grant = queue.lock(&alice).await?;
    for _ in 0..3 {
        queue.extend(&grant.lease).await?;
    }
    let other = lab.open().await;
    lab.elapse(LEASE / 2).await;
    scene.same("before", None, other.try_once(&alice).await?)?;
    lab.elapse(PAST_LEASE - LEASE / 2).await;
    scene.same("after", vec!["a".to_owned()], other.drain(&alice).await?)
}

pub(crate) async fn stale_holder(lab: &Lab) -> Check {
    let scene = scene!(G3, given "a holder that was taken over", when "its heartbeat arrives", usually "the heartbeat does not compare the nonce");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let stale = queue.lock(&alice).await?;
    lab.elapse(PAST_LEASE).await;
    queue.lock(&alice).await?;
    lab.elapse(LEASE * 2 / 3).await;
    scene.same("the extension", false, queue.extend(&stale.lease).await?)?;
    lab.elapse(LEASE * 2 / 3).await;
    scene.same("what is run when the new lease has run out", vec!["a".to_owned()], queue.drain(&alice).await?)
}

pub(crate) async fn late_duplicate(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a lock that was handed back", when "a heartbeat of it arrives, late", usually "a heartbeat locks what was free");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let grant = queue.lock(&alice).await?;
    queue.release(&grant.lease).await?;
    scene.same("the extension", false, queue.extend(&grant.lease).await?)?;
    scene.same("what is run", vec!["a".to_owned()], lab.open().await.drain(&alice).await?)
}
