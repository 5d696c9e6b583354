//! A server in a container.

use std::process::Command;

use testcontainers::core::IntoContainerPort;
use testcontainers::runners::SyncRunner;
use testcontainers::{ContainerRequest, GenericImage, ImageExt};

use super::directory::Directory;
use super::guardian::Guardian;
use super::patience::{READY, wait};
use super::service::Service;
use super::settings::Settings;
use super::{bouncer, mongo, port, postgres, recipe, redis};

/// A container with one server in it, be it a cluster.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) service: Service,
    pub(super) url: String,
    pub(super) version: String,
    ports: Vec<u16>,
    name: String,
    // Before the folder's name: it removes what is in there.
    _guardian: Guardian,
    pub(super) directory: Directory,
}

/// Whether an engine answers.
pub(super) fn engine() -> bool {
    Command::new("docker").arg("version").output().is_ok_and(|output| output.status.success())
}

/// The variable that names the image, and the image if it does not.
fn image(service: Service) -> (&'static str, &'static str) {
    match service {
        Service::Postgres => ("ACTORNOT_POSTGRES_IMAGE", "postgres:17"),
        Service::PgBouncer => ("ACTORNOT_PGBOUNCER_IMAGE", "edoburu/pgbouncer:latest"),
        Service::Mongo | Service::MongoAuth | Service::MongoStandalone | Service::MongoThree => {
            ("ACTORNOT_MONGO_IMAGE", "mongo:8.0")
        }
        Service::Redis | Service::RedisCluster | Service::RedisClusterReplicas => {
            ("ACTORNOT_REDIS_IMAGE", "redis:8")
        }
    }
}

/// Several servers in one container, where they reach each other by the address at which they are reached from here.
fn together(program: &str, commands: &[Vec<String>]) -> Vec<String> {
    let quoted = |word: &String| format!("'{}'", word.replace('\'', r"'\''"));
    let one = |(number, words): (usize, &Vec<String>)| {
        let words: Vec<String> = words.iter().map(quoted).collect();
        let folder = format!("/tmp/data{number}");
        format!("mkdir -p {folder}; (cd {folder}; exec {program} {}) &", words.join(" "))
    };
    let lines: Vec<String> = commands.iter().enumerate().map(one).collect();
    vec!["sh".to_owned(), "-c".to_owned(), format!("{}\nwait", lines.join("\n"))]
}

fn request(
    service: Service,
    ports: &[u16],
    settings: &Settings,
) -> Result<ContainerRequest<GenericImage>, String> {
    let (variable, usual) = image(service);
    let name = std::env::var(variable).unwrap_or_else(|_| usual.to_owned());
    // A colon in front of a slash belongs to a registry's port.
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name.to_owned(), tag.to_owned()),
        _ => (name, "latest".to_owned()),
    };
    let mut request = ContainerRequest::from(GenericImage::new(name, tag));
    // The same ports inside as outside, since members of a set or cluster tell clients where the others are.
    for &port in ports {
        request = request.with_mapped_port(port, port.tcp());
    }
    // They trust whoever connects, so nobody from outside may.
    request = request.with_host_config_modifier(|host| {
        let bindings = host.port_bindings.iter_mut().flat_map(|ports| ports.values_mut()).flatten().flatten();
        bindings.for_each(|binding| binding.host_ip = Some("127.0.0.1".to_owned()));
    });
    Ok(match service {
        Service::Postgres => request
            .with_cmd(["postgres".to_owned()].into_iter().chain(postgres::arguments(ports[0], settings)))
            .with_env_var("POSTGRES_HOST_AUTH_METHOD", "trust"),
        Service::PgBouncer => {
            let behind = bouncer::upstream(settings)?;
            request
                .with_network("host")
                .with_env_var("LISTEN_ADDR", "127.0.0.1")
                .with_env_var("LISTEN_PORT", ports[0].to_string())
                .with_env_var("DB_HOST", behind.host)
                .with_env_var("DB_PORT", behind.port.to_string())
                .with_env_var("DB_USER", behind.user)
                .with_env_var("DB_PASSWORD", behind.password)
                .with_env_var("AUTH_TYPE", "trust")
                .with_env_var("POOL_MODE", "transaction")
                .with_env_var("MAX_CLIENT_CONN", "1000")
        }
        Service::Mongo | Service::MongoAuth | Service::MongoStandalone | Service::MongoThree => {
            if settings.get("auth").is_some() {
                return Err("in a container it cannot ask for passwords; put mongod on PATH, or name it in ACTORNOT_MONGOD".into());
            }
            let one = |port: &u16| {
                let mut words = mongo::arguments(service, *port, settings);
                words.extend(["--bind_ip_all", "--dbpath", "."].map(str::to_owned));
                words
            };
            request.with_cmd(together("mongod", &ports.iter().map(one).collect::<Vec<_>>()))
        }
        Service::Redis | Service::RedisCluster | Service::RedisClusterReplicas => {
            let one = |port: &u16| {
                let mut words = redis::arguments(service, *port, settings);
                words.extend(["--protected-mode", "no"].map(str::to_owned));
                words
            };
            request.with_cmd(together("redis-server", &ports.iter().map(one).collect::<Vec<_>>()))
        }
    })
}

impl Container {
    pub(super) fn start(service: Service, settings: &Settings) -> Result<Self, String> {
        let ports = port::free(service.members())?;
        let url = recipe::url(service, &ports, settings)?;
        let directory = Directory::new(service.name())?;
        let mut guardian = Guardian::new(directory.path())?;
        // Its guardian knows it before it is there: we may be killed at any moment.
        let name = directory.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        guardian.container(&name)?;
        let request = request(service, &ports, settings)?.with_container_name(&name);
        // It brings a runtime of its own, which must not be used from inside the one of a test.
        let started = std::thread::spawn(|| {
            // The guardian removes it; its own way would be too early, and none if we are killed.
            request.start().map(std::mem::forget).map_err(|error| error.to_string())
        });
        started.join().map_err(|_| "testcontainers panicked".to_owned())??;
        let version = String::new();
        let mut container = Self { service, url, version, ports, name, _guardian: guardian, directory };
        container.ready()?;
        recipe::prepare(service, &container.ports, settings)?;
        recipe::settled(service, &container.ports)?;
        Ok(container)
    }

    /// Waits until all that is in it answers.
    pub(super) fn ready(&mut self) -> Result<(), String> {
        let name = self.service.name();
        for &port in &self.ports {
            let ready = wait(&format!("{name} answers"), READY, || {
                Ok(recipe::hello(self.service, "127.0.0.1", port, "postgres").ok())
            });
            self.version = ready.map_err(|wrong| {
                let log = self.docker(&["logs", "--tail", "20"]).unwrap_or_else(|wrong| wrong);
                format!("{wrong}; the end of its log:\n{log}")
            })?;
        }
        Ok(())
    }

    pub(super) fn ports(&self) -> &[u16] {
        &self.ports
    }

    pub(super) fn settled(&self) -> Result<(), String> {
        recipe::settled(self.service, &self.ports)
    }

    /// Has the engine do something with it; says what it printed.
    pub(super) fn docker(&self, command: &[&str]) -> Result<String, String> {
        let output = Command::new("docker").args(command).arg(&self.name).output();
        let output = output.map_err(|error| format!("docker: {error}"))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if output.status.success() { Ok(text) } else { Err(format!("docker {}: {text}", command.join(" "))) }
    }
}
