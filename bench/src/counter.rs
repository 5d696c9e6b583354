//! The business logic that is measured: it adds.

use actornot_core::{Batch, Context, Failure, Runner};
use serde::{Deserialize, Serialize};

/// Adds what it is sent.
pub(crate) struct Counter;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Total {
    pub(crate) value: u64,
    /// As long as that of the last message: a state may be large, too.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    ballast: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Add {
    pub(crate) delta: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) ballast: String,
}

impl Runner for Counter {
    const KIND: &'static str = "counter";
    type State = Total;
    type Message = Add;

    async fn run_locked(&self, state: &mut Total, batch: Batch<Add>, _: &mut Context) -> Result<(), Failure> {
        for add in batch {
            state.value += add.delta;
            state.ballast.clone_from(&add.ballast);
        }
        Ok(())
    }
}
