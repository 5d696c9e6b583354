//! One post at a time, and no post at all.

use std::time::{Duration, Instant};

use actornot_core::Scheduler;
use serde::Serialize;

use crate::Result;
use crate::args::Plan;
use crate::backend::{Backend, Kind};
use crate::counter::Add;
use crate::latency::Latency;
use crate::load::Station;
use crate::raw;
use crate::series::Series;

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Idle {
    /// Milliseconds of one raw write, of one post, and of one post until its state is committed: medians.
    pub(crate) raw: Series,
    pub(crate) post: Series,
    pub(crate) committed: Series,
    /// p50 of post to commit against p50 of a raw write, of the same repetition.
    pub(crate) ratio: Series,
}

pub(crate) async fn latency(kind: Kind, backend: &dyn Backend, plan: &Plan) -> Result<Idle> {
    let (mut raws, mut posts, mut commits, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.repetitions {
        let raw = raw::latency(backend, plan.singles, "{\"delta\":1}").await?;
        let station = Station::open(kind, &backend.place(), 1).await?;
        let (mut post, mut committed) = (Vec::new(), Vec::new());
        for n in 0..plan.singles as u64 {
            let began = Instant::now();
            station.mailbox.post(format!("k{}", n % 10), Add { delta: 1, ballast: String::new() }).await?;
            post.push(began.elapsed());
            station.queue.until(n + 1).await;
            committed.push(began.elapsed());
        }
        let (post, committed) = (Latency::of(&post), Latency::of(&committed));
        ratios.push(committed.p50 / raw.p50);
        raws.push(raw.p50);
        posts.push(post.p50);
        commits.push(committed.p50);
    }
    let idle = Idle {
        raw: Series::of(raws),
        post: Series::of(posts),
        committed: Series::of(commits),
        ratio: Series::of(ratios),
    };
    eprintln!(
        "{}: idle: raw write {:.2} ms, post {:.2} ms, committed {:.2} ms: {:.2} of raw",
        kind.name(),
        idle.raw.median,
        idle.post.median,
        idle.committed.median,
        idle.ratio.median
    );
    Ok(idle)
}

/// Calls while nothing is to be done.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Queries {
    pub(crate) seconds: f64,
    /// By the process: one that sweeps never, each 30 s (the default), each second.
    pub(crate) serverless: u64,
    pub(crate) embedded: u64,
    pub(crate) worker: u64,
    /// By the server, of all three together.
    pub(crate) server: Option<u64>,
}

pub(crate) async fn queries(kind: Kind, backend: &dyn Backend, plan: &Plan) -> Result<Queries> {
    let place = backend.place();
    let serverless = Station::open_with(kind, &place, 1, |config| {
        config.scheduler = Scheduler::Inline { budget: Duration::from_secs(10) };
        config.sweep_every = None;
    })
    .await?;
    let embedded = Station::open(kind, &place, 1).await?;
    let worker =
        Station::open_with(kind, &place, 1, |config| config.sweep_every = Some(Duration::from_secs(1)))
            .await?;
    let stations = [serverless, embedded, worker];
    for station in &stations {
        let add = Add { delta: 1, ballast: String::new() };
        station.mailbox.post("k", add).await?.settled(Duration::from_secs(10)).await?;
    }
    let before = stations.each_ref().map(|station| station.queue.trips());
    let asked = backend.asked().await?;
    let began = Instant::now();
    tokio::time::sleep(plan.idle).await;
    let seconds = began.elapsed().as_secs_f64();
    let mut calls = stations.each_ref().map(|station| station.queue.trips()).into_iter().zip(before);
    let mut next = || calls.next().map_or(0, |(after, before)| after - before);
    let (serverless, embedded, worker) = (next(), next(), next());
    let server = backend.asked().await?.zip(asked).map(|(after, before)| after - before);
    Ok(Queries { seconds, serverless, embedded, worker, server })
}
