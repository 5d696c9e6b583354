//! The suite that every adapter passes: on one server, on a cluster, and with no rights but those of `acl/run.acl`.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

mod common;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use actornot_core::{EntityId, LockableQueue, MessageId};
use actornot_redis::{RedisConfig, RedisQueue, redis};
use actornot_testkit::Backend;
use actornot_testkit::crash::Shared;
use actornot_testkit::servers::{Service, url};
use async_trait::async_trait;

use crate::common::{Outside, random};

struct RedisBackend {
    url: String,
    namespace: String,
    outside: Outside,
    role: Option<String>,
}

impl RedisBackend {
    fn new(url: String) -> Self {
        let namespace = random();
        let outside = Outside::new(&url, &namespace);
        Self { url, namespace, outside, role: None }
    }
}

impl Drop for RedisBackend {
    fn drop(&mut self) {
        self.outside.clear();
        if let Some(role) = &self.role {
            for mut connection in self.outside.connections() {
                redis::cmd("ACL").arg("DELUSER").arg(role).exec(&mut connection).unwrap();
            }
        }
    }
}

#[async_trait]
impl Backend for RedisBackend {
    async fn open(&self) -> Arc<dyn LockableQueue> {
        Self::attach(&self.address()).await
    }

    async fn elapse(&self, time: Duration) {
        self.outside.elapse(time);
    }

    async fn corrupt_payload(&self, entity: &EntityId, id: &MessageId, payload: &str) {
        self.outside.corrupt_payload(entity, id, payload);
    }

    async fn corrupt_state(&self, entity: &EntityId, json: &str) {
        self.outside.corrupt_state(entity, json);
    }

    async fn corrupt_key(&self, entity: &EntityId, key: &str) {
        self.outside.corrupt_key(entity, key);
    }

    async fn freeze(&self) -> Box<dyn Any + Send> {
        self.outside.freeze()
    }
}

#[async_trait]
impl Shared for RedisBackend {
    fn address(&self) -> String {
        let role = self.role.as_deref().unwrap_or_default();
        format!("{} {} {role}", self.url, self.namespace)
    }

    async fn attach(address: &str) -> Arc<dyn LockableQueue> {
        let parts: Vec<&str> = address.split(' ').collect();
        let mut config = RedisConfig::new(parts[0]).namespace(parts[1]);
        if !parts[2].is_empty() {
            // It may not ask for this setting.
            config = config.never_install().allow_unsafe("appendfsync");
        }
        Arc::new(RedisQueue::open(config).await.unwrap())
    }
}

async fn standalone_backend() -> RedisBackend {
    RedisBackend::new(url(Service::Redis))
}

async fn cluster_backend() -> RedisBackend {
    RedisBackend::new(url(Service::RedisCluster))
}

/// A user with the rights of `acl/run.acl`, in a namespace that somebody else has installed.
async fn run_role_backend() -> RedisBackend {
    let mut backend = RedisBackend::new(url(Service::Redis));
    let config = RedisConfig::new(backend.url.as_str()).namespace(backend.namespace.as_str());
    RedisQueue::install(config).await.unwrap();
    let role = random();
    let rights = include_str!("../acl/run.acl").replace("actornot}", &format!("{}}}", backend.namespace));
    let rights = rights.replace("{actornot:", &format!("{{{}:", backend.namespace));
    for mut connection in backend.outside.connections() {
        let mut set = redis::cmd("ACL");
        set.arg("SETUSER").arg(&role);
        for right in rights.split_whitespace().skip(2) {
            set.arg(right);
        }
        set.exec(&mut connection).unwrap();
    }
    backend.url = backend.url.replace("redis://", &format!("redis://{role}:CHANGE_ME@"));
    backend.role = Some(role);
    backend
}

mod standalone_appendfsync_always {
    actornot_testkit::conformance!(real crate::standalone_backend);
}

mod cluster_of_three_primaries {
    actornot_testkit::conformance!(real crate::cluster_backend);
}

mod run_role {
    actornot_testkit::conformance!(real crate::run_role_backend);
}

actornot_testkit::crashes!(crate::cluster_backend, crate::RedisBackend);
