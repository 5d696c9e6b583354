//! Far more posters than a database has room for.

use serde::Serialize;

use crate::Result;
use crate::args::Plan;
use crate::backend::{Backend, Kind};
use crate::latency::Latency;
use crate::load::{Load, Station};
use crate::worker::resident_mib;

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Crowd {
    pub(crate) posters: usize,
    pub(crate) rate: f64,
    /// Milliseconds until a post returned.
    pub(crate) post: Latency,
    /// Of this process, before and behind it.
    pub(crate) resident_mib_before: f64,
    pub(crate) resident_mib_after: f64,
}

pub(crate) async fn measure(kind: Kind, backend: &dyn Backend, plan: &Plan) -> Result<Crowd> {
    let station = Station::open(kind, &backend.place(), 1_000).await?;
    let before = resident_mib()?;
    let ran = station.run(&Load::new(1_000, plan.posters, plan.time * 3)).await?;
    let after = resident_mib()?;
    station.close().await?;
    let crowd = Crowd {
        posters: plan.posters,
        rate: ran.rate,
        post: ran.post,
        resident_mib_before: before,
        resident_mib_after: after,
    };
    eprintln!(
        "{}: {} posters: {:.0}/s, post p50 {:.0} ms, p99 {:.0} ms, memory {before:.0} -> {after:.0} MiB",
        kind.name(),
        crowd.posters,
        crowd.rate,
        crowd.post.p50,
        crowd.post.p99
    );
    Ok(crowd)
}
