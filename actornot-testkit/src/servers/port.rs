//! Free ports.

use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;

/// Below the ports that systems give to outgoing connections: one of those could take the port of a server that is
/// down for a moment, and a client that tries it again and again could meet itself there.
const FIRST: u16 = 15_000;
const COUNT: u16 = 17_000;
/// Where the members of a cluster talk to each other, counted from their port.
const BUS: u16 = 10_000;

/// As many ports as asked for, none of which anybody listens on.
pub(super) fn free(count: usize) -> Result<Vec<u16>, String> {
    let mut found = Vec::new();
    // Each asks somewhere else, since many processes ask at the same time.
    for number in 0..10_000_u32 {
        if found.len() == count {
            return Ok(found);
        }
        let random = RandomState::new().hash_one(number) % u64::from(COUNT);
        let port = FIRST + u16::try_from(random).unwrap_or(0);
        let open = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if !found.contains(&port) && open(port) && open(port + BUS) {
            found.push(port);
        }
    }
    Err("no free port on 127.0.0.1".into())
}
