//! What a run sends: G4 exactly once, with its commit.

use actornot_core::Updated;

use crate::lab::{Draft, Lab, MINUTE, delayed, entity, message, messages, names, send};
use crate::verdict::{Check, scene};

pub(crate) async fn a_send_arrives_with_its_commit(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a run that sends to another entity, with another kind of delay, and to itself", when "it commits", usually "sends are made by the client, or not at all");
    let (queue, alice, bob) = (lab.open().await, entity("alice"), entity("bob"));
    queue.post(&alice, "a").await?;
    let grant = queue.lock(&alice).await?;
    let draft = queue
        .draft(&grant)
        .effect(send(&bob, message("to bob")))
        .effect(send(&bob, delayed("later", MINUTE)))
        .effect(send(&alice, message("to self")));
    match queue.commit(&draft).await? {
        Updated::Continue { fence, batch } => {
            scene.same("what was sent to itself", vec!["to self".to_owned()], names(&batch))?;
            let lease = actornot_core::Lease { fence, ..grant.lease };
            queue.commit(&Draft::of(lab, &lease, &batch)).await?;
        }
        other => {
            return Err(
                scene.verdict("the lock is kept for its own message".to_owned(), format!("{other:?}"))
            );
        }
    }
    scene.same("bob is due", true, queue.is_due(&bob).await?)?;
    scene.same("what bob was sent", vec!["to bob".to_owned()], queue.drain(&bob).await?)?;
    lab.elapse(MINUTE).await;
    scene.same("what bob was sent with a delay", vec!["later".to_owned()], queue.drain(&bob).await?)
}

pub(crate) async fn a_send_arrives_once(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a commit with a send whose reply was lost", when "it is repeated", usually "the send is made again by the repetition");
    let (queue, alice, bob) = (lab.open().await, entity("alice"), entity("bob"));
    queue.post(&alice, "a").await?;
    let grant = queue.lock(&alice).await?;
    let draft = queue.draft(&grant).effect(send(&bob, message("to bob")));
    queue.commit(&draft).await?;
    queue.commit(&draft).await?;
    scene.same("what bob was sent", vec!["to bob".to_owned()], queue.drain(&bob).await?)
}

pub(crate) async fn sends_keep_their_order(lab: &Lab) -> Check {
    let scene = scene!(G2, given "two commits, of different senders, with several sends to the same entity", when "it is run", usually "sends are carried to their target side by side");
    let (queue, bob) = (lab.open().await, entity("bob"));
    let mut expected = Vec::new();
    for key in ["alice", "carol", "alice", "carol"] {
        let from = entity(key);
        queue.post(&from, &format!("start {}", expected.len())).await?;
        let grant = queue.lock(&from).await?;
        let mut draft = queue.draft(&grant).release();
        for _ in 0..5 {
            expected.push(format!("sent {}", expected.len()));
            draft = draft.effect(send(&bob, message(&expected[expected.len() - 1])));
        }
        queue.commit(&draft).await?;
    }
    scene.same("the order", expected, queue.drain(&bob).await?)
}

pub(crate) async fn a_dropped_commit_makes_all_of_its_sends_or_none(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a commit with sends to five entities that is dropped at each of its awaits", when "somebody sweeps, and then it is repeated", usually "what is staged behind a commit is known to its caller only");
    let (queue, other) = (lab.open().await, lab.open().await);
    for polls in 0..super::POLLS {
        let from = entity(&format!("from {polls}"));
        let targets: Vec<_> = (0..5).map(|n| entity(&format!("to {polls} {n}"))).collect();
        queue.post(&from, "a").await?;
        let grant = queue.lock(&from).await?;
        let draft = queue.draft(&grant).release();
        let draft = targets.iter().fold(draft, |draft, to| draft.effect(send(to, message("sent"))));
        let done = super::dropped_after(polls, queue.commit(&draft)).await;
        let mut seen = (true, Vec::new());
        // The server may still be at what was dropped.
        for _ in 0..200 {
            other.due().await?;
            let mut arrived = Vec::new();
            for to in &targets {
                arrived.push(other.snapshot(to).await?.map_or(0, |snapshot| snapshot.pending));
            }
            seen = (other.pending(&from).await? == 0, arrived);
            if seen.1.iter().all(|pending| *pending == u64::from(seen.0)) {
                break;
            }
        }
        scene.holds(
            "all or none have arrived",
            seen.1.iter().all(|pending| *pending == u64::from(seen.0)),
            &seen,
        )?;
        queue.commit(&draft).await?;
        other.due().await?;
        for to in &targets {
            scene.same("what was sent", vec!["sent".to_owned()], other.drain(to).await?)?;
        }
        if done.is_some() {
            return Ok(());
        }
    }
    Err(scene.verdict("an end".to_owned(), "none".to_owned()))
}

pub(crate) async fn a_send_passes_the_backlog_limit(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a target with a full backlog", when "a commit sends to it", usually "a full target refuses the send, which is then lost or stops the sender");
    let (queue, alice, bob) = (lab.open().await, entity("alice"), entity("bob"));
    let item = actornot_core::Enqueue { backlog_limit: 2, ..queue.enqueue(&bob, messages(&["1", "2"])) };
    queue.send_item(&item).await?;
    queue.post(&alice, "a").await?;
    let grant = queue.lock(&alice).await?;
    queue.commit(&queue.draft(&grant).effect(send(&bob, message("3")))).await?;
    scene.same("bob's queue", vec!["1", "2", "3"], queue.queued(&bob).await?)
}

pub(crate) async fn two_that_send_to_each_other_both_commit(lab: &Lab) -> Check {
    let scene = scene!(G8, given "alice and bob, held by two instances", when "they send to each other in commits made at the same time", usually "rows are locked in the order of sending: a deadlock");
    let (one, two) = (lab.open().await, lab.open().await);
    let (alice, bob) = (entity("alice"), entity("bob"));
    for round in 0..4 {
        let name = format!("start {round}");
        one.post(&alice, &name).await?;
        two.post(&bob, &name).await?;
        let (a, b) = (one.lock_at_most(&alice, 1).await?, two.lock_at_most(&bob, 1).await?);
        let a = one.draft(&a).effect(send(&bob, message(&format!("to bob {round}")))).release();
        let b = two.draft(&b).effect(send(&alice, message(&format!("to alice {round}")))).release();
        let (a, b) = tokio::join!(one.commit(&a), two.commit(&b));
        a?;
        b?;
        scene.same("alice", vec![format!("to alice {round}")], one.drain(&alice).await?)?;
        scene.same("bob", vec![format!("to bob {round}")], one.drain(&bob).await?)?;
    }
    Ok(())
}
