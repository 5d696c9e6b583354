//! What the tests of this crate share.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)] // Each test binary uses its part.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::File;
use std::time::Duration;

use actornot_core::{EntityId, MessageId};
use actornot_redis::redis::{self, Connection, Value};
#[allow(unused_imports)]
pub(crate) use actornot_testkit::items::*;
use actornot_testkit::servers::Server;

/// A name that no other test has.
pub(crate) fn random() -> String {
    use std::hash::{BuildHasher, Hasher};
    format!("t{:x}", std::collections::hash_map::RandomState::new().build_hasher().finish())
}

/// All primaries, seen from outside, and the keys of one namespace.
pub(crate) struct Outside {
    nodes: Vec<String>,
    namespace: String,
}

/// KEYS of one partition; ARGV 1 ms. Every moment that is stored.
const SHIFT: &str = r#"
local ms = tonumber(ARGV[1])
for _, key in ipairs(KEYS) do
  local letter = string.match(key, '}:(%a+)')
  if letter == 'w' or letter == 'd' or letter == 's' then
    local all = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    -- What stands beside an id that was seen is its moment, times 1024, and its place.
    local by = letter == 's' and ms * 1024 or ms
    for i = 1, #all, 2 do redis.call('ZADD', key, string.format('%.0f', tonumber(all[i + 1]) - by), all[i]) end
    local left = redis.call('PTTL', key)
    if left > 0 then redis.call('PEXPIRE', key, math.max(1, left - ms)) end
  elseif letter == 'e' then
    -- deadline, since, until, delayed_at, seen_until
    local format = '<I7sI7si7I4I4I4I4i7i7I7I7sI7I1I1I7I7I7I1I7I7I2'
    local row = {struct.unpack(format, redis.call('HGET', key, 'row'))}
    for _, field in ipairs({3, 13, 15, 19, 22}) do
      if row[field] > 0 then row[field] = row[field] - ms end
    end
    redis.call('HSET', key, 'row', struct.pack(format, unpack(row, 1, 24)))
  end
end
return 1"#;

impl Outside {
    pub(crate) fn new(url: &str, namespace: &str) -> Self {
        let plain = url.split('?').next().unwrap().to_owned();
        let mut nodes = vec![plain.clone()];
        if url.contains("cluster=true") {
            let mut seed = redis::Client::open(plain).unwrap().get_connection().unwrap();
            let slots: Vec<Vec<Value>> = redis::cmd("CLUSTER").arg("SLOTS").query(&mut seed).unwrap();
            let primary = |range: &Vec<Value>| {
                let (host, port): (String, u16) = match &range[2] {
                    Value::Array(node) => (
                        redis::from_redis_value(node[0].clone()).unwrap(),
                        redis::from_redis_value(node[1].clone()).unwrap(),
                    ),
                    other => panic!("{other:?}"),
                };
                format!("redis://{host}:{port}/")
            };
            nodes = slots.iter().map(primary).collect();
            nodes.sort();
            nodes.dedup();
        }
        Self { nodes, namespace: namespace.to_owned() }
    }

    pub(crate) fn connections(&self) -> Vec<Connection> {
        let connect = |node: &String| redis::Client::open(node.as_str()).unwrap().get_connection().unwrap();
        self.nodes.iter().map(connect).collect()
    }

    /// With the node where they are.
    pub(crate) fn keys(&self, connection: &mut Connection) -> Vec<String> {
        let mut found = Vec::new();
        for pattern in [format!("{{{}:*", self.namespace), format!("{{{}}}:meta", self.namespace)] {
            let mut cursor = 0_u64;
            loop {
                let mut scan = redis::cmd("SCAN");
                scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1000);
                let (next, keys): (u64, Vec<String>) = scan.query(connection).unwrap();
                found.extend(keys);
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        found.sort();
        found.dedup();
        found
    }

    pub(crate) fn all_keys(&self) -> Vec<String> {
        let mut all = Vec::new();
        for mut connection in self.connections() {
            all.extend(self.keys(&mut connection));
        }
        all
    }

    /// The connection to the node that has a key with this end, and the key.
    pub(crate) fn find(&self, end: &str) -> (Connection, String) {
        for mut connection in self.connections() {
            if let Some(key) = self.keys(&mut connection).into_iter().find(|key| key.ends_with(end)) {
                return (connection, key);
            }
        }
        panic!("no key ends with {end}");
    }

    pub(crate) fn elapse(&self, time: Duration) {
        for mut connection in self.connections() {
            let mut tags: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for key in self.keys(&mut connection) {
                tags.entry(key.split('}').next().unwrap().to_owned()).or_default().push(key);
            }
            for keys in tags.into_values() {
                let mut eval = redis::cmd("EVAL");
                eval.arg(SHIFT).arg(keys.len()).arg(&keys).arg(time.as_millis().to_string());
                eval.query::<i64>(&mut connection).unwrap();
            }
        }
    }

    pub(crate) fn corrupt_payload(&self, entity: &EntityId, id: &MessageId, payload: &str) {
        let (mut connection, key) = self.find(&format!(":e:{entity}"));
        let bodies: BTreeMap<String, Vec<u8>> =
            redis::cmd("HGETALL").arg(&key).query(&mut connection).unwrap();
        for (field, parcel) in bodies.into_iter().filter(|(field, _)| field.parse::<i64>().is_ok()) {
            // How many, and each behind its length.
            let mut changed = parcel[..2].to_vec();
            let mut rest = &parcel[2..];
            while let Some((length, behind)) = rest.split_first_chunk::<4>() {
                let (value, next) = behind.split_at(u32::from_le_bytes(*length) as usize);
                let mut value = value.to_vec();
                if value.starts_with(format!("{id}\0").as_bytes()) {
                    let second = value.iter().enumerate().filter(|(_, byte)| **byte == 0).nth(1).unwrap().0;
                    value.truncate(second + 1);
                    value.extend_from_slice(payload.as_bytes());
                }
                changed.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
                changed.extend(value);
                rest = next;
            }
            redis::cmd("HSET").arg(&key).arg(field).arg(changed).exec(&mut connection).unwrap();
        }
    }

    pub(crate) fn corrupt_state(&self, entity: &EntityId, json: &str) {
        let (mut connection, key) = self.find(&format!(":e:{entity}"));
        redis::cmd("HSET").arg(key).arg("json").arg(json).exec(&mut connection).unwrap();
    }

    /// In the indexes of its kind; nobody gets from there to the entity.
    pub(crate) fn corrupt_key(&self, entity: &EntityId, key: &str) {
        for mut connection in self.connections() {
            let indexes = ["w", "k"].map(|letter| format!(":{letter}:{}", entity.kind()));
            let keys = self.keys(&mut connection).into_iter();
            for index in keys.filter(|key| indexes.iter().any(|end| key.ends_with(end))) {
                let mut score = redis::cmd("ZSCORE");
                score.arg(&index).arg(entity.key());
                let Some(score) = score.query::<Option<String>>(&mut connection).unwrap() else { continue };
                redis::cmd("ZREM").arg(&index).arg(entity.key()).exec(&mut connection).unwrap();
                redis::cmd("ZADD").arg(&index).arg(score).arg(key).exec(&mut connection).unwrap();
            }
        }
    }

    /// Writers of the whole server wait. One test at a time: an end ends it for all.
    pub(crate) fn freeze(&self) -> Box<dyn Any + Send> {
        let port: String = self.nodes[0].chars().filter(char::is_ascii_digit).collect();
        let lock = File::create(std::env::temp_dir().join(format!("actornot-redis-{port}.freeze"))).unwrap();
        lock.lock().unwrap();
        let mut connections = self.connections();
        for connection in &mut connections {
            redis::cmd("CLIENT").arg("PAUSE").arg(20_000).arg("WRITE").exec(connection).unwrap();
        }
        Box::new(Frozen { connections, _lock: lock })
    }

    pub(crate) fn clear(&self) {
        for mut connection in self.connections() {
            for key in self.keys(&mut connection) {
                redis::cmd("UNLINK").arg(key).exec(&mut connection).unwrap();
            }
        }
    }
}

struct Frozen {
    connections: Vec<Connection>,
    _lock: File,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for connection in &mut self.connections {
            redis::cmd("CLIENT").arg("UNPAUSE").exec(connection).unwrap();
        }
    }
}

/// An administrator's connection to a single server, or to the first node of a cluster.
pub(crate) fn admin(server: &Server) -> Connection {
    member(server, 0)
}

/// An administrator's connection to one node.
pub(crate) fn member(server: &Server, number: usize) -> Connection {
    let url = format!("redis://127.0.0.1:{}/", server.ports()[number]);
    redis::Client::open(url).unwrap().get_connection().unwrap()
}
