//! One of several processes over one database.

use std::io::{BufRead as _, Write as _};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::backend::{Kind, Place};
use crate::load::{Load, Station};

/// What such a process does; it is told when on its standard input, a line for each step.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) kind: Kind,
    pub(crate) place: Place,
    pub(crate) keys: u64,
    pub(crate) posters: usize,
    pub(crate) time: Duration,
    /// In each step.
    pub(crate) messages: u64,
}

/// A step.
pub(crate) const GO: &str = "go";
/// To be told, as a line, how often each key was accepted until now.
pub(crate) const COUNTS: &str = "counts";

/// What it tells after each step, as a line. Not what grows with the keys: its own memory is measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) posted: u64,
    pub(crate) seconds: f64,
    pub(crate) resident_mib: f64,
}

pub(crate) fn work(work: Work) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let station = runtime.block_on(Station::open(work.kind, &work.place, work.keys))?;
    let load =
        Load { messages: work.messages, timed: false, ..Load::new(work.keys, work.posters, work.time) };
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        if line? == COUNTS {
            println!("{}", serde_json::to_string(&station.counts())?);
            std::io::stdout().flush()?;
            continue;
        }
        let began = std::time::Instant::now();
        // Of an endless load, others may run what this one has posted.
        let posted = match work.messages {
            u64::MAX => runtime.block_on(station.post(&load))?.0,
            _ => runtime.block_on(station.run(&load))?.accepted,
        };
        let seconds = began.elapsed().as_secs_f64();
        let told = Told { posted, seconds, resident_mib: resident_mib()? };
        println!("{}", serde_json::to_string(&told)?);
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// Memory that this process really has.
pub(crate) fn resident_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
}
