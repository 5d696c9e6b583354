//! The reference queue passes the suite.

use actornot_testkit::MemoryBackend;

async fn backend() -> MemoryBackend {
    MemoryBackend::sound()
}

actornot_testkit::conformance!(simulated crate::backend);
