//! Many entities in one process: G8 isolation, G9 bounds.

use std::time::Duration;

use actornot_core::seam::BoxFuture;
use actornot_core::{Error, ErrorKind, Receipt, Settled};

use crate::gate::{Point, Verb};
use crate::lab::Lab;
use crate::process::{Act, Process, line, sent};
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

pub(crate) async fn a_hot_entity_that_waited_too_long_in_line_goes_on(lab: &Lab) -> Check {
    let scene = scene!(G5, given "one permit, and an entity whose slice was over while another waited", when "the other takes more than half of the lease", usually "the lease is handed back, and nobody looks again");
    let process = lab
        .process_with(|config| {
            config.lease = Duration::from_millis(200);
            (config.concurrency, config.batch, config.slice) = (1, 1, 1);
        })
        .await;
    process.act("hot", "a", Act::Hold).await?;
    process.probe.holding(1).await;
    process.say("hot", "b").await?;
    process.act("calm", "a", Act::Hold).await?;
    process.probe.let_go(1);
    process.probe.holding(2).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    process.probe.let_go(1);
    scene.holds("the hot one is run", process.emptied("hot").await?, "its queue is not emptied")?;
    scene.same("what it said", vec!["a", "b"], process.said("hot").await?)
}

pub(crate) async fn stuck_handlers_do_not_hide_others_from_a_sweep(lab: &Lab) -> Check {
    let scene = scene!(G8, given "handlers that are stuck, whose leases are over, and one free permit", when "another entity falls due", usually "a sweep reads as many as it has permits for, and finds the stuck ones again and again");
    const LEASE: Duration = Duration::from_secs(3600);
    let process = lab
        .process_with(|config| {
            // So long that no heartbeat renews it meanwhile.
            (config.lease, config.concurrency) = (LEASE, 3);
            config.sweep_every = Some(Duration::from_millis(50));
        })
        .await;
    for key in ["a", "b"] {
        process.act(key, "stuck", Act::Hold).await?;
    }
    process.probe.holding(2).await;
    lab.elapse(LEASE * 2).await;
    process.mailbox.post("other", line("a", Act::Say)).only_enqueue().await?;
    scene.holds("the other is run", process.emptied("other").await?, "it still waits")?;
    scene.same("what it said", vec!["a"], process.said("other").await?)
}

/// More posts than fit into a trip, for entities that are out of reach.
fn out_of_reach(process: &Process) -> Vec<BoxFuture<'_, ()>> {
    process.gate.shut("bad");
    let post = |n: usize| async move { drop(process.say(&format!("bad{n}"), "a").await) };
    (0..300).map(|n| -> BoxFuture<'_, ()> { Box::pin(post(n)) }).collect()
}

pub(crate) async fn posts_that_cannot_be_served_do_not_hold_up_others(lab: &Lab) -> Check {
    let scene = scene!(G8, given "more posts than fit into a trip, to entities that the database cannot serve", when "another entity is posted to", usually "what is repeated goes in front of what was not tried yet");
    let process = lab.process().await;
    let mut bad = out_of_reach(&process);
    sent(&mut bad).await;
    let given_up = std::future::poll_fn(|cx| bad[0].as_mut().poll(cx));
    let receipt = tokio::select! {
        biased;
        posted = process.say("alice", "a") => posted?,
        () = given_up => return Err(scene.verdict("an answer".to_owned(), "the others' patience ends first".to_owned())),
    };
    scene.same("the message", Settled::Handled, process.settled(&receipt).await?)
}

pub(crate) async fn a_full_trip_leaves_while_more_posts_come(lab: &Lab) -> Check {
    let scene = scene!(G8, given "posters who never wait for an answer", when "they go on and on", usually "the loop gathers calls for as long as more come, and nothing leaves");
    const MANY: usize = 4_000;
    let process = lab.process().await;
    let mut hold = process.gate.hold(Verb::Enqueue, Point::Before);
    let mut posts: Vec<BoxFuture<'_, Result<Receipt, Error>>> = Vec::new();
    let flood = async {
        while posts.len() < MANY {
            let mut post = [Box::pin(process.say("alice", "a")) as BoxFuture<'_, _>];
            sent(&mut post).await;
            posts.extend(post);
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        () = hold.reached() => {}
        () = flood => return Err(scene.verdict("a trip that has left".to_owned(), format!("{MANY} posts that wait for it"))),
    }
    hold.go_on();
    for post in posts {
        process.settled(&post.await?).await?;
    }
    Ok(())
}

pub(crate) async fn more_entities_than_fit_in_line_are_all_run(lab: &Lab) -> Check {
    let scene = scene!(G9, given "one permit, a handler that is stuck, and no sweep", when "more entities are posted to than may stand in line, the handler goes on, and the first look for the others fails", usually "a line without an end, or one that forgets who did not fit in");
    const MANY: usize = 200;
    let process = lab.process_with(|config| config.concurrency = 1).await;
    process.act("stuck", "a", Act::Hold).await?;
    process.probe.holding(1).await;
    let keys: Vec<String> = (0..MANY).map(|n| format!("k{n}")).collect();
    let mut posts: Vec<BoxFuture<'_, Result<Receipt, Error>>> = Vec::new();
    posts.extend(keys.iter().map(|key| Box::pin(process.say(key, "a")) as BoxFuture<'_, _>));
    sent(&mut posts).await;
    let mut receipts = Vec::new();
    for post in posts {
        receipts.push(post.await?);
    }
    scene.same("looks at the database meanwhile", 0, process.gate.calls(Verb::Due))?;
    process.gate.refuse(Verb::Due, ErrorKind::Unavailable);
    process.probe.let_go(1);
    for receipt in &receipts {
        scene.same("each message", Settled::Handled, process.settled(receipt).await?)?;
    }
    scene.holds(
        "who did not fit in was looked for, again after that failed",
        process.gate.calls(Verb::Due) > 1,
        process.gate.calls(Verb::Due),
    )
}

/// Posts these, to whom and with what id, in one trip, of which the database refuses what is called `bad`; says which
/// were refused.
async fn in_one_trip(process: &Process, posts: &[(&str, &str)]) -> Result<Vec<bool>, Error> {
    process.gate.spoil("bad");
    let mut hold = process.gate.hold(Verb::Enqueue, Point::Before);
    let post = |key, id| -> BoxFuture<'_, Result<Receipt, Error>> {
        Box::pin(process.mailbox.post(key, line(id, Act::Say)).id(id).into_future())
    };
    let mut first = [post("first", "a")];
    sent(&mut first).await;
    hold.reached().await;
    // They wait for the one that is held, and so travel together.
    let mut rest: Vec<_> = posts.iter().map(|(key, id)| post(key, id)).collect();
    sent(&mut rest).await;
    hold.go_on();
    let mut refused = Vec::new();
    for post in rest {
        let posted = post.await;
        refused.push(posted.is_err());
        if let Ok(receipt) = posted {
            process.settled(&receipt).await?;
        }
    }
    Ok(refused)
}

pub(crate) async fn a_post_that_is_refused_fails_alone(lab: &Lab) -> Check {
    let scene = scene!(G8, given "a database that refuses a whole slice for one of its items", when "many are posted to, one of them such that it is refused", usually "the answer to the slice is passed on to each of its posts");
    let process = lab.process().await;
    let keys: Vec<String> =
        (0..20).map(|n| if n == 7 { "bad".to_owned() } else { format!("k{n}") }).collect();
    let posts: Vec<(&str, &str)> = keys.iter().map(|key| (&**key, "a")).collect();
    let expected: Vec<bool> = keys.iter().map(|key| key == "bad").collect();
    scene.same("which were refused", expected, in_one_trip(&process, &posts).await?)?;
    scene.same("what another said", vec!["a"], process.said("k19").await?)?;
    scene.same("what the refused one said", Vec::<String>::new(), process.said("bad").await?)
}

pub(crate) async fn a_message_that_is_refused_fails_alone(lab: &Lab) -> Check {
    let scene = scene!(G8, given "a message that the database refuses", when "it travels with others to the same entity", usually "the answer to the entity's item is passed on to each of its messages");
    let process = lab.process().await;
    let posts = [("alice", "a"), ("alice", "bad"), ("alice", "c")];
    scene.same("which were refused", vec![false, true, false], in_one_trip(&process, &posts).await?)?;
    let mut said = process.said("alice").await?;
    // They were under way at the same time: no order is promised.
    said.sort_unstable();
    scene.same("what was said", vec!["a", "c"], said)
}
