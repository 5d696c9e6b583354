//! A database that dies under load and comes back: what was answered is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actornot_core::{Actornot, LockableQueue, MailboxPoster};
use tokio::task::JoinSet;

use crate::log::Log;
use crate::process::{Act, Probe, SOON, Thing, line};

const POSTS: usize = 5_000;
const POSTERS: usize = 50;
const ENTITIES: usize = 40;

/// Posts 5,000 messages through a mailbox over `queue`; `kill` is called in the middle of them, on a thread where it may
/// block. It kills the server and starts it again.
///
/// # Panics
/// If a post that was answered is not there, or anything is there twice, or out of order, or was never posted.
pub async fn kill_under_load(queue: Arc<dyn LockableQueue>, kill: impl FnOnce() + Send + 'static) {
    let quick = |config: &mut actornot_core::Config| {
        config.lease = Duration::from_secs(2);
        config.sweep_every = Some(Duration::from_millis(500));
        config.backoff = Duration::from_millis(10);
    };
    let system = Actornot::builder(queue).runner(Thing(Probe::new())).configure(quick).build();
    let mailbox = system.and_then(|system| system.mailbox::<Thing>()).expect("a legal configuration");
    let answered = Arc::new(AtomicUsize::new(0));
    let (half, reached) = tokio::sync::oneshot::channel();
    let mut half = Some(half);
    let mut posters = JoinSet::new();
    for poster in 0..POSTERS {
        let half = if poster == 0 { half.take() } else { None };
        posters.spawn(post(mailbox.clone(), poster, answered.clone(), half));
    }
    reached.await.expect("posts that are answered");
    let at_the_kill = answered.load(Ordering::Acquire);
    tokio::task::spawn_blocking(kill).await.expect("a server that comes back");
    let mut ok = BTreeSet::new();
    while let Some(posted) = posters.join_next().await {
        ok.extend(posted.expect("a poster that does not panic"));
    }
    assert!(at_the_kill < ok.len(), "nobody posted while it was away or afterwards");
    drained(&mailbox).await;
    if let Err(wrong) = judge(&ok, &handled(&mailbox).await) {
        panic!("{wrong}");
    }
    let told = format!("{} of {POSTS} were answered, {at_the_kill} of them before the kill", ok.len());
    let _ = writeln!(std::io::stdout(), "{told}");
    mailbox.close().await;
}

/// A mailbox whose database is stopped in the middle of a run, so that its commit, posts, reads and sweeps fail, and
/// started again. Answers with the errors they gave; what was logged, by a subscriber that the caller set for this
/// thread, is in `log`. `secret` is in the payload of each message, and in the state.
///
/// # Panics
/// If no failure was logged: then nothing is shown of what is logged.
pub async fn errors_of_an_outage(
    queue: Arc<dyn LockableQueue>,
    log: &Log,
    secret: &str,
    stop: impl FnOnce(),
    start: impl FnOnce(),
) -> String {
    let quick = |config: &mut actornot_core::Config| {
        config.lease = Duration::from_secs(1);
        config.call_timeout = Duration::from_secs(2);
        config.sweep_every = Some(Duration::from_millis(200));
    };
    let probe = Probe::new();
    let system = Actornot::builder(queue).runner(Thing(probe.clone())).configure(quick).build();
    let mailbox = system.and_then(|system| system.mailbox::<Thing>()).expect("a legal configuration");
    mailbox.post("k0", line(secret, Act::Hold)).await.expect("a database that works");
    probe.holding(1).await;
    stop();
    probe.let_go(99);
    let mut errors = String::new();
    let failing = async {
        while !(log.has("a commit failed") && log.has("a sweep failed")) {
            let post = mailbox.post("k1", line(secret, Act::Say)).await.expect_err("a database that is away");
            let read = mailbox.read("k0").await.expect_err("a database that is away");
            errors += &format!("{post} {post:?} {read} {read:?}\n");
        }
    };
    tokio::time::timeout(SOON, failing).await.expect("a commit and a sweep that failed, in the log");
    start();
    drained(&mailbox).await;
    mailbox.close().await;
    errors
}

/// A name, and to whom it was posted.
type Posted = (String, (usize, usize));

/// One message after the other; answers those that were accepted. Says when a third of its posts are.
async fn post(
    mailbox: MailboxPoster<Thing>,
    poster: usize,
    answered: Arc<AtomicUsize>,
    mut half: Option<tokio::sync::oneshot::Sender<()>>,
) -> BTreeSet<Posted> {
    let mut ok = BTreeSet::new();
    for nth in 0..POSTS / POSTERS {
        let key = addressee(poster, nth);
        let posted = mailbox.post(&key, line(&format!("{poster} {nth}"), Act::Say)).await;
        if posted.is_ok() {
            answered.fetch_add(1, Ordering::AcqRel);
            ok.insert((key, (poster, nth)));
        }
        if nth >= POSTS / POSTERS / 3
            && let Some(half) = half.take()
        {
            let _ = half.send(());
        }
    }
    ok
}

/// Waits until nothing is pending, without a post. A server that has just come back may need a moment.
async fn drained(mailbox: &MailboxPoster<Thing>) {
    let empty = async {
        for key in (0..ENTITIES).map(|n| format!("k{n}")) {
            while mailbox.read(&key).await.map_or(true, |book| book.is_some_and(|book| book.pending > 0)) {
                let _ = mailbox.sweep(SOON).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    tokio::time::timeout(SOON, empty).await.expect("a database that is back, and an end");
}

/// What each entity has handled, in order.
async fn handled(mailbox: &MailboxPoster<Thing>) -> BTreeMap<String, Vec<String>> {
    let mut handled = BTreeMap::new();
    for key in (0..ENTITIES).map(|n| format!("k{n}")) {
        let book = mailbox.read(&key).await.expect("a read");
        handled.insert(key, book.map(|book| book.state.said).unwrap_or_default());
    }
    handled
}

/// Whether everything that was answered was handled once, in its poster's order, and nothing was invented.
fn judge(ok: &BTreeSet<Posted>, handled: &BTreeMap<String, Vec<String>>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for (key, said) in handled {
        let mut last: BTreeMap<usize, usize> = BTreeMap::new();
        for name in said {
            let number = |text: &str| text.parse::<usize>().ok();
            let posted = name.split_once(' ').and_then(|(poster, nth)| number(poster).zip(number(nth)));
            let Some((poster, nth)) = posted.filter(|(poster, nth)| *key == addressee(*poster, *nth)) else {
                return Err(format!("{name} was not posted to {key}"));
            };
            if let Some(before) = last.insert(poster, nth).filter(|before| *before >= nth) {
                return Err(format!("{key}: {name} came twice, or behind {before}"));
            }
            seen.insert((key.clone(), (poster, nth)));
        }
    }
    let lost: Vec<_> = ok.difference(&seen).collect();
    if lost.is_empty() { Ok(()) } else { Err(format!("answered, and lost: {lost:?}")) }
}

/// To whom a poster's message is posted.
fn addressee(poster: usize, nth: usize) -> String {
    format!("k{}", (poster + nth) % ENTITIES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Poster 0 was answered its messages 1 and 41 to k1; this is what k1 has handled.
    fn judged(said: &[&str]) -> Result<(), String> {
        let ok = [1, 41].map(|nth| ("k1".to_owned(), (0, nth)));
        let said = said.iter().map(|&name| name.to_owned()).collect();
        judge(&ok.into(), &BTreeMap::from([("k1".to_owned(), said)]))
    }

    #[test]
    fn what_is_there_once_in_order_is_right_whatever_was_not_answered_besides() {
        assert_eq!(judged(&["0 1", "0 41"]), Ok(()));
        assert_eq!(judged(&["0 1", "1 0", "0 41", "0 81"]), Ok(()));
    }

    #[test]
    fn what_is_lost_doubled_turned_round_or_invented_is_wrong() {
        assert!(judged(&["0 1"]).is_err_and(|wrong| wrong.contains("lost")));
        assert!(judged(&["0 1", "0 1", "0 41"]).is_err_and(|wrong| wrong.contains("twice")));
        assert!(judged(&["0 41", "0 1"]).is_err_and(|wrong| wrong.contains("behind 41")));
        assert!(judged(&["0 1", "0 41", "0 2"]).is_err_and(|wrong| wrong.contains("not posted")));
        assert!(judged(&["0 1", "0 41", "alice"]).is_err_and(|wrong| wrong.contains("not posted")));
    }
}
