//! How a server is come by.

use super::address::Address;
use super::container::{self, Container};
use super::local::Local;
use super::recipe;
use super::server::{Body, Server};
use super::service::Service;
use super::settings::Settings;

/// Forces one way.
const FORCED: &str = "ACTORNOT_TEST_SERVERS";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Environment,
    Local,
    Docker,
}

/// The first way that is open; `Err` says what would open one.
pub(super) fn choose(service: Service, private: bool) -> Result<Way, String> {
    let forced = std::env::var(FORCED).unwrap_or_default();
    let named = std::env::var_os(service.variable()).is_some();
    let mend = service.mend();
    match forced.as_str() {
        // One of the environment is not ours to hurt.
        "env" if private => {}
        "env" if named => return Ok(Way::Environment),
        "env" => return Err(format!("{FORCED}=env, and {} is not set", service.variable())),
        "local" if recipe::is_here(service) => return Ok(Way::Local),
        "local" => {
            return Err(format!(
                "{FORCED}=local, and its program is not on this machine; to mend it: cargo xtask test, or {mend}"
            ));
        }
        "docker" => return Ok(Way::Docker),
        "" => {}
        other => return Err(format!("{FORCED}={other} is none of env, local, docker")),
    }
    if named && !private {
        return Ok(Way::Environment);
    }
    if recipe::is_here(service) {
        return Ok(Way::Local);
    }
    if container::engine() {
        return Ok(Way::Docker);
    }
    Err(format!(
        "{} is not set, its program is not on this machine, and no Docker engine answers; to mend it: \
         cargo xtask test, or {mend}",
        service.variable()
    ))
}

/// A server that is started, on this machine or in a container.
pub(super) fn start(service: Service, way: Way, settings: &Settings) -> Result<Server, String> {
    match way {
        Way::Docker => {
            Container::start(service, settings).map(|container| Server(Body::Container(container)))
        }
        _ => Local::start(service, settings).map(|local| Server(Body::Local(local))),
    }
}

/// The URL in the environment, and the version of whoever answers there, as far as it tells.
pub(super) fn environment(service: Service) -> Result<(String, String), String> {
    let url =
        std::env::var(service.variable()).map_err(|error| format!("{}: {error}", service.variable()))?;
    let version = Address::of(&url)
        .and_then(|address| recipe::hello(service, &address.host, address.port, &address.user).ok())
        .unwrap_or_else(|| "a server that does not tell its version to everybody".to_owned());
    Ok((url, version))
}
