//! Queues that are unusual, but legal: the suite must pass them.

use crate::Oddity;

/// Something unusual, and the themes in which it is legal.
#[derive(Debug, Clone, Copy)]
pub struct Odd {
    /// What it is.
    pub oddity: Oddity,
    /// In words: a queue that ...
    pub does: &'static str,
    /// A refused lock costs the loop as much time as its sweep takes, for which the loop's behaviours do not wait: they
    /// prove that nothing is left to the sweep.
    pub verbs_only: bool,
}

const fn odd(oddity: Oddity, does: &'static str) -> Odd {
    Odd { oddity, does, verbs_only: matches!(oddity, Oddity::SpuriousContention) }
}

/// All of them.
pub static ODDITIES: &[Odd] = &[
    odd(Oddity::BatchOfOne, "never hands out more than one message"),
    odd(Oddity::SpuriousContention, "refuses every third request for a free lock"),
    odd(Oddity::Slow, "suspends many times in each call"),
    odd(Oddity::OneAtATime, "serves one call at a time, as with a pool of one connection"),
    odd(Oddity::LastInFirstOut, "of the calls that wait, serves the last one first"),
];
