//! Testing with actornot: an in-memory queue for unit tests of your runners, and the conformance suite that proves an
//! adapter.
//!
//! Without default features only [`MemoryQueue`] is left.
//!
//! # For authors of adapters
//!
//! Implement [`Backend`] for your adapter and expand the suite with [`conformance!`]; implement [`crash::Shared`] and
//! expand [`crashes!`] if other processes can reach its database, and they are killed at every call they make. A failed test names the
//! guarantee, what was given, what was done, what was expected and observed, and the usual cause. The suite itself is
//! tested with [`SABOTEURS`](saboteurs::SABOTEURS): queues with one mistake each, which it must find.
#![forbid(unsafe_code)]

// Without the suite nobody makes the mistakes that are built in.
#[cfg_attr(not(feature = "suite"), allow(dead_code, unreachable_pub))]
mod memory;

#[cfg(feature = "suite")]
mod backend;
#[cfg(feature = "suite")]
mod behaviours;
#[cfg(feature = "suite")]
pub mod crash;
#[cfg(feature = "suite")]
mod gate;
#[cfg(feature = "suite")]
pub mod items;
#[cfg(feature = "suite")]
mod lab;
#[cfg(feature = "suite")]
mod list;
#[cfg(feature = "suite")]
pub mod log;
#[cfg(feature = "suite")]
pub mod oddities;
#[cfg(feature = "suite")]
pub mod outage;
#[cfg(feature = "suite")]
mod process;
#[cfg(feature = "suite")]
mod run;
#[cfg(feature = "suite")]
pub mod saboteurs;
#[cfg(feature = "servers")]
pub mod servers;
#[cfg(feature = "suite")]
mod verdict;
#[cfg(feature = "suite")]
mod world;

pub use memory::MemoryQueue;
#[cfg(feature = "suite")]
pub use memory::{Bug, Oddity};

#[cfg(feature = "suite")]
pub use backend::{Backend, MemoryBackend};
#[cfg(feature = "suite")]
pub use run::{ALL, Behaviour, assert_holds};
#[cfg(feature = "suite")]
pub use verdict::{Check, Scene, Verdict};
