//! What those who are calm notice of one who is hot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;

use crate::Result;
use crate::args::Plan;
use crate::backend::{Backend, Kind};
use crate::counter::Add;
use crate::latency::Latency;
use crate::load::{Load, Station};
use crate::series::Series;

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Calm {
    /// Milliseconds until a calm post was handled, p99: alone, and beside a key that 64 posters hammer.
    pub(crate) alone: Series,
    pub(crate) beside: Series,
    pub(crate) ratio: Series,
}

const KEYS: u64 = 1_000;
const POSTERS: u64 = 4;

pub(crate) async fn measure(kind: Kind, backend: &dyn Backend, plan: &Plan) -> Result<Calm> {
    let (mut alone, mut beside, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.repetitions {
        let station = Station::open(kind, &backend.place(), 1).await?;
        let without = calm(&station, plan.time * 2).await?;
        let hot = tokio::spawn({
            let (station, load) = (station.clone(), Load::new(1, 64, plan.time * 2));
            async move { station.post(&load).await }
        });
        let with = calm(&station, plan.time * 2).await?;
        let (hot, _) = hot.await??;
        station.queue.until(hot).await;
        ratios.push(with.p99 / without.p99);
        alone.push(without.p99);
        beside.push(with.p99);
    }
    let calm = Calm { alone: Series::of(alone), beside: Series::of(beside), ratio: Series::of(ratios) };
    eprintln!(
        "{}: calm keys: p99 {:.1} ms alone, {:.1} ms beside a hot one: {:.2}",
        kind.name(),
        calm.alone.median,
        calm.beside.median,
        calm.ratio.median
    );
    Ok(calm)
}

/// Posts that are far apart, each to a key of its own, until each was handled.
async fn calm(station: &Arc<Station>, time: Duration) -> Result<Latency> {
    let began = Instant::now();
    let mut tasks = JoinSet::<Result<Vec<Duration>>>::new();
    for poster in 0..POSTERS {
        let station = station.clone();
        tasks.spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let (mut times, mut n) = (Vec::new(), poster);
            while began.elapsed() < time {
                ticks.tick().await;
                let sent = Instant::now();
                let add = Add { delta: 1, ballast: String::new() };
                let receipt = station.mailbox.post(format!("calm{}", n % KEYS), add).await?;
                receipt.settled(Duration::from_secs(30)).await?;
                times.push(sent.elapsed());
                n += POSTERS;
            }
            Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(task) = tasks.join_next().await {
        times.append(&mut task??);
    }
    Ok(Latency::of(&times))
}
