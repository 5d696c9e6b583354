//! Messages that fail: G6 counted, isolated, buried, brought back.

use actornot_core::{Headers, NewMessage, Next, Position, Updated, Verdict, Waiting};

use crate::lab::{Lab, MINUTE, PAST_LEASE, delayed, entity, message, messages, names};
use crate::verdict::{Check, scene};

pub(crate) async fn an_attempt_is_counted_before_it_is_run(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a message that kills whoever runs it", when "it is handed out again and again", usually "the attempt is counted by the commit, which never comes");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    for attempt in 1..=3 {
        let grant = queue.lock(&alice).await?;
        scene.same("deliveries", attempt, grant.batch.deliveries)?;
        scene.same("charged", attempt, grant.batch.charged)?;
        lab.elapse(PAST_LEASE).await;
    }
    Ok(())
}

pub(crate) async fn only_a_message_alone_is_charged(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a batch of two", when "it is handed out", usually "every hand-out counts towards the limit, the innocent's too");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["a", "b"])).await?;
    let grant = queue.lock(&alice).await?;
    scene.same("deliveries", 1, grant.batch.deliveries)?;
    scene.same("charged", u32::from(grant.batch.messages.len() == 1), grant.batch.charged)
}

pub(crate) async fn a_takeover_hands_out_one_by_one(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a batch whose holder died", when "the lock is taken over", usually "the whole batch is handed out again, and kills again");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["a", "b", "c"])).await?;
    queue.lock(&alice).await?;
    lab.elapse(PAST_LEASE).await;
    let grant = queue.lock(&alice).await?;
    scene.same("the batch", vec!["a".to_owned()], names(&grant.batch))?;
    scene.same("the batch limit", 1, grant.batch.batch_limit)
}

pub(crate) async fn a_clean_release_is_not_an_attempt(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a grant that was handed back unused", when "it is granted again", usually "a shutdown uses up attempts");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    for _ in 0..3 {
        let grant = queue.lock(&alice).await?;
        scene.same("deliveries", 1, grant.batch.deliveries)?;
        scene.same("charged", 1, grant.batch.charged)?;
        queue.release(&grant.lease).await?;
    }
    Ok(())
}

pub(crate) async fn not_being_ready_is_not_an_attempt(lab: &Lab) -> Check {
    let scene = scene!(G6, given "an entity that was not ready", when "it is granted again", usually "every commit without an acknowledgement counts as failed");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    for _ in 0..3 {
        let grant = queue.lock(&alice).await?;
        scene.same("deliveries", 1, grant.batch.deliveries)?;
        scene.same("charged", 1, grant.batch.charged)?;
        queue.commit(&queue.draft(&grant).wait(Waiting::NotReady, MINUTE)).await?;
        lab.elapse(MINUTE).await;
    }
    Ok(())
}

pub(crate) async fn a_failed_run_keeps_its_attempts_and_its_place(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a message whose run failed", when "its backoff is over", usually "a retried message is posted anew, at the tail");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["a", "b"])).await?;
    for attempt in 1..=3 {
        let grant = queue.lock_at_most(&alice, 1).await?;
        scene.same("the batch", vec!["a".to_owned()], names(&grant.batch))?;
        scene.same("deliveries", attempt, grant.batch.deliveries)?;
        queue.commit(&queue.draft(&grant).state("1").wait(Waiting::Backoff, MINUTE).batch_limit(1)).await?;
        lab.elapse(MINUTE).await;
    }
    let grant = queue.lock_at_most(&alice, 1).await?;
    queue.commit(&queue.draft(&grant).release()).await?;
    scene.same("the next one's attempt", 1, queue.lock(&alice).await?.batch.deliveries)
}

pub(crate) async fn the_batch_limit_of_a_commit_is_kept(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a commit that asks for batches of at most two", when "more is handed out, at once and later", usually "the limit is not stored, or the request's overrides it");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["a", "b", "c", "d", "e", "f"])).await?;
    let grant = queue.lock_at_most(&alice, 1).await?;
    match queue.commit(&queue.draft(&grant).batch_limit(2)).await? {
        Updated::Continue { batch, .. } => scene.holds("at most two", batch.messages.len() <= 2, &batch)?,
        other => return Err(scene.verdict("the lock is kept".to_owned(), format!("{other:?}"))),
    }
    queue.release(&grant.lease).await?;
    let grant = queue.lock(&alice).await?;
    scene.same("the limit that is told", 2, grant.batch.batch_limit)?;
    scene.holds("at most two", grant.batch.messages.len() <= 2, &grant.batch)
}

pub(crate) async fn a_dead_letter_is_byte_equal_and_tells_why(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a message with headers and odd bytes that is dead-lettered at its second attempt", when "the dead letters are read", usually "the letter is written anew instead of moved");
    let (queue, alice) = (lab.open().await, entity("alice"));
    let payload = r#"{ "b" : 1 , "b" : "\u0000" }"#.to_owned();
    let headers = Headers::from([("k".to_owned(), "v".to_owned())]);
    let bad = NewMessage { payload: payload.clone(), headers: headers.clone(), ..message("bad") };
    queue.post_all(&alice, vec![bad, message("good")]).await?;
    queue.lock_at_most(&alice, 1).await?;
    lab.elapse(PAST_LEASE).await;
    let grant = queue.lock_at_most(&alice, 1).await?;
    match queue.commit(&queue.draft(&grant).dead_letter("no é good")).await? {
        Updated::Continue { batch, .. } => {
            scene.same("what comes next", vec!["good".to_owned()], names(&batch))?
        }
        other => return Err(scene.verdict("the entity goes on".to_owned(), format!("{other:?}"))),
    }
    let letters = queue.queue.dead_letters("thing", None, 10).await?;
    scene.same("the number of letters", 1, letters.len())?;
    let letter = scene.some("a letter", letters.first())?;
    scene.same("the payload", &payload, &letter.payload)?;
    scene.same("the headers", &headers, &letter.headers)?;
    scene.same("the error", "no é good", &*letter.error)?;
    scene.same("the attempts", 2, letter.attempts)?;
    scene.same("whose it is", &alice, &letter.entity)?;
    scene.same("the last error", Some("no é good".to_owned()), queue.why(&alice).await?.last_error)
}

pub(crate) async fn a_dead_letter_comes_behind_an_acknowledged_prefix(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a batch whose second message is bad", when "one commit acknowledges the first and dead-letters the second", usually "either the prefix or the letter is dropped");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["a", "bad", "c"])).await?;
    let grant = queue.lock(&alice).await?;
    if grant.batch.messages.len() < 2 {
        // A queue may hand out one at a time; then there is no prefix.
        return Ok(());
    }
    let verdict = Verdict::DeadLetter { error: "bad".to_owned() };
    queue.commit(&queue.draft(&grant).ack(1).state("1").verdict(verdict).release()).await?;
    scene.same("the queue", vec!["c".to_owned()], queue.queued(&alice).await?)?;
    scene.same("the state", Some("1".to_owned()), queue.state(&alice).await?)?;
    let letters = queue.queue.dead_letters("thing", None, 10).await?;
    scene.same(
        "the letters",
        vec!["bad"],
        letters.iter().map(|letter| letter.id.as_str()).collect::<Vec<_>>(),
    )
}

pub(crate) async fn a_redriven_letter_is_moved_to_the_end_that_was_asked_for(lab: &Lab) -> Check {
    let scene = scene!(G6, given "two dead letters and a queued message", when "one is redriven to the head and one to the tail", usually "letters are copied, or always appended");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["x", "y", "queued"])).await?;
    for _ in 0..2 {
        let grant = queue.lock_at_most(&alice, 1).await?;
        queue.commit(&queue.draft(&grant).dead_letter("bad").release()).await?;
    }
    let letters = queue.queue.dead_letters("thing", None, 10).await?;
    scene.same(
        "the letters",
        vec!["x", "y"],
        letters.iter().map(|letter| letter.id.as_str()).collect::<Vec<_>>(),
    )?;
    scene.same("the first", true, queue.queue.redrive(&letters[0], Position::Tail).await?)?;
    scene.same("the second", true, queue.queue.redrive(&letters[1], Position::Head).await?)?;
    scene.same("the first again", false, queue.queue.redrive(&letters[0], Position::Tail).await?)?;
    scene.same("the letters left", 0, queue.queue.dead_letters("thing", None, 10).await?.len())?;
    scene.same("it is due", true, queue.is_due(&alice).await?)?;
    let order = queue.drain(&alice).await?;
    scene.same("the order", vec!["y", "queued", "x"], order)
}

pub(crate) async fn a_redriven_letter_stands_where_it_was_put_beside_what_fell_due_before(
    lab: &Lab,
) -> Check {
    let scene = scene!(G2, given "two dead letters, and a delayed message that fell due while nobody called", when "one is redriven to the head and one to the tail", usually "what is due joins the queue with the next post or lock, behind the letter");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["x", "y"])).await?;
    for _ in 0..2 {
        let grant = queue.lock_at_most(&alice, 1).await?;
        queue.commit(&queue.draft(&grant).dead_letter("bad").release()).await?;
    }
    queue.post_all(&alice, vec![delayed("late", MINUTE)]).await?;
    lab.elapse(MINUTE).await;
    let letters = queue.queue.dead_letters("thing", None, 10).await?;
    for (letter, to) in letters.iter().zip([Position::Tail, Position::Head]) {
        scene.same("the redrive", true, queue.queue.redrive(letter, to).await?)?;
    }
    scene.same("the order", vec!["y", "late", "x"], queue.drain(&alice).await?)
}

pub(crate) async fn letters_redriven_during_a_run_do_not_hide_what_it_settles(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a run of one message, and three dead letters", when "the letters are redriven to the head before it commits", usually "what it settles is looked for among the first of the queue");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["x", "y", "z", "handed", "after"])).await?;
    for _ in 0..3 {
        let grant = queue.lock_at_most(&alice, 1).await?;
        queue.commit(&queue.draft(&grant).dead_letter("bad").release()).await?;
    }
    let grant = queue.lock_at_most(&alice, 1).await?;
    scene.same("the batch", vec!["handed"], names(&grant.batch))?;
    for letter in queue.queue.dead_letters("thing", None, 10).await? {
        scene.same("the redrive", true, queue.queue.redrive(&letter, Position::Head).await?)?;
    }
    let mut next = queue.draft(&grant).state("1");
    next.0.next = Next::Batch { max: 1 };
    let updated = queue.commit(&next).await?;
    let Updated::Continue { batch, .. } = &updated else { return scene.holds("it goes on", false, &updated) };
    scene.same("the next batch", vec!["z"], names(batch))?;
    queue.release(&grant.lease).await?;
    scene.same("the rest", vec!["z", "y", "x", "after"], queue.drain(&alice).await?)
}

pub(crate) async fn a_letter_redriven_during_a_run_has_its_own_attempts(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a message at its third attempt, and a dead letter", when "the letter is redriven to the head during the run, which then fails", usually "the counters of the row stay with whoever is at the head");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post_all(&alice, messages(&["letter", "failing"])).await?;
    let grant = queue.lock_at_most(&alice, 1).await?;
    queue.commit(&queue.draft(&grant).dead_letter("bad").release()).await?;
    for _ in 0..2 {
        let grant = queue.lock(&alice).await?;
        queue.commit(&queue.draft(&grant).wait(Waiting::Backoff, MINUTE)).await?;
        lab.elapse(MINUTE).await;
    }
    let grant = queue.lock(&alice).await?;
    scene.same("attempts before", 3, grant.batch.charged)?;
    let letters = queue.queue.dead_letters("thing", None, 10).await?;
    let letter = scene.some("a dead letter", letters.first())?;
    scene.same("the redrive", true, queue.queue.redrive(letter, Position::Head).await?)?;
    let failed = queue.draft(&grant).wait(Waiting::Backoff, MINUTE).batch_limit(1);
    scene.holds("the run settles", queue.commit(&failed).await? != Updated::LockLost, &failed.0)?;
    lab.elapse(MINUTE).await;
    let grant = queue.lock(&alice).await?;
    scene.same("the head", vec!["letter".to_owned()], names(&grant.batch))?;
    scene.same("its deliveries", 1, grant.batch.deliveries)?;
    scene.same("its attempts", 1, grant.batch.charged)?;
    queue.commit(&queue.draft(&grant).release()).await?;
    scene.same("the one behind it", vec!["failing".to_owned()], queue.drain(&alice).await?)
}

pub(crate) async fn a_resumed_entity_runs_with_fresh_attempts(lab: &Lab) -> Check {
    let scene = scene!(G6, given "an entity that was paused by its policy after some attempts", when "an operator resumes it", usually "the pause is lifted but the attempts stay used up");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    queue.lock(&alice).await?;
    lab.elapse(PAST_LEASE).await;
    let grant = queue.lock(&alice).await?;
    let pause = Verdict::Pause { reason: "used up".to_owned() };
    let updated = queue.commit(&queue.draft(&grant).ack(0).verdict(pause)).await?;
    scene.same("the commit", Updated::Released { next_due: None }, updated)?;
    scene.same("the lock", None, queue.try_once(&alice).await?)?;
    scene.same("an unknown entity", false, queue.queue.resume(&entity("nobody")).await?)?;
    scene.same("the resume", true, queue.queue.resume(&alice).await?)?;
    scene.same("it is due", true, queue.is_due(&alice).await?)?;
    let grant = queue.lock(&alice).await?;
    scene.same("deliveries", 1, grant.batch.deliveries)?;
    scene.same("charged", 1, grant.batch.charged)
}
