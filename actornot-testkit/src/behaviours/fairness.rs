//! Many entities in one process: G8 isolation, G9 bounds.

use actornot_core::Settled;

use crate::lab::Lab;
use crate::process::{Act, line};
use crate::verdict::{Check, scene};

pub(crate) async fn a_stuck_handler_does_not_stop_others(lab: &Lab) -> Check {
    let scene = scene!(G8, given "two permits, and one handler that is stuck", when "ten other entities are posted to", usually "one loop for all entities, or a lock held while a handler runs");
    let process = lab.process_with(|config| config.concurrency = 2).await;
    process.act("stuck", "a", Act::Hold).await?;
    process.probe.holding(1).await;
    for n in 0..10 {
        let receipt = process.say(&format!("k{n}"), "a").await?;
        scene.same("each message", Settled::Handled, process.settled(&receipt).await?)?;
    }
    scene.same("the stuck one", Vec::<String>::new(), process.said("stuck").await?)
}

pub(crate) async fn a_hot_entity_lets_others_through(lab: &Lab) -> Check {
    let scene = scene!(G8, given "one permit, and an entity with more queued than its slice", when "another entity is posted to", usually "a loop that goes on for as long as its entity has messages");
    let process = lab
        .process_with(|config| {
            config.concurrency = 1;
            config.batch = 1;
            config.slice = 2;
        })
        .await;
    process.act("hot", "00", Act::Hold).await?;
    process.probe.holding(1).await;
    for n in 1..30 {
        process.say("hot", &format!("{n:02}")).await?;
    }
    let calm = process.say("calm", "a").await?;
    let last = process.say("hot", "last").await?;
    process.probe.let_go(1);
    scene.same("the calm one", Settled::Handled, process.settled(&calm).await?)?;
    scene.same("the hot one", Settled::Handled, process.settled(&last).await?)?;
    let runs = process.probe.runs();
    let place = runs.iter().position(|names| *names == ["a"]);
    scene.holds("the calm one came early", place.is_some_and(|place| place <= 4), place)?;
    scene.same("what the hot one said", 31, process.said("hot").await?.len())
}

pub(crate) async fn no_more_handlers_run_than_there_are_permits(lab: &Lab) -> Check {
    let scene = scene!(G9, given "three permits", when "eight entities are posted to, whose handlers wait", usually "a task for each grant, or a grant that waits for a permit in memory");
    let process = lab.process_with(|config| config.concurrency = 3).await;
    let mut receipts = Vec::new();
    for n in 0..8 {
        receipts.push(process.act(&format!("k{n}"), "a", Act::Hold).await?);
    }
    process.probe.holding(3).await;
    process.probe.let_go(8);
    for receipt in &receipts {
        scene.same("each message", Settled::Handled, process.settled(receipt).await?)?;
    }
    scene.same("the most at once", 3, process.probe.most_at_once())
}

pub(crate) async fn a_process_without_a_permit_leaves_the_lock_to_others(lab: &Lab) -> Check {
    let scene = scene!(G8, given "a process whose only permit is taken", when "it posts to another entity", usually "a lock is taken by a process that cannot run it");
    let (busy, free) = (lab.process_with(|config| config.concurrency = 1).await, lab.process().await);
    busy.act("stuck", "a", Act::Hold).await?;
    busy.probe.holding(1).await;
    let receipt = busy.mailbox.post("alice", line("a", Act::Say)).await?;
    let swept = free.mailbox.sweep(crate::process::SOON).await?;
    scene.same("what the other's sweep found", 1, swept.found)?;
    scene.same("the message", Settled::Handled, busy.settled(&receipt).await?)?;
    scene.same("runs of the other", 1, free.probe.runs().len())
}
