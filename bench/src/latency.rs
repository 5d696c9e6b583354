//! How long single things take.

use std::time::Duration;

use serde::Serialize;

use crate::series::percentile;

/// Milliseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) worst: f64,
}

impl Latency {
    pub(crate) fn of(times: &[Duration]) -> Self {
        let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        times.sort_by(f64::total_cmp);
        Self { p50: percentile(&times, 50), p99: percentile(&times, 99), worst: percentile(&times, 100) }
    }
}
