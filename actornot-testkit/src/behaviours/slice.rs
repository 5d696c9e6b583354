//! Many entities in one call: G8.

use actornot_core::{Admission, TryLock};

use crate::lab::{Lab, entity, messages};
use crate::verdict::{Check, scene};

pub(crate) async fn answers_come_in_the_order_of_the_slice(lab: &Lab) -> Check {
    let scene = scene!(G8, given "a slice over entities in no order of their keys", when "each verb is called with it", usually "rows come back in the order of an index");
    let queue = lab.open().await;
    let keys = ["m", "a", "z", "b", "y"];
    let items: Vec<_> = keys
        .iter()
        .enumerate()
        .map(|(nth, key)| {
            let posted: Vec<String> = (0..=nth).map(|n| n.to_string()).collect();
            queue.enqueue(&entity(key), messages(&posted.iter().map(String::as_str).collect::<Vec<_>>()))
        })
        .collect();
    let answers = queue.queue.enqueue(&items).await;
    for (item, answer) in items.iter().zip(answers) {
        scene.same("the admissions", vec![Admission::Accepted; item.messages.len()], answer?.admissions)?;
    }
    let asks: Vec<_> =
        keys.iter().map(|key| TryLock { entity: entity(key), request: queue.lock_request() }).collect();
    let mut commits = Vec::new();
    for (ask, answer) in asks.iter().zip(queue.queue.try_lock(&asks).await) {
        let grant = match answer? {
            Some(grant) => grant,
            None => queue.lock(&ask.entity).await?,
        };
        scene.same("whose grant it is", &ask.entity, &grant.lease.entity)?;
        commits.push(queue.draft(&grant).state(&format!("{:?}", ask.entity.key())).release().0);
    }
    for answer in queue.queue.update_locked(&commits).await {
        scene.holds("released", matches!(answer, Ok(actornot_core::Updated::Released { .. })), &answer)?;
    }
    let entities: Vec<_> = keys.iter().map(|key| entity(key)).collect();
    for (entity, snapshot) in entities.iter().zip(queue.queue.read(&entities).await?) {
        let state = snapshot.and_then(|snapshot| snapshot.state).map(|state| state.json);
        scene.same("whose state it is", Some(format!("{:?}", entity.key())), state)?;
    }
    Ok(())
}

pub(crate) async fn one_that_fails_does_not_fail_its_neighbours(lab: &Lab) -> Check {
    let scene = scene!(G8, given "a slice of commits of which the middle one is refused", when "it is made", usually "one transaction for the slice, rolled back for one");
    let queue = lab.open().await;
    let mut commits = Vec::new();
    for key in ["a", "b", "c"] {
        queue.post(&entity(key), "1").await?;
        let grant = queue.lock(&entity(key)).await?;
        let mut draft = queue.draft(&grant).state("1");
        if key == "b" {
            draft.0.acked = vec![crate::lab::id("never handed out")];
        }
        commits.push(draft.0);
    }
    let answers = queue.queue.update_locked(&commits).await;
    let applied: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    scene.same("which were applied", vec![true, false, true], applied)?;
    for (key, state) in [("a", Some("1")), ("b", None), ("c", Some("1"))] {
        scene.same(key, state.map(str::to_owned), queue.state(&entity(key)).await?)?;
    }
    Ok(())
}

pub(crate) async fn opposite_orders_do_not_deadlock(lab: &Lab) -> Check {
    let scene = scene!(G8, given "two instances that post to the same entities in opposite orders", when "both do at the same time", usually "rows are locked in the order of the slice");
    let (one, two) = (lab.open().await, lab.open().await);
    let keys: Vec<String> = (0..16).map(|n| format!("k{n:02}")).collect();
    for round in 0..4 {
        let name = |who: &str| format!("{who}{round}");
        let forth: Vec<_> =
            keys.iter().map(|key| one.enqueue(&entity(key), messages(&[&name("one")]))).collect();
        let back: Vec<_> =
            keys.iter().rev().map(|key| two.enqueue(&entity(key), messages(&[&name("two")]))).collect();
        let (forth, back) = tokio::join!(one.queue.enqueue(&forth), two.queue.enqueue(&back));
        for answer in forth.into_iter().chain(back) {
            scene.same("the admission", vec![Admission::Accepted], answer?.admissions)?;
        }
    }
    for key in &keys {
        scene.same("what is pending", 8, one.pending(&entity(key)).await?)?;
    }
    Ok(())
}

pub(crate) async fn a_full_batch_of_the_largest_payloads_is_handed_out(lab: &Lab) -> Check {
    let scene = scene!(G1, given "a full batch of the largest payloads that the limits allow, and a state of the largest size", when "it is handed out and committed, in as many batches as it takes", usually "all of it must fit into one document of the database's protocol, or what did not fit is taken for the end of the queue");
    let (queue, alice) = (lab.open().await, entity("alice"));
    let limits = actornot_core::Limits::default();
    queue.post(&alice, "first").await?;
    let grant = queue.lock(&alice).await?;
    queue.commit(&queue.draft(&grant).state(&largest(limits.state_bytes)).release()).await?;
    let ids: Vec<String> = (0..64).map(|n| format!("{n:02}")).collect();
    for some in ids.chunks(8) {
        let mut posted = messages(&some.iter().map(String::as_str).collect::<Vec<_>>());
        for message in &mut posted {
            message.payload = largest(limits.payload_bytes);
        }
        queue.post_all(&alice, posted).await?;
    }
    scene.same("what was handed out, in order", ids, queue.drain(&alice).await?)?;
    scene.same("what is left", 0, queue.pending(&alice).await?)
}

pub(crate) async fn a_slice_of_the_largest_states_is_applied(lab: &Lab) -> Check {
    let scene = scene!(G8, given "a full slice of commits", when "each has a state of the largest size that the limits allow", usually "a slice is one command, whatever its size");
    let queue = lab.open().await;
    let state = largest(actornot_core::Limits::default().state_bytes);
    let mut commits = Vec::new();
    for key in (0..64).map(|n| format!("k{n}")) {
        queue.post(&entity(&key), "1").await?;
        let grant = queue.lock(&entity(&key)).await?;
        commits.push(queue.draft(&grant).state(&state).release().0);
    }
    for (commit, answer) in commits.iter().zip(queue.queue.update_locked(&commits).await) {
        scene.same("the commit", actornot_core::Updated::Released { next_due: None }, answer?)?;
        let stored = queue.state(&commit.lease.entity).await?;
        scene.holds("the state", stored.as_ref() == Some(&state), stored.map(|state| state.len()))?;
    }
    Ok(())
}

/// JSON of so many bytes.
fn largest(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}
