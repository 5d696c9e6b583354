//! What a message costs the loop, counted in instructions: the one figure that does not depend on the machine's mood, and
//! so the one that may fail a build.

use std::fs;

use crate::command::{cargo, program};
use crate::steps::Steps;
use crate::tools::{self, Tool};
use crate::workspace;

const VALGRIND: Tool = Tool {
    name: "valgrind",
    here: || program("valgrind", &["--version"]).works(),
    // It wants to know the loader's names, which come apart from it.
    packages: &["valgrind", "libc6-dbg"],
};

const KEPT: &str = "docs/benchmarks/instructions.txt";

/// So much may the count grow, in percent, before somebody has to say so: it hangs a little on the allocator, on hashes
/// that are seeded anew, and on what copying memory is made of on this machine.
const SLACK: u64 = 10;

/// Batches of the shorter and the longer run: what they differ by is free of start and end.
const BATCHES: [u64; 2] = [50, 250];
const BATCH: u64 = 64;

pub(crate) fn count(steps: &mut Steps, keep: bool) {
    tools::missing(steps, &[VALGRIND]);
    let mend = format!("take out what made it dearer, or keep the new figure with --keep ({KEPT})");
    steps.step("instructions of core for each message", &mend, || {
        let build = ["build", "--release", "--package", "actornot-testkit", "--example", "batches"];
        // Wherever others are told to build: below, it is looked for there.
        cargo(&[&build[..], &["--target-dir", "target"]].concat()).run()?;
        let [short, long] = [run(BATCHES[0])?, run(BATCHES[1])?];
        let counted = long.saturating_sub(short) / (BATCH * (BATCHES[1] - BATCHES[0]));
        let path = workspace::root().join(KEPT);
        if keep {
            fs::write(&path, format!("{counted}\n")).map_err(|error| format!("{KEPT}: {error}"))?;
        }
        let kept = fs::read_to_string(&path).map_err(|error| format!("{KEPT}: {error}"))?;
        let kept: u64 = kept.trim().parse().map_err(|error| format!("{KEPT}: {error}"))?;
        let told = format!("{counted} for a message in a batch of {BATCH}, and {kept} were kept");
        if counted * 100 > kept * (100 + SLACK) { Err(told) } else { Ok(told) }
    });
}

/// The instructions of one run.
fn run(batches: u64) -> Result<u64, String> {
    let out = workspace::root().join("target/callgrind.out");
    let file = format!("--callgrind-out-file={}", out.display());
    let what =
        ["--quiet", "--tool=callgrind", &file, "target/release/examples/batches", &batches.to_string()];
    program("valgrind", &what).run()?;
    let text = fs::read_to_string(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    let total = text.lines().rev().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    total.ok_or_else(|| format!("{} tells no total", out.display()))
}
