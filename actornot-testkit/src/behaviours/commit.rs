//! What a commit changes, and what it must not: G3, G4, G5.

use std::time::Duration;

use actornot_core::{Effect, MessageId, NewState, Position, Updated};

use crate::lab::{Draft, Lab, PAST_LEASE, entity, id, message, messages, names};
use crate::verdict::{Check, scene};

pub(crate) async fn state_and_acknowledgement_are_stored_together(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a run of one message", when "its commit is applied", usually "state and queue are written in two steps, or one of them is not");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let grant = queue.lock(&alice).await?;
    scene.same("the state before", None, grant.state.clone())?;
    let updated = queue.commit(&queue.draft(&grant).state(r#"{"b":1,"a":2}"#)).await?;
    scene.same("the commit", Updated::Released { next_due: None }, updated)?;
    let other = lab.open().await;
    scene.same("the state", Some(r#"{"b":1,"a":2}"#.to_owned()), other.state(&alice).await?)?;
    scene.same("what is pending", 0, other.pending(&alice).await?)?;
    other.post(&alice, "b").await?;
    let granted = other.lock(&alice).await?.state.map(|state| state.json);
    scene.same("the state of the next grant", Some(r#"{"b":1,"a":2}"#.to_owned()), granted)
}

pub(crate) async fn states_survive_byte_for_byte(lab: &Lab) -> Check {
    let scene = scene!(G1, given "states that a parser would rewrite", when "they are committed and read", usually "the state is stored as a parsed document instead of its text");
    let (queue, alice) = (lab.open().await, entity("alice"));
    let states = [
        r#"{ "b" : 1 , "a" : [ 1.0 , 1e3, -0.0 ], "b" : 3 }"#,
        r#""\u0000 \ud83d\ude00 \ud800""#,
        r#"[18446744073709551615,-9223372036854775808,9007199254740993,5e-324]"#,
        r#"{"$set":{"a.b":"$a"},"":"'"}"#,
    ];
    for (nth, state) in states.iter().enumerate() {
        queue.post(&alice, &nth.to_string()).await?;
        let grant = queue.lock(&alice).await?;
        queue.commit(&queue.draft(&grant).state(state).release()).await?;
        scene.same("the bytes", Some((*state).to_owned()), queue.state(&alice).await?)?;
        queue.post(&alice, &format!("again {nth}")).await?;
        let grant = queue.lock(&alice).await?;
        let handed = grant.state.as_ref().map(|state| state.json.as_str());
        scene.same("the bytes handed out", Some(*state), handed)?;
        queue.commit(&queue.draft(&grant).release()).await?;
    }
    Ok(())
}

pub(crate) async fn every_commit_of_a_state_counts_its_version(lab: &Lab) -> Check {
    let scene = scene!(G4, given "three commits, the second without a new state", when "the version is read", usually "the version is the fence, or counts commits that changed nothing");
    let (queue, alice) = (lab.open().await, entity("alice"));
    for (name, state, version) in [("a", Some("1"), 1), ("b", None, 1), ("c", Some("3"), 2)] {
        queue.post(&alice, name).await?;
        let grant = queue.lock(&alice).await?;
        let mut draft = queue.draft(&grant);
        draft.0.state = state.map(|json| NewState { json: json.to_owned(), state_version: 7 });
        queue.commit(&draft).await?;
        let stored = queue.snapshot(&alice).await?.and_then(|snapshot| snapshot.state);
        let stored = scene.some("a state", stored)?;
        scene.same("the version", version, stored.version)?;
        scene.same("the version of its shape", 7, stored.state_version)?;
    }
    Ok(())
}

pub(crate) async fn a_holder_that_was_taken_over_changes_nothing(lab: &Lab) -> Check {
    let scene = scene!(G3, given "a holder that slept through its lease and was taken over", when "it commits", usually "the commit does not compare the nonce");
    let (one, two, alice) = (lab.open().await, lab.open().await, entity("alice"));
    one.post(&alice, "a").await?;
    let stale = one.lock(&alice).await?;
    lab.elapse(PAST_LEASE).await;
    let grant = two.lock(&alice).await?;
    let mut draft = one.draft(&stale).state("1").effect(crate::lab::send(&entity("bob"), message("sent")));
    // A stale holder that guesses the fence is still not the holder.
    draft.0.lease.fence = grant.lease.fence;
    scene.same("the commit", Updated::LockLost, one.commit(&draft).await?)?;
    scene.same("the state", None, two.state(&alice).await?)?;
    scene.same("the queue", vec!["a".to_owned()], two.queued(&alice).await?)?;
    scene.same("what was sent", 0, two.pending(&entity("bob")).await?)?;
    scene.same(
        "the holder's commit",
        Updated::Released { next_due: None },
        two.commit(&two.draft(&grant)).await?,
    )
}

pub(crate) async fn a_commit_under_an_older_fence_changes_nothing(lab: &Lab) -> Check {
    let scene = scene!(G3, given "a holder that has committed", when "it commits under the fence it had before", usually "the commit does not compare the fence");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["a", "b"])).await?;
    let grant = queue.lock_at_most(&alice, 1).await?;
    queue.commit(&queue.draft(&grant).state("1")).await?;
    let older = queue.draft(&grant).ack(0).state("2");
    scene.same("the commit", Updated::LockLost, queue.commit(&older).await?)?;
    scene.same("the state", Some("1".to_owned()), queue.state(&alice).await?)
}

pub(crate) async fn an_earlier_commit_that_arrives_late_changes_nothing(lab: &Lab) -> Check {
    let scene = scene!(G4, given "two commits of one holder", when "the first arrives once more, after the second", usually "only grants raise the fence, so that both commits carry the same one");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["a", "b", "c"])).await?;
    let grant = queue.lock_at_most(&alice, 1).await?;
    let mut first = queue.draft(&grant).state("1");
    first.0.next = actornot_core::Next::Batch { max: 1 };
    let Updated::Continue { fence, batch } = queue.commit(&first).await? else {
        return Err(scene.verdict("the lock is kept".to_owned(), "it was let go".to_owned()));
    };
    let lease = actornot_core::Lease { fence, ..grant.lease.clone() };
    let mut second = Draft::of(lab, &lease, &batch).state("2");
    second.0.next = actornot_core::Next::Batch { max: 1 };
    queue.commit(&second).await?;
    let mut late = first.clone();
    scene.same("the late one", Updated::LockLost, queue.commit(&late).await?)?;
    late.0.acked.clear();
    scene.same("the late one without acknowledgement", Updated::LockLost, queue.commit(&late).await?)?;
    scene.same("the state", Some("2".to_owned()), queue.state(&alice).await?)?;
    scene.same("the queue", vec!["c".to_owned()], queue.queued(&alice).await?)
}

pub(crate) async fn a_lease_that_ran_out_unnoticed_may_still_commit(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a lease that has run out without a takeover", when "its holder commits", usually "the commit compares the deadline, which decides nothing");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let grant = queue.lock(&alice).await?;
    lab.elapse(PAST_LEASE).await;
    let updated = queue.commit(&queue.draft(&grant).state("1")).await?;
    scene.same("the commit", Updated::Released { next_due: None }, updated)?;
    scene.same("the state", Some("1".to_owned()), queue.state(&alice).await?)
}

pub(crate) async fn a_commit_after_its_release_is_refused(lab: &Lab) -> Check {
    let scene = scene!(G3, given "a lock that was handed back", when "a commit under it arrives", usually "the nonce stays stored, and being locked is not checked");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let grant = queue.lock(&alice).await?;
    queue.release(&grant.lease).await?;
    scene.same("the commit", Updated::LockLost, queue.commit(&queue.draft(&grant).state("1")).await?)?;
    scene.same("the state", None, queue.state(&alice).await?)
}

pub(crate) async fn a_prefix_can_be_acknowledged(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a batch of which one message was handled", when "that one is acknowledged", usually "the acknowledgement covers the batch");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["a", "b", "c"])).await?;
    let grant = queue.lock(&alice).await?;
    queue.commit(&queue.draft(&grant).ack(1).state("1").release()).await?;
    scene.same("the queue", vec!["b".to_owned(), "c".to_owned()], queue.queued(&alice).await?)?;
    scene.same("the state", Some("1".to_owned()), queue.state(&alice).await?)
}

pub(crate) async fn ids_that_were_not_handed_out_are_refused(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a batch", when "a commit acknowledges another id, or not its first", usually "whatever ids are named are deleted");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["a", "b", "c"])).await?;
    let grant = queue.lock_at_most(&alice, 2).await?;
    let wrong: [&[MessageId]; 3] = [&[id("c")], &[id("b")], &[id("a"), id("a")]];
    for acked in wrong {
        let mut draft = queue.draft(&grant).state("1");
        draft.0.acked = acked.to_vec();
        let answer = queue.commit(&draft).await;
        scene.holds("a Conflict", answer.as_ref().is_err_and(is_conflict), &answer)?;
        scene.same("the queue", 3, queue.queued(&alice).await?.len())?;
        scene.same("the state", None, queue.state(&alice).await?)?;
    }
    queue.commit(&queue.draft(&grant)).await.map(drop).map_err(Into::into)
}

fn is_conflict(error: &actornot_core::Error) -> bool {
    error.kind() == actornot_core::ErrorKind::Conflict
}

pub(crate) async fn a_refused_commit_acknowledges_nothing(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a holder that was taken over", when "its commit is refused", usually "the acknowledgement is made before the state");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let stale = queue.lock(&alice).await?;
    lab.elapse(PAST_LEASE).await;
    queue.lock(&alice).await?;
    queue.commit(&queue.draft(&stale).state("1")).await?;
    scene.same("the queue", vec!["a".to_owned()], queue.queued(&alice).await?)
}

pub(crate) async fn posts_during_a_run_survive_its_commit(lab: &Lab) -> Check {
    let scene = scene!(G1, given "a message that was posted while another ran", when "the run commits", usually "the commit clears the queue");
    let (one, two, alice) = (lab.open().await, lab.open().await, entity("alice"));
    one.post(&alice, "a").await?;
    let grant = one.lock(&alice).await?;
    two.post(&alice, "b").await?;
    match one.commit(&one.draft(&grant)).await? {
        Updated::Continue { batch, .. } => scene.same("what comes next", vec!["b".to_owned()], names(&batch)),
        other => Err(scene.verdict("the lock is kept for b".to_owned(), format!("{other:?}"))),
    }
}

pub(crate) async fn what_came_before_the_batch_meanwhile_is_not_acknowledged_with_it(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a letter redriven to the head while a message behind it runs", when "the run commits", usually "everything up to the last handled message is deleted");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["bad", "good"])).await?;
    let grant = queue.lock_at_most(&alice, 1).await?;
    queue.commit(&queue.draft(&grant).dead_letter("bad").release()).await?;
    let grant = queue.lock(&alice).await?;
    let letters = queue.queue.dead_letters("thing", None, 10).await?;
    let letter = scene.some("a dead letter", letters.first())?;
    queue.queue.redrive(letter, Position::Head).await?;
    queue.commit(&queue.draft(&grant).release()).await?;
    scene.same("the queue", vec!["bad".to_owned()], queue.queued(&alice).await?)
}

pub(crate) async fn a_holder_looks_at_the_queue_before_it_lets_go(lab: &Lab) -> Check {
    let scene = scene!(G5, given "two messages, of which the holder has the first", when "it commits", usually "the release does not check the queue, or checks it before the row is locked");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["a", "b"])).await?;
    let grant = queue.lock_at_most(&alice, 1).await?;
    match queue.commit(&queue.draft(&grant)).await? {
        Updated::Continue { fence, batch } => {
            scene.holds("a higher fence", fence > grant.lease.fence, (fence, grant.lease.fence))?;
            scene.same("what comes next", vec!["b".to_owned()], names(&batch))
        }
        other => Err(scene.verdict("the lock is kept for b".to_owned(), format!("{other:?}"))),
    }
}

pub(crate) async fn a_holder_can_let_go_of_a_full_queue(lab: &Lab) -> Check {
    let scene = scene!(G5, given "two messages", when "the holder of the first commits and wants to let go", usually "the wish is ignored, or the entity is not due afterwards");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["a", "b"])).await?;
    let grant = queue.lock_at_most(&alice, 1).await?;
    let updated = queue.commit(&queue.draft(&grant).release()).await?;
    scene.same("the commit", Updated::Released { next_due: Some(Duration::ZERO) }, updated)?;
    scene.same("it is due", true, queue.is_due(&alice).await?)?;
    scene.same("the rest", vec!["b".to_owned()], lab.open().await.drain(&alice).await?)
}

pub(crate) async fn an_effect_that_is_not_claimed_is_unsupported(lab: &Lab) -> Check {
    let scene = scene!(G4, given "an adapter without timers or replies", when "a commit asks for one", usually "an effect it does not know is dropped in silence");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let grant = queue.lock(&alice).await?;
    let claims = queue.queue.capabilities();
    let envelope = actornot_core::Envelope { entity: alice.clone(), message: message("t") };
    let effects = [
        (claims.timers, Effect::SetTimer { name: "t".to_owned(), envelope }),
        (claims.timers, Effect::CancelTimer { name: "t".to_owned() }),
        (claims.replies, Effect::Reply { to: id("a"), payload: "1".to_owned() }),
    ];
    for (claimed, effect) in effects {
        scene.holds("a claim nobody makes yet", !claimed, &effect)?;
        let answer = queue.commit(&queue.draft(&grant).state("1").effect(effect)).await;
        let unsupported =
            |error: &actornot_core::Error| error.kind() == actornot_core::ErrorKind::Unsupported;
        scene.holds("Unsupported", answer.as_ref().is_err_and(unsupported), &answer)?;
        scene.same("the state", None, queue.state(&alice).await?)?;
        scene.same("the queue", vec!["a".to_owned()], queue.queued(&alice).await?)?;
    }
    queue.commit(&queue.draft(&grant)).await.map(drop).map_err(Into::into)
}

pub(crate) async fn a_large_state_and_payload_survive(lab: &Lab) -> Check {
    let scene = scene!(G1, given "a payload of 256 KiB and a state of 1 MiB", when "they are stored and read", usually "a column, a reply or a buffer with a smaller limit");
    let (queue, alice) = (lab.open().await, entity("alice"));
    let payload = format!("\"{}\"", "é".repeat(128 * 1024 - 1));
    let state = format!("\"{}\"", "x".repeat(1024 * 1024 - 2));
    queue
        .post_all(&alice, vec![actornot_core::NewMessage { payload: payload.clone(), ..message("a") }])
        .await?;
    let grant = queue.lock(&alice).await?;
    let handed = grant.batch.messages.first().is_some_and(|message| message.payload == payload);
    scene.holds("the payload's bytes", handed, "other bytes")?;
    queue.commit(&queue.draft(&grant).state(&state)).await?;
    scene.holds("the state's bytes", queue.state(&alice).await? == Some(state), "other bytes")
}
