//! What people see: G6 visible, G9 paged.

use actornot_core::{Admission, Enqueue, Location, Position, Waiting};

use crate::lab::{DAY, LEASE, Lab, MINUTE, delayed, entity, id, messages};
use crate::verdict::{Check, scene};

pub(crate) async fn a_read_tells_unknown_from_not_yet_handled(lab: &Lab) -> Check {
    let scene = scene!(G1, given "an entity that was posted to and one that was not", when "both are read", usually "an entity exists only once it has a state");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["a", "b"])).await?;
    let read = queue.queue.read(&[entity("nobody"), alice]).await?;
    scene.same("the unknown", None, read[0].clone())?;
    let snapshot = scene.some("the other", read[1].clone())?;
    scene.same("its state", None, snapshot.state)?;
    scene.same("what is pending", 2, snapshot.pending)
}

pub(crate) async fn entities_are_listed_in_the_order_of_their_keys(lab: &Lab) -> Check {
    let scene = scene!(G9, given "entities posted to in no order", when "they are listed by two", usually "pages by offset, or in the order of a collation");
    let queue = lab.open().await;
    for key in ["b", "B", "é", "a", "10", "9"] {
        queue.post(&entity(key), "a").await?;
    }
    let mut keys: Vec<String> = Vec::new();
    loop {
        let page = queue.queue.list("thing", keys.last().map(String::as_str), 2).await?;
        if page.is_empty() || keys.len() > 6 {
            break;
        }
        keys.extend(page.into_iter().map(|(entity, _)| entity.key().to_owned()));
    }
    scene.same("the keys", vec!["10", "9", "B", "a", "b", "é"], keys)
}

pub(crate) async fn a_peek_shows_the_head_of_the_queue(lab: &Lab) -> Check {
    let scene = scene!(G2, given "three queued messages and a delayed one", when "two are peeked at", usually "the order of the table instead of that of the queue");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, vec![delayed("later", MINUTE)]).await?;
    queue.post_all(&alice, messages(&["c", "a", "b"])).await?;
    let peeked = queue.queue.peek(&alice, 2).await?;
    scene.same(
        "the head",
        vec!["c", "a"],
        peeked.iter().map(|message| message.id.as_str()).collect::<Vec<_>>(),
    )?;
    scene.same("all", 3, queue.queue.peek(&alice, 10).await?.len())
}

pub(crate) async fn a_peek_shows_as_many_due_messages_as_it_is_asked_for(lab: &Lab) -> Check {
    let scene = scene!(G6, given "1,500 delayed messages that have fallen due", when "all are peeked at", usually "those that are due join the queue a bounded number at a time");
    let (queue, alice) = (lab.open().await, entity("alice"));
    let names: Vec<String> = (0..1500).map(|n| format!("{n:04}")).collect();
    for part in names.chunks(100) {
        let late = part.iter().map(|name| delayed(name, MINUTE)).collect();
        queue.send_item(&Enqueue { backlog_limit: 2000, ..queue.enqueue(&alice, late) }).await?;
    }
    lab.elapse(MINUTE * 2).await;
    let peeked = queue.queue.peek(&alice, 2000).await?;
    scene.same("how many are shown", names.len(), peeked.len())?;
    let wrong = peeked.iter().zip(&names).find(|(message, name)| message.id.as_str() != name.as_str());
    scene.same("one that is not in its place", None, wrong.map(|(message, _)| message.id.as_str()))
}

pub(crate) async fn a_message_can_be_located(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a dead, a handled, a queued and a delayed message", when "they are looked for", usually "only the queue is looked at");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["dead", "handled", "queued"])).await?;
    queue.post_all(&alice, vec![delayed("delayed", MINUTE)]).await?;
    let grant = queue.lock_at_most(&alice, 1).await?;
    queue.commit(&queue.draft(&grant).dead_letter("bad").release()).await?;
    let grant = queue.lock_at_most(&alice, 1).await?;
    queue.commit(&queue.draft(&grant).release()).await?;
    let asked = ["queued", "dead", "never posted", "delayed", "handled"].map(id);
    let expected = [Location::Queued, Location::Dead, Location::Gone, Location::Queued, Location::Gone];
    scene.same("where they are", expected.to_vec(), queue.queue.locate(&alice, &asked).await?)
}

pub(crate) async fn a_message_that_moved_is_located(lab: &Lab) -> Check {
    let scene = scene!(G6, given "an id posted again after its retention, and a delayed message that fell due, all redriven", when "they are looked for", usually "it is remembered where a message was put at first");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "again").await?;
    lab.elapse(DAY + MINUTE).await;
    // Whether an id is free while its message still waits is the queue's to say.
    let twice = queue.post(&alice, "again").await? == Admission::Accepted;
    queue.post_all(&alice, vec![delayed("late", MINUTE)]).await?;
    lab.elapse(MINUTE).await;
    queue.post(&alice, "letter").await?;
    let names = ["again", "late", "letter"];
    let asked = names.map(id);
    scene.same("first", vec![Location::Queued; 3], queue.queue.locate(&alice, &asked).await?)?;
    for _ in 0..if twice { 3 } else { 2 } {
        let grant = queue.lock_at_most(&alice, 1).await?;
        queue.commit(&queue.draft(&grant).dead_letter("bad").release()).await?;
    }
    for letter in queue.queue.dead_letters("thing", None, 10).await? {
        scene.same("the redrive", true, queue.queue.redrive(&letter, Position::Tail).await?)?;
    }
    let mut left =
        if twice { vec!["letter", "again", "again", "late"] } else { vec!["letter", "again", "late"] };
    while !left.is_empty() {
        let place = |name| if left.contains(&name) { Location::Queued } else { Location::Gone };
        scene.same("where they are", names.map(place).to_vec(), queue.queue.locate(&alice, &asked).await?)?;
        let grant = queue.lock_at_most(&alice, 1).await?;
        scene.same("the next", vec![left.remove(0).to_owned()], crate::lab::names(&grant.batch))?;
        queue.commit(&queue.draft(&grant).release()).await?;
    }
    scene.same("in the end", vec![Location::Gone; 3], queue.queue.locate(&alice, &asked).await?)
}

pub(crate) async fn why_tells_what_an_entity_waits_for(lab: &Lab) -> Check {
    let scene = scene!(G6, given "an entity that is held, then backs off, then is paused", when "somebody asks why", usually "the reason is kept in the process that knows it");
    let (queue, alice) = (lab.open().await, entity("alice"));
    scene.same("unknown", None, queue.queue.why(&alice).await?)?;
    queue.post(&alice, "a").await?;
    let grant = queue.lock(&alice).await?;
    let why = queue.why(&alice).await?;
    let held = why.locked_for.unwrap_or_default();
    scene.holds("it is locked for up to a lease", held > LEASE / 2 && held <= LEASE, held)?;
    scene.same("the fence", grant.lease.fence, why.fence)?;
    queue.commit(&queue.draft(&grant).wait(Waiting::Blocked, MINUTE)).await?;
    let why = queue.why(&alice).await?;
    let (reason, wait) = scene.some("a wait", why.waiting)?;
    scene.same("the reason", Waiting::Blocked, reason)?;
    scene.holds("up to a minute", wait > MINUTE / 2 && wait <= MINUTE, wait)?;
    scene.same("the error", Some("it failed".to_owned()), why.last_error)?;
    scene.same("the lock", None, why.locked_for)?;
    queue.queue.pause(&alice, "stop").await?;
    scene.same("the pause", Some("stop".to_owned()), queue.why(&alice).await?.paused)
}

pub(crate) async fn a_purge_leaves_nothing_to_be_seen(lab: &Lab) -> Check {
    let scene = scene!(G6, given "an entity with state, queue, delayed messages and a dead letter", when "it is purged", usually "one of the tables is forgotten");
    let (queue, alice, bob) = (lab.open().await, entity("alice"), entity("bob"));
    for entity in [&alice, &bob] {
        queue.post_all(entity, messages(&["dead", "b", "c"])).await?;
        queue.post_all(entity, vec![delayed("later", MINUTE)]).await?;
        let grant = queue.lock_at_most(entity, 1).await?;
        queue.commit(&queue.draft(&grant).state("1").dead_letter("bad").release()).await?;
    }
    scene.same("the purge", true, queue.queue.purge(&alice).await?)?;
    scene.same("the purge of nobody", false, queue.queue.purge(&entity("nobody")).await?)?;
    scene.same("it is unknown", None, queue.snapshot(&alice).await?)?;
    scene.same("the queue", Vec::<String>::new(), queue.queued(&alice).await?)?;
    lab.elapse(MINUTE).await;
    scene.same("what is due", vec![bob.clone()], queue.due().await?.entities)?;
    let letters = queue.queue.dead_letters("thing", None, 10).await?;
    scene.same(
        "the letters",
        vec![bob],
        letters.into_iter().map(|letter| letter.entity).collect::<Vec<_>>(),
    )?;
    queue.post(&alice, "new").await?;
    scene.same("what is handed out afterwards", vec!["new".to_owned()], queue.drain(&alice).await?)
}

pub(crate) async fn a_purge_amid_posts_strands_nothing(lab: &Lab) -> Check {
    let scene = scene!(G5, given "an entity with a message, two instances that post to it, and one that purges it, all at once", when "it is posted to once more, and run", usually "a purge in several steps takes away what a post has just told the entity");
    let (one, two, three) = (lab.open().await, lab.open().await, lab.open().await);
    for round in 0..8 {
        let alice = entity(&format!("k{round}"));
        one.post(&alice, "before").await?;
        let (purged, during, later) = tokio::join!(
            one.queue.purge(&alice),
            two.post(&alice, "during"),
            three.post_all(&alice, vec![delayed("later", MINUTE)]),
        );
        scene.same("whether there was something to purge", true, purged?)?;
        during?;
        later?;
        one.post(&alice, "after").await?;
        lab.elapse(MINUTE * 2).await;
        let mut seen = two.drain(&alice).await?;
        scene.holds("what was posted afterwards is run", seen.contains(&"after".to_owned()), &seen)?;
        // What was posted at the same time came before the purge or after it.
        seen.retain(|name| !["during", "later", "after"].contains(&&**name));
        scene.same("what was posted before", Vec::<String>::new(), seen)?;
        scene.same("what is pending", 0, two.pending(&alice).await?)?;
        scene.same("whether it is due", false, two.is_due(&alice).await?)?;
    }
    Ok(())
}
