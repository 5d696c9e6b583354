//! The tasks of this workspace: `cargo xtask check | fix | test | matrix | servers | images | bench`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)] // Printing is what it is for.

mod adapters;
mod check;
mod command;
mod crates;
mod images;
mod instructions;
mod license;
mod light;
mod matrix;
mod names;
mod servers;
mod steps;
mod suite;
mod tally;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use command::cargo;
use steps::Steps;

const USAGE: &str = "usage: cargo xtask <task>

  check   formatting, lints, documentation, and the rules of this workspace
  fix     formats, and applies what clippy can mend by itself
  test    every test and every example in the documentation; installs what a bare Debian or Ubuntu lacks
  matrix  runs the conformance suite over every configuration and writes what it proves into the README
  servers COMMAND ...
          a command of yours while the database servers are up, which it finds in its environment
  images  makes images of the servers where no registry can be reached, and tests the way through Docker
  bench [--quick] [--out DIR] [BACKEND ..]
          the speed of each backend as a ratio against its raw limit, over servers as `test` has them
  bench --peers [--repetitions N] [--out FILE]
          the same work done by other crates, on PostgreSQL
  bench --instructions [--keep]
          what a message costs core, counted; fails when it has grown, and with --keep is what later ones may cost";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["check"] => check::check(),
        ["fix"] => fix(),
        ["test"] => test::test(),
        ["matrix"] => test::matrix(),
        ["servers", _, ..] => servers::task(&arguments[1..]),
        ["images"] => images::images(),
        ["bench", ..] => bench(&arguments[1..]),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            println!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn fix() -> ExitCode {
    let mut steps = Steps::new("fix");
    tools::components(&mut steps);
    steps.step("clippy's suggestions", "mend by hand what is printed above", || {
        cargo(&["clippy", "--fix", "--allow-dirty", "--allow-staged", "--workspace", "--all-targets"]).run()
    });
    steps.step("format", "mend what does not parse", || cargo(&["fmt", "--all"]).run());
    steps.finish()
}

/// Whatever there is to measure: the program of the package `bench`, over servers that it starts by itself.
fn bench(arguments: &[&str]) -> ExitCode {
    let mut steps = Steps::new("bench");
    if let ["--instructions", keep @ ..] = arguments {
        tools::install(&mut steps);
        instructions::count(&mut steps, keep == ["--keep"]);
        return steps.finish();
    }
    servers::install(&mut steps);
    steps.step("speed", "see what is printed above", || {
        let bench = ["run", "--release", "--package", "actornot-bench", "--"];
        let peers =
            ["run", "--release", "--manifest-path", "bench/peers/Cargo.toml", "--target-dir", "target", "--"];
        match arguments {
            ["--peers", arguments @ ..] => cargo(&[&peers[..], arguments].concat()).run(),
            _ => cargo(&[&bench[..], arguments].concat()).run(),
        }
    });
    steps.finish()
}
