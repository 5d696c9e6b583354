//! The suite itself is tested: it must find every mistake and pass everything that is legal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use actornot_testkit::oddities::ODDITIES;
use actornot_testkit::saboteurs::{SABOTEURS, Saboteur};
use actornot_testkit::{ALL, Backend, Behaviour, Bug, Check, MemoryBackend, Verdict};

/// Checks a behaviour under a paused clock. A broken queue can keep it spinning, and then that clock stands still, so
/// the patience is that of a real one.
fn check(behaviour: &'static Behaviour, backend: MemoryBackend) -> Check {
    let (done, outcome) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let _ = done.send(runtime.expect("a runtime").block_on(behaviour.check(backend)));
    });
    match outcome.recv_timeout(Duration::from_secs(30)) {
        Ok(check) => check,
        Err(error) => panic!("{} neither ends nor waits: {error}", behaviour.name),
    }
}

/// Behaviours that failed.
type Failures = Vec<(&'static Behaviour, Box<Verdict>)>;

/// The behaviours that a saboteur fails.
fn failures(saboteur: &Saboteur) -> Failures {
    let fails = |behaviour: &'static Behaviour| {
        let verdict = check(behaviour, saboteur.backend()).err()?;
        Some((behaviour, verdict))
    };
    ALL.iter().filter_map(fails).collect()
}

/// The same for all of them, on as many cores as there are.
fn all_failures() -> Vec<(&'static Saboteur, Failures)> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        while let Some(saboteur) = SABOTEURS.get(next.fetch_add(1, Ordering::Relaxed)) {
            found.push((saboteur, failures(saboteur)));
        }
        found
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect()
    })
}

#[test]
fn every_saboteur_is_caught_and_every_behaviour_catches_one() {
    let mut complaints = Vec::new();
    let mut catches: BTreeMap<&str, usize> = ALL.iter().map(|behaviour| (behaviour.name, 0)).collect();
    for (saboteur, failures) in all_failures() {
        for (behaviour, _) in &failures {
            *catches.entry(behaviour.name).or_default() += 1;
        }
        match failures.iter().find(|(behaviour, _)| behaviour.name == saboteur.caught_by) {
            Some((behaviour, verdict)) if verdict.guarantee != behaviour.guarantee => {
                complaints.push(format!("{}: blamed on {}", saboteur.mistake, verdict.guarantee));
            }
            Some(_) => {}
            None => {
                let by: Vec<_> = failures.iter().map(|(behaviour, _)| behaviour.name).collect();
                complaints
                    .push(format!("{saboteur:?} is not caught by {} but by {by:?}", saboteur.caught_by));
            }
        }
    }
    for (behaviour, caught) in &catches {
        if *caught == 0 {
            complaints.push(format!("{behaviour} catches no saboteur"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn oddities_pass() {
    let mut complaints = Vec::new();
    for odd in ODDITIES {
        for behaviour in ALL.iter().filter(|behaviour| !(odd.verbs_only && behaviour.is_of_the_loop())) {
            if let Err(verdict) = check(behaviour, MemoryBackend::with_oddity(odd.oddity)) {
                complaints.push(format!("a queue that {} fails {}: {verdict}", odd.does, behaviour.name));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// The names of the guarantees, from the one text that promises them.
fn guarantees() -> BTreeSet<&'static str> {
    let text = include_str!("../../actornot-core/GUARANTEES.md");
    text.lines().filter_map(|line| line.strip_prefix("- **")?.split(' ').next()).collect()
}

#[test]
fn every_guarantee_has_behaviours() {
    let covered: BTreeSet<&str> = ALL.iter().map(|behaviour| behaviour.guarantee).collect();
    assert_eq!(guarantees().len(), 10);
    assert_eq!(covered, guarantees());
}

#[test]
fn every_verb_meets_every_fault() {
    let names: BTreeSet<&str> = ALL.iter().map(|behaviour| behaviour.name).collect();
    for verb in ["enqueue", "try_lock", "update_locked", "release", "extend_lock", "due"] {
        for fault in
            ["reply_lost", "caller_dropped", "crash_before", "crash_after", "stale_holder", "late_duplicate"]
        {
            let name = format!("fault_{verb}::{fault}");
            assert!(names.contains(name.as_str()), "{name}");
        }
    }
}

#[test]
fn the_size_of_the_suite_is_told() {
    println!("{} behaviours, {} saboteurs, {} oddities", ALL.len(), SABOTEURS.len(), ODDITIES.len());
    for behaviour in ALL {
        println!("behaviour {} proves {}", behaviour.name, behaviour.guarantee);
    }
    assert!(ALL.len() > SABOTEURS.len() && SABOTEURS.len() > ODDITIES.len());
}

#[test]
fn names_are_used_once() {
    let names: BTreeSet<&str> = ALL.iter().map(|behaviour| behaviour.name).collect();
    assert_eq!(names.len(), ALL.len());
}

/// Runs the check for a killed server over a queue, from which nothing is taken away.
async fn kill_nothing_under_load(backend: MemoryBackend) {
    actornot_testkit::outage::kill_under_load(backend.open().await, || {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_check_for_a_killed_server_passes_where_nothing_is_lost() {
    kill_nothing_under_load(MemoryBackend::sound()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[should_panic(expected = "answered, and lost")]
async fn the_check_for_a_killed_server_finds_what_was_lost() {
    kill_nothing_under_load(MemoryBackend::with_bug(Bug::EnqueueLost)).await;
}
