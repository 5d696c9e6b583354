//! Others with the same workload, on the same server in the same minutes: `bench/peers` has them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Serialize;
use tokio::sync::watch;

use crate::Result;
use crate::backend::Kind;
use crate::counter::Add;
use crate::latency::Latency;
use crate::load::{Load, Station, key};
use crate::raw;
use crate::series::Series;

/// Whatever is left by then counts as not handled.
const DRAINED: Duration = Duration::from_secs(30);
const POSTERS: usize = 64;
const SINGLES: u64 = 100;

/// Messages of keys, each key's one after the other, each adding one to its key's state.
#[async_trait]
pub trait Peer: Send + Sync {
    /// The message is durable when this returns.
    async fn post(&self, key: &str) -> Result<()>;
    /// How many were handled and committed.
    fn handled(&self) -> watch::Receiver<u64>;
    /// All states.
    async fn states(&self) -> Result<BTreeMap<String, u64>>;
    /// Handles no more.
    async fn stop(&self);
}

/// Starts one in a database of its own.
#[async_trait]
pub trait Start: Send + Sync {
    /// What it is called in the table.
    fn name(&self) -> &'static str;
    /// Opens it at the URL of an empty database.
    async fn start(&self, url: &str) -> Result<Arc<dyn Peer>>;
}

/// One repetition.
struct Once {
    rate: f64,
    ratio: f64,
    handled: f64,
    idle: Option<f64>,
}

/// What one of them did.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    name: String,
    keys: u64,
    rate: Series,
    /// Against the raw limit of the same repetition.
    ratio: Series,
    /// Milliseconds from a single post to its commit; only where it was measured.
    idle: Option<f64>,
    /// The least part of what was accepted that was handled in time.
    handled: f64,
}

/// Measures all of them, and actornot beside them, on PostgreSQL.
///
/// # Errors
/// Whatever fails; also a state that is not what was handled.
pub async fn compare(peers: &[Box<dyn Start>], repetitions: usize, time: Duration) -> Result<Vec<Row>> {
    let backend = Kind::Postgres.start().await?;
    let mut rows: BTreeMap<(u64, usize), Vec<Once>> = BTreeMap::new();
    for repetition in 0..repetitions {
        let limit = raw::limit(&*backend, time / 2, "{\"delta\":1}").await?.rate;
        eprintln!("repetition {} of {repetitions}: raw limit {limit:.0}/s", repetition + 1);
        for keys in [1, 1_000] {
            let station = Station::open(Kind::Postgres, &backend.place(), keys).await?;
            let ran = station.run(&Load::new(keys, POSTERS, time)).await?;
            station.close().await?;
            let idle = if keys == 1 {
                None
            } else {
                Some(ours(&Station::open(Kind::Postgres, &backend.place(), 1).await?).await?)
            };
            eprintln!("  actornot, {keys} keys: {:.0}/s", ran.rate);
            let once = Once { rate: ran.rate, ratio: ran.rate / limit, handled: 1.0, idle };
            rows.entry((keys, 0)).or_default().push(once);
            for (place, peer) in peers.iter().enumerate() {
                let (rate, handled) =
                    throughput(&*peer.start(&backend.fresh_database().await?).await?, keys, time).await?;
                let idle = match keys {
                    1 => None,
                    _ => Some(singles(&*peer.start(&backend.fresh_database().await?).await?).await?),
                };
                eprintln!("  {}, {keys} keys: {rate:.0}/s, {:.0} % handled", peer.name(), handled * 100.0);
                let once = Once { rate, ratio: rate / limit, handled, idle };
                rows.entry((keys, place + 1)).or_default().push(once);
            }
        }
    }
    Ok(rows
        .into_iter()
        .map(|((keys, place), all)| Row {
            name: place
                .checked_sub(1)
                .and_then(|place| peers.get(place))
                .map_or("actornot", |peer| peer.name())
                .to_owned(),
            keys,
            rate: Series::of(all.iter().map(|one| one.rate)),
            ratio: Series::of(all.iter().map(|one| one.ratio)),
            handled: Series::of(all.iter().map(|one| one.handled)).least,
            idle: all
                .iter()
                .any(|one| one.idle.is_some())
                .then(|| Series::of(all.iter().filter_map(|one| one.idle)).median),
        })
        .collect())
}

/// As a table.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut table =
        format!("{:<18} {:>6} {:>9} {:>8} {:>10}\n", "PostgreSQL", "keys", "a second", "of raw", "idle ms");
    for row in rows {
        let idle = row.idle.map_or_else(String::new, |idle| format!("{idle:.2}"));
        let part = if row.handled < 1.0 {
            format!("  {:.0} % handled in time", row.handled * 100.0)
        } else {
            String::new()
        };
        table += &format!(
            "{:<18} {:>6} {:>9.0} {:>8.2} {idle:>10}{part}\n",
            row.name, row.keys, row.rate.median, row.ratio.median
        );
    }
    table
}

/// Messages handled a second, from the first post to the last commit, and which part of all that was.
async fn throughput(peer: &dyn Peer, keys: u64, time: Duration) -> Result<(f64, f64)> {
    let (posted, began) = (AtomicU64::new(0), Instant::now());
    let poster = || async {
        while began.elapsed() < time {
            peer.post(&key(posted.fetch_add(1, Ordering::Relaxed) % keys)).await?;
        }
        Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    };
    let mut posters = Vec::new();
    for _ in 0..POSTERS {
        posters.push(poster());
    }
    all(posters).await?;
    let accepted = posted.load(Ordering::Relaxed);
    let mut handled = peer.handled();
    let _ = tokio::time::timeout(DRAINED, handled.wait_for(|handled| *handled >= accepted)).await;
    let (elapsed, handled) = (began.elapsed().as_secs_f64(), *handled.borrow());
    peer.stop().await;
    let states = peer.states().await?;
    let sum: u64 = states.values().sum();
    if handled == accepted
        && (0..keys).any(|place| {
            states.get(&key(place)).copied().unwrap_or(0)
                != accepted / keys + u64::from(place < accepted % keys)
        })
        || sum < handled
    {
        return Err(format!("states add up to {sum}, handled were {handled} of {accepted}").into());
    }
    Ok((handled as f64 / elapsed, handled as f64 / accepted as f64))
}

/// In this task, for they borrow.
async fn all(posters: Vec<impl Future<Output = Result<()>>>) -> Result<()> {
    let mut waiting: Vec<_> = posters.into_iter().map(Box::pin).map(Some).collect();
    std::future::poll_fn(move |cx| {
        let mut pending = false;
        for slot in &mut waiting {
            match slot.as_mut().map(|poster| poster.as_mut().poll(cx)) {
                Some(std::task::Poll::Ready(Ok(()))) => *slot = None,
                Some(std::task::Poll::Ready(Err(error))) => return std::task::Poll::Ready(Err(error)),
                Some(std::task::Poll::Pending) => pending = true,
                None => {}
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(Ok(())) }
    })
    .await
}

/// The median of single posts to their commits, in milliseconds.
async fn singles(peer: &dyn Peer) -> Result<f64> {
    let (mut times, mut handled) = (Vec::new(), peer.handled());
    for n in 0..SINGLES {
        let began = Instant::now();
        peer.post(&key(n % 10)).await?;
        handled.wait_for(|handled| *handled > n).await?;
        times.push(began.elapsed());
    }
    peer.stop().await;
    Ok(Latency::of(&times).p50)
}

async fn ours(station: &Arc<Station>) -> Result<f64> {
    let mut times = Vec::new();
    for n in 0..SINGLES {
        let began = Instant::now();
        station.mailbox.post(key(n % 10), Add { delta: 1, ballast: String::new() }).await?;
        station.queue.until(n + 1).await;
        times.push(began.elapsed());
    }
    Ok(Latency::of(&times).p50)
}
