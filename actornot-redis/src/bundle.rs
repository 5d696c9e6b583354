//! Calls that travel as one command: to start a script costs as much as what it does for an entity.

use std::collections::BTreeMap;

use redis::Value;

use crate::slice::{Call, What};

/// So many entities are served by one run of a script, behind which everybody else waits.
const ITEMS: usize = 32;

/// And so many bytes.
const BYTES: usize = 1 << 20;

/// Calls of one verb, by their indexes, in order.
pub(crate) struct Bundle {
    pub(crate) indexes: Vec<usize>,
    bytes: usize,
}

impl Bundle {
    /// Puts together what may travel together; the order of the calls of a partition stays. `apart`: keys of two
    /// partitions may not meet in one command.
    pub(crate) fn all(calls: &[Call], indexes: &[usize], apart: bool) -> Vec<Self> {
        let mut bundles: Vec<Self> = Vec::new();
        let mut open: BTreeMap<(&str, u16), usize> = BTreeMap::new();
        for index in indexes {
            let call = &calls[*index];
            let bytes = call.size();
            let place = match call.what {
                What::Script(verb) if verb.items => {
                    Some((verb.hash.as_str(), if apart { call.partition } else { 0 }))
                }
                _ => None,
            };
            let last = place.and_then(|place| open.get(&place)).and_then(|at| bundles.get_mut(*at));
            match last.filter(|last| last.indexes.len() < ITEMS && last.bytes + bytes <= BYTES) {
                Some(last) => {
                    last.indexes.push(*index);
                    last.bytes += bytes;
                }
                None => {
                    open.extend(place.map(|place| (place, bundles.len())));
                    bundles.push(Self { indexes: vec![*index], bytes });
                }
            }
        }
        bundles
    }

    /// As it is sent; with its whole text where the server has forgotten the script.
    pub(crate) fn command(&self, calls: &[Call], whole: bool) -> redis::Cmd {
        let calls = || self.indexes.iter().map(|index| &calls[*index]);
        let keys = || calls().flat_map(|call| &call.keys);
        let what = calls().next().map(|call| call.what);
        let (mut command, items) = match what {
            Some(What::Script(verb)) => {
                let mut command = redis::cmd(match (whole, verb.reads) {
                    (false, false) => "EVALSHA",
                    (false, true) => "EVALSHA_RO",
                    (true, false) => "EVAL",
                    (true, true) => "EVAL_RO",
                });
                command.arg(if whole { verb.text } else { verb.hash.as_str() }).arg(keys().count());
                (command, verb.items)
            }
            Some(What::Read(name)) => (redis::cmd(name), false),
            None => (redis::cmd("PING"), false),
        };
        for key in keys() {
            command.arg(key);
        }
        for call in calls() {
            if items {
                command.arg(call.keys.len()).arg(call.args.len());
            }
            for arg in &call.args {
                command.arg(arg.as_slice());
            }
        }
        command
    }

    /// What each of its calls is answered.
    pub(crate) fn answers(&self, calls: &[Call], answer: Value) -> Vec<(usize, Value)> {
        let items = matches!(self.indexes.first().map(|index| calls[*index].what), Some(What::Script(verb)) if verb.items);
        match answer {
            Value::Array(answers) if items && answers.len() == self.indexes.len() => {
                self.indexes.iter().copied().zip(answers).collect()
            }
            answer => self.indexes.iter().map(|index| (*index, answer.clone())).collect(),
        }
    }
}
