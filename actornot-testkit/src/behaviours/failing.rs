//! Handlers that fail: G6.

use std::time::Duration;

use actornot_core::{ErrorKind, PoisonPolicy, Position, Settled};

use crate::lab::{Lab, entity, id};
use crate::process::{Act, Process, SOON, line};
use crate::verdict::{Check, Scene, scene};

/// A process that sweeps by itself, so that retries come without posts.
async fn sweeping(lab: &Lab, poison: PoisonPolicy) -> Process {
    lab.process_with(|config| {
        config.sweep_every = Some(SOON * 3);
        config.max_attempts = 3;
        config.poison = poison;
    })
    .await
}

/// A process whose panics must not take its only permit.
async fn panicking(lab: &Lab) -> Process {
    lab.process_with(|config| {
        config.sweep_every = Some(SOON * 3);
        config.max_attempts = 2;
        config.concurrency = 1;
        // A panic is slow to print: a broken queue must not lead to thousands of them.
        config.max_backoff = SOON / 20;
    })
    .await
}

/// Posts these to one entity so that they wait for the handler together.
async fn in_one_batch(
    process: &Process,
    key: &str,
    acts: Vec<(&str, Act)>,
) -> Result<(), actornot_core::Error> {
    process.act(key, "first", Act::Hold).await?;
    process.probe.holding(1).await;
    for (name, act) in acts {
        process.act(key, name, act).await?;
    }
    process.probe.let_go(1);
    Ok(())
}

/// Posts a last message, waits for it, and tells what was said without it.
async fn said_in_the_end(
    process: &Process,
    key: &str,
    scene: Scene,
) -> Result<Vec<String>, Box<crate::Verdict>> {
    let last = process.say(key, "last").await?;
    scene.same("the last message", Settled::Handled, process.settled(&last).await?)?;
    let mut said = process.said(key).await?;
    said.retain(|name| name != "last" && name != "first");
    Ok(said)
}

/// Waits until the entity is paused, and says why.
async fn paused(process: &Process, key: &str) -> Result<String, actornot_core::Error> {
    loop {
        if let Some(reason) = process.mailbox.why(key).await?.and_then(|why| why.paused) {
            return Ok(reason);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn a_failed_message_is_retried_in_its_place(lab: &Lab) -> Check {
    let scene = scene!(G2, given "a batch whose middle message fails twice", when "it is run", usually "a failed message joins the tail, or is skipped");
    let process = sweeping(lab, PoisonPolicy::DeadLetter).await;
    in_one_batch(&process, "alice", vec![("a", Act::Say), ("b", Act::Fail(2)), ("c", Act::Say)]).await?;
    scene.same("the order", vec!["a", "b", "c"], said_in_the_end(&process, "alice", scene).await?)
}

pub(crate) async fn a_message_that_always_fails_is_buried_alone(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a batch with one message that always fails", when "its attempts are used up", usually "the batch is buried with it, or its neighbours run twice");
    let process = sweeping(lab, PoisonPolicy::DeadLetter).await;
    let acts = vec![("a", Act::Say), ("bad", Act::Fail(u32::MAX)), ("c", Act::Say), ("d", Act::Say)];
    in_one_batch(&process, "alice", acts).await?;
    scene.same("what was said", vec!["a", "c", "d"], said_in_the_end(&process, "alice", scene).await?)?;
    let letters = process.mailbox.dead_letters(None, 10).await?;
    scene.same("dead letters", 1, letters.len())?;
    let letter = scene.some("a letter", letters.first())?;
    scene.holds("its error", letter.error.contains("bad fails"), &letter.error)?;
    scene.holds("its payload", letter.payload.contains("\"bad\""), &letter.payload)?;
    scene.holds("its attempts", letter.attempts >= 3, letter.attempts)
}

pub(crate) async fn a_panic_is_its_messages_failure(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a handler that panics for one message", when "its attempts are used up", usually "the panic takes the loop, a permit, or the batch with it");
    let process = panicking(lab).await;
    in_one_batch(&process, "alice", vec![("a", Act::Say), ("bad", Act::Panic), ("c", Act::Say)]).await?;
    scene.same("what was said", vec!["a", "c"], said_in_the_end(&process, "alice", scene).await?)?;
    let letters = process.mailbox.dead_letters(None, 10).await?;
    let error = letters.first().map(|letter| letter.error.clone()).unwrap_or_default();
    scene.holds("the panic's text", error.contains("bad panics"), error)
}

pub(crate) async fn a_panic_while_it_is_decoded_is_a_messages_failure(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a batch with one message whose decoder panics", when "its attempts are used up", usually "only the handler's panics are caught, and this one keeps the lease");
    let process = panicking(lab).await;
    let acts = vec![("a", Act::Say), ("bad", Act::Trap(())), ("c", Act::Say)];
    in_one_batch(&process, "alice", acts).await?;
    scene.same("what was said", vec!["a", "c"], said_in_the_end(&process, "alice", scene).await?)?;
    let letters = process.mailbox.dead_letters(None, 10).await?;
    let error = letters.first().map(|letter| letter.error.clone()).unwrap_or_default();
    scene.holds("the panic's text", error.contains("this is a trap"), error)
}

pub(crate) async fn a_panic_in_ready_is_retried(lab: &Lab) -> Check {
    let scene = scene!(G6, given "an entity that panics once when it is asked whether it is ready", when "it is posted to", usually "only the handler's panics are caught, and this one keeps the lease");
    let process = panicking(lab).await;
    process.probe.stumble();
    let receipt = process.say("alice", "a").await?;
    scene.same("the message", Settled::Handled, process.settled(&receipt).await?)?;
    scene.same("what was said", vec!["a"], process.said("alice").await?)
}

pub(crate) async fn a_pause_behind_everything_is_not_the_next_messages(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a batch whose second payload was damaged, and a handler that asks for a pause behind the first", when "it is run", usually "what a handler says is taken for the message that it never saw");
    let process = lab.process().await;
    for (name, act) in [("a", Act::PauseBehind), ("b", Act::Say)] {
        process.mailbox.post("alice", line(name, act)).id(name).only_enqueue().await?;
    }
    lab.backend.corrupt_payload(&entity("alice"), &id("b"), "{\"name\":7").await;
    process.mailbox.sweep(SOON).await?;
    let why = scene.some("the entity", process.mailbox.why("alice").await?)?;
    scene.same("a pause, and what waits", (None, 0), (why.paused, why.pending))?;
    scene.same("what was said", vec!["a"], process.said("alice").await?)?;
    let letters = process.mailbox.dead_letters(None, 10).await?;
    let error = letters.first().map(|letter| letter.error.clone()).unwrap_or_default();
    scene.holds("the letter's error", error.contains("payload does not decode"), error)
}

pub(crate) async fn a_buried_message_comes_back_by_redrive(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a message that was buried at its handler's wish, behind a handled prefix", when "it is redriven, and buried again", usually "a dead letter is a log line instead of a message");
    let process = sweeping(lab, PoisonPolicy::DeadLetter).await;
    in_one_batch(&process, "alice", vec![("a", Act::Say), ("bad", Act::Bury), ("c", Act::Say)]).await?;
    scene.same("what was said", vec!["a", "c"], said_in_the_end(&process, "alice", scene).await?)?;
    let letter = process.mailbox.dead_letters(None, 10).await?.into_iter().next();
    let letter = scene.some("a letter", letter)?;
    scene.holds("its error", letter.error.contains("bad is bad"), &letter.error)?;
    scene.same("the redrive", true, process.mailbox.redrive(&letter, Position::Tail).await?)?;
    scene.same("what was said", vec!["a", "c"], said_in_the_end(&process, "alice", scene).await?)?;
    let again = process.mailbox.dead_letters(None, 10).await?;
    scene.same("letters", 1, again.len())?;
    scene.holds("a new number", again.iter().all(|again| again.number > letter.number), &again)
}

pub(crate) async fn the_pause_policy_stops_the_entity(lab: &Lab) -> Check {
    let scene = scene!(G6, given "the policy to pause, and a message that fails three times", when "its attempts are used up, and it is resumed", usually "the policy is read as dead-letter");
    let process = sweeping(lab, PoisonPolicy::Pause).await;
    process.act("alice", "a", Act::Fail(u32::MAX)).await?;
    process.say("alice", "b").await?;
    let reason = paused(&process, "alice").await?;
    scene.holds("the reason", reason.contains("a fails"), &reason)?;
    scene.same("what waits", 2, process.pending("alice").await?)?;
    let runs = process.probe.runs().len();
    scene.same("the resume", true, process.mailbox.resume("alice").await?)?;
    paused(&process, "alice").await?;
    scene.same("runs after the resume", runs + 3, process.probe.runs().len())?;
    scene.same("letters", 0, process.mailbox.dead_letters(None, 10).await?.len())
}

pub(crate) async fn the_block_policy_keeps_trying_in_order(lab: &Lab) -> Check {
    let scene = scene!(G6, given "the policy to block, and a message that fails six times", when "more is posted behind it", usually "the policy is read as dead-letter, or the order is given up");
    let process = sweeping(lab, PoisonPolicy::Block).await;
    process.act("alice", "a", Act::Fail(6)).await?;
    scene.same("what was said", vec!["a", "b"], {
        process.say("alice", "b").await?;
        said_in_the_end(&process, "alice", scene).await?
    })?;
    scene.same("letters", 0, process.mailbox.dead_letters(None, 10).await?.len())
}

pub(crate) async fn a_handler_can_pause_its_entity(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a handler that asks for a pause behind a handled message", when "it is run", usually "the pause loses the prefix, or is taken for a failure");
    let process = sweeping(lab, PoisonPolicy::DeadLetter).await;
    in_one_batch(&process, "alice", vec![("a", Act::Say), ("b", Act::Pause), ("c", Act::Say)]).await?;
    let reason = paused(&process, "alice").await?;
    scene.holds("the reason", reason.contains("b asks a human"), &reason)?;
    scene.same("what was said", vec!["first", "a"], process.said("alice").await?)?;
    scene.same("what waits", 2, process.pending("alice").await?)
}

pub(crate) async fn a_run_without_end_is_cancelled(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a handler that never returns for one message", when "its time is up as often as it has attempts", usually "a run has no end, and its permit and lease are gone for ever");
    let process = lab
        .process_with(|config| {
            config.sweep_every = Some(SOON * 3);
            config.max_attempts = 2;
            config.concurrency = 1;
            config.run_timeout = Duration::from_millis(50);
            config.cancel_grace = Duration::from_millis(10);
        })
        .await;
    let bad = process.act("alice", "bad", Act::Hang).await?;
    scene.same("the message", Settled::Dead, process.settled(&bad).await?)?;
    let after = process.say("alice", "after").await?;
    scene.same("the next", Settled::Handled, process.settled(&after).await?)?;
    let letters = process.mailbox.dead_letters(None, 10).await?;
    let error = letters.first().map(|letter| letter.error.clone()).unwrap_or_default();
    scene.holds("its error", error.contains("took longer than 50ms"), error)
}

pub(crate) async fn a_payload_that_does_not_decode_is_buried(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a queue in which one stored payload was damaged", when "it is run", usually "what does not decode is retried for ever, or lost");
    let process = lab.process().await;
    for name in ["a", "b", "c"] {
        process.mailbox.post("alice", line(name, Act::Say)).id(name).only_enqueue().await?;
    }
    lab.backend.corrupt_payload(&entity("alice"), &id("b"), "{\"name\":7").await;
    process.mailbox.sweep(SOON).await?;
    scene.same("what was said", vec!["a", "c"], process.said("alice").await?)?;
    let letters = process.mailbox.dead_letters(None, 10).await?;
    let letter = scene.some("a letter", letters.first())?;
    scene.same("its bytes", "{\"name\":7", letter.payload.as_str())?;
    scene.holds("its error", letter.error.contains("payload does not decode"), &letter.error)
}

pub(crate) async fn a_state_that_does_not_decode_is_kept(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a stored state that was damaged", when "its entity is posted to", usually "the handler starts from the default, and overwrites what was there");
    let process = lab.process().await;
    let first = process.say("alice", "a").await?;
    process.settled(&first).await?;
    lab.backend.corrupt_state(&entity("alice"), "{\"said\":7}").await;
    process.mailbox.post("alice", line("b", Act::Say)).only_enqueue().await?;
    process.mailbox.sweep(SOON).await?;
    let why = scene.some("the entity", process.mailbox.why("alice").await?)?;
    scene.same("what waits", 1, why.pending)?;
    let reason = why.paused.unwrap_or_default();
    scene.holds("paused with the reason", reason.contains("state does not decode"), &reason)?;
    let snapshot = process.mailbox.queue().read(&[entity("alice")]).await?.into_iter().flatten().next();
    let stored = snapshot.and_then(|snapshot| snapshot.state).map(|state| state.json);
    scene.same("the stored bytes", Some("{\"said\":7}".to_owned()), stored)?;
    let read = process.mailbox.read("alice").await.err().map(|error| error.kind());
    scene.same("a read", Some(ErrorKind::Corrupt), read)?;
    lab.backend.corrupt_state(&entity("alice"), "{\"said\":[\"mended\"]}").await;
    process.mailbox.resume("alice").await?;
    scene.same("once it is mended", vec!["mended", "b"], said_in_the_end(&process, "alice", scene).await?)
}

pub(crate) async fn a_state_over_its_limit_fails_its_message(lab: &Lab) -> Check {
    let scene = scene!(G9, given "a limit of 1,000 bytes for states", when "a handler makes its state longer", usually "the state is cut, or the entity stands still");
    let process = lab
        .process_with(|config| {
            config.sweep_every = Some(SOON * 3);
            config.max_attempts = 2;
            config.limits.state_bytes = 1000;
        })
        .await;
    let big = process.act("alice", "big", Act::Swell(2000)).await?;
    scene.same("the message", Settled::Dead, process.settled(&big).await?)?;
    let letters = process.mailbox.dead_letters(None, 10).await?;
    let error = letters.first().map(|letter| letter.error.clone()).unwrap_or_default();
    scene.holds("its error", error.contains("state is") && error.contains("the limit is 1000"), error)?;
    scene.same("what was said", vec!["a"], {
        process.say("alice", "a").await?;
        said_in_the_end(&process, "alice", scene).await?
    })
}
