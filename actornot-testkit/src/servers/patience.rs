//! Waiting for something that is not told.

use std::time::{Duration, Instant};

/// How long a server may take until it answers.
pub(super) const READY: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(20);

/// Asks again and again; `Ok(None)` is "not yet", an error ends it at once.
pub(super) fn wait<T>(
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> Result<Option<T>, String>,
) -> Result<T, String> {
    let began = Instant::now();
    loop {
        if let Some(found) = ask()? {
            return Ok(found);
        }
        if began.elapsed() > patience {
            return Err(format!("{what}: not within {} s", patience.as_secs()));
        }
        pause();
    }
}

// Servers are started and ended from threads that have nothing else to do.
#[allow(clippy::disallowed_methods)]
fn pause() {
    std::thread::sleep(PAUSE);
}
