//! What was asked for.

use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

use crate::Result;
use crate::backend::{Kind, Place};
use crate::worker::Work;

pub(crate) const USAGE: &str =
    "usage: bench [--short | --quick | --glance] [--repetitions N] [--out DIR] [postgres|mongo|redis|sqlite ..]

  --short           a quarter of an hour instead of three: half the time for each mix, and of the million messages as
                    many as come
  --quick           a few seconds for each backend: whether it works, not how fast
  --glance          one key and 1,000 keys with 64 posters, idle latency, calm keys: to see what a change brings
  --repetitions N   of each measurement; medians are told; default 3
  --out DIR         where results and pictures go; target/bench without it";

pub(crate) enum Task {
    Help,
    Measure(Plan),
    /// One of several processes over the same database; started by the bench itself.
    Work(Work),
}

/// What is measured, and for how long.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) repetitions: usize,
    pub(crate) out: Option<PathBuf>,
    /// A few mixes and idle latency, and nothing else.
    pub(crate) glance: bool,
    /// Of one mix, or one pool size of a raw limit.
    pub(crate) time: Duration,
    /// Single posts of a latency.
    pub(crate) singles: usize,
    /// The deepest backlog.
    pub(crate) backlog: u64,
    /// Messages of the measurement of age, the last of five portions of which is compared with the first.
    pub(crate) age: u64,
    /// After so long a portion of them ends, also when it is not complete.
    pub(crate) portion: Duration,
    pub(crate) posters: usize,
    /// For how long nothing is done, and the queries are counted.
    pub(crate) idle: Duration,
}

impl Plan {
    fn new(quick: bool, short: bool) -> Self {
        let brief = quick || short;
        Self {
            kinds: Vec::new(),
            repetitions: if quick { 1 } else { 3 },
            out: None,
            glance: false,
            time: Duration::from_millis(if quick {
                200
            } else if short {
                1_000
            } else {
                2_000
            }),
            singles: if quick { 20 } else { 300 },
            backlog: if quick { 1_000 } else { 100_000 },
            age: if quick { 5_000 } else { 1_000_000 },
            portion: Duration::from_secs(if brief { 12 } else { 300 }),
            posters: if quick { 500 } else { 10_000 },
            idle: Duration::from_secs(if quick { 2 } else { 65 }),
        }
    }
}

pub(crate) fn parse() -> Result<Task> {
    let mut parser = lexopt::Parser::from_env();
    let (mut quick, mut short, mut glance) = (false, false, false);
    let (mut repetitions, mut out, mut kinds) = (None, None, Vec::new());
    while let Some(argument) = parser.next()? {
        match argument {
            Long("quick") => quick = true,
            Long("short") => short = true,
            Long("glance") => glance = true,
            Long("repetitions") => repetitions = Some(parser.value()?.parse()?),
            Long("out") => out = Some(PathBuf::from(parser.value()?)),
            Long("help") | Short('h') => return Ok(Task::Help),
            Long("work") => return work(&mut parser).map(Task::Work),
            Value(name) => kinds.push(Kind::of(&name.string()?)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let mut plan = Plan::new(quick, short);
    plan.kinds = if kinds.is_empty() { Kind::ALL.to_vec() } else { kinds };
    plan.repetitions = repetitions.unwrap_or(plan.repetitions).max(1);
    // Half an hour's figures are not to be lost because nobody said where they go.
    (plan.out, plan.glance) = (out.or_else(|| Some(PathBuf::from("target/bench"))), glance);
    Ok(Task::Measure(plan))
}

/// `--work KIND URL NAMESPACE KEYS POSTERS MILLISECONDS MESSAGES`
fn work(parser: &mut lexopt::Parser) -> Result<Work> {
    let mut next = || parser.value()?.string();
    let kind = Kind::of(&next()?)?;
    let place = Place { url: next()?, namespace: next()? };
    let mut number = || Ok::<u64, Box<dyn std::error::Error + Send + Sync>>(next()?.parse()?);
    let (keys, posters) = (number()?, number()?);
    let time = Duration::from_millis(number()?);
    Ok(Work { kind, place, keys, posters: posters as usize, time, messages: number()? })
}
