//! How fast actornot is on this machine, as ratios against what its databases do in the same minute.
//!
//! `cargo xtask bench [--quick] [BACKEND ..]` runs it. Nothing here asserts a time; a run counts only when every
//! state equals what was accepted.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)] // Printing is what it is for.
#![allow(clippy::disallowed_methods)] // Wall clocks are what it reads.

mod age;
mod args;
mod backend;
mod backlog;
mod calm;
mod chart;
mod counted;
mod counter;
mod crowd;
mod disk;
mod idle;
mod latency;
mod load;
mod mixes;
pub mod peer;
mod plan;
mod processes;
mod raw;
mod report;
mod series;
mod targets;
mod worker;

use std::process::ExitCode;

use args::Task;

/// What a measurement may fail with; told as it is, and the run ends.
pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// The program.
#[must_use]
pub fn run() -> ExitCode {
    let ran = match args::parse() {
        Ok(Task::Help) => {
            println!("{}", args::USAGE);
            return ExitCode::SUCCESS;
        }
        Ok(Task::Measure(plan)) => plan::measure(&plan),
        Ok(Task::Work(work)) => worker::work(work),
        Err(error) => Err(error),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
