//! What goes in: the keys of an entity, the calls of one trip, and which node each goes to.

use std::collections::BTreeMap;

use actornot_core::{EntityId, Error, Limits};
use redis::Value;

use crate::codec::{Parcel, pack_list, pack_number, pack_text};
use crate::row::Parts;
use crate::statements::Verb;

/// The place of everything that is stored: the namespace, cut into partitions.
///
/// An entity, its indexes and its outbox share a hash tag, so one script may touch all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) namespace: String,
    pub(crate) partitions: u16,
}

impl Space {
    /// The partition of an entity: it never moves, for their number is fixed at installation.
    pub(crate) fn partition(&self, entity: &EntityId) -> u16 {
        let bytes = entity.kind().bytes().chain([0]).chain(entity.key().bytes());
        u16::try_from(crc32(bytes) % u32::from(self.partitions.max(1))).unwrap_or(0)
    }

    pub(crate) fn tag(&self, partition: u16) -> String {
        format!("{{{}:{partition}}}", self.namespace)
    }

    /// The hash slot of a partition, as the server computes it from the tag.
    pub(crate) fn slot(&self, partition: u16) -> u16 {
        slot(format!("{}:{partition}", self.namespace).bytes())
    }

    pub(crate) fn key(&self, partition: u16, letters: &str, rest: &str) -> String {
        format!("{}:{letters}:{rest}", self.tag(partition))
    }

    /// What scripts call KEYS 1 to 3: the entity, its delayed messages, wake of the kind; and 4 and 5, for those that touch
    /// them: the ids it has seen, names of the kind.
    pub(crate) fn keys(&self, entity: &EntityId) -> [String; 5] {
        let (partition, name) = (self.partition(entity), entity.to_string());
        [("e", &*name), ("d", &name), ("w", entity.kind()), ("s", &name), ("k", entity.kind())]
            .map(|(letter, name)| self.key(partition, letter, name))
    }

    /// Dead letters of the entity, of the kind, and their order.
    pub(crate) fn dead_keys(&self, entity: &EntityId) -> [String; 3] {
        let partition = self.partition(entity);
        [
            self.key(partition, "x", &entity.to_string()),
            self.key(partition, "y", entity.kind()),
            self.key(partition, "i", entity.kind()),
        ]
    }

    /// What a partition has given out, and what has arrived there.
    pub(crate) fn record(&self, partition: u16) -> String {
        format!("{}:p", self.tag(partition))
    }

    /// Sends that are staged for another partition.
    pub(crate) fn channel(&self, from: u16, to: u16) -> String {
        self.key(from, "o", &to.to_string())
    }

    /// The partitions that something is staged for.
    pub(crate) fn channels(&self, from: u16) -> String {
        format!("{}:oc", self.tag(from))
    }
}

/// One call to one partition.
pub(crate) struct Call {
    pub(crate) partition: u16,
    pub(crate) what: What,
    pub(crate) keys: Vec<String>,
    pub(crate) args: Vec<Arg>,
}

pub(crate) enum Arg {
    Text(Vec<u8>),
    Number(u64),
    /// Only for scripts that take items.
    Texts(Vec<Vec<u8>>),
}

#[derive(Clone, Copy)]
pub(crate) enum What {
    Script(&'static Verb),
    /// A command that only reads.
    Read(&'static str),
}

impl Call {
    pub(crate) fn new(partition: u16, what: What, keys: Vec<String>) -> Self {
        Self { partition, what, keys, args: Vec::new() }
    }

    /// A script about an entity, which knows itself by its key.
    pub(crate) fn entity(space: &Space, verb: &'static Verb, entity: &EntityId) -> Self {
        let keys = space.keys(entity).into();
        Self::new(space.partition(entity), What::Script(verb), keys).arg(entity.key())
    }

    /// One that touches neither ids nor names: every key is read by the server.
    pub(crate) fn narrow(space: &Space, verb: &'static Verb, entity: &EntityId) -> Self {
        let mut call = Self::entity(space, verb, entity);
        call.keys.truncate(3);
        call
    }

    pub(crate) fn arg(mut self, value: impl Into<Vec<u8>>) -> Self {
        self.args.push(Arg::Text(value.into()));
        self
    }

    /// Anything but a negative one.
    pub(crate) fn number(mut self, value: impl TryInto<u64>) -> Self {
        self.args.push(Arg::Number(value.try_into().unwrap_or(u64::MAX)));
        self
    }

    /// Whether it may be sent again after a lost answer.
    pub(crate) fn reads(&self) -> bool {
        match self.what {
            What::Script(verb) => verb.reads,
            What::Read(_) => true,
        }
    }

    pub(crate) fn texts<'a>(mut self, texts: impl IntoIterator<Item = &'a str>) -> Self {
        self.args.push(Arg::Texts(texts.into_iter().map(Into::into).collect()));
        self
    }

    /// Delay, retention, ids and messages.
    pub(crate) fn parcel(self, parcel: &Parcel<'_>) -> Self {
        let call = self.number(parcel.delay).number(parcel.retention);
        call.texts(parcel.ids.iter().copied()).arg(parcel.packed())
    }

    /// Its bytes, roughly.
    pub(crate) fn size(&self) -> usize {
        let keys = self.keys.iter().map(|key| key.len() + 16).sum::<usize>();
        let arg = |arg: &Arg| match arg {
            Arg::Text(text) => text.len() + 16,
            Arg::Number(_) => 16,
            Arg::Texts(texts) => texts.iter().map(|text| text.len() + 16).sum::<usize>() + 16,
        };
        keys + self.args.iter().map(arg).sum::<usize>() + 64
    }
}

/// So many entities are served by one run of a script, behind which everybody else waits: a slice. The server reads some
/// 20 KB of a connection, runs what is there, and waits for the disk; of two runs for a slice it found the second too late.
const ITEMS: usize = Limits::SLICE;

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
        if items {
            command.arg(packed(calls()));
            return command;
        }
        for arg in calls().flat_map(|call| &call.args) {
            match arg {
                Arg::Text(text) => command.arg(text.as_slice()),
                Arg::Number(number) => command.arg(number),
                Arg::Texts(texts) => command.arg(texts),
            };
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

/// How many keys each call has, and its arguments, as its script unpacks them.
fn packed<'a>(calls: impl ExactSizeIterator<Item = &'a Call> + Clone) -> Vec<u8> {
    let mut packed = Vec::with_capacity(calls.clone().map(Call::size).sum());
    pack_list(&mut packed, 2 * calls.len());
    for call in calls {
        pack_number(&mut packed, call.keys.len() as u64);
        pack_list(&mut packed, call.args.len());
        for arg in &call.args {
            match arg {
                Arg::Text(text) => pack_text(&mut packed, text),
                Arg::Number(number) => pack_number(&mut packed, *number),
                Arg::Texts(texts) => {
                    pack_list(&mut packed, texts.len());
                    texts.iter().for_each(|text| pack_text(&mut packed, text));
                }
            }
        }
    }
    packed
}

pub(crate) type Address = (String, u16);

/// Which node owns which slots; empty when it must be asked for.
#[derive(Default)]
pub(crate) struct Map(pub(crate) Vec<(u16, u16, Address)>);

impl Map {
    pub(crate) fn owner(&self, slot: u16) -> Option<&Address> {
        self.0.iter().find(|(first, last, _)| (*first..=*last).contains(&slot)).map(|(_, _, address)| address)
    }

    /// `[first slot, last slot, [host, port, ..] of the primary, replicas..]` for each range.
    pub(crate) fn parse(value: Value, asked: &Address) -> Result<Self, Error> {
        let mut map = Vec::new();
        for range in Parts::of(value)?.rest() {
            let mut range = Parts::of(range)?;
            let (first, last) = (range.number()?.unwrap_or(0), range.number()?.unwrap_or(0));
            let mut primary = Parts::of(range.value())?;
            let host = primary.text()?;
            let port = u16::try_from(primary.number()?.unwrap_or(0)).unwrap_or(0);
            let host = match host.as_deref().map(|host| host.trim_matches(['[', ']'])) {
                // The one that was asked; or a cluster of one node that does not know its own name.
                None | Some("") => Some(asked.0.clone()),
                // Of no known name; perhaps of a known address, behind its id.
                Some("?") => {
                    primary.value();
                    ip(primary.value())?
                }
                Some(host) => Some(host.to_owned()),
            };
            let Some(address) = host.filter(|_| port > 0).map(|host| (host, port)) else { continue };
            let slot = |number: u64| u16::try_from(number).unwrap_or(u16::MAX);
            map.push((slot(first), slot(last), address));
        }
        Ok(Self(map))
    }
}

/// What stands behind `ip` among the other names of a node.
fn ip(names: Value) -> Result<Option<String>, Error> {
    if names == Value::Nil {
        return Ok(None);
    }
    let mut names = Parts::of(names)?;
    while let Some(name) = names.text()? {
        let value = names.text()?;
        if name == "ip" {
            return Ok(value.filter(|ip| !ip.is_empty()));
        }
    }
    Ok(None)
}

/// CRC-32 (IEEE).
fn crc32(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// CRC-16 (XMODEM) modulo the number of slots.
pub(crate) fn slot(bytes: impl Iterator<Item = u8>) -> u16 {
    let crc = bytes.fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % 16384
}

#[cfg(test)]
mod tests {
    use actornot_core::{EntityId, Limits};
    use redis::Value;

    use super::{Bundle, Call, Map, Space, crc32, slot};
    use crate::statements::ENQUEUE;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    /// The owner of all slots, as a server names it.
    fn owner(host: Value, port: i64, more: Option<Value>) -> Option<(String, u16)> {
        let node = [host, Value::Int(port), text("id")].into_iter().chain(more).collect();
        let range = Value::Array(vec![Value::Int(0), Value::Int(16383), Value::Array(node)]);
        let map = Map::parse(Value::Array(vec![range]), &("asked".to_owned(), 1)).unwrap();
        map.owner(7).cloned()
    }

    #[test]
    fn a_slice_is_one_run_of_its_script() {
        let space = Space { namespace: "n".to_owned(), partitions: 4 };
        let entity = |n: usize| EntityId::new("kind", format!("key{n}")).unwrap();
        let calls: Vec<Call> =
            (0..Limits::SLICE).map(|n| Call::entity(&space, &ENQUEUE, &entity(n))).collect();
        let indexes: Vec<usize> = (0..calls.len()).collect();
        assert_eq!(Bundle::all(&calls, &indexes, false).len(), 1);
        assert_eq!(Bundle::all(&calls, &indexes, true).len(), 4, "one for each partition");
    }

    #[test]
    fn nodes_are_found_by_whatever_they_are_called() {
        let at = |host: &str| Some((host.to_owned(), 7000));
        assert_eq!(owner(text("10.0.0.1"), 7000, None), at("10.0.0.1"));
        assert_eq!(owner(text("::1"), 7000, None), at("::1"));
        assert_eq!(owner(text("[::1]"), 7000, None), at("::1"));
        assert_eq!(owner(Value::Nil, 7000, None), at("asked"));
        assert_eq!(owner(text(""), 7000, None), at("asked"));
        assert_eq!(owner(text("?"), 7000, None), None);
        assert_eq!(
            owner(text("?"), 7000, Some(Value::Array(vec![text("ip"), text("10.0.0.1")]))),
            at("10.0.0.1")
        );
        assert_eq!(owner(text("?"), 7000, Some(Value::Map(vec![(text("ip"), text("::1"))]))), at("::1"));
        assert_eq!(owner(text("?"), 7000, Some(Value::Array(vec![]))), None);
        assert_eq!(owner(text("10.0.0.1"), 0, None), None);
    }

    #[test]
    fn checksums_are_those_of_everybody_else() {
        assert_eq!(crc32("123456789".bytes()), 0xcbf4_3926);
        assert_eq!(slot("123456789".bytes()), 0x31c3);
        assert_eq!(slot("foo".bytes()), 12182);
    }
}
