//! Who may run an entity: G3 one effective writer, G8 no other is stopped.

use actornot_core::{EntityId, Waiting};

use crate::lab::{LEASE, Lab, MINUTE, PAST_LEASE, entity, messages, names};
use crate::verdict::{Check, scene};

pub(crate) async fn a_held_lock_is_not_granted_again(lab: &Lab) -> Check {
    let scene = scene!(G3, given "an entity that one instance holds", when "another tries the lock, then the same one", usually "the lease is not looked at, or its time is the client's");
    let (one, two, alice) = (lab.open().await, lab.open().await, entity("alice"));
    one.post(&alice, "a").await?;
    one.lock(&alice).await?;
    scene.same("another instance", None, two.try_once(&alice).await?)?;
    scene.same("the same instance", None, one.try_once(&alice).await?)?;
    lab.elapse(LEASE / 2).await;
    scene.same("at half the lease", None, two.try_once(&alice).await?)
}

pub(crate) async fn an_expired_lease_can_be_taken_over(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a holder that died", when "its lease has run out", usually "leases do not expire, or wait for a job to clear them");
    let (one, two, alice) = (lab.open().await, lab.open().await, entity("alice"));
    one.post(&alice, "a").await?;
    let dead = one.lock(&alice).await?;
    lab.elapse(PAST_LEASE).await;
    let grant = two.lock(&alice).await?;
    scene.same("what is handed out", names(&dead.batch), names(&grant.batch))
}

pub(crate) async fn every_grant_has_a_higher_fence(lab: &Lab) -> Check {
    let scene = scene!(G3, given "an entity that was granted", when "it is granted again, after expiry and after release", usually "the fence belongs to the lease instead of the entity");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let first = queue.lock(&alice).await?;
    lab.elapse(PAST_LEASE).await;
    let second = queue.lock(&alice).await?;
    scene.holds(
        "a higher fence after expiry",
        second.lease.fence > first.lease.fence,
        (&first.lease, &second.lease),
    )?;
    queue.release(&second.lease).await?;
    let third = queue.lock(&alice).await?;
    scene.holds(
        "a higher fence after release",
        third.lease.fence > second.lease.fence,
        (&second.lease, &third.lease),
    )
}

pub(crate) async fn a_purge_never_takes_the_fence_back(lab: &Lab) -> Check {
    let scene = scene!(G3, given "a holder whose entity is purged and made again", when "it is granted, and the old holder commits", usually "a new entity starts at fence one");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let old = queue.lock(&alice).await?;
    queue.queue.purge(&alice).await?;
    queue.post(&alice, "b").await?;
    let new = queue.lock(&alice).await?;
    scene.holds("a higher fence", new.lease.fence > old.lease.fence, (&old.lease, &new.lease))?;
    scene.same(
        "the old holder's commit",
        actornot_core::Updated::LockLost,
        queue.commit(&queue.draft(&old).state("1")).await?,
    )?;
    scene.same("the state", None, queue.state(&alice).await?)
}

pub(crate) async fn an_entity_with_nothing_to_do_is_not_granted(lab: &Lab) -> Check {
    let scene = scene!(G9, given "an unknown entity, and one whose queue is empty", when "the lock is tried", usually "the queue is not looked at");
    let (queue, alice) = (lab.open().await, entity("alice"));
    scene.same("unknown", None, queue.try_once(&alice).await?)?;
    queue.post(&alice, "a").await?;
    queue.drain(&alice).await?;
    scene.same("empty", None, queue.try_once(&alice).await?)
}

pub(crate) async fn the_same_nonce_gets_the_same_grant(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a grant whose reply was lost", when "the request is repeated with its nonce", usually "the stored nonce is not compared with the request's");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let request = queue.lock_request();
    let first = match queue.ask(&alice, request.clone()).await? {
        Some(first) => first,
        None => queue.lock(&alice).await?,
    };
    queue.post(&alice, "b").await?;
    let request = actornot_core::LockRequest { nonce: first.lease.nonce, ..request };
    scene.same("the grant", Some(first), queue.ask(&alice, request).await?)
}

pub(crate) async fn a_released_nonce_is_not_granted_again(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a grant that was given back", when "its request arrives once more, late", usually "the nonce is forgotten with the release, so that the entity is locked for nobody");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let grant = queue.lock(&alice).await?;
    queue.release(&grant.lease).await?;
    let late = actornot_core::LockRequest { nonce: grant.lease.nonce, ..queue.lock_request() };
    scene.same("the late request", None, queue.ask(&alice, late).await?)?;
    queue.lock(&alice).await.map(drop).map_err(Into::into)
}

pub(crate) async fn different_entities_are_held_at_once(lab: &Lab) -> Check {
    let scene = scene!(G8, given "an entity that is held", when "others are tried: another key, another kind", usually "one lock for all");
    let (queue, alice) = (lab.open().await, entity("alice"));
    let other = EntityId::new("other", "alice")?;
    for entity in [&alice, &other, &entity("bob")] {
        queue.post(entity, "a").await?;
        let grant = queue.lock(entity).await?;
        scene.same("whose it is", entity, &grant.lease.entity)?;
    }
    Ok(())
}

pub(crate) async fn a_paused_entity_is_not_granted(lab: &Lab) -> Check {
    let scene = scene!(G6, given "an entity that an operator paused", when "the lock is tried", usually "the pause is only looked at by the sweep");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    queue.queue.pause(&alice, "maintenance").await?;
    scene.same("the grant", None, queue.try_once(&alice).await?)?;
    scene.same("the reason", Some("maintenance".to_owned()), queue.why(&alice).await?.paused)?;
    scene.same("it is due", false, queue.is_due(&alice).await?)
}

pub(crate) async fn a_pause_during_a_run_lets_it_commit_and_then_stops(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a holder whose entity is paused with more queued", when "it commits", usually "a commit goes on without looking at the pause");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["a", "b"])).await?;
    let grant = queue.lock_at_most(&alice, 1).await?;
    queue.queue.pause(&alice, "maintenance").await?;
    let updated = queue.commit(&queue.draft(&grant).state("1")).await?;
    scene.same("the commit", actornot_core::Updated::Released { next_due: None }, updated)?;
    scene.same("the state", Some("1".to_owned()), queue.state(&alice).await?)?;
    scene.same("the queue", vec!["b".to_owned()], queue.queued(&alice).await?)
}

pub(crate) async fn a_waiting_entity_is_granted_when_its_time_has_come(lab: &Lab) -> Check {
    let scene = scene!(G6, given "an entity that backs off for a minute", when "the lock is tried before and after", usually "the backoff lives in the process that failed");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let grant = queue.lock(&alice).await?;
    queue.commit(&queue.draft(&grant).wait(Waiting::Backoff, MINUTE)).await?;
    lab.elapse(MINUTE / 2).await;
    scene.same("before", None, lab.open().await.try_once(&alice).await?)?;
    lab.elapse(MINUTE / 2).await;
    scene.same("after", vec!["a".to_owned()], names(&queue.lock(&alice).await?.batch))
}

pub(crate) async fn no_more_is_handed_out_than_was_asked_for(lab: &Lab) -> Check {
    let scene = scene!(G9, given "three queued messages", when "the lock is tried for at most two", usually "the request's limit is ignored");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["a", "b", "c"])).await?;
    let grant = queue.lock_at_most(&alice, 2).await?;
    scene.holds(
        "at most two, from the head",
        ["a", "b"].starts_with(&strs(&names(&grant.batch))),
        &grant.batch,
    )
}

fn strs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

pub(crate) async fn an_extended_lease_is_not_taken_over(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a lease that is extended at two thirds of its time", when "its first deadline has passed", usually "the extension is answered but not stored");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let grant = queue.lock(&alice).await?;
    lab.elapse(LEASE * 2 / 3).await;
    scene.same("the extension", true, queue.extend(&grant.lease).await?)?;
    lab.elapse(LEASE * 2 / 3).await;
    scene.same("another's try", None, lab.open().await.try_once(&alice).await?)?;
    scene.same("what is due", false, queue.is_due(&alice).await?)
}

pub(crate) async fn only_the_holder_extends(lab: &Lab) -> Check {
    let scene = scene!(G3, given "a lease that was taken over", when "the first holder extends, and the second", usually "the extension does not compare the nonce");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let first = queue.lock(&alice).await?;
    lab.elapse(PAST_LEASE).await;
    let second = queue.lock(&alice).await?;
    scene.same("the first", false, queue.extend(&first.lease).await?)?;
    scene.same("the second", true, queue.extend(&second.lease).await?)
}

pub(crate) async fn a_commit_does_not_stop_an_extension_on_its_way(lab: &Lab) -> Check {
    let scene = scene!(G3, given "a heartbeat that was sent before a commit raised the fence", when "it arrives after", usually "the extension compares the fence");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["a", "b"])).await?;
    let grant = queue.lock_at_most(&alice, 1).await?;
    queue.commit(&queue.draft(&grant)).await?;
    scene.same("the extension", true, queue.extend(&grant.lease).await?)
}

pub(crate) async fn a_released_lock_is_free_at_once(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a lock that is handed back unused", when "another tries it", usually "the release is answered but not stored");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let grant = queue.lock(&alice).await?;
    scene.same("the release", true, queue.release(&grant.lease).await?)?;
    scene.same("it is due", true, queue.is_due(&alice).await?)?;
    scene.same("the batch", names(&grant.batch), names(&lab.open().await.lock(&alice).await?.batch))
}
