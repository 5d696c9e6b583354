//! The figures that are to be reached, and what was.

use serde::Serialize;

use crate::report::Measured;

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Target {
    pub(crate) backend: &'static str,
    pub(crate) figure: String,
    pub(crate) measured: f64,
    pub(crate) floor: f64,
    pub(crate) aim: f64,
    /// Whether less is better.
    pub(crate) less: bool,
}

impl Target {
    /// Against the floor: 1 reaches it, more is better.
    pub(crate) fn reached(&self) -> f64 {
        if self.less { self.floor / self.measured } else { self.measured / self.floor }
    }

    pub(crate) fn is_met(&self) -> bool {
        self.reached() >= 1.0
    }
}

/// Floors and aims of one backend against the raw limit: 1,000 keys, one key, idle latency.
fn limits(name: &str) -> [(f64, f64); 3] {
    match name {
        "postgres" => [(1.0, 1.5), (2.0, 4.0), (3.0, 2.2)],
        "mongo" => [(1.0, 1.5), (3.0, 5.0), (3.0, 2.2)],
        "redis" => [(0.5, 0.7), (2.5, 4.0), (2.5, 2.2)],
        _ => [(3.0, 5.0), (5.0, 10.0), (3.0, 2.2)],
    }
}

pub(crate) fn all(measured: &Measured) -> Vec<Target> {
    let mut all = Vec::new();
    let mut add = |figure: &str, measured_: f64, (floor, aim): (f64, f64), less: bool| {
        let figure = figure.to_owned();
        all.push(Target { backend: measured.name, figure, measured: measured_, floor, aim, less });
    };
    let [keys, hot, idle] = limits(measured.name);
    let mixes = &measured.mixes;
    add("1,000 keys, 64 posters, of raw", mixes.ratio(1_000, 64, false), keys, false);
    add("1,000 keys, 64 posters, caller ids, of raw", mixes.ratio(1_000, 64, true), keys, false);
    add("one key, 64 posters, of raw", mixes.ratio(1, 64, false), hot, false);
    add("idle: post to commit, of a raw write", measured.idle.ratio.median, idle, true);
    if let (Some(empty), Some(deep)) = (measured.backlog.first(), measured.backlog.last()) {
        add(
            &format!("post, {} pending, of none", deep.pending),
            deep.post.p50 / empty.post.p50,
            (1.5, 1.1),
            true,
        );
        let commit = deep.commit.p50 / empty.commit.p50;
        add(&format!("commit, {} pending, of none", deep.pending), commit, (1.5, 1.1), true);
    }
    for processes in &measured.processes {
        let figure = |posters| format!("4 processes of 1, 64 posters {posters}, keys: {}", processes.keys);
        add(&figure("together"), processes.ratio.median, (0.8, 1.0), false);
        add(&figure("each"), processes.each_ratio.median, (0.8, 1.0), false);
    }
    add("calm p99 beside a hot key, of alone", measured.calm.ratio.median, (3.0, 2.0), true);
    add("memory at the last message of the first fifth", measured.age.resident, (1.1, 1.1), true);
    all
}

/// As a table.
pub(crate) fn table(targets: &[Target]) -> String {
    let mut table =
        format!("{:<9} {:<50} {:>8} {:>7} {:>6}\n", "backend", "figure", "measured", "floor", "aim");
    for target in targets {
        let sign = if target.less { "<=" } else { ">=" };
        table += &format!(
            "{:<9} {:<50} {:>8.2} {sign}{:>5.1} {:>6.1}  {}\n",
            target.backend,
            target.figure,
            target.measured,
            target.floor,
            target.aim,
            if target.is_met() { "" } else { "MISSED" }
        );
    }
    table
}
