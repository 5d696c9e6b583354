//! The bench as a program.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    actornot_bench::run()
}
