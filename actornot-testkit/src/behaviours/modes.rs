//! Where the loop runs: inside the caller, or in a worker, or here.

use std::time::Duration;

use actornot_core::{Scheduler, Settled};

use crate::gate::Verb;
use crate::lab::Lab;
use crate::process::{Act, SOON, line};
use crate::verdict::{Check, scene};

pub(crate) async fn an_inline_post_returns_when_its_work_is_done(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a process that may be frozen between calls", when "it posts", usually "work goes on in a task after the call returned");
    let process = lab.process_with(|config| config.scheduler = Scheduler::Inline { budget: SOON }).await;
    for name in ["a", "b"] {
        process.act("alice", name, Act::Send("bob".to_owned())).await?;
        let pending = (process.pending("alice").await?, process.pending("bob").await?);
        scene.same("what is pending when the call returns", (0, 0), pending)?;
    }
    scene.same("what was said", vec!["a", "b"], process.said("bob").await?)
}

pub(crate) async fn an_inline_post_waits_for_what_it_led_to(lab: &Lab) -> Check {
    let scene = scene!(G5, given "an inline process whose budget is over while a handler runs that its handler has sent to", when "it posts", usually "the call returns at the end of its budget, and the host freezes a handler in mid-run");
    let budget = Duration::from_millis(200);
    let process = lab.process_with(|config| config.scheduler = Scheduler::Inline { budget }).await;
    let mut post = Box::pin(process.act("alice", "a", Act::SendHold("bob".to_owned())));
    tokio::select! {
        _ = &mut post => return Err(scene.verdict("the call waits".to_owned(), "it returned".to_owned())),
        () = async {
            process.probe.holding(1).await;
            tokio::time::sleep(2 * budget).await;
        } => {}
    }
    process.probe.let_go(1);
    post.await?;
    scene.same("what was said when the call returns", vec!["a"], process.said("bob").await?)
}

pub(crate) async fn an_inline_post_does_not_wait_for_strangers(lab: &Lab) -> Check {
    let scene = scene!(G8, given "an inline process in which one call waits for a handler that is stuck", when "another call posts to another entity", usually "the call waits until nothing at all runs in its process");
    let process = lab.process_with(|config| config.scheduler = Scheduler::Inline { budget: SOON }).await;
    let mut stuck = Box::pin(process.act("stuck", "a", Act::Hold));
    tokio::select! {
        _ = &mut stuck => return Err(scene.verdict("the call waits".to_owned(), "it returned".to_owned())),
        () = process.probe.holding(1) => {}
    }
    tokio::select! {
        _ = &mut stuck => return Err(scene.verdict("the call waits".to_owned(), "it returned".to_owned())),
        posted = process.say("alice", "a") => drop(posted?),
    }
    scene.same("what was said", vec!["a"], process.said("alice").await?)?;
    process.probe.let_go(1);
    stuck.await.map(drop).map_err(Into::into)
}

pub(crate) async fn an_inline_post_starts_nothing_after_its_budget(lab: &Lab) -> Check {
    let scene = scene!(G5, given "an inline process with no time to spare", when "it posts, and a worker sweeps afterwards", usually "a lease is kept by a process that is frozen");
    let budget = Duration::ZERO;
    let process = lab.process_with(|config| config.scheduler = Scheduler::Inline { budget }).await;
    let worker = lab.process().await;
    process.say("alice", "a").await?;
    worker.mailbox.sweep(SOON).await?;
    scene.same("what was said", vec!["a"], worker.said("alice").await?)
}

pub(crate) async fn an_inline_post_is_not_left_by_anothers_budget(lab: &Lab) -> Check {
    let scene = scene!(G5, given "an inline process that runs a handler for a call whose budget ends meanwhile", when "a call that came later, and has time left, has posted to the same entity", usually "a run ends with the budget of the call that began it");
    let budget = Duration::from_millis(600);
    let process = lab.process_with(|config| config.scheduler = Scheduler::Inline { budget }).await;
    let first = process.act("alice", "a", Act::Hold);
    let second = async {
        process.probe.holding(1).await;
        tokio::time::sleep(budget * 2 / 3).await;
        process.say("alice", "b").await
    };
    let go_on = async {
        tokio::time::sleep(budget * 13 / 12).await;
        process.probe.let_go(1);
    };
    let (first, second, ()) = tokio::join!(first, second, go_on);
    first?;
    second?;
    scene.same("what was said when the calls return", vec!["a", "b"], process.said("alice").await?)
}

pub(crate) async fn a_front_end_only_enqueues(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a front end, and a worker that sweeps", when "the front end posts", usually "a front end takes locks for work it will never do");
    let front = lab.process_with(|config| config.scheduler = Scheduler::Never).await;
    let worker = lab.process_with(|config| config.sweep_every = Some(Duration::from_millis(50))).await;
    let receipt = front.say("alice", "a").await?;
    scene.same("the message", Settled::Handled, front.settled(&receipt).await?)?;
    scene.same("runs of the front end", 0, front.probe.runs().len())?;
    scene.same("runs of the worker", 1, worker.probe.runs().len())?;
    scene.same("locks asked for by the front end", 0, front.gate.calls(Verb::TryLock))
}

pub(crate) async fn a_sweep_runs_everything_that_is_due(lab: &Lab) -> Check {
    let scene = scene!(G5, given "more entities with work than a page of a sweep", when "a sweep is called", usually "a sweep that ends after its first page, or before its runs do");
    let process = lab.process_with(|config| config.concurrency = 4).await;
    for n in 0..70 {
        process.mailbox.post(format!("k{n:02}"), line("a", Act::Say)).only_enqueue().await?;
    }
    let swept = process.mailbox.sweep(SOON).await?;
    scene.same("found, and more", (70, false), (swept.found, swept.more))?;
    for n in 0..70 {
        scene.same("each", 0, process.pending(&format!("k{n:02}")).await?)?;
    }
    scene.same("what a second one finds", 0, process.mailbox.sweep(SOON).await?.found)
}

pub(crate) async fn a_sweep_waits_for_what_it_led_to(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a handler that sends to another, whose handler takes longer than the budget", when "a sweep is called", usually "a sweep waits for the entities it found, and not for what they have sent to");
    let process = lab.process().await;
    let act = Act::SendHold("bob".to_owned());
    process.mailbox.post("alice", line("a", act)).only_enqueue().await?;
    let mut sweep = Box::pin(process.mailbox.sweep(Duration::from_secs(2)));
    tokio::select! {
        _ = &mut sweep => return Err(scene.verdict("the sweep waits".to_owned(), "it returned".to_owned())),
        () = process.probe.holding(1) => {}
    }
    process.probe.let_go(1);
    sweep.await?;
    scene.same("what was said when it returns", vec!["a"], process.said("bob").await?)
}

pub(crate) async fn a_sweep_without_time_starts_nothing(lab: &Lab) -> Check {
    let scene = scene!(G5, given "entities with work", when "a sweep is called with no budget", usually "the budget is looked at after the first run");
    let process = lab.process().await;
    for n in 0..3 {
        process.mailbox.post(format!("k{n}"), line("a", Act::Say)).only_enqueue().await?;
    }
    let swept = process.mailbox.sweep(Duration::ZERO).await?;
    scene.same("whether there is more", true, swept.more)?;
    scene.same("runs", 0, process.probe.runs().len())?;
    scene.same("what another sweep finds", 3, process.mailbox.sweep(SOON).await?.found)
}

pub(crate) async fn a_post_that_joins_a_sweep_with_no_time_left_is_run(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a sweep whose budget ends while it runs a handler", when "its process has posted to the same entity meanwhile", usually "a run ends with the budget of the call that began it, and leaves behind who relied on it");
    let process = lab.process().await;
    process.mailbox.post("alice", line("a", Act::Hold)).only_enqueue().await?;
    let budget = Duration::from_millis(200);
    let sweep = process.mailbox.sweep(budget);
    let post = async {
        process.probe.holding(1).await;
        let posted = process.say("alice", "b").await;
        tokio::time::sleep(2 * budget).await;
        process.probe.let_go(1);
        posted
    };
    let (swept, posted) = tokio::join!(sweep, post);
    swept?;
    posted?;
    scene.holds("the post is run", process.emptied("alice").await?, "it still waits")?;
    scene.same("what was said", vec!["a", "b"], process.said("alice").await?)
}

pub(crate) async fn a_sweep_whose_time_ran_out_says_so(lab: &Lab) -> Check {
    let scene = scene!(G5, given "one permit, three entities with work, and handlers that take longer than the budget", when "a sweep is called", usually "what was found, and came too late for its turn, is taken for done");
    let process = lab.process_with(|config| config.concurrency = 1).await;
    for key in ["alice", "bob", "carol"] {
        process.mailbox.post(key, line("a", Act::Hold)).only_enqueue().await?;
    }
    let budget = Duration::from_millis(200);
    let go_on = async {
        process.probe.holding(1).await;
        tokio::time::sleep(2 * budget).await;
        process.probe.let_go(3);
    };
    let (swept, ()) = tokio::join!(process.mailbox.sweep(budget), go_on);
    scene.same("whether there is more", true, swept?.more)?;
    scene.same("runs", 1, process.probe.runs().len())?;
    let rest = process.mailbox.sweep(SOON).await?;
    scene.same("what another finds, and more", (2, false), (rest.found, rest.more))
}
