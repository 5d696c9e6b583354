use super::{POLLS, dropped_after};
use crate::lab::{Lab, PAST_LEASE, entity};
use crate::verdict::{Check, scene};

pub(crate) async fn reply_lost(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a sweep whose reply was lost", when "it asks again", usually "asking claims what it reports");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let first = queue.due().await?.entities;
    scene.same("the second answer", first, queue.due().await?.entities)
}

pub(crate) async fn caller_dropped(lab: &Lab) -> Check {
    let scene = scene!(G10, given "a sweep that is dropped at each of its awaits", when "it asks again", usually "a connection that a dropped read leaves unusable");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    for polls in 0..POLLS {
        let done = dropped_after(polls, queue.due()).await;
        scene.same("what is due", vec![alice.clone()], queue.due().await?.entities)?;
        if done.is_some() {
            return Ok(());
        }
    }
    Err(scene.verdict(format!("an end within {POLLS} polls"), "none".to_owned()))
}

pub(crate) async fn crash_before(lab: &Lab) -> Check {
    let scene = scene!(G5, given "messages posted by a process that died before it swept", when "another sweeps", usually "only the poster knows what it posted");
    let (one, alice) = (lab.open().await, entity("alice"));
    one.post(&alice, "a").await?;
    drop(one);
    scene.same("it is due", true, lab.open().await.is_due(&alice).await?)
}

pub(crate) async fn crash_after(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a process that swept and died before it tried the lock", when "another sweeps and runs", usually "asking claims what it reports");
    let (one, alice) = (lab.open().await, entity("alice"));
    one.post(&alice, "a").await?;
    one.due().await?;
    drop(one);
    let queue = lab.open().await;
    scene.same("it is due", true, queue.is_due(&alice).await?)?;
    scene.same("what is run", vec!["a".to_owned()], queue.drain(&alice).await?)
}

pub(crate) async fn stale_holder(lab: &Lab) -> Check {
    let scene = scene!(G5, given "a holder that is alive, and then stale", when "others sweep", usually "a holder is reported as long as it lives, or never");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    queue.lock(&alice).await?;
    scene.same("while it is alive", false, queue.is_due(&alice).await?)?;
    lab.elapse(PAST_LEASE).await;
    scene.same("when it is stale", true, queue.is_due(&alice).await?)
}

pub(crate) async fn late_duplicate(lab: &Lab) -> Check {
    let scene = scene!(G4, given "a sweep that is answered late, after everything was run", when "what it found is tried", usually "what was reported is granted without another look");
    let (queue, alice) = (lab.open().await, entity("alice"));
    queue.post(&alice, "a").await?;
    let found = queue.due().await?.entities;
    scene.same("what was due", vec![alice.clone()], found)?;
    queue.drain(&alice).await?;
    scene.same("the lock", None, queue.try_once(&alice).await?)?;
    scene.same("what is due now", false, queue.is_due(&alice).await?)
}
