//! What others do with the workload of actornot's bench, on the same server in the same minutes.
//!
//! `cargo xtask bench --peers` runs it. It is a workspace of its own, so nobody who builds actornot builds these.
#![forbid(unsafe_code)]

mod graphile;
mod sqlxmq;

use std::process::ExitCode;
use std::time::Duration;

use actornot_bench::peer::{Start, compare, table};
use lexopt::prelude::*;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let (mut repetitions, mut out) = (3, None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("repetitions") => repetitions = parser.value()?.parse()?,
            Long("out") => out = Some(parser.value()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let peers: [Box<dyn Start>; 2] = [Box::new(sqlxmq::Start), Box::new(graphile::Start)];
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rows = runtime.block_on(compare(&peers, repetitions, Duration::from_secs(2)));
    actornot_testkit::servers::end();
    let rows = rows?;
    print!("{}", table(&rows));
    if let Some(out) = out {
        std::fs::write(out, serde_json::to_string_pretty(&rows)? + "\n")?;
    }
    Ok(())
}
