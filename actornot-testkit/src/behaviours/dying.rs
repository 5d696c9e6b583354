//! Processes that die, stop, or lose their lock: G3, G5, G10.

use std::time::Duration;

use actornot_core::{ErrorKind, Settled, Updated};

use crate::gate::{Point, Verb};
use crate::lab::{Lab, PAST_LEASE, entity};
use crate::process::{Act, SOON, line};
use crate::verdict::{Check, scene};

pub(crate) async fn what_a_dead_process_left_is_run_by_a_sweep(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a process that died in a handler, with more queued", when "its lease has run out and another sweeps", usually "only posts lead to runs");
    let (one, two) = (lab.process().await, lab.process().await);
    one.act("alice", "a", Act::Hold).await?;
    one.probe.holding(1).await;
    one.say("alice", "b").await?;
    one.kill();
    scene.same("before", 0, two.mailbox.sweep(SOON).await?.found)?;
    lab.elapse(PAST_LEASE).await;
    two.probe.let_go(1);
    scene.same("after", 1, two.mailbox.sweep(SOON).await?.found)?;
    scene.same("what was said", vec!["a", "b"], two.said("alice").await?)
}

pub(crate) async fn a_background_sweep_needs_no_post(lab: &Lab) -> Check {
    let scene = scene!(G5, given "messages of a process that died before it asked for the lock", when "another process starts that sweeps by itself", usually "the sweep is only started by a post");
    let one = lab.process().await;
    for key in ["alice", "bob"] {
        one.mailbox.post(key, line("a", Act::Say)).only_enqueue().await?;
    }
    one.kill();
    let two = lab.process_with(|config| config.sweep_every = Some(Duration::from_millis(50))).await;
    for key in ["alice", "bob"] {
        while two.pending(key).await? > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        scene.same(key, vec!["a"], two.said(key).await?)?;
    }
    Ok(())
}

pub(crate) async fn a_message_that_kills_its_process_is_given_up(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a message in whose run the process dies, as often as it has attempts", when "the next process takes over", usually "the attempt is counted after the run, which never ends");
    let first = lab.process().await;
    let post = |name: &'static str, act| first.mailbox.post("alice", line(name, act)).only_enqueue();
    post("a", Act::Say).await?;
    post("killer", Act::Hold).await?;
    post("b", Act::Say).await?;
    let mut died = 0;
    loop {
        let process = lab.process_with(|config| config.max_attempts = 2).await;
        let swept = async { process.mailbox.sweep(SOON).await };
        tokio::select! {
            swept = swept => {
                swept?;
                break;
            }
            () = process.probe.holding(1) => {}
        }
        died += 1;
        scene.holds("an end", died < 20, died)?;
        process.kill();
        lab.elapse(PAST_LEASE).await;
    }
    scene.same("what was said", vec!["a", "b"], first.said("alice").await?)?;
    let letters = first.mailbox.dead_letters(None, 10).await?;
    let letter = scene.some("a letter", letters.first())?;
    scene.holds("its error", letter.error.contains("never settled"), &letter.error)?;
    // Once or more in a batch with the others, twice alone.
    scene.holds("deaths", (2..=4).contains(&died), died)
}

pub(crate) async fn a_holder_that_was_taken_over_changes_nothing(lab: &Lab) -> Check {
    let scene = scene!(G3, given "a process that stood still for longer than its lease", when "another has taken over, and it goes on", usually "a commit is not fenced, or is taken for the other's");
    let (one, two) = (lab.process().await, lab.process().await);
    let first = one.act("alice", "a", Act::Hold).await?;
    one.probe.holding(1).await;
    lab.elapse(PAST_LEASE).await;
    two.probe.let_go(1);
    two.mailbox.sweep(SOON).await?;
    scene.same("what the other said", vec!["a"], two.said("alice").await?)?;
    one.probe.let_go(1);
    scene.same("its message", Settled::Handled, one.settled(&first).await?)?;
    let last = one.say("alice", "last").await?;
    one.settled(&last).await?;
    scene.same("what was said", vec!["a", "last"], one.said("alice").await?)
}

pub(crate) async fn a_lost_lock_cancels_its_run(lab: &Lab) -> Check {
    let scene = scene!(G3, given "a run whose lock was taken over", when "its heartbeat finds out", usually "the answer of a heartbeat is not looked at");
    let one = lab
        .process_with(|config| {
            config.lease = Duration::from_millis(300);
            config.cancel_grace = Duration::from_millis(10);
        })
        .await;
    let two = lab.process().await;
    one.act("alice", "a", Act::Hold).await?;
    one.probe.holding(1).await;
    lab.elapse(PAST_LEASE).await;
    two.probe.let_go(1);
    // The heartbeat may be faster, and keep the lock; then it has another lease to lose.
    for _ in 0..100 {
        if !two.probe.runs().is_empty() {
            break;
        }
        lab.elapse(PAST_LEASE).await;
        two.mailbox.sweep(SOON).await?;
    }
    scene.same("runs of the other", 1, two.probe.runs().len())?;
    one.probe.cancelled().await;
    scene.same("what was said", vec!["a"], two.said("alice").await?)
}

pub(crate) async fn a_long_run_keeps_its_lease(lab: &Lab) -> Check {
    let scene = scene!(G3, given "a run that takes longer than its lease", when "another process sweeps meanwhile", usually "nobody renews the lease while a handler runs");
    let one = lab.process_with(|config| config.lease = Duration::from_millis(900)).await;
    let two = lab.process().await;
    let receipt = one.act("alice", "a", Act::Hold).await?;
    one.probe.holding(1).await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        scene.same("what the other finds", 0, two.mailbox.sweep(SOON).await?.found)?;
    }
    one.probe.let_go(1);
    scene.same("the message", Settled::Handled, one.settled(&receipt).await?)?;
    scene.same("its commits", 1, one.gate.calls(Verb::Update))
}

pub(crate) async fn closing_lets_running_batches_finish(lab: &Lab) -> Check {
    let scene = scene!(G10, given "a running handler, with more queued", when "the mailbox is closed", usually "close drops what runs, or goes on for as long as there are messages");
    let (one, two) = (lab.process().await, lab.process().await);
    one.act("alice", "a", Act::Hold).await?;
    one.probe.holding(1).await;
    one.say("alice", "b").await?;
    let close = one.mailbox.close();
    let finish = async {
        // Closing has begun once posts are refused.
        for _ in 0..100 {
            if one.mailbox.post("bob", line("x", Act::Say)).only_enqueue().await.is_err() {
                break;
            }
        }
        one.probe.let_go(1);
    };
    tokio::join!(close, finish);
    let refused = one.say("alice", "c").await.err().map(|error| error.kind());
    scene.same("a post afterwards", Some(ErrorKind::Closed), refused)?;
    scene.same("what was said", vec!["a"], two.said("alice").await?)?;
    scene.holds("the rest is free at once", two.mailbox.sweep(SOON).await?.found > 0, "nothing was found")?;
    scene.same("what was said", vec!["a", "b"], two.said("alice").await?)
}

pub(crate) async fn closing_hands_the_lease_of_a_stuck_run_back(lab: &Lab) -> Check {
    let scene = scene!(G10, given "a handler that does not end", when "the mailbox is closed and its patience is over", usually "the lease is left to run out, and the crash counted");
    let one = lab.process_with(|config| config.close_timeout = Duration::from_millis(20)).await;
    let two = lab.process().await;
    one.act("alice", "a", Act::Hold).await?;
    one.probe.holding(1).await;
    one.mailbox.close().await;
    let grant = lab.open().await.lock(&entity("alice")).await?;
    scene.same("deliveries", 1, grant.batch.deliveries)?;
    lab.open().await.release(&grant.lease).await?;
    two.probe.let_go(1);
    scene.same("what another finds", 1, two.mailbox.sweep(SOON).await?.found)?;
    scene.same("what was said", vec!["a"], two.said("alice").await?)
}

pub(crate) async fn a_mailbox_dropped_without_close_leaves_no_lease(lab: &Lab) -> Check {
    let scene = scene!(G10, given "a running handler, and more queued", when "the last mailbox is dropped", usually "the loop keeps itself alive, or its lease");
    let (one, two) = (lab.process().await, lab.process().await);
    one.act("alice", "a", Act::Hold).await?;
    one.probe.holding(1).await;
    one.say("alice", "b").await?;
    let mut commit = one.gate.hold(Verb::Update, Point::After);
    drop(one.mailbox);
    one.probe.let_go(1);
    commit.reached().await;
    commit.go_on();
    scene.same("what was said", vec!["a"], two.said("alice").await?)?;
    let grant = lab.open().await.lock(&entity("alice")).await?;
    let handed = crate::lab::names(&grant.batch).len();
    scene.same("what is handed out next", (1, 1), (handed, grant.batch.deliveries))?;
    let draft = lab.open().await.draft(&grant);
    let released = lab.open().await.commit(&draft).await?;
    scene.holds("the end", matches!(released, Updated::Released { .. }), &released)
}
