//! The service as its users meet it: real processes, real requests, real signals.
#![cfg(unix)]
// What is not as expected ends the test; clippy sees tests only in functions marked as such.
#![allow(clippy::unwrap_used)]

mod answers;
mod client;
mod crash;
mod instance;
mod outage;
#[cfg(feature = "servers")]
mod swap;

use std::time::{Duration, Instant};

/// Asks again and again until there is an answer, but not for ever.
fn eventually<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
