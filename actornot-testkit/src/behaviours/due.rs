//! Finding work that nobody runs: G5.

use actornot_core::{DueQuery, EntityId, Waiting};

use crate::lab::{LEASE, Lab, MINUTE, PAST_LEASE, delayed, entity};
use crate::verdict::{Check, scene};

pub(crate) async fn a_queued_message_of_an_asked_kind_is_reported(lab: &Lab) -> Check {
    let scene = scene!(G5, given "queued messages of two kinds", when "one kind is asked for", usually "the kinds of a query are ignored");
    let queue = lab.open().await;
    queue.post(&entity("alice"), "a").await?;
    queue.post(&EntityId::new("other", "bob")?, "a").await?;
    scene.same("what is due", vec![entity("alice")], queue.due().await?.entities)
}

pub(crate) async fn a_held_entity_is_not_reported(lab: &Lab) -> Check {
    let scene = scene!(G5, given "an entity that is held", when "due is asked", usually "the lease is not looked at, so that every sweep tries it in vain");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    queue.lock(&alice).await?;
    let due = queue.due().await?;
    scene.same("what is due", Vec::<EntityId>::new(), due.entities)?;
    let next = due.next.unwrap_or_default();
    scene.holds("next is when its lease runs out", next > LEASE / 2 && next <= LEASE, next)
}

pub(crate) async fn an_expired_lease_is_reported(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a holder that died", when "its lease has run out", usually "only free entities are looked for");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    queue.lock(&alice).await?;
    lab.elapse(PAST_LEASE).await;
    scene.same("it is due", true, lab.open().await.is_due(&alice).await?)
}

pub(crate) async fn a_waiting_or_paused_entity_is_not_reported(lab: &Lab) -> Check {
    let scene = scene!(G5, given "one entity that backs off and one that is paused", when "due is asked", usually "why an entity waits is not part of the index");
    let (queue, alice, bob) = (lab.open().await, entity("alice"), entity("bob"));
    for entity in [&alice, &bob] {
        queue.post(entity, "a").await?;
    }
    queue.queue.pause(&bob, "because").await?;
    let grant = queue.lock(&alice).await?;
    queue.commit(&queue.draft(&grant).wait(Waiting::Backoff, MINUTE)).await?;
    let due = queue.due().await?;
    scene.same("what is due", Vec::<EntityId>::new(), due.entities)?;
    let next = due.next.unwrap_or_default();
    scene.holds("next is the end of the wait", next > MINUTE / 2 && next <= MINUTE, next)?;
    lab.elapse(MINUTE).await;
    scene.same("after the wait", vec![alice], queue.due().await?.entities)
}

pub(crate) async fn a_key_written_by_hand_hides_nobody(lab: &Lab) -> Check {
    let scene = scene!(G5, given "an entity that somebody called by a key that is none", when "due is asked, and entities are listed", usually "what cannot be named ends the page it stands on, and with it every sweep");
    let (queue, alice, bob) = (lab.open().await, entity("alice"), entity("bob"));
    for entity in [&alice, &bob] {
        queue.post(entity, "a").await?;
    }
    lab.backend.corrupt_key(&alice, &"a".repeat(actornot_core::Limits::KEY_BYTES + 1)).await;
    scene.same("what is due", vec![bob.clone()], queue.due().await?.entities)?;
    let listed = queue.queue.list(bob.kind(), None, 10).await?;
    let listed: Vec<EntityId> = listed.into_iter().map(|(entity, _)| entity).collect();
    scene.same("what is listed", vec![bob.clone()], listed)?;
    let page = queue.queue.list(bob.kind(), None, 1).await?;
    let page: Vec<EntityId> = page.into_iter().map(|(entity, _)| entity).collect();
    scene.same("a page of the list", vec![bob.clone()], page)?;
    let one = DueQuery { kinds: vec![bob.kind().to_owned()], after: None, limit: 1 };
    let first = queue.queue.due(&one).await?;
    let second = match first.after {
        Some(after) => queue.queue.due(&DueQuery { after: Some(after), ..one }).await?.entities,
        None => Vec::new(),
    };
    let paged: Vec<EntityId> = first.entities.into_iter().chain(second).collect();
    scene.same("what is due, page by page", vec![bob], paged)
}

pub(crate) async fn the_next_due_moment_of_a_delayed_message_is_told(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a message delayed by a minute", when "due is asked before and after", usually "delayed messages are not in the index of what is due");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, vec![delayed("a", MINUTE)]).await?;
    let due = queue.due().await?;
    scene.same("what is due", Vec::<EntityId>::new(), due.entities)?;
    let next = due.next.unwrap_or_default();
    scene.holds("next is in a minute", next > MINUTE / 2 && next <= MINUTE, next)?;
    lab.elapse(MINUTE).await;
    scene.same("after a minute", vec![alice], queue.due().await?.entities)
}

pub(crate) async fn pages_hold_every_entity_once(lab: &Lab) -> Check {
    let scene = scene!(G5, given "seven entities that are due", when "they are paged by three", usually "the cursor is ignored, or skips entities of the same moment");
    let queue = lab.open().await;
    for n in 0..7 {
        queue.post(&entity(&format!("k{n}")), "a").await?;
    }
    let mut found = Vec::new();
    let mut query = DueQuery { kinds: vec!["thing".to_owned()], limit: 3, after: None };
    for _ in 0..4 {
        let page = queue.queue.due(&query).await?;
        scene.holds("a page of three at most", page.entities.len() <= 3, &page)?;
        found.extend(page.entities);
        query.after = page.after;
        if query.after.is_none() {
            break;
        }
    }
    found.sort();
    let expected: Vec<_> = (0..7).map(|n| entity(&format!("k{n}"))).collect();
    scene.same("what was found", expected, found)
}

pub(crate) async fn asking_what_is_due_changes_nothing(lab: &Lab) -> Check {
    let scene = scene!(G5, given "an entity that is due", when "due is asked twice, and its reply lost", usually "due claims what it reports");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    scene.same("the first time", true, queue.is_due(&alice).await?)?;
    scene.same("the second time", true, lab.open().await.is_due(&alice).await?)?;
    queue.lock(&alice).await.map(drop).map_err(Into::into)
}
