//! What was measured, as it is kept and read again.

use serde::Serialize;

use crate::age::Age;
use crate::backlog::Depth;
use crate::calm::Calm;
use crate::crowd::Crowd;
use crate::idle::{Idle, Queries};
use crate::latency::Latency;
use crate::mixes::Mixes;
use crate::processes::Processes;
use crate::targets::Target;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) actornot: &'static str,
    pub(crate) cores: usize,
    /// Milliseconds of an fdatasync, before the first and after the last measurement.
    pub(crate) fdatasync: [Latency; 2],
    pub(crate) repetitions: usize,
    pub(crate) backends: Vec<Measured>,
    pub(crate) targets: Vec<Target>,
}

/// One backend.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) server: String,
    #[serde(flatten)]
    pub(crate) mixes: Mixes,
    pub(crate) idle: Idle,
    pub(crate) backlog: Vec<Depth>,
    pub(crate) processes: Vec<Processes>,
    pub(crate) calm: Calm,
    pub(crate) crowd: Crowd,
    pub(crate) age: Age,
    pub(crate) queries: Queries,
}
