use actornot_core::{Next, Updated};

use super::{POLLS, dropped_after};
use crate::lab::{Lab, PAST_LEASE, entity, messages, names};
use crate::verdict::{Check, scene};

pub(crate) async fn reply_lost(lab: &Lab) -> Check {
    let scene = scene!(G4, given "commits whose replies were lost: one that goes on, one that lets go", when "each is repeated", usually "the last commit is not stored with what it changed");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["a", "b"])).await?;
    let grant = queue.lock_at_most(&alice, 1).await?;
    let draft = queue.draft(&grant).state("1");
    let first = queue.commit(&draft).await?;
    scene.holds("the lock is kept", matches!(first, Updated::Continue { .. }), &first)?;
    scene.same("the repeated one", first, queue.commit(&draft).await?)?;
    let version =
        queue.snapshot(&alice).await?.and_then(|snapshot| snapshot.state).map(|state| state.version);
    scene.same("the version", Some(1), version)?;

    let bob = entity("bob");
    queue.post(&bob, "a").await?;
    let grant = queue.lock(&bob).await?;
    let draft = queue.draft(&grant).state("1");
    scene.same("the last", Updated::Released { next_due: None }, queue.commit(&draft).await?)?;
    queue.post(&bob, "b").await?;
    let other = queue.lock(&bob).await?;
    let repeated = queue.commit(&draft).await?;
    scene.holds("released", matches!(repeated, Updated::Released { .. }), &repeated)?;
    scene.same("what the new holder runs", vec!["b".to_owned()], queue.drain_from(other).await?)
}

pub(crate) async fn caller_dropped(lab: &Lab) -> Check {
    let scene = scene!(G10, given "a commit that is dropped at each of its awaits", when "it is repeated", usually "half of a commit is applied");
    let queue = lab.open().await;
    for polls in 0..POLLS {
        let entity = entity(&format!("k{polls}"));
        queue.post(&entity, "a").await?;
        let grant = queue.lock(&entity).await?;
        let draft = queue.draft(&grant).state("1");
        let done = dropped_after(polls, queue.commit(&draft)).await;
        let snapshot = scene.some("the entity", queue.snapshot(&entity).await?)?;
        let applied = (snapshot.state.is_some(), snapshot.pending == 0);
        scene.holds("state and acknowledgement or neither", applied.0 == applied.1, applied)?;
        scene.same("the repeated one", Updated::Released { next_due: None }, queue.commit(&draft).await?)?;
        scene.same("the state", Some("1".to_owned()), queue.state(&entity).await?)?;
        if done.is_some() {
            return Ok(());
        }
    }
    Err(scene.verdict(format!("an end within {POLLS} polls"), "none".to_owned()))
}

pub(crate) async fn crash_before(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a holder that ran its batch and died before it committed", when "another takes over", usually "the hand-out removes messages from the queue");
    let (one, alice) = (lab.open().await, entity("alice"));
    one.post(&alice, "a").await?;
    let grant = one.lock(&alice).await?;
    drop(one);
    lab.elapse(PAST_LEASE).await;
    let queue = lab.open().await;
    let again = queue.lock(&alice).await?;
    scene.same("the state", None, again.state.clone())?;
    scene.same("the batch", names(&grant.batch), names(&again.batch))
}

pub(crate) async fn crash_after(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a holder whose commit went on to the next batch, and who died then", when "another takes over", usually "the commit waits for the end of the lease");
    let (one, alice) = (lab.open().await, entity("alice"));
    one.post_all(&alice, messages(&["a", "b"])).await?;
    let grant = one.lock_at_most(&alice, 1).await?;
    one.commit(&one.draft(&grant).state("1")).await?;
    drop(one);
    lab.elapse(PAST_LEASE).await;
    let queue = lab.open().await;
    let again = queue.lock(&alice).await?;
    scene.same("the state", Some("1".to_owned()), again.state.clone().map(|state| state.json))?;
    scene.same("the batch", vec!["b".to_owned()], names(&again.batch))?;
    scene.same("its deliveries", 2, again.batch.deliveries)
}

pub(crate) async fn stale_holder(lab: &Lab) -> Check {
    let scene = scene!(G3, given "a holder that was taken over", when "it commits before and after the new holder does", usually "the commit does not compare nonce and fence");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let stale = queue.lock(&alice).await?;
    lab.elapse(PAST_LEASE).await;
    let holder = queue.lock(&alice).await?;
    let draft = queue.draft(&stale).state("\"stale\"");
    scene.same("before", Updated::LockLost, queue.commit(&draft).await?)?;
    queue.commit(&queue.draft(&holder).state("\"holder\"")).await?;
    scene.same("after", Updated::LockLost, queue.commit(&draft).await?)?;
    scene.same("the state", Some("\"holder\"".to_owned()), queue.state(&alice).await?)
}

pub(crate) async fn late_duplicate(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a commit that was applied, and another after it under the same lease", when "the first arrives once more, late", usually "it is applied again, over the second");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["a", "b"])).await?;
    let grant = queue.lock_at_most(&alice, 1).await?;
    let mut first = queue.draft(&grant).state("1").ack(0);
    first.0.next = Next::Batch { max: 1 };
    let Updated::Continue { fence, .. } = queue.commit(&first).await? else {
        return Err(scene.verdict("the lock is kept".to_owned(), "it was let go".to_owned()));
    };
    let mut second = queue.draft(&grant).state("2");
    second.0.lease.fence = fence;
    queue.commit(&second).await?;
    scene.same("the late one", Updated::LockLost, queue.commit(&first).await?)?;
    scene.same("the state", Some("2".to_owned()), queue.state(&alice).await?)
}
