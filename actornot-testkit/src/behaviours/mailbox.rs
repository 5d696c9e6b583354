//! What a user sees of one mailbox: post, run, read.

use std::time::Duration;

use actornot_core::seam::BoxFuture;
use actornot_core::{ErrorKind, Ready, Retry, Settled};

use crate::gate::{Point, Verb};
use crate::lab::{LEASE, Lab};
use crate::process::{Act, SOON, line, sent};
use crate::verdict::{Check, scene};

pub(crate) async fn a_post_is_run_and_its_state_committed(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a mailbox", when "a message is posted, run, and the state read by another process", usually "the state is kept in memory, or committed apart from the acknowledgement");
    let (one, two) = (lab.process().await, lab.process().await);
    let receipt = one.say("alice", "a").await?;
    scene.same("the message", Settled::Handled, one.settled(&receipt).await?)?;
    let book = scene.some("a state", two.mailbox.read("alice").await?)?;
    scene.same("what was said", vec!["a".to_owned()], book.said.clone())?;
    scene.same("version and pending", (1, 0), (book.version, book.pending))?;
    scene.same("an entity never posted to", None, two.mailbox.read("bob").await?.map(|book| book.version))
}

pub(crate) async fn posts_run_in_their_order_and_never_at_once(lab: &Lab) -> Check {
    let scene = scene!(G2, given "two processes that post to one entity in turn", when "everything was run", usually "two runs of an entity at once, or an order of arrival at the handler");
    let (one, two) = (lab.process().await, lab.process().await);
    let mut posted = Vec::new();
    let mut receipts = Vec::new();
    for n in 0..20 {
        let process = if n % 2 == 0 { &one } else { &two };
        posted.push(format!("{n:02}"));
        receipts.push(process.say("alice", &posted[n]).await?);
    }
    // One may hold the last messages of the other, so the other asks the database.
    for receipt in &receipts {
        scene.same("each message", Settled::Handled, receipt.settled(SOON).await?)?;
    }
    scene.same("the order", posted, one.said("alice").await?)?;
    scene.same("two runs at once", (false, false), (one.probe.overlapped(), two.probe.overlapped()))
}

pub(crate) async fn what_is_posted_during_a_run_comes_next(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a handler that is running", when "more is posted by its own process and by another", usually "the loop ends after the batch it was granted with");
    let (one, two) = (lab.process().await, lab.process().await);
    one.act("alice", "a", Act::Hold).await?;
    one.probe.holding(1).await;
    let own = one.say("alice", "b").await?;
    let other = two.say("alice", "c").await?;
    scene.same("while it runs", 3, two.pending("alice").await?)?;
    one.probe.let_go(1);
    scene.same("its own", Settled::Handled, one.settled(&own).await?)?;
    scene.same("the other's", Settled::Handled, two.settled(&other).await?)?;
    scene.same("the order", vec!["a", "b", "c"], one.said("alice").await?)?;
    scene.same("runs of the other process", 0, two.probe.runs().len())
}

pub(crate) async fn a_read_takes_no_lock(lab: &Lab) -> Check {
    let scene = scene!(G8, given "a handler that is running", when "the entity is read", usually "a read that waits for the lock, or sees what is not committed");
    let process = lab.process().await;
    let first = process.say("alice", "a").await?;
    process.settled(&first).await?;
    let second = process.act("alice", "b", Act::Hold).await?;
    process.probe.holding(1).await;
    let book = scene.some("the state", process.mailbox.read("alice").await?)?;
    scene.same("what was said", vec!["a".to_owned()], book.said.clone())?;
    scene.same("version and pending", (1, 1), (book.version, book.pending))?;
    process.probe.let_go(1);
    scene.same("afterwards", Settled::Handled, process.settled(&second).await?)
}

pub(crate) async fn an_id_posted_twice_is_run_once(lab: &Lab) -> Check {
    let scene = scene!(G7, given "a message with an id that was handled", when "another process posts the same id", usually "the id is not handed to the database");
    let (one, two) = (lab.process().await, lab.process().await);
    let first = one.mailbox.post("alice", line("a", Act::Say)).id("evt_1").await?;
    scene.same("the first is a duplicate", false, first.is_duplicate())?;
    one.settled(&first).await?;
    let second = two.mailbox.post("alice", line("b", Act::Say)).id("evt_1").await?;
    scene.same("the second is a duplicate", true, second.is_duplicate())?;
    scene.same("the second", Settled::Handled, two.settled(&second).await?)?;
    scene.same("what was said", vec!["a".to_owned()], one.said("alice").await?)
}

pub(crate) async fn a_delayed_post_is_run_when_it_falls_due(lab: &Lab) -> Check {
    let scene = scene!(G2, given "a process that sweeps every half minute", when "a message is posted with a short delay", usually "the sweep does not arm itself for the next due moment");
    let process = lab.process_with(|config| config.sweep_every = Some(SOON * 3)).await;
    let late =
        process.mailbox.post("alice", line("late", Act::Say)).after(Duration::from_millis(100)).await?;
    let now = process.say("alice", "now").await?;
    scene.same("the one without delay", Settled::Handled, process.settled(&now).await?)?;
    scene.same("the delayed one", Settled::Handled, process.settled(&late).await?)?;
    scene.same("the order", vec!["now", "late"], process.said("alice").await?)
}

pub(crate) async fn a_delay_that_is_set_during_a_sweep_is_not_forgotten(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a sweep that has looked, and whose answer is on its way", when "a message is posted with a short delay", usually "the sweep's next moment overwrites one that was set meanwhile");
    let process = lab.process_with(|config| config.sweep_every = Some(SOON * 3)).await;
    let delayed = |key: &str| process.mailbox.post(key, line("a", Act::Say)).after(Duration::from_millis(20));
    let mut hold = process.gate.hold(Verb::Due, Point::After);
    let first = delayed("alice").await?;
    hold.reached().await;
    let late = delayed("bob").await?;
    hold.go_on();
    scene.same("the one it found", Settled::Handled, process.settled(&first).await?)?;
    scene.same("the other", Settled::Handled, process.settled(&late).await?)
}

pub(crate) async fn what_is_over_a_limit_is_refused_by_name(lab: &Lab) -> Check {
    let scene = scene!(G9, given "limits of 200 bytes for payload and headers, and a backlog of 2", when "each is crossed", usually "a limit that is checked late, or not");
    let process = lab
        .process_with(|config| {
            config.limits.payload_bytes = 200;
            config.limits.headers_bytes = 200;
            config.limits.backlog = 2;
        })
        .await;
    let long = "x".repeat(600);
    let post = |key: &str, name: &str| process.mailbox.post(key, line(name, Act::Say));
    let field = |kind: ErrorKind| match kind {
        ErrorKind::TooLarge { field, size, limit } if size > limit => field,
        ErrorKind::Invalid { field } => field,
        _ => "no field",
    };
    for (name, refused) in [
        ("payload", post("alice", &long).await),
        ("key", post(&long, "a").await),
        ("key", post("", "a").await),
        ("id", post("alice", "a").id(long.as_str()).await),
        ("id", post("alice", "a").id("").await),
        ("headers", post("alice", "a").header("trace", long.as_str()).await),
        ("delay", post("alice", "a").after(Duration::MAX).await),
    ] {
        let observed = refused.err().map(|error| (field(error.kind()), error.retry()));
        scene.same("the refusal", Some((name, Retry::Never)), observed)?;
    }
    scene.same("calls to the database", 0, process.gate.calls(Verb::Enqueue))?;
    let body = |bytes: usize| format!("{:bytes$}", r#"{"name":"a","act":"Say"}"#);
    let over = process.mailbox.post_json("bob", body(201)).await.err().map(|error| error.kind());
    let over_by_one = ErrorKind::TooLarge { field: "payload", size: 201, limit: 200 };
    scene.same("a byte over the limit", Some(over_by_one), over)?;
    let receipt = process.mailbox.post_json("bob", body(200)).await?;
    scene.same("at the limit", Settled::Handled, process.settled(&receipt).await?)?;
    for name in ["a", "b"] {
        post("alice", name).only_enqueue().await?;
    }
    let full = post("alice", "c").only_enqueue().await.err().map(|error| (error.kind(), error.retry()));
    scene.same("the third", Some((ErrorKind::BacklogFull { limit: 2 }, Retry::Safe)), full)?;
    scene.same("what is pending", 2, process.pending("alice").await?)
}

pub(crate) async fn a_post_that_is_no_json_is_refused(lab: &Lab) -> Check {
    let scene = scene!(G9, given "a webhook's body", when "it is posted as it is", usually "the body is stored without a look at it");
    let process = lab.process().await;
    let refused = process.mailbox.post_json("alice", "{\"name\":").await.err().map(|error| error.kind());
    scene.same("half a body", Some(ErrorKind::Invalid { field: "payload" }), refused)?;
    let receipt = process.mailbox.post_json("alice", r#"{ "name":"a", "act":"Say" }"#).await?;
    scene.same("a whole one", Settled::Handled, process.settled(&receipt).await?)?;
    scene.same("what was said", vec!["a".to_owned()], process.said("alice").await?)
}

pub(crate) async fn what_is_sent_is_run(lab: &Lab) -> Check {
    let scene = scene!(G4, given "handlers that send to another entity, and to themselves", when "they were run", usually "the loop does not look at the targets of a commit");
    let process = lab.process().await;
    let to_bob = process.act("alice", "hello", Act::Send("bob".to_owned())).await?;
    let to_self = process.act("carol", "again", Act::Send("carol".to_owned())).await?;
    process.settled(&to_bob).await?;
    process.settled(&to_self).await?;
    for (key, said) in [("bob", vec!["hello"]), ("carol", vec!["again", "again"])] {
        scene.same("whether it is run", true, process.heard(key, said.len()).await?)?;
        let last = process.mailbox.post(key, line("last", Act::Say)).id("last").await?;
        process.settled(&last).await?;
        let expected: Vec<&str> = said.into_iter().chain(["last"]).collect();
        scene.same(key, expected, process.said(key).await?)?;
    }
    Ok(())
}

pub(crate) async fn a_receipt_tells_what_became_of_its_message(lab: &Lab) -> Check {
    let scene = scene!(G1, given "one message that is handled, one that is buried, one that waits", when "their receipts are asked", usually "a message that is nowhere and one that is dead look alike");
    let (one, two) = (lab.process().await, lab.process().await);
    let handled = one.say("alice", "a").await?;
    let dead = one.act("bob", "b", Act::Bury).await?;
    let held = one.act("carol", "c", Act::Hold).await?;
    scene.same("handled", Settled::Handled, one.settled(&handled).await?)?;
    scene.same("dead", Settled::Dead, one.settled(&dead).await?)?;
    scene.same("waiting", Settled::Pending, held.settled(Duration::from_millis(50)).await?)?;
    for (name, receipt, settled) in [
        ("handled", &handled, Settled::Handled),
        ("dead", &dead, Settled::Dead),
        ("waiting", &held, Settled::Pending),
    ] {
        let again = two.mailbox.post(receipt.entity().key(), line("x", Act::Say)).id(receipt.id().as_str());
        let elsewhere = again.await?.settled(Duration::from_millis(50)).await?;
        scene.same(name, settled, elsewhere)?;
    }
    Ok(())
}

pub(crate) async fn an_entity_that_is_not_ready_is_asked_again_in_time(lab: &Lab) -> Check {
    let scene = scene!(G5, given "an entity that says it is not ready yet", when "it is posted to, and wakes up later", usually "not being ready is forgotten, asked without pause, or counted as a failure");
    let process = lab.process_with(|config| config.sweep_every = Some(SOON * 3)).await;
    process.probe.sleep(Duration::from_millis(20));
    let receipt = process.say("alice", "a").await?;
    scene.same("while it sleeps", Settled::Pending, receipt.settled(Duration::from_millis(70)).await?)?;
    scene.same("runs while it sleeps", 0, process.probe.runs().len())?;
    let commits = process.gate.calls(Verb::Update);
    scene.holds("it is asked now and then, not all the time", (1..=8).contains(&commits), commits)?;
    process.probe.wake();
    scene.same("awake", Settled::Handled, process.settled(&receipt).await?)
}

pub(crate) async fn an_entity_that_is_never_quite_ready_does_not_spin(lab: &Lab) -> Check {
    let scene = scene!(G9, given "an entity that is not ready yet, and names no time to wait", when "it is posted to, and wakes up later", usually "no time is taken to be none, so that it is asked again by every commit");
    let process = lab.process_with(|config| config.sweep_every = Some(SOON * 3)).await;
    process.probe.sleep(Duration::ZERO);
    let started = tokio::time::Instant::now();
    let receipt = process.say("alice", "a").await?;
    for _ in 0..100 {
        // Without time, so that a clock that stands still while somebody spins shows it.
        tokio::task::yield_now().await;
        scene.same("what is pending", 1, process.pending("alice").await?)?;
    }
    let commits = process.gate.calls(Verb::Update);
    let most = 2 + started.elapsed().div_duration_f64(Ready::SOONEST / 2) as usize;
    scene.holds("it is asked now and then, not all the time", commits <= most, (commits, most))?;
    process.probe.wake();
    scene.same("awake", Settled::Handled, process.settled(&receipt).await?)
}

pub(crate) async fn a_quiet_mailbox_asks_nothing(lab: &Lab) -> Check {
    let scene = scene!(G9, given "a mailbox without a sweep whose queue was emptied", when "time passes", usually "a poll that nobody asked for");
    let process = lab.process().await;
    let receipt = process.say("alice", "a").await?;
    process.settled(&receipt).await?;
    let count = || {
        [Verb::Enqueue, Verb::TryLock, Verb::Update, Verb::Release, Verb::Due]
            .map(|verb| process.gate.calls(verb))
    };
    scene.same("calls for one post", [1, 0, 1, 0, 0], count())?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    scene.same("calls after a while", [1, 0, 1, 0, 0], count())
}

pub(crate) async fn posts_that_wait_share_a_trip(lab: &Lab) -> Check {
    let scene = scene!(G8, given "a post on its way to the database", when "fifty others are made meanwhile", usually "each post makes a trip of its own, or waits for a timer");
    let process = lab.process().await;
    let mut hold = process.gate.hold(Verb::Enqueue, Point::Before);
    let first = process.say("alice", "first");
    let others = async {
        hold.reached().await;
        let names: Vec<String> = (0..50).map(|n| format!("{n:02}")).collect();
        let post = |name| -> BoxFuture<'_, _> { Box::pin(process.say("bob", name)) };
        let mut posts: Vec<_> = names.iter().map(|name| post(name.as_str())).collect();
        // All of them are sent before the first goes on.
        sent(&mut posts).await;
        hold.go_on();
        for post in posts {
            post.await?;
        }
        Ok::<(), actornot_core::Error>(())
    };
    let (first, others) = tokio::join!(first, others);
    first?;
    others?;
    scene.same("trips", 2, process.gate.calls(Verb::Enqueue))?;
    let last = process.say("bob", "last").await?;
    scene.same("the last", Settled::Handled, process.settled(&last).await?)?;
    scene.same("what was said", 51, process.said("bob").await?.len())
}

pub(crate) async fn a_post_while_the_last_commit_returns_is_not_stranded(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a commit that let go, and whose reply is on its way", when "its process posts to the same entity", usually "the post trusts that its process still runs the entity");
    let process = lab.process().await;
    let mut hold = process.gate.hold(Verb::Update, Point::After);
    process.say("alice", "a").await?;
    hold.reached().await;
    let second = process.say("alice", "b").await?;
    hold.go_on();
    scene.same("the message", Settled::Handled, second.settled(LEASE / 3).await?)?;
    scene.same("what was said", vec!["a", "b"], process.said("alice").await?)
}
