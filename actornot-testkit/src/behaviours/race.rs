//! Two verbs that land one right after the other, in both orders, on a database that was held still: trap 1.

use actornot_core::{Admission, EntityId, TryLock, Updated};

use crate::lab::{Draft, Instance, Lab, entity, message, messages};
use crate::verdict::{Check, Scene, scene};

/// The commit that lets go, and the post that wants the lock, let loose together; the first named is sent first.
async fn post_and_release(lab: &Lab, scene: Scene, post_first: bool) -> Check {
    let (holder, poster) = (lab.open().await, lab.open().await);
    for round in 0..8 {
        let entity = entity(&format!("k{round}"));
        holder.post(&entity, "first").await?;
        let grant = holder.lock(&entity).await?;
        let draft = holder.draft(&grant);
        let mut item = poster.enqueue(&entity, vec![message("second")]);
        item.lock = Some(poster.lock_request());

        let ice = lab.backend.freeze().await;
        let (commit, post) = (Box::pin(holder.commit(&draft)), Box::pin(poster.send_item(&item)));
        let ((commit, post), ()) = if post_first {
            let (p, c, ()) = tokio::join!(post, commit, thaw(ice));
            ((c, p), ())
        } else {
            let (c, p, ()) = tokio::join!(commit, post, thaw(ice));
            ((c, p), ())
        };
        not_stranded(scene, &holder, &draft, commit?, post?.grant.is_some(), &poster, &entity).await?;
    }
    Ok(())
}

/// Lets go of the database once both calls have been sent.
async fn thaw(ice: Box<dyn std::any::Any + Send>) {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
    drop(ice);
}

/// Either the holder was told of the message, or the poster was given the lock, or the entity is due.
async fn not_stranded(
    scene: Scene,
    holder: &Instance<'_>,
    draft: &Draft,
    commit: Updated,
    granted: bool,
    poster: &Instance<'_>,
    entity: &actornot_core::EntityId,
) -> Check {
    let told = match &commit {
        Updated::Continue { batch, .. } => {
            batch.messages.iter().all(|message| message.id.as_str() == "second")
        }
        _ => false,
    };
    let due = poster.is_due(entity).await?;
    let observed = format!("commit {} -> {commit:?}, granted {granted}, due {due}", draft.0.id);
    scene.holds("exactly one of them has it", told != granted || (!told && due), &observed)?;
    scene.holds("nobody stranded it", told || granted || due, &observed)?;
    scene.same("it is still there", 1, holder.pending(entity).await?)
}

pub(crate) async fn a_post_just_before_a_release_is_not_stranded(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a holder about to let go, on a database held still", when "a post is sent, then the release, and both are let loose", usually "the release checks the queue in a snapshot older than its row lock");
    post_and_release(lab, scene, true).await
}

pub(crate) async fn a_post_just_after_a_release_is_not_stranded(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a holder about to let go, on a database held still", when "the release is sent, then a post, and both are let loose", usually "the post's try at the lock is conditional, and gives up instead of waiting");
    post_and_release(lab, scene, false).await
}

pub(crate) async fn many_who_try_the_lock_get_one_grant(lab: &Lab) -> Check {
    let scene = scene!(G3, given "four instances, on a database held still", when "all of them try one lock", usually "the lease is read before the row is locked");
    let alice = entity("alice");
    let first = lab.open().await;
    let instances = [lab.open().await, lab.open().await, lab.open().await, lab.open().await];
    for round in 0..4 {
        first.post(&alice, &format!("m{round}")).await?;
        let ice = lab.backend.freeze().await;
        let asks: Vec<_> = instances
            .iter()
            .map(|instance| [TryLock { entity: alice.clone(), request: instance.lock_request() }])
            .collect();
        let (a, b, c, d, ()) = tokio::join!(
            instances[0].queue.try_lock(&asks[0]),
            instances[1].queue.try_lock(&asks[1]),
            instances[2].queue.try_lock(&asks[2]),
            instances[3].queue.try_lock(&asks[3]),
            thaw(ice)
        );
        let mut grants = Vec::new();
        for answer in [a, b, c, d].into_iter().flatten() {
            grants.extend(answer?);
        }
        scene.holds("at most one grant", grants.len() <= 1, &grants)?;
        match grants.pop() {
            Some(grant) => drop(first.drain_from(grant).await?),
            None => drop(first.drain(&alice).await?),
        }
    }
    Ok(())
}

pub(crate) async fn posts_from_many_instances_are_all_kept(lab: &Lab) -> Check {
    let scene = scene!(G1, given "three instances that post and run the same entities at the same time", when "everything was run", usually "a read and a write with room for another between them");
    const ROUNDS: usize = 12;
    let instances = [lab.open().await, lab.open().await, lab.open().await];
    let work = |who: usize| {
        let instance = &instances[who];
        async move {
            for round in 0..ROUNDS {
                let entity = entity(&format!("k{}", (round + who) % 2));
                let mut item = instance.enqueue(&entity, messages(&[&format!("{who}-{round:02}")]));
                item.lock = Some(instance.lock_request());
                if let Some(grant) = instance.send_item(&item).await?.grant {
                    append_all(lab, instance, grant).await?;
                }
            }
            Ok::<(), actornot_core::Error>(())
        }
    };
    let (a, b, c) = tokio::join!(work(0), work(1), work(2));
    for done in [a, b, c] {
        done?;
    }
    let mut seen = Vec::new();
    for key in ["k0", "k1"] {
        let entity = entity(key);
        if instances[0].is_due(&entity).await? {
            let grant = instances[0].lock(&entity).await?;
            append_all(lab, &instances[0], grant).await?;
        }
        scene.same("what is pending", 0, instances[0].pending(&entity).await?)?;
        let state = instances[0].state(&entity).await?.unwrap_or_default();
        let handled: Vec<String> = serde_json::from_str(&state).unwrap_or_default();
        for who in 0..3 {
            let prefix = format!("{who}-");
            let of_one: Vec<&String> = handled.iter().filter(|name| name.starts_with(&prefix)).collect();
            scene.holds("each poster's order", of_one.is_sorted(), &of_one)?;
        }
        seen.extend(handled);
    }
    seen.sort();
    let mut expected: Vec<String> =
        (0..3).flat_map(|who| (0..ROUNDS).map(move |round| format!("{who}-{round:02}"))).collect();
    expected.sort();
    scene.same("every message once", expected, seen)
}

/// Runs until the queue is empty; the state is the list of what was handled.
async fn append_all(
    lab: &Lab,
    instance: &Instance<'_>,
    grant: actornot_core::Grant,
) -> Result<(), actornot_core::Error> {
    let state = grant.state.map(|state| state.json).unwrap_or_else(|| "[]".to_owned());
    let mut handled: Vec<String> = serde_json::from_str(&state).unwrap_or_default();
    let (mut lease, mut batch) = (grant.lease, grant.batch);
    for _ in 0..1000 {
        handled.extend(crate::lab::names(&batch));
        let json = serde_json::to_string(&handled).unwrap_or_default();
        match instance.commit(&Draft::of(lab, &lease, &batch).state(&json)).await? {
            Updated::Continue { fence, batch: next } => (lease.fence, batch) = (fence, next),
            _ => return Ok(()),
        }
    }
    Err(actornot_core::Error::new(actornot_core::ErrorKind::Conflict, "the queue never ends"))
}

pub(crate) async fn slices_that_meet_hand_each_message_to_one(lab: &Lab) -> Check {
    let scene = scene!(G4, given "two instances whose slices name the same entities, in opposite orders", when "both post, lock and commit at the same time", usually "what is refused of one entity is told of the whole slice, or of none");
    let (one, two) = (lab.open().await, lab.open().await);
    let forth: Vec<EntityId> = (0..8).map(|n| entity(&format!("k{n}"))).collect();
    let back: Vec<EntityId> = forth.iter().rev().cloned().collect();
    for round in 0..6 {
        let ice = lab.backend.freeze().await;
        let one = Box::pin(meet(scene, &one, &forth, format!("one{round}")));
        let two = Box::pin(meet(scene, &two, &back, format!("two{round}")));
        let (one, two, ()) = tokio::join!(one, two, thaw(ice));
        one.and(two)?;
    }
    let mut expected: Vec<String> =
        ["one", "two"].iter().flat_map(|who| (0..6).map(move |round| format!("{who}{round}"))).collect();
    expected.sort();
    for entity in &forth {
        if one.is_due(entity).await? {
            let grant = one.lock(entity).await?;
            append_all(lab, &one, grant).await?;
        }
        let mut handled = handled(one.state(entity).await?);
        handled.sort();
        scene.same("every message once", &expected, &handled)?;
        scene.same("what is pending", 0, one.pending(entity).await?)?;
    }
    Ok(())
}

/// Posts to each of these, locks what it can, and commits that, each in one slice.
async fn meet(scene: Scene, queue: &Instance<'_>, entities: &[EntityId], name: String) -> Check {
    let items: Vec<_> = entities.iter().map(|entity| queue.enqueue(entity, messages(&[&name]))).collect();
    for answer in queue.queue.enqueue(&items).await {
        scene.same("the admission", vec![Admission::Accepted], answer?.admissions)?;
    }
    let ask = |entity: &EntityId| TryLock { entity: entity.clone(), request: queue.lock_request() };
    let asks: Vec<_> = entities.iter().map(ask).collect();
    let mut commits = Vec::new();
    for answer in queue.queue.try_lock(&asks).await {
        let Some(grant) = answer? else { continue };
        let mut handled = handled(grant.state.clone().map(|state| state.json));
        handled.extend(crate::lab::names(&grant.batch));
        let json = serde_json::to_string(&handled).unwrap_or_default();
        commits.push(queue.draft(&grant).state(&json).release().0);
    }
    for answer in queue.queue.update_locked(&commits).await {
        scene.holds("released", matches!(answer, Ok(Updated::Released { .. })), &answer)?;
    }
    Ok(())
}

/// What a state says that was handled.
fn handled(json: Option<String>) -> Vec<String> {
    json.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default()
}

pub(crate) async fn an_empty_namespace_is_opened_by_many_at_once(lab: &Lab) -> Check {
    let scene = scene!(G1, given "a namespace that was never used", when "six processes open it at the same time, and post", usually "what is missing is made without a lock, or one finds it half made");
    let (a, b, c, d, e, f) =
        tokio::join!(lab.open(), lab.open(), lab.open(), lab.open(), lab.open(), lab.open());
    let alice = entity("alice");
    let mut expected = Vec::new();
    for (nth, instance) in [&a, &b, &c, &d, &e, &f].into_iter().enumerate() {
        expected.push(format!("m{nth}"));
        instance.post(&alice, &expected[nth]).await?;
    }
    scene.same("the queue", expected, a.queued(&alice).await?)
}
