//! What differs from service to service.

use super::directory::Directory;
use super::member::Member;
use super::patience::{READY, wait};
use super::service::Service;
use super::settings::Settings;
use super::{bouncer, mongo, postgres, redis};

/// Whether its programs are on this machine.
pub(super) fn is_here(service: Service) -> bool {
    match service {
        Service::Postgres => postgres::program().is_some(),
        Service::PgBouncer => bouncer::program().is_some(),
        Service::Mongo | Service::MongoAuth | Service::MongoStandalone | Service::MongoThree => {
            mongo::program().is_some()
        }
        Service::Redis | Service::RedisCluster | Service::RedisClusterReplicas => redis::program().is_some(),
    }
}

/// Its processes, not yet started.
pub(super) fn members(
    service: Service,
    directory: &Directory,
    ports: &[u16],
    settings: &Settings,
) -> Result<Vec<Member>, String> {
    match service {
        Service::Postgres => Ok(vec![postgres::member(directory, ports[0], settings)?]),
        Service::PgBouncer => Ok(vec![bouncer::member(directory, ports[0], settings)?]),
        Service::Mongo | Service::MongoAuth | Service::MongoStandalone | Service::MongoThree => {
            mongo::members(service, directory, ports, settings)
        }
        Service::Redis | Service::RedisCluster | Service::RedisClusterReplicas => {
            redis::members(service, directory, ports, settings)
        }
    }
}

/// What the tests are given.
pub(super) fn url(service: Service, ports: &[u16], settings: &Settings) -> Result<String, String> {
    match service {
        Service::Postgres => Ok(postgres::url(ports[0])),
        Service::PgBouncer => bouncer::url(ports[0], settings),
        Service::Mongo | Service::MongoAuth | Service::MongoStandalone | Service::MongoThree => {
            Ok(mongo::url(service, ports, settings))
        }
        Service::Redis | Service::RedisCluster | Service::RedisClusterReplicas => {
            Ok(redis::url(service, ports, settings))
        }
    }
}

/// Greets a server in its protocol: its version, or why it does not answer.
pub(super) fn hello(service: Service, host: &str, port: u16, user: &str) -> Result<String, String> {
    match service {
        Service::Postgres => postgres::hello(host, port, user),
        Service::PgBouncer => {
            postgres::hello(host, port, user).map(|version| format!("PgBouncer in front of {version}"))
        }
        Service::Mongo | Service::MongoAuth | Service::MongoStandalone | Service::MongoThree => {
            mongo::hello(host, port)
        }
        Service::Redis | Service::RedisCluster | Service::RedisClusterReplicas => redis::hello(host, port),
    }
}

/// What is done once, when all its processes answer for the first time.
pub(super) fn prepare(service: Service, ports: &[u16], settings: &Settings) -> Result<(), String> {
    match service {
        Service::Postgres => postgres::prepare(ports[0]),
        Service::Mongo | Service::MongoAuth | Service::MongoThree => {
            mongo::prepare(ports)?;
            settled(service, ports)?;
            mongo::enroll(ports, settings)
        }
        Service::MongoStandalone => mongo::enroll(ports, settings),
        Service::Redis | Service::RedisCluster | Service::RedisClusterReplicas => {
            redis::prepare(service, ports)
        }
        Service::PgBouncer => Ok(()),
    }
}

/// Waits until its processes have agreed who does what.
pub(super) fn settled(service: Service, ports: &[u16]) -> Result<(), String> {
    wait(&format!("{} comes to terms with itself", service.name()), READY, || {
        let settled = match service {
            Service::Postgres | Service::PgBouncer => true,
            Service::Mongo | Service::MongoAuth | Service::MongoStandalone | Service::MongoThree => {
                mongo::settled(ports)
            }
            Service::Redis | Service::RedisCluster | Service::RedisClusterReplicas => {
                redis::settled(service, ports)
            }
        };
        Ok(settled.then_some(()))
    })
}
