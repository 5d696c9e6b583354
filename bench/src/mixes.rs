//! End to end: posted, handled, state committed, message gone.

use serde::Serialize;

use crate::Result;
use crate::args::Plan;
use crate::backend::{Backend, Kind};
use crate::load::{Load, Ran, Station};
use crate::raw::{self, Raw};
use crate::series::Series;

/// One mix, over the repetitions.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Mix {
    pub(crate) keys: u64,
    pub(crate) posters: usize,
    pub(crate) ids: bool,
    pub(crate) ballast: usize,
    /// Messages a second.
    pub(crate) rate: Series,
    /// Against the raw limit of the same repetition.
    pub(crate) ratio: Series,
    /// Calls of the adapter for each message.
    pub(crate) trips: Series,
    /// Milliseconds until a post returned.
    pub(crate) post_p50: Series,
    pub(crate) post_p99: Series,
}

/// All mixes, and the raw limits they are measured against.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Mixes {
    pub(crate) raw: Vec<Raw>,
    pub(crate) raw_64_kib: Vec<Raw>,
    pub(crate) mixes: Vec<Mix>,
}

const KIB_64: usize = 64 * 1024;

/// What a mailbox of this mix is asked.
fn all(plan: &Plan) -> Vec<Load> {
    if plan.glance {
        return [1, 1_000].map(|keys| Load::new(keys, 64, plan.time)).into();
    }
    let mut all = Vec::new();
    for keys in [1, 1_000, 100_000] {
        for posters in [1, 16, 64, 256] {
            all.push(Load::new(keys, posters, plan.time));
            if (keys, posters) == (1_000, 64) {
                all.push(Load { ids: true, ..Load::new(keys, posters, plan.time) });
            }
        }
    }
    // Last: what it leaves behind, in memory and on its way to the disk, is no part of the others.
    all.push(Load { ballast: KIB_64, ..Load::new(1_000, 64, plan.time) });
    all
}

pub(crate) async fn measure(kind: Kind, backend: &dyn Backend, plan: &Plan) -> Result<Mixes> {
    let loads = all(plan);
    let (mut raw, mut raw_64_kib) = (Vec::new(), Vec::new());
    let mut seen: Vec<Vec<(Ran, f64)>> = loads.iter().map(|_| Vec::new()).collect();
    for repetition in 1..=plan.repetitions {
        backend.settled().await?;
        let small = raw::limit(backend, plan.time / 2, "{\"delta\":1}").await?;
        eprintln!(
            "{}: repetition {repetition} of {}: raw limit {:.0}/s with {} connections",
            kind.name(),
            plan.repetitions,
            small.rate,
            small.pool
        );
        for (load, seen) in loads.iter().zip(&mut seen) {
            backend.settled().await?;
            let limit = match load.ballast {
                0 => small.rate,
                bytes => {
                    let large = raw::limit(backend, plan.time / 2, &"x".repeat(bytes)).await?;
                    backend.settled().await?;
                    let rate = large.rate;
                    raw_64_kib.push(large);
                    rate
                }
            };
            let station = Station::open(kind, &backend.place(), load.keys).await?;
            let ran = station.run(load).await?;
            station.close().await?;
            let ratio = ran.rate / limit;
            eprintln!(
                "{}: {:>6} keys, {:>3} posters{}{}: {:>6.0}/s, {ratio:.2} of raw, {:.3} trips a message, post p50 {:.2} ms",
                kind.name(),
                load.keys,
                load.posters,
                if load.ids { ", ids" } else { "" },
                if load.ballast == 0 { "" } else { ", 64 KiB" },
                ran.rate,
                ran.trips(),
                ran.post.p50
            );
            seen.push((ran, ratio));
        }
        raw.push(small);
    }
    let mixes = loads.into_iter().zip(seen).map(|(load, seen)| Mix {
        keys: load.keys,
        posters: load.posters,
        ids: load.ids,
        ballast: load.ballast,
        rate: Series::of(seen.iter().map(|(ran, _)| ran.rate)),
        ratio: Series::of(seen.iter().map(|(_, ratio)| *ratio)),
        trips: Series::of(seen.iter().map(|(ran, _)| ran.trips())),
        post_p50: Series::of(seen.iter().map(|(ran, _)| ran.post.p50)),
        post_p99: Series::of(seen.iter().map(|(ran, _)| ran.post.p99)),
    });
    Ok(Mixes { raw, raw_64_kib, mixes: mixes.collect() })
}

impl Mixes {
    /// The ratio of one of them.
    pub(crate) fn ratio(&self, keys: u64, posters: usize, ids: bool) -> f64 {
        let of = |mix: &&Mix| (mix.keys, mix.posters, mix.ids, mix.ballast) == (keys, posters, ids, 0);
        self.mixes.iter().find(of).map_or(f64::NAN, |mix| mix.ratio.median)
    }
}
