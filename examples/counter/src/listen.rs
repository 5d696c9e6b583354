//! Where the service listens.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use tokio::net::{TcpListener, lookup_host};

/// Listens on every address of a host: `localhost` is two, and clients differ in which one they try.
///
/// Returns how to reach it, with the port that was chosen if 0 was asked for.
pub(crate) async fn bind(listen: &str) -> Result<(String, Vec<TcpListener>)> {
    let explain = |error: Error| Error::new(error.kind(), format!("cannot listen on {listen}: {error}"));
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut failed = None;
    let mut port = None;
    for address in addresses(listen).await.map_err(explain)? {
        match TcpListener::bind(SocketAddr::new(address.ip(), port.unwrap_or(address.port()))).await {
            Ok(listener) => {
                port = Some(listener.local_addr()?.port());
                listeners.push(listener);
            }
            // Somebody else has half of `localhost`: some clients would talk to them.
            Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(explain(error)),
            // A machine without IPv6 names it all the same.
            Err(error) => failed = Some(error),
        }
    }
    match (port, failed) {
        (Some(port), _) => {
            let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
            Ok((format!("{host}:{port}"), listeners))
        }
        (None, Some(error)) => Err(explain(error)),
        (None, None) => Err(explain(Error::new(ErrorKind::NotFound, "the host has no address"))),
    }
}

async fn addresses(listen: &str) -> Result<Vec<SocketAddr>> {
    let mut addresses: Vec<SocketAddr> = lookup_host(listen).await?.collect();
    if let Some(port) = listen.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        // Often the name is only listed for one of them.
        addresses.push(SocketAddr::from(([127, 0, 0, 1], port)));
        addresses.push(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)));
    }
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn localhost_is_reached_by_both_of_its_addresses_where_the_machine_has_them() {
        let has_v6 = TcpListener::bind("[::1]:0").await.is_ok();
        let (address, listeners) = bind("localhost:0").await.unwrap();
        assert!(address.starts_with("localhost:") && !address.ends_with(":0"), "{address}");
        assert_eq!(listeners.len(), if has_v6 { 2 } else { 1 });
        let mut ports: Vec<u16> = listeners.iter().map(|each| each.local_addr().unwrap().port()).collect();
        ports.dedup();
        assert_eq!(ports.len(), 1);
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_refused_by_name() {
        let (address, _listeners) = bind("127.0.0.1:0").await.unwrap();
        let error = bind(&address).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {address}")), "{error}");
    }
}
