//! Replies that are lost, callers that are dropped, a database that is away: G1, G4, G10.

use std::time::Duration;

use actornot_core::{ErrorKind, Retry, Scheduler, Settled};

use crate::gate::{Point, Verb};
use crate::lab::{LEASE, Lab, entity};
use crate::process::{Act, SOON, line};
use crate::verdict::{Check, scene};

pub(crate) async fn a_lost_reply_stores_a_post_once(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a post whose reply was lost, with the grant in it", when "nobody posts again", usually "the post is repeated with another id, or the grant forgotten");
    let process = lab.process().await;
    process.gate.lose_reply(Verb::Enqueue);
    let receipt = process.say("alice", "a").await?;
    scene.same("the message", Settled::Handled, receipt.settled(LEASE / 3).await?)?;
    scene.same("what was said", vec!["a".to_owned()], process.said("alice").await?)
}

pub(crate) async fn a_lost_grant_is_found_again(lab: &Lab) -> Check {
    let scene = scene!(G10, given "a request for the lock whose reply, with the grant in it, was lost", when "nobody posts again", usually "the grant is leaked, and its entity stands still for a lease");
    let process = lab.process().await;
    process.mailbox.post("alice", line("a", Act::Say)).only_enqueue().await?;
    process.gate.lose_reply(Verb::TryLock);
    let swept = process.mailbox.sweep(SOON).await?;
    scene.same("what the sweep found", 1, swept.found)?;
    scene.same("what was said", vec!["a".to_owned()], process.said("alice").await?)
}

pub(crate) async fn a_lost_reply_applies_a_commit_once(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a run whose commit's reply was lost", when "the commit is repeated", usually "the repetition is applied again, or taken for a lost lock");
    let process = lab.process().await;
    process.gate.lose_reply(Verb::Update);
    let receipt = process.act("alice", "a", Act::Send("bob".to_owned())).await?;
    scene.same("the message", Settled::Handled, process.settled(&receipt).await?)?;
    // A message is settled by its commit; the one behind it is run when the repetition was answered.
    let behind = process.say("alice", "b").await?;
    process.settled(&behind).await?;
    scene.same("whether bob said it", true, process.heard("bob", 1).await?)?;
    let last = process.say("bob", "last").await?;
    process.settled(&last).await?;
    let said = (process.said("alice").await?, process.said("bob").await?);
    let expected = (vec!["a".to_owned(), "b".to_owned()], vec!["a".to_owned(), "last".to_owned()]);
    scene.same("what was said", expected, said)?;
    let version = process.mailbox.read("alice").await?.map(|book| book.version);
    scene.same("the version of alice", Some(2), version)
}

pub(crate) async fn a_database_that_is_away_for_a_moment_is_waited_for(lab: &Lab) -> Check {
    let scene = scene!(G1, given "a database that refuses a post, a lock and a commit once each", when "a message is posted", usually "an error that could be repeated is given to the caller, or ends the run");
    let process = lab.process().await;
    for verb in [Verb::Enqueue, Verb::TryLock, Verb::Update] {
        process.gate.refuse(verb, ErrorKind::Unavailable);
    }
    let receipt = process.say("alice", "a").await?;
    scene.same("the message", Settled::Handled, receipt.settled(LEASE / 3).await?)?;
    scene.same("what was said", vec!["a".to_owned()], process.said("alice").await?)
}

pub(crate) async fn a_dropped_caller_leaves_nothing_behind(lab: &Lab) -> Check {
    let scene = scene!(G10, given "a post that its caller drops at each of its awaits", when "nobody posts again", usually "the call, or the grant it brought, belongs to its caller");
    let process = lab.process().await;
    for polls in 0..super::POLLS {
        let key = format!("k{polls}");
        let post = process.mailbox.post(&key, line("a", Act::Say)).id("a");
        let answered = super::dropped_after(polls, post.into_future()).await.is_some();
        // What was sent is on its way; asking by id waits for it and stores nothing new.
        let again = process.mailbox.post(&key, line("a", Act::Say)).id("a").await?;
        scene.same("the message", Settled::Handled, again.settled(LEASE / 3).await?)?;
        scene.same("what was said", vec!["a".to_owned()], process.said(&key).await?)?;
        scene.same("what is pending", 0, process.pending(&key).await?)?;
        if answered {
            return Ok(());
        }
    }
    Err(scene.verdict("an end".to_owned(), "none".to_owned()))
}

pub(crate) async fn a_lost_reply_does_not_make_a_post_its_own_duplicate(lab: &Lab) -> Check {
    let scene = scene!(G7, given "a post without an id of its caller's, whose reply was lost", when "it is repeated inside", usually "the answer to the repetition is passed on as it is");
    let process = lab.process().await;
    process.gate.lose_reply(Verb::Enqueue);
    let receipt = process.say("alice", "a").await?;
    scene.same("whether it was there before", false, receipt.is_duplicate())?;
    scene.same("the message", Settled::Handled, receipt.settled(LEASE / 3).await?)?;
    scene.same("what was said", vec!["a".to_owned()], process.said("alice").await?)
}

pub(crate) async fn a_post_that_may_be_stored_is_not_told_as_refused(lab: &Lab) -> Check {
    let scene = scene!(G1, given "a post that was stored, and whose reply was lost", when "the database refuses every repetition until its caller's patience is over", usually "the last answer is passed on, which says that nothing was stored");
    let process = lab
        .process_with(|config| {
            config.scheduler = Scheduler::Never;
            config.call_timeout = Duration::from_millis(200);
        })
        .await;
    process.gate.lose_reply(Verb::Enqueue);
    (0..64).for_each(|_| process.gate.refuse(Verb::Enqueue, ErrorKind::Unavailable));
    let refused = process.say("alice", "a").await.err().map(|error| (error.kind(), error.retry()));
    scene.same("the answer", Some((ErrorKind::UnknownOutcome, Retry::SameId)), refused)?;
    scene.same("what is pending", 1, process.pending("alice").await?)
}

pub(crate) async fn a_commit_that_finds_no_room_gives_its_lease_back(lab: &Lab) -> Check {
    let scene = scene!(G6, given "a run whose commit is refused for want of room", when "its process lets go", usually "the lease is left to run out, and the failure of the database counted as the message's");
    let process = lab.process().await;
    process.gate.refuse(Verb::Update, ErrorKind::StorageFull);
    let mut release = process.gate.hold(Verb::Release, Point::After);
    process.say("alice", "a").await?;
    tokio::select! {
        () = release.reached() => release.go_on(),
        () = tokio::time::sleep(SOON) => return Err(scene.verdict("a release".to_owned(), "none".to_owned())),
    }
    let other = lab.open().await;
    let grant = other.lock(&entity("alice")).await?;
    scene.same("deliveries", (1, 1), (grant.batch.deliveries, grant.batch.charged))?;
    other.release(&grant.lease).await?;
    process.mailbox.sweep(SOON).await?;
    scene.same("what was said", vec!["a".to_owned()], process.said("alice").await?)
}

pub(crate) async fn closing_finds_a_grant_whose_reply_was_lost(lab: &Lab) -> Check {
    let scene = scene!(G10, given "a post on its way back with a grant", when "its mailbox is closed, and then the reply is lost", usually "a closed mailbox asks for no lock any more, not even for the one it may have");
    let process = lab.process().await;
    let mut hold = process.gate.hold(Verb::Enqueue, Point::After);
    let post = process.say("alice", "a");
    let close = async {
        hold.reached().await;
        // The mailbox is closing before the reply is lost.
        tokio::join!(biased; process.mailbox.close(), async { hold.lose() });
    };
    let (posted, ()) = tokio::join!(post, close);
    posted?;
    scene.same("runs", 0, process.probe.runs().len())?;
    let grant = lab.open().await.lock(&entity("alice")).await?;
    scene.same("what is handed out next", (1, 1), (grant.batch.messages.len(), grant.batch.deliveries))
}
