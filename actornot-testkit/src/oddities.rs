//! Queues that are unusual, but legal: the suite must pass them.

use crate::Oddity;

/// All of them.
pub static ODDITIES: &[(Oddity, &str)] = &[
    (Oddity::BatchOfOne, "never hands out more than one message"),
    (Oddity::SpuriousContention, "refuses every third request for a free lock"),
    (Oddity::Slow, "suspends many times in each call"),
    (Oddity::OneAtATime, "serves one call at a time, as with a pool of one connection"),
    (Oddity::LastInFirstOut, "of the calls that wait, serves the last one first"),
];
